"""How long an HTTP client may let us wait: for a request, its body, the next request, and for taking the answer.

Only waiting for the client counts, never what the application takes: a poll may be held for as long as it likes. A
client that is too slow is to everything above as one that has left; the handler alone knows better, and may tell it.
"""

from __future__ import annotations

import contextlib
import errno
import io
import socket
import struct
import time
from typing import Any

import structlog

from sidecar.observability.logs import RateLimited
from sidecar.observability.metrics import Metrics

log = structlog.get_logger("sidecar.patience")

HEAD_SECONDS = 10
"""For a whole head, however it drips: from its first byte; that of a connection's first request from the accept,
because who says nothing must not get more time than who says half. (A browser that connects ahead of need just
connects again.)"""
IDLE_SECONDS = 75
"""From one request to the next. More than the 60 s of nginx and most load balancers: what one sends in the moment in
which the other closes is lost, so it should be those who send that close."""
BODY_SECONDS = 20
"""For any byte more of a body."""
RESPONSE_SECONDS = 30
"""For room for more of an answer. The kernel tells of room when a third of its buffer is free, up to 85 kB: so nobody
is cut off who takes 3 kB a second, and who takes nothing goes before a silent WebSocket would (45 s)."""

UNUSED, IDLE, HEAD, BODY, RESPONSE = "unused", "idle", "head", "body", "response"
"""What is waited for, as the metrics call it; `unused`: the first byte of all."""
PAUSED = "paused"

_DISCARD_AT_CLOSE = struct.pack("ii", 1, 0)


class ClientStream(io.RawIOBase):
    """Reads from and sends to a client's gevent socket; beneath a BufferedReader, so it is asked only when that has
    nothing left. `late`: the client took too long over `phase`, and its stream has ended."""

    def __init__(self, sock: Any):
        self._sock = sock
        self._head_ends = time.monotonic() + HEAD_SECONDS
        self._leaving = False
        self.phase = UNUSED
        self.late = False

    def leave(self) -> None:
        """Wait for no further request: the server stops. What is under way goes on."""
        self._leaving = True
        if self.phase in (UNUSED, IDLE):
            with contextlib.suppress(OSError):  # it has left by itself
                self._sock.shutdown(socket.SHUT_RD)

    def readable(self) -> bool:
        return True

    def next_request(self, buffered: io.BufferedReader) -> None:
        """A head comes now; `buffered` reads from this stream and may hold the beginning of it. The first one is
        expected already."""
        if self.phase is UNUSED or self.late:
            return
        self.pause()
        if buffered.peek():
            self._begin_head()
        else:
            self.phase = IDLE

    def pause(self) -> None:
        """Read nothing from the client until the next phase."""
        self.phase = PAUSED

    def readinto(self, buffer: Any) -> int | None:
        phase = self.phase
        if phase is PAUSED:
            return None
        if self.late or (self._leaving and phase is IDLE):
            return 0
        if phase is IDLE:
            count = self._receive(buffer, IDLE_SECONDS)
        elif phase is BODY:
            return self._receive(buffer, BODY_SECONDS)
        else:
            count = self._receive(buffer, max(self._head_ends - time.monotonic(), 0))
        if count and phase is IDLE:
            self._begin_head()
        elif count:
            self.phase = HEAD
        return count

    def send(self, data: bytes | bytearray) -> None:
        """All of it. Raises OSError; for a client that takes nothing, too."""
        sock = self._sock
        sock.settimeout(RESPONSE_SECONDS)
        try:
            sent = sock.send(data)
            if sent < len(data):
                rest = memoryview(data)[sent:]
                while rest:
                    rest = rest[sock.send(rest) :]
        except TimeoutError:
            self.phase, self.late = RESPONSE, True
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DISCARD_AT_CLOSE)
            raise ConnectionResetError(errno.ECONNRESET, "The client takes nothing.") from None

    def _begin_head(self) -> None:
        self.phase = HEAD
        self._head_ends = time.monotonic() + HEAD_SECONDS

    def _receive(self, buffer: Any, seconds: float) -> int:
        """0 for the end, also when nothing came for so long."""
        sock = self._sock
        sock.settimeout(seconds)
        try:
            return int(sock.recv_into(buffer))
        except (TimeoutError, BlockingIOError):
            pass
        sock.settimeout(0)
        try:
            return int(sock.recv_into(buffer))  # it came while this process stood still
        except BlockingIOError:
            self.late = True
            sock.settimeout(RESPONSE_SECONDS)
            return 0


class SlowClients:
    """Counts them. Only who stops in the middle is worth a line: idle connections end all the time."""

    def __init__(self, metrics: Metrics):
        self._timeouts = metrics.http_timeouts
        self._complaints = RateLimited(log)

    def count(self, phase: str, address: str) -> None:
        self._timeouts.labels(phase).inc()
        if phase == HEAD:
            structlog.contextvars.clear_contextvars()  # they are the request's before it
        if phase not in (UNUSED, IDLE):
            self._complaints.warning("http.timeout", phase=phase, address=address.removeprefix("::ffff:"))
