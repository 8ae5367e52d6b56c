"""A WebSocket connection without a greenlet of its own: the event loop watches its descriptor, frames are parsed in
the loop's callback, and a greenlet exists only while a message is being handled.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

import gevent
import structlog

from sidecar.fanout.clock import Wheel
from sidecar.fanout.outbox import Flusher, Outbox, Owner
from sidecar.fanout.trace import Ending, Trace, TracedOutbox, TracedReader
from sidecar.observability.logs import debugging
from sidecar.observability.metrics import UPGRADED, Metrics
from sidecar.wire.frames import (
    BINARY,
    NOT_UTF8,
    PING,
    PONG,
    PROTOCOL_ERROR,
    TEXT,
    TOO_BIG,
    FrameReader,
    close_frame,
    frame,
)

log = structlog.get_logger("sidecar.websocket")

READ_BYTES = 32 * 1024
READ = 1
"""libev's EV_READ."""
INBOX_MESSAGES = 64
"""With so many messages waiting to be handled, nothing more is read."""
CLOSE_SECONDS = 5
"""How long the peer has to answer a Close frame and to take what is still unsent."""
ENDS_A_TURN = 20
PAUSE_SECONDS = 0.000001
"""A timer, unlike `gevent.sleep(0)`, lets descriptors be polled."""

PING_FRAME = frame(PING, b"")

NORMAL, UNSUPPORTED, ABNORMAL, FAULTY, TRY_LATER = 1000, 1003, 1006, 1011, 1013

FAILURES = {
    PROTOCOL_ERROR: "protocol",
    UNSUPPORTED: "unsupported",
    NOT_UTF8: "not_utf8",
    TOO_BIG: "too_large",
    FAULTY: "internal",
    TRY_LATER: "cut_off",
}
"""What a close that we begin with this code tells of; with others nothing has failed."""
COMPLAINTS = frozenset({PROTOCOL_ERROR, UNSUPPORTED, NOT_UTF8, 1008, TOO_BIG, 1010, FAULTY})
"""Close codes by which a peer says that something failed."""
CUT = Ending(ABNORMAL, "", "nobody", "cut", ABNORMAL)
"""How a connection ends if nobody says anything more."""


class Peer(Protocol):
    """The protocol above a connection. `kind` names it in metrics and logs, a word for all connections that are for the
    same; `who` is whose this one is, by name, None if that is not known yet."""

    @property
    def kind(self) -> str: ...

    @property
    def who(self) -> str | None: ...

    def intercept(self, message: str | bytes) -> bool:
        """In the loop's callback: deal with what needs no handler, and say whether that is all. Must not block."""

    def handle(self, message: str | bytes) -> None:
        """In a greenlet, one message after the other, in their order. May block."""

    def ended(self, code: int) -> None:
        """In a greenlet, once: the connection is gone. `code` is the Close frame's, 1005 without one, 1006 without
        a Close frame."""


class _Nobody:
    """The peer of a connection that was not opened: nothing is read for it."""

    kind = "none"
    who = None

    def intercept(self, message: str | bytes) -> bool:
        return True

    def handle(self, message: str | bytes) -> None:
        pass

    def ended(self, code: int) -> None:
        pass


NOBODY = _Nobody()


class State(IntEnum):
    OPEN = 0
    CLOSING = 1
    """We said Close, or will, and take no more messages."""
    ENDED = 2


