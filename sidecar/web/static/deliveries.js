// Deliveries: what was posted, newest first, and one of them opened: why it was refused, headers, body, replay, curl.
// What is shown stands in the address: `#/<number>?verdict=…&project=…`.
//
// New ones are found by asking for the first page every few seconds while somebody looks. The socket would not do: what
// was refused makes no event and has no project whose room could be joined, and that is what this page is for.

import { $, base, call, csrf, element, get, logIn, moment, quoted, tell, visible } from "./page.js";

const POLL_SECONDS = 4;
const SLOWEST_SECONDS = 60;
const PAGE = 20;
const MOST_ROWS = 300;
const SHOWN_CHARACTERS = 100_000;
const BLOCK_CHARACTERS = 10_000;
const MOST_LEVELS = 64;
const ARGUMENT_CHARACTERS = 100_000; // Linux takes 128 KiB for one word of a command
const LOGIN = "Log in with a one-time link: run `.venv/bin/python -m sidecar login` where the sidecar is installed.";

const state = { filter: "", items: [], next: null, held: null, number: null, detail: null, list: 0, one: 0, sure: false };
const rows = new Map();
const number = (value) => value.toLocaleString();

// What the address says

function address(one, filter = state.filter) {
  return `#/${one ?? ""}${filter ? `?${filter}` : ""}`;
}

function wanted() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const given = new URLSearchParams(query);
  const filter = new URLSearchParams();
  for (const name of ["verdict", "project"]) if (given.get(name)) filter.set(name, given.get(name));
  return { one: /^[1-9]\d{0,18}$/.test(path) ? path : null, filter: filter.toString() };
}

function changed(name, value) {
  const filter = new URLSearchParams(state.filter);
  if (value) filter.set(name, value);
  else filter.delete(name);
  return filter.toString();
}

async function route() {
  const { one, filter } = wanted();
  const filtered = filter !== state.filter;
  state.filter = filter;
  showFilter();
  await Promise.all([filtered ? load() : null, one === state.number ? null : open(one)]);
  showList();
}

