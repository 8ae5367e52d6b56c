"""Clients that begin and don't go on: each is told or dropped in its time and leaves nothing behind; others stay."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sqlite3
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.certificates import Authority
from tests.programs import require, wait_until
from tests.servers import ROOT, RunningSidecar
from tests.sockets.clients import Plain
from tests.test_tls import at_rest, sockets

BOUNDS = {"HEAD_SECONDS": "1", "IDLE_SECONDS": "1.5", "BODY_SECONDS": "1.5", "RESPONSE_SECONDS": "1.5"}
WEBHOOK = "/api/webhooks/deployment"
ENGINE = "/socket.io/?EIO=4&transport=polling"
FILE = "/static/vendor/socket.io.min.js"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
PHASES = ("unused", "idle", "head", "body", "response")

Connect = Callable[..., socket.socket]


@pytest.fixture(scope="module", params=["plain", "tls"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSidecar]:
    """One whose patience is short, for all of these tests."""
    environment = BOUNDS | {"SIDECAR_RATE_LIMIT": "off", "SIDECAR_OPEN": "webhooks"}
    folder = tmp_path_factory.mktemp("impatient")
    program = ROOT / "tests" / "impatient.py"
    if request.param == "tls":
        authority = Authority(folder)
        environment |= authority.server().settings()
        server = RunningSidecar(folder / "one", environment, tls=authority.trusting(), program=program)
    else:
        server = RunningSidecar(folder / "one", environment, program=program)
    server.start()
    yield server
    assert server.stop() == 0
    assert "Traceback" not in server.output(), server.output()


@pytest.fixture
def connect(server: RunningSidecar) -> Iterator[Connect]:
    """`connect(b"GET ")`: a connection, and what it says at first. Afterwards nothing of any is left."""
    before = at_rest(server)
    opened: list[socket.socket] = []

    def connect(beginning: bytes = b"", buffer: int | None = None) -> socket.socket:
        sock = socket.socket()
        sock.settimeout(15)
        if buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        sock.connect(("127.0.0.1", server.port))
        if server.scheme == "https":
            sock = server.tls.wrap_socket(sock, server_hostname="localhost")
        opened.append(sock)
        sock.sendall(beginning)
        return sock

    yield connect
    # Before the clients let go themselves.
    wait_until(lambda: sockets(server) <= before, "no descriptor is left")
    wait_until(lambda: handlers(server) == 0, "no greenlet is left")
    for sock in opened:
        sock.close()


def handlers(server: RunningSidecar) -> int:
    def counts() -> list[str]:
        return re.findall(r"^handlers: (\d+)$", server.output(), re.MULTILINE)

    told = len(counts())
    os.kill(server.pid, signal.SIGUSR1)
    wait_until(lambda: len(counts()) > told, "they are counted")
    return int(counts()[-1])


def timeouts(server: RunningSidecar) -> dict[str, float]:
    figures = server.metrics()
    return {phase: figures[f'sidecar_http_timeouts_total{{phase="{phase}"}}'] for phase in PHASES}


@contextlib.contextmanager
def counted(server: RunningSidecar, **more: int) -> Iterator[None]:
    """Meanwhile so many connections are ended for these reasons, and none for another."""
    before = timeouts(server)
    yield
    expected = {phase: before[phase] + more.get(phase, 0) for phase in PHASES}
    wait_until(lambda: timeouts(server) == expected, f"{more} counted")


def rest(sock: socket.socket) -> bytes:
    """What comes until the server ends the connection."""
    said = b""
    while data := sock.recv(65_536):
        said += data
    return said


def answer(sock: socket.socket) -> bytes:
    """One whole answer; a second must not come."""
    said = b""
    while True:
        data = sock.recv(65_536)
        assert data, said
        said += data
        head, end, body = said.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if end and length and len(body) >= int(length[1]):
            assert len(body) == int(length[1])
            return said


def post(length: int, body: bytes = b"", path: str = WEBHOOK, more: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n"
    return f"{head}{more}\r\n".encode() + body


def test_half_a_head_is_told_408(server, connect):
    beginnings = [b"G", b"GET /healthz HTTP/1.1\r\n", HEALTH[:-2], HEALTH[:-1]]
    with counted(server, head=len(beginnings)):
        assert {rest(sock) for sock in [connect(beginning) for beginning in beginnings]} == {TIMEOUT}


def test_a_head_that_drips_gets_no_more_time(server, connect):
    """A field a moment, without an end: each would be in time by itself."""
    with counted(server, head=1):
        sock = connect(HEALTH[:-2])
        sock.settimeout(0.1)
        said = b""
        while not said:
            try:
                said = sock.recv(65_536)
            except TimeoutError:
                sock.sendall(b"X-A: b\r\n")
        assert said == TIMEOUT


def test_who_says_nothing_hears_nothing(server, connect):
    with counted(server, unused=1):
        assert rest(connect()) == b""


def test_an_idle_connection_is_closed_without_a_word(server, connect):
    with counted(server, idle=1):
        sock = connect(HEALTH)
        assert b" 200 " in answer(sock)
        sock.sendall(HEALTH)
        assert b" 200 " in answer(sock)
        assert rest(sock) == b""


def test_a_later_request_has_a_heads_time(server, connect):
    """Also one that began in the packet of the first."""
    with counted(server, head=2):
        apart, together = connect(HEALTH), connect(HEALTH + b"GET /heal")
        assert b" 200 " in answer(apart)
        assert b" 200 " in answer(together)
        apart.sendall(b"GET /heal")
        assert {rest(apart), rest(together)} == {TIMEOUT}


def test_half_a_body_is_told_408(server, connect):
    sid = re.search(r'"sid":"([^"]+)"', server.get(ENGINE).text)
    assert sid is not None
    chunked = post(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    beginnings = [
        post(100),
        post(100, b'{"type": "log_entry"'),
        post(100, b"4", path=f"{ENGINE}&sid={sid[1]}"),
        chunked,
        chunked + b"5\r\n{",
        chunked + b"1;x",
    ]
    with counted(server, body=len(beginnings)):
        assert {rest(sock) for sock in [connect(beginning) for beginning in beginnings]} == {TIMEOUT}


def test_half_a_body_that_nobody_wanted(server, connect):
    """The answer was given before."""
    with counted(server, body=2):
        lost, refused = connect(post(100, b"x", path="/no-such-path")), connect(post(100, b"x", path="/api/tokens"))
        assert b" 404 " in answer(lost)
        assert b" 401 " in answer(refused)
        assert rest(lost) + rest(refused) == b""


def test_a_body_that_goes_on_has_all_the_time(server, connect):
    """In sum longer than the bound."""
    body = b'{"type": "log_entry", "project": "p", "deployment_id": "1", "message": "m"}'
    sock = connect(post(len(body), more="Connection: close\r\n"))
    end = time.monotonic() + 2 * float(BOUNDS["BODY_SECONDS"])
    for index in range(len(body)):
        sock.sendall(body[index : index + 1])
        time.sleep(max(end - time.monotonic(), 0) / (len(body) - index))
    assert rest(sock).startswith(b"HTTP/1.1 200 ")


def test_who_takes_no_answer_is_dropped(server, connect):
    """Answers enough to fill every buffer between us."""
    asked = f"GET {FILE} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    with counted(server, response=1):
        sock = connect(asked * 100, buffer=4_096)
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        assert len(rest(sock)) < 100 * 47_000


def test_who_takes_an_answer_slowly_gets_it(server, connect):
    """In sum longer than the bound."""
    count = 60
    asked = f"GET {FILE} HTTP/1.1\r\nHost: localhost\r\n".encode()
    sock = connect((asked + b"\r\n") * (count - 1) + asked + b"Connection: close\r\n\r\n", buffer=4_096)
    whole = count * len(server.get(FILE).content)
    began, said = time.monotonic(), b""
    while data := sock.recv(32_768):
        said += data
        due = began + 2 * float(BOUNDS["RESPONSE_SECONDS"]) * len(said) / whole
        time.sleep(max(due - time.monotonic(), 0))
    assert said.count(b"HTTP/1.1 200 OK") == count
    assert len(said) > whole


def outlasts(server: RunningSidecar, connect: Connect) -> None:
    """Longer than the longest bound; a connection that has used all of its time says when."""
    sock = connect(HEALTH)
    answer(sock)
    assert rest(sock) == b""
    assert rest(connect()) == b""


def test_a_poll_that_is_held_is_left_alone(server, connect):
    handshake = re.search(r'"sid":"([^"]+)"', server.get(ENGINE).text)
    assert handshake is not None
    target = f"{ENGINE}&sid={handshake[1]}"
    poll = connect(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    outlasts(server, connect)
    assert server.post(target, content=b"40").text == "OK"
    assert b'40{"sid":' in answer(poll)


def test_a_slow_handler_is_left_alone(server, connect):
    body = b'{"type": "log_entry", "project": "p", "deployment_id": "2", "message": "m"}'
    database = sqlite3.connect(server.instance / "sidecar.db", isolation_level=None)
    with contextlib.closing(database):
        database.execute("BEGIN IMMEDIATE")
        sock = connect(post(len(body), body))
        assert rest(connect(HEALTH[:-2])) == TIMEOUT
        assert rest(connect(post(9))) == TIMEOUT
    assert b" 200 " in answer(sock)


def test_a_websocket_has_no_bound(server, connect):
    taken = Plain(server, "/ws/rooms/slow/")
    try:
        assert taken.next()["type"]
        outlasts(server, connect)
        taken.made.ping("still here")
        while (frame := taken.made.recv_frame()).opcode != 0xA:
            pass
        assert frame.data == b"still here"
    finally:
        taken.close()


def test_many_at_once(server, connect):
    """All are told, all at their time; whoever comes meanwhile is answered."""
    told: list[bytes] = []
    with counted(server, head=100, body=100):
        heads = [connect(HEALTH[:-2]) for _ in range(100)]
        bodies = [connect(post(100, b"{")) for _ in range(100)]
        assert server.get("/healthz").status_code == 200
        told += [rest(sock) for sock in heads + bodies]
    assert set(told) == {TIMEOUT}
    lines = [line for line in server.output().splitlines() if "http.timeout" in line]
    assert 1 <= len(lines) < 100
    assert "127.0.0.1" in lines[0]
    assert "phase=" in lines[0]


@pytest.mark.parametrize("mode", ["-H", "-B", "-X"])
def test_slowhttptest(server, tmp_path, mode):
    """Its slow heads, slow bodies and slow reads: in the middle of each, others are served."""
    program = require("slowhttptest")
    target = {"-H": "/healthz", "-B": WEBHOOK, "-X": FILE}[mode]
    arguments = [program, mode, "-c", "80", "-r", "80", "-l", "20", "-i", "5", "-v", "1", "-u", server.url + target]
    if mode == "-X":
        arguments += ["-k", "10", "-w", "512", "-y", "1024", "-n", "10", "-z", "5"]
    phase = {"-H": "head", "-B": "body", "-X": "response"}[mode]
    before = timeouts(server)[phase]
    with (tmp_path / "output").open("wb") as output:
        attack = subprocess.Popen(arguments, stdout=output, stderr=output, cwd=tmp_path)
    try:
        wait_until(lambda: timeouts(server)[phase] >= before + 80, "all are dropped")
        assert server.get("/healthz").status_code == 200
    finally:
        attack.kill()
        attack.wait()
