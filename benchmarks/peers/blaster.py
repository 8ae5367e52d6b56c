"""No server at all: it answers handshakes with constants, and each post with the same bytes to every client at once.
It shows how much the load generator can take in. Usage: python -m benchmarks.peers.blaster PORT EVENTS_A_POST
"""

from __future__ import annotations

import select
import socket
import sys

from benchmarks.frames import STAMP, event_text, server_text

OPEN = server_text(b'0{"sid":"x","upgrades":[],"pingInterval":3600000,"pingTimeout":3600000,"maxPayload":1000000}')
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n" + OPEN
CONNECTED = server_text(b'40{"sid":"x"}')
SUBSCRIBED = server_text(b'430[{"ok":true}]')
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def frames(body: bytes, events: int) -> bytes:
    """What each client gets for a post: `events` events numbered on, all with the post's stamp."""
    found = STAMP.search(body)
    assert found is not None
    number, stamp_ns = int(found[1]), int(found[2])
    posted = event_text(number, stamp_ns).encode()
    texts = (body.replace(posted, event_text(number * events + each, stamp_ns).encode()) for each in range(events))
    return b"".join(server_text(b'42["event",' + text + b"]") for text in texts)


def serve(port: int, events: int) -> None:
    """Until killed. Clients are written to in blocking calls: the load generator reads whatever happens."""
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    peers: dict[int, socket.socket] = {}
    clients: dict[int, socket.socket] = {}
    while True:
        for descriptor, _ in epoll.poll():
            if descriptor == listener.fileno():
                peer, _ = listener.accept()
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                peers[peer.fileno()] = peer
                epoll.register(peer, select.EPOLLIN)
                continue
            peer = peers[descriptor]
            data = peer.recv(65_536)
            if not data:
                epoll.unregister(descriptor)
                clients.pop(descriptor, None)
                peers.pop(descriptor).close()
            elif data.startswith(b"POST "):
                peer.sendall(ANSWER)
                text = frames(data.partition(b"\r\n\r\n")[2], events)
                for client in clients.values():
                    client.sendall(text)
            elif data.startswith(b"GET /healthz"):
                peer.sendall(ANSWER)
            elif data.startswith(b"GET "):
                peer.sendall(SWITCH)
            elif data.endswith(b"40"):
                peer.sendall(CONNECTED)
            elif b"subscribe_project" in data:
                peer.sendall(SUBSCRIBED)
                clients[descriptor] = peer


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))
