// The test console: connect with a token, join rooms, send by socket and by REST, and see every frame.
// Tokens stay in their field and in memory: never in an address, in storage or among the frames. All text is set as
// text, never as HTML.

import { $, base, csrf, namespace, parsed } from "./page.js";

const MAX_ENTRIES = 500;
const ACK_MILLISECONDS = 10_000;
const MASK = "•••";

const secrets = new Set();
const rooms = new Map();
const log = { entries: [], waiting: [], received: 0, sent: 0, paused: false };
let connection = null;
let madeToken = null;

// Frames

const clock = (at) => {
  const two = (number) => String(number).padStart(2, "0");
  const time = [at.getHours(), at.getMinutes(), at.getSeconds()].map(two).join(":");
  return `${time}.${String(at.getMilliseconds()).padStart(3, "0")}`;
};

function masked(text) {
  for (const secret of secrets) text = text.replaceAll(secret, MASK);
  return text;
}

function shown(body) {
  if (body === undefined) return "";
  if (typeof body === "string") return masked(body);
  return masked(JSON.stringify(body, null, $("pretty").checked ? 2 : 0));
}

function frame(direction, kind, body, bad = false) {
  if (direction === "←") log.received += 1;
  else log.sent += 1;
  const entry = { direction, kind, body, bad, at: new Date() };
  if (log.paused) {
    log.waiting.push(entry);
    if (log.waiting.length > MAX_ENTRIES) log.waiting.shift();
  } else {
    append([entry]);
  }
  count();
}

function append(entries) {
  const list = $("frames");
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 30;
  for (const entry of entries) {
    const time = document.createElement("time");
    time.dateTime = entry.at.toISOString();
    time.textContent = clock(entry.at);
    const kind = document.createElement("span");
    kind.className = "kind";
    kind.textContent = masked(entry.kind);
    entry.text = document.createElement("pre");
    entry.text.textContent = shown(entry.body);
    entry.node = document.createElement("li");
    entry.node.className = `${entry.direction === "←" ? "in" : "out"}${entry.bad ? " bad" : ""}`;
    entry.node.append(time, ` ${entry.direction} `, kind, entry.text);
    list.append(entry.node);
    log.entries.push(entry);
  }
  while (log.entries.length > MAX_ENTRIES) log.entries.shift().node.remove();
  if (atEnd) list.scrollTop = list.scrollHeight; // who reads further up is left there
}

function count() {
  const total = log.received + log.sent;
  const parts = [`${total} ${total === 1 ? "frame" : "frames"}: ← ${log.received} → ${log.sent}`];
  if (log.entries.length + log.waiting.length < total) parts.push(`the last ${log.entries.length} are shown`);
  if (log.waiting.length > 0) parts.push(`${log.waiting.length} waiting`);
  $("count").textContent = total ? parts.join(", ") : "0 frames";
}

function clear() {
  Object.assign(log, { entries: [], waiting: [], received: 0, sent: 0 });
  $("frames").replaceChildren();
  count();
}

function pause() {
  log.paused = !log.paused;
  $("pause").textContent = log.paused ? "Resume" : "Pause";
  $("pause").setAttribute("aria-pressed", String(log.paused));
  append(log.waiting.splice(0));
  count();
}

// The token

function token() {
  const text = $("token").value.trim();
  // What no token has can't be a header or a subprotocol, and the browser's error would quote it.
  if (/[^\w.~+/=-]/.test(text)) throw new Error("The token has characters that no token has.");
  if (text.length >= 8) secrets.add(text);
  return text;
}

/** The headers that say who asks; a write that rests on the login cookie needs its CSRF token. */
async function credentials(method) {
  const given = token();
  if (given) return { Authorization: `Token ${given}` };
  if (method === "GET") return {};
  return csrf();
}

// Connections: both kinds have say(room, username, message), ping() and close()

const isPlain = () => $("transport").value === "plain";

function state(name, text) {
  $("link").className = `link ${name}`;
  $("link").textContent = masked(text);
  const live = name === "live";
  for (const form of [$("join"), $("chat")]) form.querySelector("fieldset").disabled = !live;
  const busy = connection !== null;
  $("connect").disabled = busy;
  $("disconnect").disabled = !busy;
  $("transport").disabled = busy;
  $("plain-room").disabled = busy;
  $("renew").disabled = !live || isPlain();
}

function ended(name, text) {
  connection = null;
  rooms.clear();
  showRooms();
  state(name, text);
}

function answer(output, text, good) {
  output.textContent = masked(text);
  output.className = good ? "good" : "bad";
}

function connect() {
  try {
    const given = token();
    connection = isPlain() ? plainConnection($("plain-room").value.trim(), given) : socketConnection(given);
    state("connecting", "connecting");
  } catch (error) {
    ended("away", error.message);
  }
}

