"""Joins a TLS connection to one end of a socket pair: whoever holds the other end reads and writes plain bytes, as if
it were the client's socket.

All in the loop's callbacks: no greenlet, and nothing is kept for a connection on which nothing waits. What one side
doesn't take is not read from the other, so both feel how fast the far end is. An end goes through as an end, behind
what was sent before it.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from select import POLLHUP
from typing import Any

import gevent.socket
import structlog
from gevent import monkey

from sidecar.fanout.clock import Wheel
from sidecar.fanout.outbox import WRITE
from sidecar.fanout.websocket import READ

log = structlog.get_logger("sidecar.splice")

RECORD_BYTES = 16 * 1024
"""What a TLS record holds; a direction never has more waiting here."""
RECORDS_A_TURN = 8
"""From one side, before the event loop gets its turn."""
PAIR_BYTES = 32 * 1024
"""What the kernel keeps in the pair, each way, for an end that doesn't read; by itself it would be 200 kB."""
LINGER_SECONDS = 5
"""How long a client has to end its side after ours."""
STALL_SECONDS = 10
"""A client that takes nothing for so long, after the other end was closed, doesn't get the rest."""
LOOK_SECONDS = 1

_poll = monkey.get_original("select", "poll")
"""Python's own: gevent's would switch, which a callback must not."""


class Splices:
    """Those of this process, by the loop and the clock of its network."""

    def __init__(self, loop: Any, wheel: Wheel):
        self.loop = loop
        self.wheel = wheel
        self.open: dict[Splice, None] = {}

    def join(self, tls: Any) -> Any:
        """The plain end of this TLS connection (a gevent SSLSocket, its handshake done), which is not the caller's
        any more."""
        tls.settimeout(0)
        near, far = gevent.socket.socketpair()
        for end in (near, far):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PAIR_BYTES)
        near.setblocking(False)
        Splice(self, tls, near.detach())
        return far

    @property
    def all_said(self) -> bool:
        """Has every client been sent what there was for it?"""
        return all(splice.said for splice in self.open)

    def close(self) -> None:
        """End them all."""
        for splice in list(self.open):
            splice.end()


