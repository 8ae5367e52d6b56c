"""Debug lines of sockets: each one's opening, the type of each message and frame, its close. No content, no token.

Where debug lines are not written there is no `Trace`, and readers and outboxes are of the classes that know none: a
frame then costs nothing more.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import structlog

from sidecar.fanout.outbox import Flusher, Outbox, Owner
from sidecar.wire.frames import BINARY, CLOSE, NO_CODE, PING, PONG, TEXT, FrameReader
from sidecar.wire.outlines import OPCODES, Outline, engine_outline, plain_outline, unframed

log = structlog.get_logger("sidecar.websocket")

ENGINE_KINDS = ("socketio", "polling")


class Ending(NamedTuple):
    """How a socket ended: the code of the first Close frame, the reason said with it, and who began. `failure` is one
    of metrics.FAILURES, empty for an end in order; `answer` the code that was heard from the peer, 1006 if none."""

    code: int
    reason: str
    by: str
    failure: str
    answer: int


class Traced(Protocol):
    """A WebSocket; `kind` is what it is for."""

    @property
    def kind(self) -> str: ...


@dataclass(slots=True)
class _Life:
    number: int
    began: float
    path: str


class Trace:
    """Writes the lines, and numbers the sockets so that the lines of one can be found."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._lives: dict[object, _Life] = {}
        self._numbers = itertools.count(1)

    def arrived(self, socket: object, path: str) -> None:
        """The path that its handshake asked for, without the query."""
        self._lives[socket] = _Life(next(self._numbers), self._clock(), path)

    def number(self, socket: object) -> int | None:
        """None for one that has just gone."""
        life = self._lives.get(socket)
        return None if life is None else life.number

    def opened(self, socket: object, kind: str, who: str | None) -> None:
        if socket not in self._lives:
            self.arrived(socket, "")
        life = self._lives[socket]
        log.debug("websocket.opened", socket=life.number, kind=kind, path=life.path, who=who)

    def received(self, socket: object, kind: str, opcode: int, payload: str | bytes | int) -> None:
        told: Outline = {}
        if isinstance(payload, int):
            told = {"code": payload}
        elif opcode in (TEXT, BINARY):
            told = engine_outline(payload) if kind in ENGINE_KINDS else plain_outline(payload, "message_type", "type")
        log.debug("websocket.received", socket=self.number(socket), kind=kind, frame=OPCODES[opcode], **told)

    def polled(self, session: object, kind: str, packet: str | bytes) -> None:
        """A packet in the body of a POST."""
        self.received(session, kind, TEXT if isinstance(packet, str) else BINARY, packet)

    def sent(self, socket: object, kind: str, frame: bytes) -> None:
        opcode, payload = unframed(frame)
        told: Outline = {}
        if opcode == CLOSE:
            told = {"code": int.from_bytes(payload[:2]) if payload else NO_CODE}
        elif opcode not in (PING, PONG):
            text = payload if opcode == BINARY else payload.decode(errors="replace")
            told = engine_outline(text) if kind in ENGINE_KINDS else plain_outline(text, "type")
        log.debug("websocket.sent", socket=self.number(socket), kind=kind, frame=OPCODES[opcode], **told)

    def closed(self, socket: object, kind: str, ending: Ending) -> None:
        life = self._lives.pop(socket)
        log.debug(
            "websocket.closed",
            socket=life.number,
            kind=kind,
            code=ending.code,
            reason=ending.reason,
            by=ending.by,
            failure=ending.failure or None,
            seconds=round(self._clock() - life.began, 3),
        )

    def upgraded(self, session: object, kind: str) -> None:
        log.debug("websocket.upgraded", socket=self._lives.pop(session).number, kind=kind)

    def forget(self, socket: object) -> None:
        """It arrived and was never opened."""
        self._lives.pop(socket, None)


class TracedReader(FrameReader):
    """Tells each frame as it becomes whole."""

    __slots__ = ("_socket", "_trace")

    def __init__(self, max_message_bytes: int, trace: Trace, socket: Traced):
        super().__init__(max_message_bytes)
        self._trace = trace
        self._socket = socket

    def feed(self, data: bytes) -> list[tuple[int, str | bytes | int]]:
        events = super().feed(data)
        for opcode, payload in events:
            self._trace.received(self._socket, self._socket.kind, opcode, payload)
        return events


class TracedOutbox(Outbox):
    """Tells each frame as it goes to the kernel, or into the answer to a poll."""

    __slots__ = ("_trace",)

    def __init__(self, flusher: Flusher, limit_bytes: int, owner: Owner, trace: Trace):
        super().__init__(flusher, limit_bytes, owner)
        self._trace = trace

    def take(self, limit_bytes: int, limit_frames: int) -> list[bytes]:
        taken = super().take(limit_bytes, limit_frames)
        for frame in taken:
            self._trace.sent(self.owner, "polling", frame)
        return taken

    def _gather(self) -> bytes:
        frames, socket = self._frames, self._transport
        data = super()._gather()
        for frame in frames[: len(frames) - len(self._frames)]:
            self._trace.sent(socket, getattr(socket, "kind", ""), frame)
        return data
