"""Serves one sidecar on one port until TERM or INT: a pywsgi server with our handler class. How it ends: drain.py."""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import structlog
from gevent.event import Event as Signal
from gevent.pool import Pool
from gevent.pywsgi import WSGIServer
from geventwebsocket.handler import WebSocketHandler

from sidecar.drain import Drain, leave
from sidecar.factory import Sidecar
from sidecar.fanout.transports import SUBPROTOCOL, WEBSOCKET
from sidecar.patience import BODY, ClientStream, SlowClients
from sidecar.tls import Certificates, Door
from sidecar.wire.heads import Fields, read_head

log = structlog.get_logger("sidecar.server")

SWITCH_SECONDS = 0.0005
"""How soon the loop's thread gives the interpreter to the one that commits, which asks for it again after each call
into SQLite; with Python's 5 ms a commit beside a busy fan-out takes a tenth of a second."""
BACKLOG = 4_096
ACCEPTS_A_TURN = 10
"""So that a storm of newcomers leaves the loop to those who are there."""
SEND_BUFFER_BYTES = 128 * 1024
"""What the kernel keeps for a socket that nobody reads; by itself it would take megabytes."""
JOINED_BYTES = 16 * 1024
SPARE_GREENLETS = 2_000
REQUEST_TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class CannotListen(Exception):
    """The text says why; of a port that is taken, by whom, where that can be read, and the cure."""


class Handler(WebSocketHandler):  # type: ignore[misc]
    """pywsgi's handler of one connection: upgrades only what the gate lets through, hands WebSockets over to the
    network, writes no line a request, and doesn't wait for ever."""

    _body = b""
    """What goes out together with the head."""

    def __init__(self, sock: Any, address: Any, server: Any):
        self._stream = ClientStream(sock)
        super().__init__(sock, address, server, io.BufferedReader(self._stream))

    def handle(self) -> None:
        self.server.clients.add(self._stream)
        try:
            with contextlib.suppress(OSError):  # from pywsgi's own answers: the client didn't wait for them
                super().handle()
        finally:
            self.server.clients.discard(self._stream)
        if self._stream.late:
            self.server.slow_clients.count(self._stream.phase, self.client_address[0])

    def run_websocket(self) -> None:
        """The handshake is answered: the application opens the connection, and this handler's work is done."""
        connection = self.server.network.take_over(*self._let_go(), self.path.partition("?")[0])
        self.environ[WEBSOCKET] = connection
        self.environ["wsgi.websocket"] = self.websocket = None
        try:
            for _ in self.application(self.environ, _no_response):
                pass
        except Exception as error:
            log.error("server.websocket_failed", exc_info=error)
        if not connection.opened:
            connection.abort()

    def _let_go(self) -> tuple[Any, bytes]:
        """The socket, and what was read from it already: the first frame may lie behind the handshake."""
        sock = self.socket
        self.socket: Any = None
        self._stream.pause()
        sock.settimeout(0)
        return sock, self.rfile.peek()

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        """Adds the subprotocol that the gate has chosen to the answer of a handshake; to other answers, when the server
        leaves, that this was the last on its connection."""
        if status.startswith("101 "):
            if SUBPROTOCOL in self.environ:
                headers = [*headers, ("Sec-WebSocket-Protocol", self.environ[SUBPROTOCOL])]
        elif self.server.leaving:
            headers = [*headers, ("Connection", "close")]
        return super().start_response(status, headers, exc_info)

    def _write_with_headers(self, data: bytes) -> None:
        """Head and small body in one send; pywsgi's two cost another system call and wake the client twice. In place of
        what the application says of a body that didn't come, 408."""
        if self._stream.late:
            self.headers_sent = self.close_connection = True
            self.response_length = len(REQUEST_TIMEOUT)
            self._stream.send(REQUEST_TIMEOUT)
            return
        self._body = data if len(data) <= JOINED_BYTES else b""
        super()._write_with_headers(b"" if self._body else data)
        body, self._body = self._body, b""
        self._write(body)

    def _sendall(self, data: bytes) -> None:
        if self._body and not self.response_use_chunked:
            data, self._body = data + self._body, b""
        if not self._stream.late:
            self._stream.send(data)
            self.response_length += len(data)

    def log_request(self) -> None:
        """Requests are counted by the metrics; no line a request in the hot path."""

    def log_error(self, msg: str, *args: Any) -> None:
        """Malformed requests; the client has its 400. What it sent stays out of the log: it may hold a secret."""
        problem = str(args[-1]) if args else msg
        log.debug("server.bad_request", problem=problem.partition(":")[0], address=self.client_address[0])

    def _handle_client_error(self, ex: Exception) -> Any:
        return ("408", REQUEST_TIMEOUT) if self._stream.late else super()._handle_client_error(ex)

    def read_requestline(self) -> str:
        self._stream.next_request(self.rfile)
        line: str = super().read_requestline()
        return line

    def read_request(self, raw_requestline: str) -> bool:
        """By our own strict reader; pywsgi's takes what two servers in a row may understand differently, and spends
        as long on headers as the application on a request. Raises ValueError: answered 400, and the connection ends."""
        head = read_head(raw_requestline, self.rfile.readline)
        self.requestline = raw_requestline.rstrip()
        self.command, self.path, self.request_version = head.method, head.target, head.version
        self.headers, self.content_length, self.close_connection = head.fields, head.content_length, head.close
        self._stream.phase = BODY
        return True

    def _headers(self) -> Iterator[tuple[str, str]]:
        fields: Fields = self.headers
        return fields.environ()

    def get_environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environ()
        environ["REMOTE_ADDR"] = environ.get("REMOTE_ADDR", "").removeprefix("::ffff:")
        return environ


