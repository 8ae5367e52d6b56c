// The peer on Node: Socket.IO as its documentation shows it, with a POST that emits its body to a room.
// Usage: node node.js PORT

import { createServer } from 'node:http';
import { Server } from 'socket.io';

// Ready-made: what is answered from memory could not be answered faster here.
const MENU_VERSION = JSON.stringify({
  version: 1755484427,
  timestamp: 1755484427,
  checksum: '21aa046b79882c2626cde38f3fbbc64a',
  changes: [],
  author: 'system',
  description: '菜单配置版本信息',
});

const server = createServer((request, response) => {
  const answer = (text) => {
    response.setHeader('Content-Length', Buffer.byteLength(text));
    response.end(text);
  };
  if (request.method !== 'POST') {
    answer(request.url === '/api/menu/version' ? MENU_VERSION : 'ok');
    return;
  }
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => {
    const event = JSON.parse(Buffer.concat(chunks).toString());
    io.to(`project:${event.payload.project}`).emit('event', event);
    answer('{"success":true}');
  });
});

const io = new Server(server, { serveClient: false });
io.on('connection', (socket) => {
  socket.on('subscribe_project', (project, acknowledge) => {
    socket.join(`project:${project}`);
    acknowledge({ ok: true });
  });
});

server.listen({ port: Number(process.argv[2]), host: '127.0.0.1', backlog: 1024 });