class Splice:
    """One TLS connection and our end of its pair, the near one; the server has the far one."""

    __slots__ = (
        "_client_ended",
        "_from_client",
        "_from_server",
        "_looked_after",
        "_moved_at",
        "_near",
        "_server_ended",
        "_splices",
        "_tls",
        "_to_client",
        "_to_server",
        "_unsent",
        "_untaken",
        "said",
    )

    def __init__(self, splices: Splices, tls: Any, near: int):
        self._splices = splices
        self._tls = tls
        self._near = near
        self._unsent = b""
        """For the client. TLS wants to be given exactly this again."""
        self._untaken = b""
        """For the server."""
        self._client_ended = self._server_ended = False
        """Has this side said its last?"""
        self._moved_at = 0.0
        """When the client last took something, as far as it is slow."""
        self._looked_after = False
        self.said = False
        """Our goodbye, too; only the client's end is awaited."""
        self._from_client = splices.loop.io(tls.fileno(), READ)
        self._from_server = splices.loop.io(near, READ)
        self._to_client: Any = None
        self._to_server: Any = None
        splices.open[self] = None
        self._from_client.start(self._guarded, self._read_client)
        self._from_server.start(self._guarded, self._read_server)

    def end(self) -> None:
        """At once, both ways; what is on its way is lost."""
        if self not in self._splices.open:
            return
        del self._splices.open[self]
        for watcher in (self._from_client, self._from_server, self._to_client, self._to_server):
            _close(watcher)
        self._unsent = self._untaken = b""
        self._tls.close()
        os.close(self._near)

    def due(self) -> float | None:
        """The clock, while the client takes nothing: is there still a server who minds? (The loop tells of a closed end
        only together with what can be read from it.)"""
        if self not in self._splices.open or self._to_client is None:
            self._looked_after = False
            return None
        if time.monotonic() - self._moved_at > STALL_SECONDS and self._hung_up():
            self.end()
            return None
        return LOOK_SECONDS

    def _guarded(self, step: Callable[[], None]) -> None:
        """In the loop's callback, where an exception would stop the watcher for ever."""
        try:
            step()
        except Exception as error:
            log.error("splice.failed", exc_info=error)
            self.end()

    def _read_client(self) -> None:
        for _ in range(RECORDS_A_TURN):
            try:
                data = self._tls.read(RECORD_BYTES)
            except ssl.SSLWantReadError:
                return
            except ssl.SSLWantWriteError:
                self._await_client()
                return
            except OSError:  # cut, or no TLS any more
                self.end()
                return
            if not data:  # said goodbye, or only ended: what is above knows whether something lacks
                self._client_ended = True
                self._from_client.stop()
                self._shut_server()
                return
            if not self._give_server(data) or len(data) < RECORD_BYTES:
                return

    def _give_server(self, data: bytes) -> bool:
        """True if it took all."""
        try:
            taken = os.write(self._near, data)
        except BlockingIOError:
            taken = 0
        except OSError:  # the far end is closed; its last words are still to be read
            self._untaken = b""
            self._from_client.stop()
            return False
        self._untaken = data[taken:]
        if not self._untaken:
            return True
        if self._to_server is None:
            self._from_client.stop()
            self._to_server = self._splices.loop.io(self._near, WRITE)
            self._to_server.start(self._guarded, self._server_takes)
        return False

    def _server_takes(self) -> None:
        if self._untaken and not self._give_server(self._untaken) and self._untaken:
            return
        _close(self._to_server)
        self._to_server = None
        if self._client_ended:
            self._shut_server()
        elif not self._server_ended:
            self._from_client.start(self._guarded, self._read_client)
            self._read_client()  # TLS may hold something that the loop doesn't see

    def _shut_server(self) -> None:
        if not self._untaken:
            near = socket.socket(fileno=self._near)
            try:
                near.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it is closed
            finally:
                near.detach()

    def _read_server(self) -> None:
        for _ in range(RECORDS_A_TURN):
            try:
                data = os.read(self._near, RECORD_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._server_ended = True
                self._from_server.stop()
                self._say_goodbye()
                return
            if not self._give_client(data) or len(data) < RECORD_BYTES:
                return

    def _give_client(self, data: bytes) -> bool:
        """True if it took all. False also when it is gone."""
        try:
            self._unsent = data[self._tls.write(data) :]
        except ssl.SSLWantWriteError:
            self._unsent = data
        except OSError:  # (Nothing has to be read before: renegotiation is off.)
            self.end()
            return False
        if self._unsent:
            self._from_server.stop()
            self._await_client()
            return False
        return True

    def _await_client(self) -> None:
        """Until it takes more."""
        if self._to_client is None:
            self._to_client = self._splices.loop.io(self._tls.fileno(), WRITE)
            self._to_client.start(self._guarded, self._client_takes)
            self._moved_at = time.monotonic()
            if not self._looked_after:
                self._looked_after = True
                self._splices.wheel.add(LOOK_SECONDS, self)

    def _client_takes(self) -> None:
        if self._unsent and not self._give_client(self._unsent):
            return
        _close(self._to_client)
        self._to_client = None
        if self._server_ended:
            self._say_goodbye()
            return
        self._from_server.start(self._guarded, self._read_server)
        if not (self._client_ended or self._untaken):
            self._read_client()  # which may be what had to write

    def _say_goodbye(self) -> None:
        """The server has ended, and all of it is sent. The client's end is awaited, because a socket that is closed
        with something unread takes back what was sent; what it says until then nobody wants."""
        if self._unsent:
            return
        try:
            self._tls.unwrap()
        except ssl.SSLWantWriteError:
            self._await_client()
            return
        except (OSError, ValueError):
            pass  # it is said; the answer (SSLWantReadError), or anything else, is not awaited here
        if self._client_ended:
            self.end()
            return
        try:
            self._tls.shutdown(socket.SHUT_WR)
        except OSError:
            self.end()
            return
        self.said = True
        _close(self._to_server)
        self._to_server = None
        self._untaken = b""
        self._from_client.stop()
        self._from_client.start(self._guarded, self._drop)
        self._splices.wheel.add(LINGER_SECONDS, _Lingering(self))

    def _drop(self) -> None:
        """What comes behind our goodbye, without TLS, until the end."""
        try:
            data = self._tls.recv(RECORD_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.end()

    def _hung_up(self) -> bool:
        """Has the server closed its end, both ways?"""
        poll = _poll()
        poll.register(self._near, 0)
        return any(event & POLLHUP for _, event in poll.poll(0))


@dataclass(frozen=True, slots=True)
class _Lingering:
    """Ends a splice whose client had its time."""

    splice: Splice

    def due(self) -> None:
        self.splice.end()


def _close(watcher: Any) -> None:
    if watcher is not None:
        watcher.stop()
        watcher.close()
