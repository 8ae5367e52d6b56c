"""What waits to be sent on each connection, and the one flusher that sends it.

An outbox holds references to frames that many connections share. The flusher visits those that hold something, in
turn, and writes what one holds with one send that never blocks; what arrives meanwhile joins the next send.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import structlog
from gevent.event import Event as Signal

log = structlog.get_logger("sidecar.outbox")

SENDS_A_TURN = 32
"""After so many sends the event loop gets its turn."""
SEND_BYTES = 256 * 1024
"""More is not joined for one send."""
DRAINED_BYTES = 16 * 1024
"""With no more than this unsent an outbox counts as drained."""
JOINS_BYTES = 8 * 1024 * 1024
"""What the joins that are kept for reuse may take."""
NOTHING_MORE = -1
WRITE = 2
"""libev's EV_WRITE."""


class Transport(Protocol):
    """The socket that an outbox writes to. Its descriptor never blocks."""

    descriptor: int

    def failed(self) -> None:
        """Sending failed: the peer is gone. Must not block."""


class Owner(Protocol):
    """Whose connection it is."""

    def cut_off(self) -> None:
        """Close the connection, so that the client comes back and is told what it missed. Must not block."""


class Outbox:
    """Frames of one connection, in the order in which they leave. Without a transport (long polling) they wait until
    the client has them. An empty outbox takes any one frame; beside that `limit_bytes` bounds what waits, and the
    flusher's budget what waits for all the readers that are slow at the moment.

    Three ways in, for three policies: `offer` refuses what does not fit (its caller lets the subscriber lag behind),
    `offer_latest` replaces a waiting frame of the same kind, `put` closes the connection."""

    __slots__ = (
        "_arrival",
        "_drained",
        "_flusher",
        "_frames",
        "_given",
        "_held",
        "_idle",
        "_latest",
        "_rest",
        "_sent",
        "_transport",
        "_watcher",
        "closed",
        "limit_bytes",
        "owner",
        "size",
    )

    def __init__(self, flusher: Flusher, limit_bytes: int, owner: Owner):
        self._flusher = flusher
        self._frames: list[bytes] = []
        self._given = 0
        """How many of them the last answer to a poll holds."""
        self._rest: memoryview | None = None
        self._latest: dict[str, int] | None = None
        self._idle = False
        """Must the flusher be told of the next frame?"""
        self._held = True
        """Does what waits here count against the budget, because nothing takes it at the moment?"""
        self._transport: Transport | None = None
        self._watcher: Any = None
        self._arrival: Callable[[], None] | None = None
        self._drained: Signal | None = None
        self._sent: Callable[[], None] | None = None
        self.limit_bytes = limit_bytes
        self.owner = owner
        self.size = 0
        self.closed = False

    def offer(self, frame: bytes) -> bool:
        """Take the frame, if there is room. Never blocks or raises; it runs once a delivery."""
        length = len(frame)
        size = self.size + length
        if size > self.limit_bytes and (self.size or self.limit_bytes < 0):
            return False
        if self._held and not self._flusher.hold(length, self.size == 0):
            return False
        self.size = size
        self._frames.append(frame)
        if self._idle:
            self._idle = False
            self._flusher.add(self)
        return True

    def offer_latest(self, kind: str, frame: bytes) -> bool:
        """As `offer`, for frames of which only the newest of its kind matters."""
        place = None if self._latest is None else self._latest.get(kind)
        if place is not None:
            grown = len(frame) - len(self._frames[place])
            self._frames[place] = frame
            self._shrink(-grown)
            return True
        if not self.offer(frame):
            return False
        if self._latest is None:
            self._latest = {}
        self._latest[kind] = len(self._frames) - 1
        return True

    def put(self, frame: bytes) -> None:
        """Queue what may not be left out: an answer, a ping. If it does not fit the connection is closed."""
        if not self.offer(frame) and not self.closed:
            self.owner.cut_off()

    def attach(self, transport: Transport, former: Outbox | None = None) -> None:
        """Send there what waits and what comes, after what waits in the `former` outbox of the transport, which is
        closed."""
        if former is not None:
            self._rest = former._rest
            self._frames[:0] = former._frames
            self._latest = None
            self._shrink(-former.size)
            former.close()
        self._release()
        self._transport = transport
        self._idle = False
        self._flusher.add(self)
        self.wake()

    def take(self, limit_bytes: int, limit_frames: int) -> list[bytes]:
        """For polling: the first frames, at least one if there is one. They stay until they have `arrived`."""
        self._given = size = 0
        for frame in self._frames:
            if self._given and (self._given >= limit_frames or size + len(frame) > limit_bytes):
                break
            self._given += 1
            size += len(frame)
        self._latest = None
        return self.given

    @property
    def given(self) -> list[bytes]:
        """What was taken last and is not known to have arrived."""
        return self._frames[: self._given]

    def arrived(self) -> None:
        """The client has what was taken."""
        if self._given:
            size = sum(map(len, self.given))
            del self._frames[: self._given]
            self._given = 0
            self._latest = None
            self._shrink(size)
            self._tell()

    def wait(self, timeout_seconds: float) -> bool:
        """For polling: block until there is something to take, `wake` is called or the connection is closed; False
        after the time-out. One at a time."""
        if self._frames or self.closed:
            return True
        arrived = Signal()
        self._arrival = arrived.set
        self._idle = True
        try:
            return bool(arrived.wait(timeout_seconds))
        finally:
            if self._arrival == arrived.set:
                self._arrival = None
                self._idle = False

    @property
    def waiting(self) -> bool:
        """Does somebody `wait`?"""
        return self._arrival is not None

    def wake(self) -> None:
        """End a `wait` though nothing came."""
        arrival, self._arrival = self._arrival, None
        if arrival is not None:
            self._idle = False
            arrival()

    def wait_drained(self, entirely: bool = False) -> bool:
        """Block until nearly nothing is unsent, or nothing at all; False when nothing more is taken, because the
        connection ends or has ended."""
        while not self.closed and self.size > (0 if entirely else DRAINED_BYTES):
            if self._drained is None:
                self._drained = Signal()
            self._drained.wait()
        return self.limit_bytes != NOTHING_MORE

    def finish(self, last_frame: bytes, then: Callable[[], None]) -> None:
        """Send what waits, then this, and nothing after it; at the end `then` is called from the event loop."""
        self._frames.append(last_frame)
        self._shrink(-len(last_frame))
        self.limit_bytes = NOTHING_MORE
        self._sent = then
        if self._idle:
            self._idle = False
            self._flusher.add(self)

    def cut_off(self) -> None:
        """Close the connection whose outbox this is. Never blocks."""
        self.owner.cut_off()

    def close(self) -> None:
        """Forget what waits, and take nothing more."""
        if self.closed:
            return
        self.closed = True
        self._release()
        self._transport = None
        self._frames = []
        self._given = 0
        self._rest = self._latest = self._sent = None
        self._idle = False
        self.limit_bytes = NOTHING_MORE
        self.size = 0
        self.wake()
        if self._drained is not None:
            self._drained.set()

    def flush(self) -> None:
        """One send of what waits. For the flusher."""
        transport = self._transport
        if transport is None:
            self.wake()
            return
        if self._watcher is not None:
            return
        data = self._rest or self._gather()
        try:
            sent = os.write(transport.descriptor, data) if data else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            transport.failed()
            return
        self.size -= sent
        if sent < len(data):
            self._rest = memoryview(data)[sent:]
            self._block(transport.descriptor)
        else:
            self._rest = None
            if self._frames:
                self._flusher.add(self)
            else:
                self._idle = True
        if self._drained is not None or self._sent is not None:
            self._tell()

    def _gather(self) -> bytes:
        """The next frames as one."""
        frames = self._frames
        self._latest = None
        if len(frames) == 1:
            self._frames = []
            return frames[0]
        if self.size <= SEND_BYTES:
            self._frames = []
            return self._flusher.join(tuple(frames))
        size = count = 0
        while count < len(frames) and (count == 0 or size + len(frames[count]) <= SEND_BYTES):
            size += len(frames[count])
            count += 1
        self._frames = frames[count:]
        return self._flusher.join(tuple(frames[:count]))

    def _block(self, descriptor: int) -> None:
        """The kernel takes no more: wait until it does."""
        self._held = True
        self._flusher.held_bytes += self.size
        self._watcher = self._flusher.loop.io(descriptor, WRITE)
        self._watcher.start(self._writable)

    def _writable(self) -> None:
        self._release()
        self._flusher.add(self)

    def _release(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None
        if self._held:
            self._held = False
            self._flusher.held_bytes -= self.size

    def _shrink(self, size: int) -> None:
        self.size -= size
        if self._held:
            self._flusher.held_bytes -= size

    def _tell(self) -> None:
        if self._drained is not None and self.size <= DRAINED_BYTES:
            self._drained.set()
            self._drained = None
        if self._sent is not None and self.size == 0:
            then, self._sent = self._sent, None
            then()


class Flusher:
    """Sends for all connections of this process, a turn of the event loop at a time. `budget_bytes` bounds what all
    slow readers together may keep waiting."""

    def __init__(self, loop: Any, budget_bytes: int):
        self.loop = loop
        self.budget_bytes = budget_bytes
        self.held_bytes = 0
        """What waits for readers that take nothing at the moment."""
        self._dirty: deque[Outbox] = deque()
        self._timer = loop.timer(0)
        self._running = False
        self._joins: dict[tuple[bytes, ...], bytes] = {}
        self._joins_bytes = 0

    def add(self, outbox: Outbox) -> None:
        """Flush this one when its turn comes."""
        self._dirty.append(outbox)
        if not self._running:
            self._running = True
            self._timer.start(self._turn)

    def hold(self, size: int, empty: bool) -> bool:
        """Take so much of the budget; beyond it only an outbox that is empty may hold something."""
        if self.held_bytes + size > self.budget_bytes and not empty:
            return False
        self.held_bytes += size
        return True

    def join(self, frames: tuple[bytes, ...]) -> bytes:
        """The frames as one string, made once for all connections that hold the same."""
        joined = self._joins.get(frames)
        if joined is None:
            if self._joins_bytes > JOINS_BYTES:
                self._forget_joins()
            joined = self._joins[frames] = b"".join(frames)
            self._joins_bytes += len(joined)
        return joined

    def close(self) -> None:
        self._timer.stop()
        self._timer.close()

    def _turn(self) -> None:
        """In the loop's callback. The next turn comes by a timer, because only that lets descriptors be polled
        between (gevent.sleep(0) does not)."""
        dirty = self._dirty
        for _ in range(min(len(dirty), SENDS_A_TURN)):
            outbox = dirty.popleft()
            try:
                outbox.flush()
            except Exception as error:
                log.error("outbox.flush_failed", exc_info=error)
                outbox.owner.cut_off()
        if dirty:
            self._timer.start(self._turn)
        else:
            self._running = False
            self._forget_joins()

    def _forget_joins(self) -> None:
        self._joins.clear()
        self._joins_bytes = 0