class TlsServer(WSGIServer):  # type: ignore[misc]
    """Shakes hands with each client in the greenlet that then answers it, never where connections are accepted."""

    door: Door

    def handle(self, sock: Any, address: Any) -> None:
        plain = self.door.admit(sock, address)
        if plain is not None:
            try:
                super().handle(plain, address)
            finally:
                plain.close()


def reserve(host: str, port: int) -> socket.socket:
    """A socket that has this port, and refuses connections until `listen`. Raises CannotListen."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what is accepted inherits these two
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise CannotListen(_taken(port)) from None
        raise CannotListen(f"Can't listen on {host}, port {port} (SIDECAR_HOST, SIDECAR_PORT): {error}") from None
    listener.setblocking(False)
    return listener


def listen(listener: socket.socket) -> None:
    """Let connections come: who does is answered soon. Raises CannotListen."""
    try:
        listener.listen(BACKLOG)
    except OSError:  # another has reserved it in the same moment
        raise CannotListen(_taken(listener.getsockname()[1])) from None


def serve(
    sidecar: Sidecar,
    listener: socket.socket,
    max_connections: int,
    drain: Drain,
    certificates: Certificates | None = None,
) -> None:
    """Start the sidecar, answer until a signal comes, and leave; at once when a second one comes. With certificates by
    TLS alone."""
    _raise_descriptor_limit()
    stopping, hurry = Signal(), Signal()
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, lambda: (hurry if stopping.is_set() else stopping).set())
    door = None if certificates is None else Door(certificates, sidecar.network)
    server = (WSGIServer if door is None else TlsServer)(
        listener,
        sidecar.app,
        handler_class=Handler,
        spawn=Pool(max_connections + SPARE_GREENLETS),
        log=None,
        error_log=None,
        environ={"wsgi.url_scheme": "http" if door is None else "https"},
    )
    if door is not None:
        server.door = door
        gevent.signal_handler(signal.SIGHUP, door.reload)
    server.network = sidecar.network
    server.slow_clients = SlowClients(sidecar.network.metrics)
    server.clients = set()
    server.leaving = False
    server.max_accept = ACCEPTS_A_TURN
    server.pre_start_hook = lambda handler: not sidecar.gate.upgradable(handler.environ)
    sys.setswitchinterval(SWITCH_SECONDS)
    sidecar.start()
    gc.freeze()  # what lives as long as the process is not looked through again at every collection
    server.start()
    stopping.wait()
    log.info("server.stopping", connections=len(sidecar.network.connections))
    leave(server, sidecar, door, drain, hurry)


def _raise_descriptor_limit() -> None:
    """Each socket takes a descriptor; the usual soft limit of 1,024 is far below the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _no_response(_status: str, _headers: list[tuple[str, str]], _error: object = None) -> Callable[[bytes], None]:
    """`start_response` of a request that has been answered 101."""
    return lambda _data: None


def _taken(port: int) -> str:
    holder = _holder(port)
    by = f" by process {holder}" if holder else ""
    return f"Port {port} is taken{by}: stop that process, or choose another port with SIDECAR_PORT."


def _holder(port: int) -> int | None:
    """The pid that listens on this port, where /proc lets us read it (Linux, proc(5))."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            parts = line.split()
            if parts[3] == "0A" and int(parts[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{parts[9]}]")
    for folder in Path("/proc").glob("[0-9]*/fd"):
        try:
            if any(os.readlink(link) in inodes for link in folder.iterdir()):
                return int(folder.parent.name)
        except OSError:
            continue
    return None


def line_buffer_output() -> None:
    """Each line reaches a process manager's log at once, also through a pipe."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True)