class Network:
    """What the connections of this process share: the loop, the flusher, the clock, and who is open.
    `outbox_bytes` bounds what waits for one, `budget_bytes` what waits for all slow ones. `trace` writes debug lines,
    None where they are not wanted."""

    def __init__(self, max_message_bytes: int, outbox_bytes: int, budget_bytes: int, metrics: Metrics | None = None):
        self.metrics = Metrics() if metrics is None else metrics
        self.trace = Trace() if debugging() else None
        self.loop: Any = gevent.get_hub().loop
        self.flusher = Flusher(self.loop, budget_bytes)
        self.wheel = Wheel(self.loop)
        self.max_message_bytes = max_message_bytes
        self.outbox_bytes = outbox_bytes
        self.connections: dict[Connection, None] = {}
        self._work: deque[Callable[[], None]] = deque()
        self._worker: gevent.Greenlet | None = None

    def take_over(self, sock: Any, beginning: bytes, path: str = "") -> Connection:
        """The connection of a gevent socket whose handshake, for this path, is done; the socket is of no more use
        then. `beginning` is what was read from it behind the handshake."""
        connection = Connection(self, sock.detach(), beginning)
        if self.trace is not None:
            self.trace.arrived(connection, path)
        return connection

    def new_outbox(self, owner: Owner) -> Outbox:
        if self.trace is None:
            return Outbox(self.flusher, self.outbox_bytes, owner)
        return TracedOutbox(self.flusher, self.outbox_bytes, owner, self.trace)

    def new_reader(self, connection: Connection) -> FrameReader:
        if self.trace is None:
            return FrameReader(self.max_message_bytes)
        return TracedReader(self.max_message_bytes, self.trace, connection)

    def opened(self, sock: object, kind: str, who: str | None = None) -> None:
        """Count a socket, and tell the log. `sock` is the same at its end: a connection, or a session that polls."""
        self.metrics.socket_opened(kind)
        if self.trace is not None:
            self.trace.opened(sock, kind, who)

    def closed(self, sock: object, kind: str, ending: Ending) -> None:
        self.metrics.socket_closed(kind, ending.code, ending.failure)
        if self.trace is not None:
            self.trace.closed(sock, kind, ending)

    def upgraded(self, session: object, kind: str) -> None:
        """A session that polled goes on as a WebSocket."""
        self.metrics.socket_closed(kind, UPGRADED)
        if self.trace is not None:
            self.trace.upgraded(session, kind)

    def later(self, work: Callable[[], None]) -> None:
        """Do it in a greenlet, in the order asked for: what the end of a connection brings with it, which may be the
        end of thousands."""
        self._work.append(work)
        if self._worker is None:
            self._worker = gevent.spawn(self._work_off)
            self._worker.name = "connection-ends"

    def close_all(self, code: int, reason: str, window_seconds: float) -> None:
        """Close all, each at some moment of the window, so that they don't come back all at once."""
        count = len(self.connections)
        for place, connection in enumerate(self.connections):
            self.wheel.add(window_seconds * place / count, _Closing(connection, code, reason))

    def stop(self) -> None:
        """Drop what is still open."""
        for connection in list(self.connections):
            connection.abort()
        if self._worker is not None:
            self._worker.join()
        self.flusher.close()
        self.wheel.close()

    def _work_off(self) -> None:
        done = 0
        while self._work:
            work = self._work.popleft()
            try:
                work()
            except Exception as error:
                log.error("websocket.end_failed", exc_info=error)
            done += 1
            if done % ENDS_A_TURN == 0:
                gevent.sleep(PAUSE_SECONDS)
        self._worker = None


@dataclass(frozen=True, slots=True)
class _Closing:
    """Closes a connection when its time has come."""

    connection: Connection
    code: int
    reason: str

    def due(self) -> None:
        self.connection.close(self.code, self.reason)


