// The dashboard: projects, their deployments, one deployment's steps and live log.
// Every view is a snapshot that knows the seq it is true at, followed by the room's events after that seq, so that
// nothing is missed or shown twice. All text is set as text, never as HTML.

import { $, base, duration, element, get, logIn, moment, namespace, session, tell } from "./page.js";
import { openProject, refreshProject } from "./project.js";

const LOG_LINES = 5000;
const NOTICE_MS = 15000;

const state = { projects: [], project: null, id: null, view: 0, deployments: [], next: null, detail: null, cut: 0, onDeployment: () => {} };
let socket = null;

let notice = null;
/** Something that happened and needs no answer; it goes by itself. */
function mention(text) {
  clearTimeout(notice);
  $("notice").textContent = text;
  $("notice").hidden = false;
  notice = setTimeout(() => ($("notice").hidden = true), NOTICE_MS);
}

const status = (word) => element("span", { class: `status ${word}` }, word.replace("_", " "));
const link = (project, id) =>
  `#/${encodeURIComponent(project)}${id === undefined ? "" : `/${encodeURIComponent(id)}`}`;
const plain = (text) => text.replace(/\u001b\[[0-9;?]*[ -/]*[@-~]/g, "");

// What is asked of the socket: one subscription a room, taken up again after a reconnect from the last offset seen.

const rooms = new Map();

function subscribe(kind, name, since, onEvent, onGap) {
  const key = `${kind}:${name}`;
  rooms.set(key, { kind, name, since, onEvent, onGap });
  if (socket?.connected) ask(key);
}

function unsubscribe(kind, name) {
  if (rooms.delete(`${kind}:${name}`) && socket?.connected) socket.emit(`unsubscribe_${kind}`, name);
}

function ask(key) {
  const room = rooms.get(key);
  socket.emit(`subscribe_${room.kind}`, room.name, { since: room.since }, (answer) => {
    if (rooms.get(key) !== room) return;
    if (!answer.ok) tell(answer.message);
    else if (answer.truncated) room.onGap();
  });
}

function connect() {
  socket = window.io(location.origin + namespace, { path: `${base}/ws/`, transports: ["websocket", "polling"] });
  const show = (name, text) => {
    $("link").className = `link ${name}`;
    $("link").textContent = text;
  };
  socket.on("connect", () => {
    show("live", "live");
    for (const key of rooms.keys()) ask(key);
  });
  socket.on("disconnect", () => show("away", "disconnected, what you see is old"));
  socket.on("connect_error", (error) => show("away", socket.active ? "reconnecting" : error.message));
  socket.on("token_expired", () => tell("Your login has ended: log in again."));
  socket.on("event", (event) => {
    const deleted = event.type === "project_deleted";
    if (state.id !== null && event.payload.deployment_id === state.id) state.onDeployment(event);
    for (const room of rooms.values()) {
      if (!concerns(room, event)) continue;
      room.since = event.offset;
      if (!deleted) room.onEvent(event);
    }
    if (deleted) drop(event.payload.project);
  });
}

function concerns(room, event) {
  if (room.kind === "projects") return event.type === "project_created" || event.type === "project_deleted";
  if (room.kind === "project") return event.payload.project === room.name;
  return event.payload.deployment_id === room.name;
}

// Projects

async function loadProjects() {
  const found = await get("projects");
  state.projects = found.items;
  const names = new Set(found.items.map((project) => project.name));
  for (const room of [...rooms.values()]) if (room.kind === "project" && !names.has(room.name)) drop(room.name);
  showProjects();
  for (const project of found.items) {
    if (!rooms.has(`project:${project.name}`)) {
      subscribe("project", project.name, found.offset, projectEvent, loadProjects);
    }
  }
  if (!rooms.has("projects:")) subscribe("projects", "", found.offset, loadProjects, loadProjects);
}

function showProjects() {
  $("projects").replaceChildren(
    ...state.projects.map((project) => {
      const current = project.name === state.project ? "true" : null;
      const name = element("span", { class: "name" }, project.name);
      const badge = project.status ? status(project.status) : null;
      const when = element("span", { class: "when" }, `${moment(project.last_at)}${project.stale ? " (stale)" : ""}`);
      return element("li", {}, element("a", { href: link(project.name), "aria-current": current }, name, badge, when));
    }),
  );
  const empty = state.projects.length === 0;
  $("empty").hidden = !empty;
  if (empty) showFirstSteps().catch((error) => tell(error.message));
  else if (state.project === null && state.projects.length === 1) location.replace(link(state.projects[0].name));
}

function projectEvent(event) {
  if (event.type !== "log_entry" && event.type !== "log_batch") refreshSoon();
}

/** The project is deleted: nothing of it stays on the page. */
function drop(name) {
  unsubscribe("project", name);
  state.projects = state.projects.filter((project) => project.name !== name);
  if (state.project === name) location.replace("#/");
  else showProjects();
  mention(`The project ${name} has been deleted.`);
}

// Deployments of the chosen project; the newest is opened if none is named

let refresh = null;
function refreshSoon() {
  refresh ??= setTimeout(() => {
    refresh = null;
    loadProjects()
      .then(() => loadDeployments())
      .catch((error) => tell(error.message));
    refreshProject();
  }, 150);
}

async function loadDeployments(cursor) {
  if (state.project === null) return;
  const project = state.project;
  const query = `deployments?limit=20&project=${encodeURIComponent(project)}`;
  const found = await get(cursor ? `${query}&cursor=${encodeURIComponent(cursor)}` : query);
  if (project !== state.project) return;
  state.deployments = cursor ? [...state.deployments, ...found.items] : found.items;
  state.next = found.next;
  showDeployments();
  if (state.id === null && found.items.length > 0) location.replace(link(project, found.items[0].id));
}

function showDeployments() {
  $("list").hidden = state.project === null;
  $("list-title").textContent = state.project ?? "";
  $("more").hidden = !state.next;
  $("deployments").replaceChildren(
    ...state.deployments.map((item) => {
      const current = item.id === state.id ? "true" : null;
      const when = `${moment(item.first_at)} ${duration(item.duration_seconds)}`;
      return element(
        "li",
        {},
        element(
          "a",
          { href: link(item.project, item.id), "aria-current": current },
          element("span", { class: "name" }, item.id),
          status(item.status),
          element("span", { class: "when" }, item.stale ? `${when} (stale)` : when),
        ),
      );
    }),
  );
}

// One deployment

// A socket gets each event once, through whichever of its rooms comes first: news that arrives by the project's room
// while the snapshot is under way is kept until it is shown.

async function openDeployment(id) {
  const view = ++state.view;
  const early = [];
  state.onDeployment = (event) => early.push(event);
  const path = `deployments/${encodeURIComponent(id)}`;
  const [detail, log] = [await get(path), await get(`${path}/logs?limit=${LOG_LINES}`)];
  if (view !== state.view) return;
  state.detail = detail;
  state.cut = 0;
  $("detail").hidden = false;
  $("detail-title").textContent = id;
  $("download").href = `${base}/api/${path}/logs?format=text`;
  $("log").replaceChildren();
  addLines(log.items.filter((line) => line.seq <= detail.seq).map((line) => ({ ...line, timestamp: line.at })));
  showDetail();
  if (log.next) $("skipped").textContent = "Only the first lines are shown; download has all.";
  $("skipped").hidden = !log.next;
  state.onDeployment = (event) => deploymentEvent(id, event);
  for (const event of early) if (event.seq > detail.seq) deploymentEvent(id, event);
  subscribe("deployment", id, detail.offset, () => {}, () => openDeployment(id));
}

async function refreshDetail(id) {
  const detail = await get(`deployments/${encodeURIComponent(id)}`);
  if (id !== state.id) return;
  state.detail = detail;
  showDetail();
}

function deploymentEvent(id, event) {
  const { type, payload } = event;
  switch (type) {
    case "log_entry":
      addLines([{ ...payload }]);
      break;
    case "log_batch":
      addLines(payload.logs);
      break;
    default:
      refreshDetail(id).catch((error) => tell(error.message));
  }
}

function showDetail() {
  const detail = state.detail;
  document.title = `${detail.status} · ${detail.id} · sidecar`;
  const facts = [
    ["Project", detail.project],
    ["Status", status(detail.status)],
    ["Workflow", detail.workflow_name],
    ["Started", moment(detail.started_at ?? detail.first_at)],
    ["Duration", duration(detail.duration_seconds)],
    ["Problem", detail.error_message],
  ];
  $("facts").replaceChildren(
    ...facts.filter(([, value]) => value).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]),
  );
  $("steps").replaceChildren(
    ...detail.steps.map((step) =>
      element(
        "li",
        {},
        element("span", { class: "name" }, step.name),
        status(step.status),
        element("span", { class: "duration" }, duration(step.duration_seconds)),
        step.error_message || step.logs ? element("span", { class: "note" }, plain(step.error_message ?? step.logs)) : null,
      ),
    ),
  );
}

