"""Bots that are no library: a WebSocket of each line whose every byte the test chooses, and keys for them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import websocket

from tests.bots.peers import DEADLINE_SECONDS, Line, envelope, text_message
from tests.programs import Nginx
from tests.servers import RunningSidecar
from tests.sockets.clients import compare

LINES = ("websocket", "socketio")


@dataclass(frozen=True)
class Key:
    """A bot's key as the server told it."""

    key: str
    id: str
    user: str
    address: str


def new_key(server: RunningSidecar, user: str, **more: Any) -> Key:
    """Made through the API; `more` may have tenant, platforms, name, key."""
    answer = server.post("/api/maim/keys", {"user": user, **more})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    return Key(told["key"], str(told["id"]), told["user"], told["address"])


def undelivered(server: RunningSidecar) -> dict[str, float]:
    """The counters of /metrics by reason."""
    return {
        line.partition('reason="')[2].partition('"')[0]: float(line.rpartition(" ")[2])
        for line in server.get("/metrics").text.splitlines()
        if line.startswith("sidecar_maim_undelivered_total{")
    }


class Closed(Exception):
    """The server closed the WebSocket."""

    def __init__(self, data: bytes) -> None:
        self.code = int.from_bytes(data[:2], "big")
        self.reason = data[2:].decode()
        super().__init__(self.code, self.reason)


class Refused(Exception):
    """The Socket.IO line said no."""


def next_packet(socket: websocket.WebSocket) -> str:
    """The next text frame; pings of both kinds are answered and passed over, and are no sign that it will come."""
    finish = time.monotonic() + DEADLINE_SECONDS
    while True:
        socket.settimeout(max(0.001, finish - time.monotonic()))
        opcode, data = socket.recv_data(control_frame=True)
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            raise Closed(data)
        if opcode == websocket.ABNF.OPCODE_PING:
            socket.pong(data)
        elif opcode == websocket.ABNF.OPCODE_TEXT and data == b"2":
            socket.send("3")
        elif opcode == websocket.ABNF.OPCODE_TEXT:
            return str(data.decode())


class RawBot:
    """`line` is "websocket" (as 0.6.8) or "socketio" (as 0.7.5, without polling)."""

    def __init__(
        self,
        server: RunningSidecar | Nginx,
        key: str,
        platform: str,
        line: str = "websocket",
        path: str = "/ws",
        uuid: str | None = None,
    ) -> None:
        self.line = line
        self.uuid = uuid or f"single_{uuid4().hex}"
        query = "/?EIO=4&transport=websocket" if line == "socketio" else ""
        self.socket = websocket.create_connection(
            f"ws://127.0.0.1:{server.port}{path}{query}",
            header=[f"x-apikey: {key}", f"x-platform: {platform}", f"x-uuid: {self.uuid}"],
            suppress_origin=True,
            skip_utf8_validation=True,
            timeout=DEADLINE_SECONDS,
        )
        if line == "socketio":
            assert self._packet().startswith("0{")
            self.socket.send("40")
            answer = self._packet()
            if not answer.startswith("40{"):
                self.socket.shutdown()
                raise Refused(answer)

    def __enter__(self) -> RawBot:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.shutdown()

    def send_text(self, text: str) -> None:
        """These very characters as what this line calls a message."""
        self.socket.send(f'42["message",{text}]' if self.line == "socketio" else text)

    def send(self, frame: Any) -> None:
        self.send_text(json.dumps(frame))

    def send_to(self, to: tuple[str, str], text: Any, **meta: Any) -> str:
        """A good message; its msg_id."""
        frame = envelope(text_message(text, to), **meta)
        self.send(frame)
        msg_id: str = frame["msg_id"]
        return msg_id

    def next(self, where: Callable[[Line], bool] = lambda frame: True) -> Line:
        """The next envelope that `where` accepts; those before it are passed over."""
        while True:
            text = self._packet()
            if self.line == "socketio":
                if not text.startswith('42["message",'):
                    continue
                frame = json.loads(text[2:])[1]
            else:
                frame = json.loads(text)
            compare("plain", "bots_socketio" if self.line == "socketio" else "bots", frame)
            if where(frame):
                found: Line = frame
                return found

    def acked(self, msg_id: str) -> None:
        self.next(lambda frame: frame["type"] == "sys_ack" and frame["meta"]["acked_msg_id"] == msg_id)

    def next_text(self) -> Any:
        return self.next(lambda frame: frame["type"] == "sys_std")["payload"]["message_segment"]["data"]

    def closed(self) -> int:
        """The code that the server closed with; what came before it is passed over."""
        while True:
            try:
                next_packet(self.socket)
            except Closed as closed:
                return closed.code

    def _packet(self) -> str:
        return next_packet(self.socket)
