"""TLS for a socket that one thread reads while others write.

OpenSSL allows no two threads in one connection at the same time, and Python's `SSLSocket` lets them in: 2 of 200 that
were opened failed so (measured, Python 3.11). Here OpenSSL works in memory alone, under a lock not held while the
network is waited for.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable

CHUNK_BYTES = 65_536


class ThreadedTls:
    """In the place of an SSLContext, for who only wraps sockets with it."""

    def __init__(self, context: ssl.SSLContext):
        self._context = context

    def wrap_socket(self, sock: socket.socket, server_hostname: str | None = None) -> TlsSocket:
        """Shakes hands; raises ssl.SSLError, or OSError of the network."""
        return TlsSocket(sock, self._context, server_hostname)

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, server_hostname: str | None = None
    ) -> ssl.SSLObject:
        return self._context.wrap_bio(incoming, outgoing, server_hostname=server_hostname)


class TlsSocket:
    """What a WebSocket needs of a socket. One thread may read, any number write."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, server_hostname: str | None):
        self._socket = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
        self._state = threading.Lock()
        """For every call of OpenSSL."""
        self._sending = threading.Lock()
        """Taken before the other: what is encrypted first is sent first."""
        try:
            while not self._done(self._tls.do_handshake):
                self._fill()
        except BaseException:
            with contextlib.suppress(OSError):
                self._flush()  # the alert that says why
            raise
        self._flush()

    def recv(self, size: int) -> bytes:
        """b"" at the end, whether the other side has said goodbye or not."""
        received = bytearray()
        with contextlib.suppress(ssl.SSLZeroReturnError, ssl.SSLEOFError):
            while not self._done(lambda: received.extend(self._tls.read(size))):
                self._fill()
        if self._outgoing.pending:
            self._flush()
        return bytes(received)

    def sendall(self, data: bytes) -> None:
        with self._sending:
            with self._state:
                view = memoryview(data)
                while view:
                    view = view[self._tls.write(view) :]
                encrypted = self._outgoing.read()
            self._socket.sendall(encrypted)

    def settimeout(self, seconds: float | None) -> None:
        self._socket.settimeout(seconds)

    def setsockopt(self, level: int, option: int, value: int) -> None:
        self._socket.setsockopt(level, option, value)

    def getsockname(self) -> object:
        return self._socket.getsockname()

    def getpeername(self) -> object:
        return self._socket.getpeername()

    def shutdown(self, how: int) -> None:
        self._socket.shutdown(how)

    def close(self) -> None:
        self._socket.close()

    def _done(self, act: Callable[[], object]) -> bool:
        """False if OpenSSL wants more of the network first."""
        with self._state:
            try:
                act()
            except ssl.SSLWantReadError:
                return False
            return True

    def _fill(self) -> None:
        if self._outgoing.pending:
            self._flush()
        data = self._socket.recv(CHUNK_BYTES)
        with self._state:
            if data:
                self._incoming.write(data)
            else:
                self._incoming.write_eof()

    def _flush(self) -> None:
        with self._sending:
            with self._state:
                encrypted = self._outgoing.read()
            self._socket.sendall(encrypted)