function addLines(lines) {
  const log = $("log");
  log.append(
    ...lines.map((line) => element("div", { class: line.level ?? "info" }, plain(line.message ?? "").replace(/\n$/, ""))),
  );
  while (log.childElementCount > LOG_LINES) {
    log.firstElementChild.remove();
    state.cut += 1;
  }
  if (state.cut) {
    $("skipped").hidden = false;
    $("skipped").textContent = `${state.cut} earlier lines are not shown; download has all.`;
  }
  if ($("follow").checked) log.scrollTop = log.scrollHeight;
}

// The first steps of somebody who has just installed it

async function showFirstSteps() {
  const origin = location.origin + base;
  let token = "YOUR_TOKEN";
  if (session().scopes.includes("admin")) token = (await get("first-steps")).token ?? token;
  $("first-curl").textContent =
    `curl ${origin}/api/webhooks/deployment \\\n  -H "Authorization: Token ${token}" \\\n` +
    `  -H "Content-Type: application/json" \\\n` +
    `  -d '{"type":"step_started","project":"my-project","deployment_id":"1","step_name":"build","step_status":"started"}'`;
  $("first-browser").textContent =
    `<script src="${origin}/static/vendor/socket.io.min.js"></` +
    `script>\n<script>\n  const socket = io("${location.origin}${namespace}", {\n` +
    `    path: "${base}/ws/",\n    transports: ["websocket"],\n    auth: { token: CONNECTION_TOKEN },\n  });\n` +
    `  socket.on("connect", () => socket.emit("subscribe_project", "my-project"));\n` +
    `  socket.on("event", (event) => console.log(event.type, event.payload));\n</` +
    `script>`;
  $("first-token").textContent =
    `.venv/bin/python -m sidecar token create --name dashboard --scope tokens:issue --scope deployments:read\n\n` +
    `curl ${origin}/api/tokens/connection \\\n  -H "Authorization: Token THAT_TOKEN" \\\n` +
    `  -H "Content-Type: application/json" \\\n  -d '{"sub":"user-1","rooms":["project:my-project"]}'`;
}