function disconnect() {
  const open = connection;
  ended("idle", "disconnected");
  open.close();
}

function socketConnection(given) {
  const socket = window.io(location.origin + namespace, {
    path: `${base}/ws/`,
    transports: [$("transport").value],
    forceNew: true,
    auth: given ? { token: given } : {},
  });
  const current = () => connection === self;
  let farewell = null;
  const self = {
    socket,
    emit(name, args, output) {
      frame("→", name, args);
      socket.timeout(ACK_MILLISECONDS).emit(name, ...args, (late, said) => {
        if (late) {
          frame("←", `no answer to ${name}`, undefined, true);
          answer(output, "No answer.", false);
          return;
        }
        frame("←", `ack ${name}`, said, !said.ok);
        answer(output, said.ok ? `${said.room ?? name}: ok` : `${said.message} (${said.code})`, said.ok);
        if (said.ok) self.acknowledged(name, args);
      });
    },
    acknowledged(name, args) {
      const [, verb, kind] = /^(subscribe|unsubscribe)_(\w+)$/.exec(name) ?? [];
      if (!verb || !current()) return;
      const id = typeof args[0] === "string" ? args[0] : "";
      if (verb === "subscribe") rooms.set(`${kind}:${id}`, { kind, id });
      else rooms.delete(`${kind}:${id}`);
      showRooms();
    },
    say: (room, username, message) => self.emit("chat", [room, { message, username }], $("chat-answer")),
    ping: () => self.emit("heartbeat", [], $("chat-answer")),
    close: () => socket.disconnect(),
  };
  socket.on("connect", () => {
    farewell = null;
    state("live", `connected by Socket.IO (${socket.io.engine.transport.name}), id ${socket.id}`);
  });
  socket.on("connect_error", (error) => {
    if (!current()) return;
    const code = error.data?.code ? ` (${error.data.code})` : "";
    frame("←", "connect_error", { message: error.message, ...(error.data && { data: error.data }) }, true);
    if (socket.active) state("connecting", `can't connect, trying again: ${error.message}${code}`);
    else ended("away", `refused: ${error.message}${code}`);
  });
  socket.on("disconnect", (reason) => {
    frame("←", "disconnect", reason, true);
    if (!current()) return;
    if (socket.active) state("connecting", `connection lost (${reason}), trying again`);
    else ended("away", `disconnected: ${farewell ?? reason}`);
  });
  socket.onAny((name, body) => {
    // (The second argument is the offset by which the client resumes; it is in the body too.)
    frame("←", name === "event" ? `event ${body.type}` : name, body);
    if (name === "token_expired" || name === "disconnected") farewell = `${body.message} (${body.code})`;
    if (name === "subscription:revoked") {
      rooms.delete(`${body.type}:${body.id ?? ""}`);
      showRooms();
    }
    if (name === "session" && !body.recovered) {
      for (const { kind, id } of rooms.values()) join(kind, id); // the new session is in none of them
    }
  });
  return self;
}

function plainConnection(room, given) {
  const url = `${location.origin.replace(/^http/, "ws")}${base}/ws/rooms/${encodeURIComponent(room)}/`;
  const protocols = given ? ["sidecar.v1", `bearer.${given}`] : ["sidecar.v1"];
  const socket = new WebSocket(url, protocols);
  const current = () => connection === self;
  let opened = false;
  const send = (body) => {
    frame("→", body.message_type, body);
    socket.send(JSON.stringify(body));
  };
  const self = {
    say: (_room, username, message) => send({ message_type: "chat", message, username }),
    ping: () => send({ message_type: "ping" }),
    close: () => socket.close(1000),
  };
  socket.addEventListener("open", () => {
    opened = true;
    if (current()) state("live", `connected by plain WebSocket to the room ${room}`);
  });
  socket.addEventListener("message", ({ data }) => {
    const body = parsed(data);
    frame("←", body?.type ?? "text", body, body?.type === "error");
  });
  socket.addEventListener("close", async ({ code, reason }) => {
    frame("←", "close", { code, reason }, code !== 1000);
    if (!current()) return;
    if (opened) ended("away", `closed: ${code}${reason ? ` ${reason}` : ""}`);
    else ended("away", `refused: ${await whyRefused(room)} (close code ${code})`);
  });
  return self;
}

/** A browser hides the answer to a refused handshake; the same token asks for the same room over HTTP. */
async function whyRefused(room) {
  try {
    const headers = await credentials("GET");
    const response = await fetch(`${base}/api/rooms/${encodeURIComponent(room)}/presence`, { headers });
    if (response.ok) return "the browser does not say why";
    const problem = await response.json();
    return `${problem.detail} (${problem.code})`;
  } catch {
    return "the server can't be reached";
  }
}

// Rooms

const named = (kind) => kind !== "menu" && kind !== "projects";

