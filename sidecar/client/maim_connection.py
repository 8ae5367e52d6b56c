"""One connection of a MaimClient: opened again as often as its configuration says; it acknowledges at once what comes,
and writes what its outbox holds. It decides nothing about messages."""

from __future__ import annotations

import contextlib
import logging
import random
import socket
import ssl
import threading
import time
import uuid
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import cast

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from sidecar.client import maim_frames as frames
from sidecar.client.maim_config import ClientConfig
from sidecar.client.maim_outbox import Entry, Outbox
from sidecar.client.maim_tls import ThreadedTls

OPEN_SECONDS = 10.0
"""How long a handshake may take."""
STEADY_SECONDS = 5.0
"""A connection that lasted so long, or brought a frame, was a good one: attempts are counted anew after it."""
MAX_ASKED_SECONDS = 300.0
"""Longer than this we don't wait even if the server asks for it."""
SEEN = 10_000
REFUSED = {401: "the API key is not known", 403: "the platform is not allowed for this API key"}

Taken = Callable[["Connection", frames.Frame, int], object]


class Stats:
    """Counters that several threads count."""

    def __init__(self) -> None:
        self._values: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, name: str, number: int = 1) -> None:
        with self._lock:
            self._values[name] += number

    def __getitem__(self, name: str) -> int:
        with self._lock:
            return self._values[name]