// What the address says is shown

async function route() {
  tell(null);
  const [project, id] = location.hash.replace(/^#\/?/, "").split("/").filter(Boolean).map(decodeURIComponent);
  if (state.id !== null && state.id !== id) unsubscribe("deployment", state.id);
  const sameProject = state.project === (project ?? null);
  const sameDeployment = state.id === (id ?? null);
  state.project = project ?? null;
  state.id = id ?? null;
  showProjects();
  if (!sameProject) {
    state.deployments = [];
    openProject(state.project).catch((error) => tell(error.message));
    await loadDeployments();
  }
  showDeployments();
  if (state.id === null) {
    state.view += 1;
    $("detail").hidden = true;
    document.title = "Deployments · sidecar";
  } else if (!sameDeployment) {
    await openDeployment(state.id);
  }
}

const routed = () => route().catch((error) => tell(error.message));

async function start() {
  const { kind, name, scopes } = await logIn();
  $("who").textContent = kind === "cookie" ? "logged in" : name;
  if (!scopes.includes("deployments:read") && !scopes.includes("admin")) {
    $("link").className = "link away";
    $("link").textContent = "not logged in";
    tell("Log in with a one-time link: run `.venv/bin/python -m sidecar login` where the sidecar is installed.");
    return;
  }
  connect();
  await loadProjects();
  await route();
  window.addEventListener("hashchange", routed);
  $("more").addEventListener("click", () => loadDeployments(state.next).catch((error) => tell(error.message)));
}

start().catch((error) => tell(error.message));