function join(kind, id) {
  connection.emit(`subscribe_${kind}`, named(kind) ? [id] : [], $("join-answer"));
}

function showRooms() {
  $("rooms").replaceChildren(
    ...[...rooms.values()].map(({ kind, id }) => {
      const name = named(kind) ? `${kind}:${id}` : kind;
      const leave = document.createElement("button");
      leave.type = "button";
      leave.className = "second";
      leave.textContent = "Leave";
      leave.setAttribute("aria-label", `Leave ${name}`);
      leave.addEventListener("click", () => {
        connection.emit(`unsubscribe_${kind}`, named(kind) ? [id] : [], $("join-answer"));
      });
      const item = document.createElement("li");
      item.append(name, leave);
      return item;
    }),
  );
}

// REST calls: each form says its method and path; its fields are the body, or fill the path's braces

function fieldProblem(field, problem) {
  const place = $(field.getAttribute("aria-describedby"));
  place.textContent = problem;
  place.hidden = !problem;
  if (problem) field.setAttribute("aria-invalid", "true");
  else field.removeAttribute("aria-invalid");
}

/** The values that are not empty, or null if one can't be used. */
function values(form) {
  const found = {};
  for (const field of form.querySelectorAll("[name]")) {
    const text = field.value.trim();
    const kind = field.dataset.as;
    if (kind === "json") fieldProblem(field, "");
    if (text === "") continue;
    if (kind === "list") found[field.name] = text.split(/[\s,]+/).filter(Boolean);
    else if (field.inputMode === "decimal") found[field.name] = Number.isFinite(Number(text)) ? Number(text) : text;
    else if (kind !== "json") found[field.name] = text;
    else {
      try {
        found[field.name] = JSON.parse(text);
      } catch (error) {
        fieldProblem(field, `This is no JSON: ${error.message}`);
        field.focus();
        return null;
      }
    }
  }
  return found;
}

async function call(form) {
  const output = form.querySelector("output");
  const fields = values(form);
  if (fields === null) return answer(output, "", false);
  const { method } = form.dataset;
  const path = form.dataset.path.replace(/\{(\w+)\}/g, (_, name) => {
    const value = encodeURIComponent(fields[name]);
    delete fields[name];
    return value;
  });
  const body = method === "GET" ? undefined : fields;
  try {
    const headers = await credentials(method);
    if (body) headers["Content-Type"] = "application/json";
    frame("→", `${method} ${path}`, body);
    const response = await fetch(base + path, { method, headers, body: body && JSON.stringify(body) });
    const said = parsed(await response.text());
    if (form.id === "connection-token" && response.ok) keepToken(said.token);
    frame("←", `${response.status} ${method} ${path}`, said, !response.ok);
    answer(output, summary(response.status, said), response.ok);
  } catch (error) {
    frame("←", `no answer to ${method} ${path}`, error.message, true);
    answer(output, error.message, false);
  }
}

function summary(status, said) {
  const parts = [String(status)];
  if (said?.detail) parts.push(said.detail);
  for (const name of ["recipients", "disconnected", "stopped", "connections"]) {
    if (said?.[name] !== undefined) parts.push(`${name}: ${[said[name]].flat().join(", ") || "none"}`);
  }
  if (said?.items) parts.push(`${said.items.length} found`);
  return parts.join(" · ");
}

function keepToken(text) {
  secrets.add(text);
  madeToken = text;
  $("use-token").disabled = false;
}

// Wiring

function onSubmit(form, act) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    act(form);
  });
}

onSubmit($("connection"), connect);
onSubmit($("join"), () => join($("kind").value, $("name").value.trim()));
onSubmit($("chat"), () => connection.say($("chat-room").value.trim(), $("chat-username").value.trim(), $("chat-message").value));
for (const form of document.querySelectorAll("form.call")) onSubmit(form, call);
$("disconnect").addEventListener("click", disconnect);
$("renew").addEventListener("click", () => {
  try {
    connection.emit("refresh_token", [token()], $("join-answer"));
  } catch (error) {
    answer($("join-answer"), error.message, false);
  }
});
$("ping").addEventListener("click", () => connection.ping());
$("pause").addEventListener("click", pause);
$("clear").addEventListener("click", clear);
$("pretty").addEventListener("change", () => {
  for (const entry of log.entries) entry.text.textContent = shown(entry.body);
});
$("use-token").addEventListener("click", () => {
  $("token").value = madeToken;
  $("token").focus();
});
$("kind").addEventListener("change", () => {
  $("name").disabled = !named($("kind").value);
});
$("transport").addEventListener("change", () => {
  $("plain-room-field").hidden = !isPlain();
  $("rooms-card").hidden = isPlain();
  $("chat-room-field").hidden = isPlain();
});
$("transport").dispatchEvent(new Event("change")); // a browser may have restored the choice
$("kind").dispatchEvent(new Event("change"));