class Connection:
    """`on_open`, `on_closed` (with what was wrong, if anything) and `on_frame` are called in its threads and must not
    wait for it."""

    def __init__(
        self,
        config: ClientConfig,
        log: logging.Logger,
        stats: Stats,
        on_open: Callable[[Connection], object],
        on_closed: Callable[[Connection, str | None], object],
        on_frame: Taken,
    ):
        self.config = config
        self.uuid = config.connection_uuid or f"sidecar_{uuid.uuid4().hex}"
        self.outbox = Outbox(
            config.message_cache_max_size, config.message_cache_ttl, config.enable_message_cache, self._lost
        )
        self.last_error: str | None = None
        self._log, self._stats = log, stats
        self._level = logging.getLevelNamesMapping()[config.log_level.upper()]
        self._on_open, self._on_closed, self._on_frame = on_open, on_closed, on_frame
        self._seen: OrderedDict[str | int, None] = OrderedDict()
        self._socket: ClientConnection | None = None
        self._failures = 0
        self._settled = True
        self._asked_seconds = 0.0
        self._stopping = threading.Event()
        self._stopping.set()
        self._changes = threading.Condition()
        self._thread: threading.Thread | None = None

    @property
    def connected(self) -> bool:
        return self._socket is not None

    def start(self) -> None:
        """Connect, in a thread; again if it had given up. Nothing happens if it is at it."""
        with self._changes:
            if self._thread is not None and self._thread.is_alive() and not self._stopping.is_set():
                return
            before, self._stopping = self._thread, threading.Event()
            self._settled = False
            self._thread = threading.Thread(
                target=self._run, args=(self._stopping, before), name="maim-connection", daemon=True
            )
            self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Until it is connected (True), was refused, or has given up."""
        with self._changes:
            self._changes.wait_for(lambda: self.connected or self._settled, seconds)
            return self.connected

    def stop(self, seconds: float) -> bool:
        """Close it, and wait so long for its end."""
        with self._changes:
            self._stopping.set()
            self._changes.notify_all()
            open_socket, thread = self._socket, self._thread
        if open_socket is not None:
            open_socket.close()
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(seconds)
        return not thread.is_alive()

    # -- Its thread

    def _run(self, stopping: threading.Event, before: threading.Thread | None) -> None:
        if before is not None:
            before.join()
        config = self.config
        self._failures = 0
        while not stopping.is_set():
            self._session(stopping)
            if stopping.is_set():
                break
            if not config.auto_reconnect:
                break
            if 0 < config.max_reconnect_attempts <= self._failures:
                self._say(logging.ERROR, "%s: gave up after %d attempts.", config.shown_url, self._failures)
                break
            self._failures += 1
            self._stats.add("reconnect_attempts")
            stopping.wait(self._pause())
        with self._changes:
            if self._stopping is stopping:  # else it was started again meanwhile
                self._settled = True
                self._changes.notify_all()

    def _pause(self) -> float:
        """Twice as long from time to time, and never the same for two clients: they would all come at once."""
        config = self.config
        longest = min(config.max_reconnect_delay, config.reconnect_delay * 2.0 ** min(self._failures - 1, 30))
        asked, self._asked_seconds = self._asked_seconds, 0.0
        return max(longest * random.uniform(0.5, 1.0), asked)  # noqa: S311 - a pause, not a secret

    def _session(self, stopping: threading.Event) -> None:
        """One attempt, and what comes of it."""
        self._stats.add("connect_attempts")
        try:
            opened = self._open()
        except Exception as error:
            self._stats.add("failed_connects")
            self._refused(error)
            return
        with self._changes:
            late = stopping.is_set()
            if not late:
                self._socket, self.last_error = opened, None
                self.outbox.open()
                self._changes.notify_all()
        if late:
            opened.close()
            return
        self._stats.add("successful_connects")
        self._say(logging.INFO, "Connected to %s as %s.", self.config.shown_url, self.uuid)
        self._on_open(self)
        writer = threading.Thread(target=self._write, args=(opened,), name="maim-writer", daemon=True)
        writer.start()
        begin = time.monotonic()
        heard, closed = self._read(opened)
        if heard or time.monotonic() - begin > STEADY_SECONDS:
            self._failures = 0
        why = None if stopping.is_set() else _why(closed)
        with self._changes:
            self._socket = None
            self.last_error = self._clean(why)
            self._changes.notify_all()
        self.outbox.close(_is_too_big(closed))
        writer.join()
        self._say(logging.INFO, "No longer connected to %s: %s.", self.config.shown_url, self.last_error or "closed")
        self._on_closed(self, self.last_error)

    def _open(self) -> ClientConnection:
        config = self.config
        context = config.ssl_context()
        tls = None if context is None else cast(ssl.SSLContext, ThreadedTls(context))
        quiet = self._log.getChild("websocket")
        quiet.setLevel(logging.WARNING)  # its debug lines show headers, and so the key
        opened = connect(
            config.address(self.uuid),
            ssl=tls,
            additional_headers=config.handshake_headers(self.uuid),
            open_timeout=OPEN_SECONDS,
            ping_interval=config.ping_interval or None,
            ping_timeout=config.ping_timeout or None,
            close_timeout=config.close_timeout,
            max_size=config.max_size or None,
            logger=quiet,
        )
        if hasattr(socket, "TCP_USER_TIMEOUT") and config.ping_interval and config.ping_timeout:
            # A write to a peer that is gone would wait a quarter of an hour, and the ping after it.
            silent = int((config.ping_interval + config.ping_timeout) * 1000)
            with contextlib.suppress(OSError):  # no TCP
                opened.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, silent)
        return opened

    def _refused(self, error: Exception) -> None:
        status = error.response.status_code if isinstance(error, InvalidStatus) else None
        if isinstance(error, InvalidStatus):
            asked = error.response.headers.get("Retry-After", "")
            self._asked_seconds = min(float(asked), MAX_ASKED_SECONDS) if asked.isdecimal() else 0.0
        with self._changes:
            self.last_error = self._clean(_told(error))
            self._settled = self._settled or status in REFUSED
            self._changes.notify_all()
        self._say(logging.WARNING, "%s: %s.", self.config.shown_url, self.last_error)

    def _read(self, opened: ClientConnection) -> tuple[bool, ConnectionClosed]:
        """Until it ends: did anything come, and how did it end?"""
        heard = False
        try:
            while True:
                text = opened.recv()
                heard = True
                self._take(opened, text)
        except ConnectionClosed as closed:
            return heard, closed

    def _take(self, opened: ClientConnection, text: str | bytes) -> None:
        self._stats.add("messages_received")
        self._stats.add("bytes_received", len(text))
        frame = frames.read(text)
        if frame is None:
            self._stats.add("invalid_frames")
            return
        if frame.get("type") == frames.ACK:
            if self.outbox.acknowledge(frames.acked_id(frame)):
                self._stats.add("messages_acked")
            return
        msg_id = frames.message_id(frame)
        self._say_message("Received %r %r, %d bytes.", frame.get("type"), msg_id, len(text))
        if msg_id is not None:
            with contextlib.suppress(ConnectionClosed):  # what has come is told all the same
                opened.send(frames.write(frames.new_ack(msg_id, self.uuid)))
            if self._known(msg_id):
                self._stats.add("duplicate_messages_ignored")
                return
        self._on_frame(self, frame, len(text))

    def _known(self, msg_id: str | int) -> bool:
        """A server that got no acknowledgement offers a message again; it is acknowledged, not told, again."""
        if msg_id in self._seen:
            return True
        self._seen[msg_id] = None
        if len(self._seen) > SEEN:
            self._seen.popitem(last=False)
        return False

    def _write(self, opened: ClientConnection) -> None:
        while (entry := self.outbox.next()) is not None:
            try:
                opened.send(entry.text)
            except ConnectionClosed:
                return
            self.outbox.written(entry)
            self._stats.add("messages_sent")
            self._stats.add("bytes_sent", len(entry.text))
            self._say_message("Sent %r, %d bytes.", entry.msg_id, len(entry.text))

    def _lost(self, entry: Entry, reason: str) -> None:
        self._stats.add("messages_dropped")
        self.last_error = f"a message was not sent: {reason}"
        self._log.warning("Message %s of %d bytes was not sent: %s.", entry.msg_id, len(entry.text), reason)

    def _say(self, level: int, text: str, *args: object) -> None:
        if self.config.enable_connection_log and level >= self._level:
            self._log.log(level, text, *args)

    def _say_message(self, text: str, *args: object) -> None:
        """Never what is in it."""
        if self.config.enable_message_log and self._level <= logging.INFO:
            self._log.info(text, *args)

    def _clean(self, text: str | None) -> str | None:
        return None if text is None else self.config.without_key(text)


def _told(error: Exception) -> str:
    """Why there is no connection, for people."""
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        more = f" ({REFUSED[status]})" if status in REFUSED else ""
        return f"the server refused the connection: HTTP {status}{more}"
    if isinstance(error, TimeoutError):
        return f"the server did not answer within {OPEN_SECONDS:g} s"
    if isinstance(error, ssl.SSLError):
        return f"no trusted TLS connection: {error}"
    if isinstance(error, (FileNotFoundError, PermissionError)):
        return f"a certificate can't be read: {error}"
    if isinstance(error, OSError):
        return f"the server can't be reached: {error}"
    if isinstance(error, InvalidHandshake):
        return f"the server did not answer as a WebSocket: {error}"
    return f"the connection can't be made: {type(error).__name__}: {error}"


def _why(closed: ConnectionClosed) -> str:
    """Why a connection ended, for people."""
    if _by_server(closed) and closed.rcvd is not None:
        return f"the server closed the connection: {closed.rcvd.code} {closed.rcvd.reason}".rstrip()
    if closed.sent is not None:
        return f"the connection was given up: {closed.sent.code} {closed.sent.reason}".rstrip()
    return "the connection was lost"


def _by_server(closed: ConnectionClosed) -> bool:
    """(Its close frame may also be the answer to ours.)"""
    return closed.rcvd is not None and (closed.sent is None or bool(closed.rcvd_then_sent))


def _is_too_big(closed: ConnectionClosed) -> bool:
    """The server would not take a message of that size."""
    return _by_server(closed) and closed.rcvd is not None and closed.rcvd.code == 1009
