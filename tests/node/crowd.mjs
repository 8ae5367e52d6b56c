// Many sockets of the official socket.io-client, each a page as tests/chaos/pages.py describes it: JSON commands on
// stdin, one line of JSON as answer to each on stdout.
//
//   {"op":"open","url":"http://…","path":"/socket.io","token":"…","plans":[{"name","kind","rooms","transports","live"}]}
//   {"op":"begin","names":[…]}     late pages subscribe now, since 0
//   {"op":"progress"}              {name: {connected, connects, news, rooms: {room: {start, last, count}}}}
//   {"op":"report"}                {name: {connects, truncated, faults, news, rooms: {room: {start, events}}}}
//   {"op":"quiet"}                 answered when each has been answered a question
//
// End of stdin ends the process. What a report means is the test's business.
import { createInterface } from "node:readline";
import { io } from "socket.io-client";

const AGAIN_MILLISECONDS = 200;
const QUIET_MILLISECONDS = 60_000;
const pages = new Map();

class Page {
  constructor({ name, kind, rooms, transports, live }, { url, path, token }) {
    this.kind = kind;
    this.live = live;
    this.listening = false;
    this.news = [];
    this.rooms = rooms.map(([type, id]) => ({ type, id, name: `${type}:${id}`, since: null, start: null, events: [] }));
    this.active = kind !== "late";
    this.shown = new Set();
    this.connects = [];
    this.faults = [];
    this.truncated = 0;
    this.socket = io(url, {
      forceNew: true,
      path,
      transports,
      auth: { token },
      withCredentials: true, // keeps the cookie by which nginx finds the process of a long-polling session
      reconnectionDelay: 100,
      reconnectionDelayMax: 1000,
      timeout: 5000,
    });
    this.socket.io.on("open", () => this.doubtUpgrade(this.socket.io.engine));
    this.socket.on("connect", () => this.connected(this.socket.recovered ?? false));
    this.socket.on("event", (envelope) => this.take(envelope));
    this.socket.on("snapshot", (snapshot) => this.show(snapshot));
    this.socket.on("connect_error", (error) => {
      if (!this.socket.active) this.faults.push(`refused for good: ${error.message}`);
    });
    this.socket.on("disconnect", (reason) => {
      if (!this.socket.active) this.faults.push(`ended for good: ${reason}`);
    });
  }

  // When the WebSocket of an upgrade ends after its probe was answered, engine.io-client 6 leaves the paused polling
  // transport behind: nothing is sent or asked until its ping time-out, 45 s later, which is brought forward here.
  doubtUpgrade(engine) {
    engine.on("upgradeError", () => {
      if (engine.upgrading) setImmediate(() => engine._onClose("ping timeout"));
    });
  }

  begin() {
    this.active = true;
    for (const room of this.rooms) room.since = 0;
    if (this.socket.connected) this.subscribeAll(false);
  }

  connected(recovered) {
    this.connects.push(recovered);
    if (this.active) this.subscribeAll(recovered);
    if (this.live && !(recovered && this.listening)) this.listen(this.connects.length);
  }

  listen(connection) {
    if (connection !== this.connects.length || !this.socket.connected) return;
    this.socket.emit("subscribe_room", this.live, {}, ({ ok }) => {
      this.listening = ok;
      if (!ok) setTimeout(() => this.listen(connection), AGAIN_MILLISECONDS);
    });
  }

  subscribeAll(recovered) {
    for (const room of this.rooms) {
      if (!recovered || this.kind === "always" || room.start === null) this.subscribe(room, this.connects.length);
    }
  }

  subscribe(room, connection) {
    if (connection !== this.connects.length || !this.socket.connected) return;
    const options = room.since === null ? {} : { since: room.since };
    this.socket.emit(`subscribe_${room.type}`, room.id, options, (answer) => this.answered(room, connection, answer));
  }

  answered(room, connection, answer) {
    if (!answer.ok) {
      if (answer.code === "unavailable") setTimeout(() => this.subscribe(room, connection), AGAIN_MILLISECONDS);
      else this.faults.push(`${room.name}: ${JSON.stringify(answer)}`);
      return;
    }
    if (answer.truncated) {
      this.truncated += 1;
      if (!this.shown.delete(answer.room)) this.faults.push(`${room.name}: truncated, and no snapshot`);
    } else if (room.since === null) {
      room.since = answer.offset;
    }
    if (room.start === null) room.start = room.since === 0 ? 0 : answer.seq;
  }

  show(snapshot) {
    this.shown.add(snapshot.room);
    for (const room of this.rooms) {
      if (room.name !== snapshot.room) continue;
      room.events = [];
      room.start = snapshot.seq;
      room.since = snapshot.offset;
    }
  }

  take({ seq, offset, payload, volatile, timestamp }) {
    if (volatile) {
      this.news.push(`${timestamp} by ${this.socket.io.engine.id}`);
      return;
    }
    let found = false;
    for (const room of this.rooms) {
      if ((room.type === "project" ? payload.project : payload.deployment_id) !== room.id) continue;
      room.events.push([seq, payload.message]);
      room.since = offset;
      found = true;
    }
    if (!found) this.faults.push(`got an event of no room of it: ${seq}`);
  }

  progress() {
    const rooms = {};
    for (const { name, start, events } of this.rooms) {
      rooms[name] = { start, last: events.length ? events[events.length - 1][0] : 0, count: events.length };
    }
    return { connected: this.socket.connected, connects: this.connects.length, news: this.news.length, rooms };
  }

  report() {
    const rooms = {};
    for (const { name, start, events } of this.rooms) rooms[name] = { start, events };
    return { connects: this.connects, truncated: this.truncated, faults: this.faults, news: this.news, rooms };
  }
}

async function asked(name, { socket }) {
  const end = Date.now() + QUIET_MILLISECONDS;
  for (;;) {
    try {
      return await socket.timeout(30_000).emitWithAck("heartbeat");
    } catch (error) {
      if (!socket.active || Date.now() > end) throw new Error(`${name} was not answered: ${error.message}`);
    } // else it comes back, and is asked again
  }
}

function each(tell) {
  return Object.fromEntries([...pages].map(([name, page]) => [name, tell(page)]));
}

async function obey(command) {
  switch (command.op) {
    case "open":
      for (const plan of command.plans) pages.set(plan.name, new Page(plan, command));
      return null;
    case "begin":
      for (const name of command.names) pages.get(name)?.begin();
      return null;
    case "progress":
      return each((page) => page.progress());
    case "report":
      return each((page) => page.report());
    case "quiet":
      await Promise.all([...pages].map(([name, page]) => asked(name, page)));
      return null;
    default:
      throw new Error(`unknown op ${command.op}`);
  }
}

const lines = createInterface({ input: process.stdin });
lines.on("line", async (line) => {
  let answer;
  try {
    answer = { value: await obey(JSON.parse(line)) };
  } catch (error) {
    answer = { error: String(error) };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
});
lines.on("close", () => {
  for (const page of pages.values()) page.socket.disconnect();
  process.exit(0);
});