function showFilter() {
  const filter = new URLSearchParams(state.filter);
  const chosen = (filter.get("verdict") ?? "").split(",");
  for (const link of document.querySelectorAll("[data-verdict]")) {
    link.href = address(null, changed("verdict", link.dataset.verdict));
    if (chosen.includes(link.dataset.verdict)) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
  $("project-name").value = filter.get("project") ?? "";
  $("back").firstElementChild.href = address();
}

// The list

const listPath = (limit, cursor) => {
  const query = new URLSearchParams(state.filter);
  query.set("limit", limit);
  if (cursor) query.set("cursor", cursor);
  return `deliveries?${query}`;
};

/** The first page of what is asked for now. */
async function load() {
  const view = ++state.list;
  $("list").classList.add("loading");
  let found = { items: [], next: null };
  try {
    found = await get(listPath(PAGE));
    filterProblem("");
  } catch (error) {
    if (view === state.list && error.status !== 400) {
      $("list").classList.remove("loading");
      throw error;
    }
    if (view === state.list) filterProblem(error.message);
  }
  if (view !== state.list) return;
  Object.assign(state, { items: found.items, next: found.next });
  $("list").classList.remove("loading");
  $("list").scrollTop = 0;
  hold(null);
  showList();
}

function filterProblem(text) {
  $("project-error").textContent = visible(text);
  $("project-error").hidden = !text;
}

async function more() {
  const view = state.list;
  const found = await get(listPath(PAGE, state.next));
  if (view !== state.list) return;
  const last = state.items.at(-1).number;
  state.items.push(...found.items.filter((item) => item.number < last));
  state.next = found.next;
  showList();
}

/** Look for new ones. They wait behind a button while they would move what somebody reads or is about to press. */
async function refresh() {
  const view = state.list;
  const [found, counted] = await Promise.all([get(listPath(PAGE)), get("deliveries/counts")]);
  showCounts(counted.counts);
  if (view !== state.list) return;
  const known = new Map(state.items.map((item) => [item.number, item.verdict]));
  const same = found.items.length === Math.min(known.size, PAGE) && found.items.every((item) => known.get(item.number) === item.verdict);
  if (same) hold(null);
  else if (reading()) hold(found);
  else take(found);
}

function reading() {
  const list = $("list");
  const pointed = matchMedia("(hover: hover)").matches && list.matches(":hover");
  return pointed || list.contains(document.activeElement) || list.scrollTop > 5 || list.getBoundingClientRect().top < 0;
}

function hold(found) {
  state.held = found;
  const newest = state.items[0]?.number ?? 0;
  const count = found?.items.filter((item) => item.number > newest).length ?? 0;
  $("fresh").hidden = count === 0;
  $("fresh").textContent = `Show ${count}${count === PAGE ? " or more" : ""} new`;
}

function take(found) {
  const oldest = found.items.at(-1)?.number ?? 0;
  const older = state.items.filter((item) => item.number < oldest);
  const joined = state.items.some((item) => item.number >= oldest) && state.items.length < MOST_ROWS;
  if (found.next !== null && older.length > 0 && joined) state.items = [...found.items, ...older];
  else Object.assign(state, { items: found.items, next: found.next });
  hold(null);
  showList();
}

function takeHeld() {
  if (state.held) take(state.held);
}

function showList() {
  const focused = document.activeElement;
  $("list").replaceChildren(...state.items.map(row));
  if (focused !== document.activeElement && $("list").contains(focused)) focused.focus({ preventScroll: true });
  const kept = new Set(state.items.map((item) => item.number));
  for (const key of rows.keys()) if (!kept.has(key)) rows.delete(key);
  $("more").hidden = state.next === null;
  $("none").hidden = state.items.length > 0;
  $("none").textContent = nothing();
}

/** The same node for the same delivery, so that focus stays where it is. */
function row(item) {
  let found = rows.get(item.number);
  if (found?.verdict !== item.verdict) {
    const told = item.project === null ? (item.reason?.detail ?? "") : [item.project, item.deployment_id].filter(Boolean).join(" / ");
    const link = element(
      "a",
      {},
      element("span", { class: "name" }, `${item.number}`),
      badge(item.verdict),
      element("span", { class: "told outside" }, visible(told).replace(/\s+/g, " ") || "\u00a0"),
      element("time", { class: "when", datetime: item.received_at, title: item.received_at }, moment(item.received_at)),
    );
    found = { verdict: item.verdict, node: element("li", {}, link), link };
    rows.set(item.number, found);
  }
  found.link.setAttribute("href", address(item.number));
  if (String(item.number) === state.number) found.link.setAttribute("aria-current", "true");
  else found.link.removeAttribute("aria-current");
  return found.node;
}

function nothing() {
  const filter = new URLSearchParams(state.filter);
  if (!$("project-error").hidden) return "";
  const verdict = filter.get("verdict");
  if (verdict === "quarantined" && filter.has("project")) return "Nothing that was refused was placed in a project: look at it without one.";
  if (verdict === "quarantined") return "Nothing was refused.";
  return state.filter ? "There is none." : "Nothing has been posted, and nothing was refused.";
}

const badge = (verdict) => element("span", { class: `verdict ${verdict}` }, verdict);

function showCounts(counts) {
  let sum = 0;
  for (const link of document.querySelectorAll("[data-verdict]")) {
    const count = counts[link.dataset.verdict] ?? 0;
    sum += count;
    link.querySelector("b").textContent = number(count);
  }
  document.querySelector('[data-verdict=""] b').textContent = number(sum);
}

// One delivery

async function open(one) {
  const view = ++state.one;
  const before = state.number;
  state.number = one;
  let detail = null;
  let problem = "";
  if (one !== null) {
    try {
      detail = await get(`deliveries/${one}`);
      await knowPosters(detail.token_id);
    } catch (error) {
      if (error.status !== 404) throw error;
      problem = error.message;
    }
  }
  if (view !== state.one) return;
  $("deliveries").classList.toggle("opened", one !== null);
  $("one").hidden = one === null;
  $("nothing").hidden = one !== null;
  document.title = one === null ? "Deliveries · sidecar" : `Delivery ${one} ${detail?.verdict ?? ""} · sidecar`;
  if (one === null) {
    rows.get(Number(before))?.link.focus({ preventScroll: true });
    return;
  }
  $("one-title").textContent = `Delivery ${one}`;
  $("gone").textContent = problem;
  $("gone").hidden = !problem;
  $("parts").hidden = detail === null;
  $("outcome").replaceChildren();
  if (detail !== null) show(detail);
  $("one-title").focus();
}

function show(detail) {
  state.detail = detail;
  state.sure = false;
  showReason(detail);
  showFacts(detail);
  $("headers").replaceChildren(
    ...Object.entries(detail.headers).flatMap(([name, value]) => [element("dt", {}, visible(name)), element("dd", {}, visible(value))]),
  );
  showReplay(detail);
  showBody(false);
  showDownload(detail);
  showCurl(detail);
}

const fieldRows = (errors) =>
  errors.map(({ path, message }) =>
    element("tr", {}, element("td", {}, element("code", {}, path ? visible(path) : "the whole body")), element("td", {}, visible(message))),
  );

function showReason({ reason, verdict }) {
  $("reason").hidden = reason === null;
  if (reason === null) return;
  $("reason-title").textContent = verdict === "replayed" ? "Why it was refused at first" : "Why it was refused";
  $("reason-detail").textContent = `${visible(reason.detail)} (${reason.code})`;
  $("fields").hidden = reason.errors.length === 0;
  $("fields").tBodies[0].replaceChildren(...fieldRows(reason.errors));
}

function showFacts(detail) {
  const facts = [
    ["Verdict", element("span", {}, badge(detail.verdict), detail.repaired ? ", mended before it could be read" : "")],
    ["Received", element("time", { datetime: detail.received_at }, `${moment(detail.received_at)} (${detail.received_at})`)],
    ["Project", detail.project && toDashboard(detail.project)],
    ["Deployment", detail.deployment_id && toDashboard(detail.project, detail.deployment_id)],
    ["Posted to", element("code", {}, visible(detail.path))],
    ["Posted by", poster(detail.token_id)],
    ["From", visible(detail.address)],
    ["Client", visible(detail.source)],
    ["Idempotency key", detail.delivery_id && element("code", {}, visible(detail.delivery_id))],
    ["Stored as event", detail.seq && String(detail.seq)],
    ["Replay of", detail.replay_of && element("a", { href: address(detail.replay_of) }, `delivery ${detail.replay_of}`)],
    ["Size", detail.verdict === "erased" ? "" : `${number(detail.body_bytes)} bytes`],
    ["SHA-256", detail.body_sha256 && element("code", {}, detail.body_sha256)],
  ];
  $("facts").replaceChildren(
    ...facts.filter(([, value]) => value).flatMap(([name, value]) => [element("dt", {}, name), element("dd", { class: "outside" }, value)]),
  );
}

function toDashboard(project, id) {
  const path = [project, id].filter((part) => part !== undefined).map(encodeURIComponent).join("/");
  return element("a", { href: `${base}/#/${path}` }, visible(id ?? project));
}

// Who posted: tokens and webhook secrets by their ids, asked for once and again when one is not known

let posters = new Map();

async function knowPosters(id) {
  if (id === null || posters.has(id)) return;
  const [tokens, secrets] = await Promise.all([get("tokens"), get("secrets")]);
  posters = new Map([
    ...tokens.items.map((item) => [item.id, { kind: "token", ...item }]),
    ...secrets.items.map((item) => [item.id, { kind: "webhook secret", ...item }]),
  ]);
}

function poster(id) {
  if (id === null) return "somebody without a token";
  const found = posters.get(id);
  if (!found) return `${id}, which is not known any more`;
  return `${visible(found.name)} (${found.kind} ${id}${found.revoked_at ? ", revoked" : ""})`;
}

// Replay

function showReplay({ verdict }) {
  const used = verdict !== "quarantined" && verdict !== "erased";
  $("replay").disabled = verdict === "erased";
  $("replay").textContent = state.sure ? "Replay it all the same" : "Replay";
  $("replay-hint").textContent =
    verdict === "erased"
      ? "What it said was forgotten with its project: there is nothing to take again."
      : used
        ? "It was used already: a replay posts its event and its log lines once more."
        : "Takes the body as it came once more, with the rights of who posted it.";
}

async function replay() {
  const { number: one, verdict } = state.detail;
  if (verdict !== "quarantined" && !state.sure) {
    state.sure = true;
    showReplay(state.detail);
    return;
  }
  const view = state.one;
  $("replay").disabled = true;
  try {
    const said = await call(`deliveries/${one}/replay`, { method: "POST", headers: await csrf() });
    if (view !== state.one) return;
    outcome(
      element(
        "p",
        { class: "good" },
        `Taken again as event ${said.seq}: ${said.type} of `,
        toDashboard(said.project, said.deployment_id ?? undefined),
        said.repaired ? ", mended" : "",
      ),
    );
    const detail = await get(`deliveries/${one}`);
    if (view === state.one) show(detail);
    await look();
  } catch (error) {
    if (view !== state.one) return;
    state.sure = false;
    showReplay(state.detail);
    const table = element("table", {}, element("tbody", {}, ...fieldRows(error.errors ?? [])));
    outcome(element("p", { class: "error" }, `Refused${error.status ? ` (${error.status})` : ""}: ${visible(error.message)}`), error.errors?.length ? table : null);
  }
}

const outcome = (...nodes) => $("outcome").replaceChildren(...nodes.filter(Boolean));

// The body

const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\],:]|[^\s{}[\],:"]+/g;

/** JSON with a line for each value. Its own words stay as they are: numbers that JavaScript would round, fields named
 * twice. Null if it is no JSON, or nested so deep that lines would be nothing but space. */
function indented(text) {
  try {
    JSON.parse(text);
  } catch {
    return null;
  }
  const parts = [];
  let depth = 0;
  let last = "";
  const line = () => parts.push("\n", "  ".repeat(depth));
  for (const [token] of text.matchAll(TOKEN)) {
    const opened = last === "{" || last === "[";
    const closes = token === "}" || token === "]";
    if (closes) depth -= 1;
    if (opened !== closes) line();
    parts.push(token);
    if (token === "{" || token === "[") depth += 1;
    if (depth > MOST_LEVELS) return null;
    if (token === ",") line();
    if (token === ":") parts.push(" ");
    last = token;
  }
  return parts.join("");
}

function showBody(whole) {
  const { body, verdict } = state.detail;
  const pretty = indented(body);
  $("pretty").disabled = pretty === null;
  const text = visible($("pretty").checked && pretty !== null ? pretty : body);
  const cut = !whole && text.length > SHOWN_CHARACTERS;
  $("body").replaceChildren(...blocks(cut ? text.slice(0, SHOWN_CHARACTERS) : text));
  $("body").scrollTop = 0;
  $("whole").hidden = !cut;
  $("body-note").textContent = [
    verdict === "erased" ? "forgotten with its project" : body === "" ? "empty" : pretty === null ? "no JSON that can be read: shown as text" : "",
    cut ? `the first ${number(SHOWN_CHARACTERS)} of ${number(text.length)} characters` : "",
  ]
    .filter(Boolean)
    .join("; ");
}

/** Some hundred lines each, of which the browser lays out only those that are in sight (content-visibility). */
function blocks(text) {
  const found = [];
  for (let from = 0; from < text.length; ) {
    const end = text.indexOf("\n", from + BLOCK_CHARACTERS);
    const to = end < 0 ? text.length : end + 1;
    found.push(element("div", {}, text.slice(from, to)));
    from = to;
  }
  return found;
}

const fileName = (detail) => `delivery-${detail.number}.txt`;

function showDownload(detail) {
  URL.revokeObjectURL($("download").href);
  $("download").href = URL.createObjectURL(new Blob([detail.body], { type: "application/octet-stream" }));
  $("download").download = fileName(detail);
  $("download").hidden = detail.verdict === "erased";
}

// The command that posts it anew. The body goes by --data-raw: --data would take one that begins with @ for a file.

function showCurl(detail) {
  const { body, headers, path } = detail;
  const word = quoted(body);
  const inFile = word === null || word.length > ARGUMENT_CHARACTERS;
  const type = Object.entries(headers).find(([name]) => name.toLowerCase() === "content-type")?.[1];
  const hints = ["For bash and zsh: put a token in place of YOUR_TOKEN."];
  if (inFile) hints.push("Download the body first, into the folder where you run it.");
  if (new TextEncoder().encode(body).length !== detail.body_bytes || body.includes("\ufffd")) {
    hints.push("It posts the text shown here, which is not byte for byte what came: something like a secret was cut out, or it is not UTF-8. A replay takes the original.");
  }
  const erased = detail.verdict === "erased";
  $("curl-hint").textContent = erased ? "There is nothing to post." : hints.join(" ");
  $("curl").hidden = $("copy").hidden = erased;
  $("copied").textContent = "";
  $("curl").textContent = [
    `curl -i ${quoted(location.origin + base + path)}`,
    "-H 'Authorization: Token YOUR_TOKEN'",
    `-H ${quoted(type ? `Content-Type: ${type}` : "Content-Type:")}`,
    inFile ? `--data-binary @${fileName(detail)}` : `--data-raw ${word}`,
  ].join(" \\\n  ");
}

async function copy() {
  try {
    await navigator.clipboard.writeText($("curl").textContent);
    $("copied").textContent = "Copied.";
  } catch {
    getSelection().selectAllChildren($("curl")); // a page without https has no clipboard
    $("copied").textContent = "Selected: copy it with the keyboard.";
  }
}

// Looking for new ones, politely: not while nobody looks, slower while the server has trouble

let timer = null;
let seconds = POLL_SECONDS;
let looking = false;

async function look() {
  clearTimeout(timer);
  if (looking) return;
  looking = true;
  try {
    await refresh();
    seconds = POLL_SECONDS;
    link("live", "live");
  } catch (error) {
    seconds = Math.min(Math.max(seconds * 2, error.wait ?? 0), SLOWEST_SECONDS);
    failed(error);
  } finally {
    looking = false;
  }
  clearTimeout(timer);
  if (!document.hidden && seconds < Infinity) timer = setTimeout(look, seconds * 1000);
}

function link(name, text) {
  if ($("link").textContent === text) return; // a screen reader need not hear it again
  $("link").className = `link ${name}`;
  $("link").textContent = text;
}

function failed(error) {
  if (error.status === 401 || error.status === 403) {
    seconds = Infinity;
    link("away", "not logged in");
    tell(`Your login has ended. ${LOGIN}`);
  } else {
    link("away", error.status ? `${error.message} What you see is old.` : "no connection, what you see is old");
  }
}

// Wiring

const guarded =
  (act) =>
  (...given) =>
    Promise.resolve(act(...given)).catch(failed);

async function start() {
  const session = await logIn();
  if (!session.scopes.includes("admin")) {
    link("away", "not logged in");
    tell(`Deliveries are for admins. ${LOGIN}`);
    return;
  }
  $("deliveries").hidden = false;
  state.filter = null; // whatever the address says is new
  window.addEventListener("hashchange", guarded(route));
  document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : look()));
  await guarded(route)();
  await look();
  const { items } = await get("projects");
  $("project-names").replaceChildren(...items.map(({ name }) => element("option", { value: name })));
}

$("filter").addEventListener("submit", (event) => {
  event.preventDefault();
  location.hash = address(null, changed("project", $("project-name").value.trim()));
});
$("more").addEventListener("click", guarded(more));
$("fresh").addEventListener("click", () => {
  takeHeld();
  $("list").scrollTop = 0;
});
$("list").addEventListener("mouseleave", () => reading() || takeHeld());
$("list").addEventListener("focusout", () => setTimeout(() => reading() || takeHeld()));
$("replay").addEventListener("click", guarded(replay));
$("pretty").addEventListener("change", () => showBody(false));
$("whole").addEventListener("click", () => showBody(true));
$("copy").addEventListener("click", copy);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && state.number !== null) location.hash = address();
});

start().catch(failed);
