"""A whole sidecar in this process, and the far ends of plain WebSockets to it."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from config.settings import load_settings
from sidecar.domain.errors import SidecarError
from sidecar.factory import Sidecar, create_app
from sidecar.sockets.credentials import take_bot
from sidecar.sockets.maim import PlainBots
from sidecar.sockets.plain import PlainEndpoint
from sidecar.wire.frames import TEXT
from tests.wire.test_frames import sent


class Installation:
    """A sidecar, and one of its endpoints of plain WebSockets, by its word in the address; `bots` is that of bots."""

    def __init__(self, folder: Path, word: str = "rooms", **settings: Any):
        self.sidecar: Sidecar = create_app(load_settings(instance_dir=folder, **settings))
        self.sidecar.start()
        self.token = self.sidecar.core.tokens.create("admin", ["admin"]).text
        self.plain: Any = self.sidecar.gate._bots if word == "bots" else self.sidecar.gate._endpoints[word]
        assert isinstance(self.plain, (PlainEndpoint, PlainBots))
        self.peers: list[Peer] = []

    def send(self, room: str, message: str) -> int:
        body, headers = {"room": room, "message": message}, {"Authorization": f"Token {self.token}"}
        answer = self.sidecar.app.test_client().post("/api/send-websocket/", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return int(answer.get_json()["event_id"])

    def connect(self, name: str = "r", query: str = "", token: str | None = None) -> Peer:
        """As the admin, unless another token is given; "" gives none."""
        return Peer(self, name, query, self.token if token is None else token)

    def close(self) -> None:
        self.sidecar.stop()
        self.sidecar.network.stop()
        for peer in self.peers:
            peer.far.close()

    def nothing_left(self) -> bool:
        held = (self.plain.sockets, self.sidecar.watch._members, self.sidecar.network.connections)
        return not any(held) and self.sidecar.core.hub.room_count == 0


class Peer:
    """The far end of a plain WebSocket. `socket` is the server's part of it."""

    def __init__(self, house: Installation, name: str, query: str, token: str):
        environ = {"QUERY_STRING": query, "REMOTE_ADDR": "127.0.0.1"}
        if token:
            environ["HTTP_AUTHORIZATION"] = f"Token {token}"
        environ |= {"HTTP_HOST": "localhost", "wsgi.url_scheme": "http"}
        take_bot(environ)
        self._read, self._frames = b"", []
        self.over = False
        before = set(house.plain.sockets)
        house.plain.admit(environ, name)
        ours, self.far = socket.socketpair()
        house.peers.append(self)
        ours.setblocking(False)
        self.far.setblocking(False)
        self.connection = house.sidecar.network.take_over(ours, b"")
        try:
            house.plain.open(environ, name, self.connection)
        except SidecarError:  # as the gate does
            self.connection.abort()
            raise
        (self.socket,) = house.plain.sockets - before

    @property
    def frames(self) -> list[tuple[int, bytes]]:
        """(opcode, payload) of all that came."""
        try:
            while data := self.far.recv(65_536):
                self._read += data
            self.over = True
        except BlockingIOError:
            pass
        except OSError:
            self.over = True
        while len(self._read) >= 2:
            length, head = self._read[1], 2
            if length == 126:
                length, head = int.from_bytes(self._read[2:4]), 4
            if len(self._read) < head + length:
                break
            self._frames.append((self._read[0] & 0xF, self._read[head : head + length]))
            self._read = self._read[head + length :]
        return self._frames

    @property
    def told(self) -> list[dict[str, Any]]:
        return [json.loads(payload) for opcode, payload in self.frames if opcode == TEXT]

    @property
    def contents(self) -> list[str]:
        return [frame["message"]["content"] for frame in self.told if frame["type"] == "api_message"]

    def count(self, kind: int) -> int:
        return sum(opcode == kind for opcode, _ in self.frames)

    def send(self, opcode: int, payload: bytes) -> None:
        self.far.send(sent(opcode, payload))

    def say(self, **fields: Any) -> None:
        self.send(TEXT, json.dumps(fields).encode())