class Connection:
    """One WebSocket of the network, its handshake done. It is read from when `open` has given it a peer; `outbox`
    holds what goes out."""

    __slots__ = (
        "_beginning",
        "_ending",
        "_inbox",
        "_inbox_bytes",
        "_network",
        "_paused",
        "_peer",
        "_reader",
        "_said_close",
        "_state",
        "_watcher",
        "descriptor",
        "heard",
        "outbox",
    )

    def __init__(self, network: Network, descriptor: int, beginning: bytes = b""):
        self.descriptor = descriptor
        self._network = network
        self._beginning = beginning
        self._peer: Peer = NOBODY
        self._reader = network.new_reader(self)
        self._watcher = network.loop.io(descriptor, READ)
        self._state = State.OPEN
        self._ending = CUT
        self._said_close = False
        """Has the peer said its last word: a Close frame, or something against the protocol?"""
        self._inbox: deque[str | bytes] | None = None
        """What waits to be handled; None when no greenlet works on it."""
        self._inbox_bytes = 0
        self._paused = False
        self.heard = False
        """Has anything come since this was last set to False?"""
        self.outbox = network.new_outbox(self)
        self.outbox.attach(self)
        network.connections[self] = None

    @property
    def opened(self) -> bool:
        """Has it a peer?"""
        return self._peer is not NOBODY

    @property
    def paused(self) -> bool:
        """Is nothing read, because too much waits to be handled? Then nothing can be heard of the peer."""
        return self._paused

    @property
    def kind(self) -> str:
        """Its peer's."""
        return self._peer.kind

    def open(self, peer: Peer) -> None:
        """Read for this peer from now on."""
        self._peer = peer
        if self.descriptor >= 0:
            self._network.opened(self, peer.kind, peer.who)
        if self._state != State.ENDED:
            self._watcher.start(self._readable)
            beginning, self._beginning = self._beginning, b""
            self._guarded(beginning)

    def switch(self, peer: Peer, outbox: Outbox) -> None:
        """Read for this peer from now on, and send from this outbox, after what waits in the present one."""
        self._peer = peer
        outbox.attach(self, self.outbox)
        self.outbox = outbox

    def send(self, message: str | bytes) -> None:
        """Queue a message that may not be left out."""
        if isinstance(message, str):
            self.outbox.put(frame(TEXT, message.encode()))
        else:
            self.outbox.put(frame(BINARY, message))

    def ping(self) -> None:
        """Ask for a sign of life."""
        self.outbox.put(PING_FRAME)

    def close(self, code: int = NORMAL, reason: str = "", failure: str = "") -> None:
        """Say Close, behind what waits. The connection ends when the peer has answered, or a few seconds later.
        `failure` is one of metrics.FAILURES, where the code doesn't tell."""
        if self._state == State.OPEN:
            self._ending = Ending(code, reason, "us", failure or FAILURES.get(code, ""), ABNORMAL)
            self._finish(close_frame(code, reason))

    def abort(self, failure: str = "") -> None:
        """End it at once; what waits to be handled is forgotten. `failure` as for `close`."""
        if self._state == State.OPEN:
            self._ending = Ending(ABNORMAL, "", "us", failure, ABNORMAL)
        if self._inbox is not None:
            self._inbox.clear()
        self._end()

    def cut_off(self) -> None:
        """As an outbox's owner: it can't take what it must."""
        self.close(TRY_LATER, "too slow")

    def failed(self) -> None:
        """As an outbox's transport."""
        self._end()

    def due(self) -> None:
        """The clock: the time to end in peace is over."""
        self.abort()

    def _readable(self) -> None:
        """In the loop's callback, where an exception would stop the watcher for ever."""
        try:
            data = os.read(self.descriptor, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.heard = True
            self._guarded(data)
        else:
            self._end()

    def _guarded(self, data: bytes) -> None:
        try:
            self._feed(data)
        except Exception as error:
            log.error("websocket.read_failed", exc_info=error)
            self.abort("internal")

    def _feed(self, data: bytes) -> None:
        reader, ping = self._reader, None
        for opcode, payload in reader.feed(data):
            if isinstance(payload, int):
                self._take_close(payload)
            elif self._state != State.OPEN or opcode == PONG:
                continue
            elif opcode == PING and isinstance(payload, bytes):
                ping = payload
            elif not self._peer.intercept(payload):
                self._keep(payload)
        if ping is not None:  # the newest of several is answered for all (RFC 6455, section 5.5.3)
            self.outbox.put(frame(PONG, ping))
        if reader.fault is not None and not self._said_close:
            self._said_close = True
            if self._state == State.OPEN:
                self.close(reader.fault.code, reader.fault.reason)
                self._ending = self._ending._replace(answer=reader.fault.code)

    def _take_close(self, code: int) -> None:
        self._said_close = True
        if self._state == State.CLOSING:
            self._ending = self._ending._replace(answer=code)
            if not self.outbox.size:
                self._end()
        else:
            self._ending = Ending(code, "", "peer", "peer_error" if code in COMPLAINTS else "", code)
            self._finish(close_frame(code))

    def _finish(self, last_frame: bytes) -> None:
        self._state = State.CLOSING
        self.outbox.finish(last_frame, self._all_sent)
        self._network.wheel.add(CLOSE_SECONDS, self)

    def _all_sent(self) -> None:
        """Our Close frame is out. If the peer said its own nothing more is sent; its end of the stream is awaited,
        because a socket that is closed with something unread takes back what was sent."""
        if self._said_close:
            shut = socket.socket(fileno=self.descriptor)
            try:
                shut.shutdown(socket.SHUT_WR)
            except OSError:
                self._end()
            finally:
                shut.detach()

    def _keep(self, message: str | bytes) -> None:
        """For the greenlet that handles them. Nothing more is read while too much waits."""
        if self._inbox is None:
            self._inbox = deque()
            gevent.spawn(self._handle_all)
        self._inbox.append(message)
        self._inbox_bytes += len(message)
        if len(self._inbox) >= INBOX_MESSAGES or self._inbox_bytes > self._network.max_message_bytes:
            self._paused = True
            self._watcher.stop()

    def _handle_all(self) -> None:
        inbox = self._inbox
        while inbox:
            message = inbox.popleft()
            self._inbox_bytes -= len(message)
            try:
                self._peer.handle(message)
            except Exception as error:
                log.error("websocket.handler_failed", exc_info=error)
                self.abort("internal")
            if self._paused and 2 * len(inbox) < INBOX_MESSAGES and self._state != State.ENDED:
                self._paused = False
                self._watcher.start(self._readable)
        self._inbox = None
        self._inbox_bytes = 0
        if self.descriptor < 0:
            self._peer.ended(self._ending.answer)

    def _end(self) -> None:
        """In the loop's callback perhaps, and perhaps one of thousands: nothing but what must be done at once."""
        if self._state != State.ENDED:
            self._state = State.ENDED
            self._watcher.stop()
            self.outbox.close()
            self._network.later(self._bury)

    def _bury(self) -> None:
        """The peer hears of the end when the messages before it have been handled."""
        self._watcher.close()
        os.close(self.descriptor)
        self.descriptor = -1
        del self._network.connections[self]
        if self.opened:
            self._network.closed(self, self._peer.kind, self._ending)
        elif self._network.trace is not None:
            self._network.trace.forget(self)
        if self._inbox is None:
            self._peer.ended(self._ending.answer)
