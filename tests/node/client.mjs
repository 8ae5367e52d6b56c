// The official socket.io-client, driven line by line: JSON commands on stdin, JSON lines of all that happens on stdout.
//
//   {"op":"connect","url":"http://…/namespace","options":{…}}       options as io() takes them
//   {"op":"emit","event":"subscribe_project","args":["shop"],"id":7,"timeout":5000}    with `id`: waits for the ack
//   {"op":"disconnect"}   says goodbye       {"op":"reconnect"}   comes back after that
//   {"op":"drop"}   cuts the transport, as a lost network does
//   {"op":"auth","auth":{…}}   what it gives from its next CONNECT on
//   {"op":"forget"}   ends all sockets, and forgets them
//
// Each command may have "socket":"name" to hold several in one process (default "main"); each line printed has it too.
// End of stdin ends the process. It decides nothing: what the lines mean is the test's business.
import { createInterface } from "node:readline";
import { io } from "socket.io-client";

const sockets = new Map();

function print(socket, what, rest = {}) {
  process.stdout.write(JSON.stringify({ socket, what, ...rest }) + "\n");
}

function connect(name, url, options = {}) {
  const socket = io(url, { forceNew: true, ...options });
  sockets.set(name, socket);
  socket.io.on("open", () => {
    const { engine } = socket.io;
    print(name, "open", { transport: engine.transport.name });
    engine.once("upgrade", (transport) => print(name, "upgrade", { transport: transport.name }));
  });
  socket.on("connect", () => {
    const transport = socket.io.engine.transport.name;
    print(name, "connect", { sid: socket.id, recovered: socket.recovered ?? false, transport });
  });
  socket.on("connect_error", (error) => {
    print(name, "connect_error", {
      message: error.message,
      data: error.data ?? null,
      description: typeof error.description === "number" ? error.description : (error.description?.message ?? null),
    });
  });
  socket.on("disconnect", (reason, details) => {
    print(name, "disconnect", { reason, description: details?.description ?? null });
  });
  socket.onAny((event, ...args) => print(name, "event", { event, args }));
  socket.io.on("reconnect_attempt", (attempt) => print(name, "reconnect_attempt", { attempt }));
}

function forget() {
  for (const socket of sockets.values()) {
    socket.disconnect();
    socket.offAny();
  }
  sockets.clear();
  print(null, "forgotten");
}

function emit(name, { event, args = [], id, timeout = 10_000 }) {
  const socket = sockets.get(name);
  if (id === undefined) {
    socket.emit(event, ...args);
    return;
  }
  socket.timeout(timeout).emit(event, ...args, (error, ...answers) => {
    print(name, "ack", error ? { id, error: error.message } : { id, args: answers });
  });
}

function obey(command) {
  const name = command.socket ?? "main";
  switch (command.op) {
    case "connect":
      return connect(name, command.url, command.options);
    case "emit":
      return emit(name, command);
    case "disconnect":
      return sockets.get(name).disconnect();
    case "reconnect":
      return sockets.get(name).connect();
    case "auth":
      sockets.get(name).auth = command.auth;
      return undefined;
    case "drop":
      return sockets.get(name).io.engine.close();
    case "forget":
      return forget();
    default:
      throw new Error(`unknown op ${command.op}`);
  }
}

const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => {
  try {
    obey(JSON.parse(line));
  } catch (error) {
    print(null, "driver_error", { message: String(error) });
  }
});
lines.on("close", () => {
  for (const socket of sockets.values()) socket.disconnect();
  process.exit(0);
});
print(null, "ready");
