"""A socket.io-client in few lines: Engine.IO over a WebSocket, Socket.IO's root namespace, and recovery as it has it.

It keeps the pid and the last trailing text of an event as its offset, sends both with CONNECT, is `recovered` when it
is answered the same pid, answers pings, and comes back with the manager's backoff. A CONNECT_ERROR or DISCONNECT from
the server ends it for good. It is for tests: it believes its server, and nothing of HTTP but the 101.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from typing import Any, Protocol

DELAY_SECONDS, DELAY_MAX_SECONDS, JITTER = 0.1, 1.0, 0.5
OPEN_SECONDS = 5.0
TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA

Acknowledge = Callable[[dict[str, Any]], None]


class Listener(Protocol):
    def connected(self, recovered: bool) -> None: ...

    def event(self, name: str, args: list[Any]) -> None: ...

    def over(self, why: str) -> None:
        """It won't come back by itself."""


class Socket:
    """All of it runs in one loop."""

    def __init__(self, port: int, path: str, token: str, listener: Listener):
        self._port = port
        self._path = path
        self._token = token
        self._listener = listener
        self._wire: _Wire | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._opening: asyncio.Task[None] | None = None
        self._attempts = 0
        self._pid: str | None = None
        self._offset: str | None = None
        self._acks: dict[int, Acknowledge] = {}
        self._next_ack = 0
        self._early: list[list[Any]] = []
        self._closed = False
        self.opened = 0
        """How many connections there have been."""
        self.connected = False

    def open(self) -> None:
        self._timer = None
        self._opening = asyncio.get_running_loop().create_task(self._open())

    def emit(self, name: str, *args: object, answered: Acknowledge) -> None:
        """Only while connected; an answer that doesn't come by this connection never comes."""
        assert self._wire is not None
        self._acks[self._next_ack] = answered
        self._wire.send(f"42{self._next_ack}{json.dumps([name, *args])}")
        self._next_ack += 1

    def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._opening is not None:
            self._opening.cancel()
        if self._wire is not None:
            self._wire.abort()

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        wire = _Wire(self, self._path)
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                await loop.create_connection(lambda: wire, "127.0.0.1", self._port)
                await wire.opened
        except (OSError, TimeoutError):
            wire.abort()
            self._come_back()
        except asyncio.CancelledError:
            wire.abort()
            raise

    def _come_back(self) -> None:
        if self._closed or self._timer is not None:
            return
        delay = min(DELAY_SECONDS * 2 ** min(self._attempts, 10), DELAY_MAX_SECONDS)
        delay *= 1 + random.uniform(-JITTER, JITTER)
        self._attempts += 1
        self._timer = asyncio.get_running_loop().call_later(delay, self.open)

    def engine_opened(self, wire: _Wire) -> None:
        self._wire = wire
        self._attempts = 0
        self.opened += 1
        auth = {"token": self._token}
        if self._pid is not None:
            auth["pid"] = self._pid
            if self._offset is not None:
                auth["offset"] = self._offset
        wire.send(f"40{json.dumps(auth)}")

    def engine_closed(self, wire: _Wire) -> None:
        if wire is self._wire:
            self._wire = None
            self.connected = False
            self._acks.clear()
            self._early.clear()
            self._come_back()

    def packet(self, text: str) -> None:
        kind, rest = text[:1], text[1:]
        if kind == "0":
            body = json.loads(rest)
            pid = body.get("pid")
            recovered = pid is not None and pid == self._pid
            self._pid = pid
            self.connected = True
            early, self._early = self._early, []
            for args in early:
                self._emit(args)
            self._listener.connected(recovered)
        elif kind == "2":
            args = json.loads(rest[rest.index("[") :])
            if self.connected:
                self._emit(args)
            else:
                self._early.append(args)
        elif kind == "3":
            begin = rest.index("[")
            answered = self._acks.pop(int(rest[:begin]), None)
            if answered is not None:
                answered(json.loads(rest[begin:])[0])
        else:
            self._closed = True
            self._listener.over(text)
            self.close()

    def _emit(self, args: list[Any]) -> None:
        self._listener.event(args[0], args[1:])
        if self._pid and isinstance(args[-1], str):
            self._offset = args[-1]


class _Wire(asyncio.Protocol):
    """One WebSocket with Engine.IO's packets on it."""

    def __init__(self, socket: Socket, path: str):
        self._socket = socket
        self._path = path
        self._transport: Any = None
        self._upgraded = False
        self._buffer = bytearray()
        self._text = bytearray()
        self._patience: asyncio.TimerHandle | None = None
        self._patience_seconds = 0.0
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(
            f"GET {self._path}?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def connection_lost(self, _error: Exception | None) -> None:
        if self._patience is not None:
            self._patience.cancel()
        if not self.opened.done():
            self.opened.set_exception(ConnectionError("closed before it was open"))
        self._socket.engine_closed(self)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        if not self.opened.done():
            self.opened.cancel()

    def send(self, packet: str) -> None:
        self._write(TEXT, packet.encode())

    def _write(self, opcode: int, payload: bytes) -> None:
        """Masked by zeros, which changes nothing."""
        length = len(payload)
        head = bytes((0x80 | opcode, 0x80 | length)) if length < 126 else bytes((0x80 | opcode, 0xFE))
        if length >= 126:
            head += length.to_bytes(2, "big")
        self._transport.write(head + b"\0\0\0\0" + payload)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._upgraded:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            if b" 101 " not in self._buffer[:20]:
                self._transport.abort()
                return
            del self._buffer[: end + 4]
            self._upgraded = True
        self._read_frames()

    def _read_frames(self) -> None:
        buffer, place = self._buffer, 0
        while len(buffer) - place >= 2 and not self._transport.is_closing():
            begin, length = place + 2, buffer[place + 1]
            if length >= 126:
                begin = place + (4 if length == 126 else 10)
                length = int.from_bytes(buffer[place + 2 : begin], "big")
            if len(buffer) < begin + length:
                break
            first, place = buffer[place], begin + length
            self._frame(first & 0x0F, bool(first & 0x80), bytes(buffer[begin:place]))
        del buffer[:place]

    def _frame(self, opcode: int, final: bool, payload: bytes) -> None:
        if opcode == PING:
            self._write(PONG, payload)
        elif opcode == CLOSE:
            self._transport.close()
        elif opcode <= TEXT:
            self._text += payload
            if final:
                text, self._text = self._text.decode(), bytearray()
                self._engine_packet(text)

    def _engine_packet(self, text: str) -> None:
        kind = text[:1]
        if kind == "4":
            self._socket.packet(text[1:])
        elif kind == "2":
            self._wait_for_ping()
            self.send("3")
        elif kind == "0":
            handshake = json.loads(text[1:])
            self._patience_seconds = (handshake["pingInterval"] + handshake["pingTimeout"]) / 1000
            self._wait_for_ping()
            if not self.opened.done():
                self.opened.set_result(None)
                self._socket.engine_opened(self)
        elif kind == "1":
            self._transport.close()

    def _wait_for_ping(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
        self._patience = asyncio.get_running_loop().call_later(self._patience_seconds, self._transport.abort)
