// A bot that speaks Socket.IO, as maim_message from 0.7 on does: `npm install socket.io-client`. Sends one message,
// prints what comes, and acknowledges it, until Ctrl+C.
//
//     MAIM_KEY=smk_… MAIM_PLATFORM=qq node node_socketio.mjs "Hello"
//
// To somebody else: MAIM_TO_KEY (a key, or the address sma_… that stands for it) and MAIM_TO_PLATFORM. With MAIM_QUERY=1
// key and platform go into the URL, where a proxy lets no unknown headers through.

import { randomUUID } from 'node:crypto';
import { io } from 'socket.io-client';

const { MAIM_URL = 'http://127.0.0.1:8091/project-dashboard/ws', MAIM_KEY, MAIM_PLATFORM = 'default' } = process.env;
const { MAIM_TO_KEY = MAIM_KEY, MAIM_TO_PLATFORM = MAIM_PLATFORM, MAIM_QUERY } = process.env;
const text = process.argv[2] ?? 'Hello from Socket.IO';
const uuid = `example_${randomUUID().replaceAll('-', '')}`;
const now = () => Date.now() / 1000;

const message = (data) => ({
  ver: 1,
  msg_id: `msg_${randomUUID().replaceAll('-', '').slice(0, 12)}_${Math.floor(now())}`,
  type: 'sys_std',
  meta: { sender_user: MAIM_KEY, platform: MAIM_PLATFORM, timestamp: now() },
  payload: {
    message_info: { platform: MAIM_PLATFORM, message_id: randomUUID(), time: now() },
    message_segment: { type: 'text', data },
    message_dim: { api_key: MAIM_TO_KEY, platform: MAIM_TO_PLATFORM },
  },
});

const acknowledgement = (msgId) => ({
  ver: 1,
  msg_id: randomUUID(),
  type: 'sys_ack',
  meta: { uuid, acked_msg_id: msgId, timestamp: now() },
  payload: { status: 'received', client_timestamp: now() },
});

// The address is not part of Socket.IO's: host and `path` are given apart, the namespace is "/".
const { origin, pathname } = new URL(MAIM_URL.replace(/^ws/, 'http'));
const said = MAIM_QUERY
  ? { query: { api_key: MAIM_KEY, platform: MAIM_PLATFORM, uuid } }
  : { extraHeaders: { 'x-apikey': MAIM_KEY, 'x-platform': MAIM_PLATFORM, 'x-uuid': uuid } };
const socket = io(origin, { path: `${pathname.replace(/\/$/, '')}/`, ...said });

socket.once('connect', () => socket.emit('message', message(text)));
socket.on('message', (frame) => {
  if (frame.type === 'sys_ack') {
    console.log('acknowledged', frame.meta.acked_msg_id); // the server has our message
    return;
  }
  socket.emit('message', acknowledgement(frame.msg_id));
  console.log(frame.type, JSON.stringify(frame.payload));
});
socket.on('connect_error', (error) => console.error(error.message));
socket.on('disconnect', (reason) => console.log('closed', reason));
