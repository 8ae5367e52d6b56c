"""How a server leaves: what it still answers, whom it sends away and when, and that nobody is cut off."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.drain import refuse_newcomers
from tests.programs import listening, wait_until
from tests.servers import PRELOADED, ROOT, RunningSidecar, free_port
from tests.sockets.clients import Plain

SEND = "/api/send-websocket/"
WAIT_SECONDS = 60
LONG = "600"
"""So long that no test would see its end."""
BACKLOG = 40
"""Connections that wait at once; of those that ask in the same moment a server accepts ten."""


class Kept:
    """A client's connection that stays open from one request to the next."""

    def __init__(self, server: RunningSidecar):
        self._token = server.token
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT_SECONDS)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        headers |= {"Authorization": f"Token {self._token}", "Content-Type": "application/json"}
        self._connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = self._connection.getresponse()
        return answer, answer.read()

    @property
    def ended(self) -> bool:
        """Wait for the server's end of it."""
        return self._connection.sock.recv(1) == b""

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def keep() -> Iterator[Any]:
    """`keep(server)`: such a connection, on which one request has been answered."""
    with contextlib.ExitStack() as stack:

        def kept(server: RunningSidecar) -> Kept:
            client = stack.enter_context(contextlib.closing(Kept(server)))
            answer, _ = client.ask("GET", "/healthz")
            assert (answer.status, answer.getheader("Connection")) == (200, None)
            return client

        yield kept


def ended(server: RunningSidecar) -> int:
    assert server._process is not None
    return server._process.wait(WAIT_SECONDS)


def test_over_the_window_kept_connections_are_answered_and_sockets_served(start_sidecar, keep, name):
    server = start_sidecar(SIDECAR_DRAIN_SECONDS=LONG)
    first, last = (Plain(server, f"/ws/rooms/{name}/") for _ in range(2))
    asking, posting, opening, idle = (keep(server) for _ in range(4))
    for one in (first, last):
        assert one.next()["type"] == "connection_status"
    os.kill(server.pid, signal.SIGTERM)
    assert first.closed() == 1012
    first.close()
    assert not listening(server.port)

    answer, body = asking.ask("GET", "/readyz")
    assert (answer.status, answer.getheader("Connection")) == (503, "close")
    assert json.loads(body) == {"ready": False, "problems": ["It is draining: it stops soon."], "warnings": []}
    answer, _ = posting.ask("POST", SEND, {"room": name, "message": "m", "data": {}})
    assert (answer.status, answer.getheader("Connection")) == (200, "close")
    assert last.next()["type"] == "api_message", "its time has not come"
    key = "dGhlIHNhbXBsZSBub25jZQ=="
    answer, _ = opening.ask(
        "GET",
        f"/ws/rooms/{name}/",
        Connection="Upgrade",
        Upgrade="websocket",
        Sec_WebSocket_Version="13",
        Sec_WebSocket_Key=key,
    )
    assert (answer.status, answer.getheader("Retry-After"), answer.getheader("Connection")) == (503, "1", "close")

    os.kill(server.pid, signal.SIGTERM)
    assert last.closed() == 1012, "a second signal ends the window"
    last.close()
    assert idle.ended
    assert ended(server) == 0, server.output()


def test_who_waits_to_be_accepted_is_answered(start_sidecar, keep, name):
    """Before, the announcement: all goes on, but /readyz tells."""
    server = start_sidecar(SIDECAR_DRAIN_ANNOUNCE_SECONDS=LONG, SIDECAR_DRAIN_SECONDS="0")
    probe = keep(server)
    os.kill(server.pid, signal.SIGINT)
    wait_until(lambda: probe.ask("GET", "/readyz")[0].status == 503, "it is announced")
    one = Plain(server, f"/ws/rooms/{name}/")
    assert one.next()["type"] == "connection_status"

    body = json.dumps({"room": name, "message": "m", "data": {}})
    fields = f"Host: localhost\r\nX-API-Key: {server.token}\r\nContent-Length: {len(body)}\r\n"
    request = f"POST {SEND} HTTP/1.1\r\n{fields}\r\n{body}".encode()
    with contextlib.ExitStack() as stack:
        os.kill(server.pid, signal.SIGSTOP)
        try:
            address = ("127.0.0.1", server.port)
            waiting = [
                stack.enter_context(socket.create_connection(address, timeout=WAIT_SECONDS)) for _ in range(BACKLOG)
            ]
            for client in waiting:
                client.sendall(request)
            os.kill(server.pid, signal.SIGINT)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert [client.recv(10_000)[:13] for client in waiting] == [b"HTTP/1.1 200 "] * BACKLOG
    assert one.closed() == 1012
    one.close()
    assert probe.ended
    assert ended(server) == 0, server.output()


def test_a_listener_that_refuses_newcomers_finishes_what_it_has_begun():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        with socket.create_connection(address, timeout=WAIT_SECONDS) as begun:
            refuse_newcomers(listener)
            with pytest.raises(TimeoutError):
                socket.create_connection(address, timeout=0.2)
            accepted, _ = listener.accept()
            with accepted:
                begun.sendall(b"request")
                assert accepted.recv(100) == b"request"
                accepted.sendall(b"answer")
                assert begun.recv(100) == b"answer"


def test_the_port_refuses_until_the_installation_is_open(tmp_path: Path):
    """A proxy asks another process then; who was taken and had to wait would be cut off where the start fails."""
    port, log = free_port(), tmp_path / "output"
    with (
        (tmp_path / "start.lock").open("wb") as lock,
        log.open("wb") as output,
        open(os.devnull, "rb") as nothing,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        environment = os.environ | {"SIDECAR_INSTANCE_DIR": str(tmp_path), "SIDECAR_PORT": str(port)}
        process = PRELOADED.start([str(ROOT / "app.py")], environment, (nothing, output, output))
        wait_until((tmp_path / "sidecar.db").exists, "it has come as far as the lock")
        assert not listening(port)
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", port))
            other.listen()
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert process.wait(WAIT_SECONDS) == 2, "who listens first has the port"
    assert f"Port {port} is taken by process {os.getpid()}" in log.read_text()
