// Socket.IO on Node as a peer: POST / emits the body as an event to a room. Nothing is stored.
// Usage: node node.js PORT
const http = require('http');
const { Server } = require('socket.io');

const server = http.createServer((request, response) => {
  if (request.method !== 'POST') {
    response.end('ok');
    return;
  }
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', () => {
    const payload = JSON.parse(Buffer.concat(parts).toString());
    io.to('project:' + payload.project).emit('event', { type: payload.type, payload });
    response.setHeader('Content-Type', 'application/json');
    response.end('{"ok":true}');
  });
});
server.keepAliveTimeout = 60000;

const io = new Server(server, { maxHttpBufferSize: 1e6 });
io.on('connection', (socket) => {
  socket.on('subscribe_project', (name, answer) => {
    socket.join('project:' + name);
    answer({ ok: true });
  });
});
server.listen(Number(process.argv[2]), '127.0.0.1', 4096);
