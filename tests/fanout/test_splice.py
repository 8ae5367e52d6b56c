"""A splice between two ends that a test holds: bytes, backpressure and ends go through, and nothing stays."""

from __future__ import annotations

import contextlib
import random
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gevent
import gevent.socket
import gevent.ssl
import pytest

from sidecar.fanout import splice as splice_module
from sidecar.fanout.clock import Wheel
from sidecar.fanout.splice import Splices
from tests.certificates import Authority, Pair
from tests.fanout.stages import wait_until

RESET = b"\x01\x00\x00\x00\x00\x00\x00\x00"
"""SO_LINGER of no time: closing resets."""


@dataclass(frozen=True, slots=True)
class Line:
    client: Any
    """A gevent SSLSocket."""
    server: Any
    """The plain end."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.server()


@pytest.fixture
def splices() -> Iterator[Splices]:
    loop = gevent.get_hub().loop
    wheel = Wheel(loop)
    made = Splices(loop, wheel)
    yield made
    made.close()
    wheel.close()


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda version: version.name)
def line(
    request: pytest.FixtureRequest, splices: Splices, authority: Authority, pair: Pair
) -> Iterator[Callable[[], Line]]:
    server_context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(pair.certificate, pair.key)
    context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(str(authority.file))
    context.minimum_version = context.maximum_version = request.param
    lines: list[Line] = []

    def make() -> Line:
        with gevent.socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setsockopt(gevent.socket.SOL_SOCKET, gevent.socket.SO_SNDBUF, 64 * 1024)
            connected = gevent.socket.create_connection(listener.getsockname())
            accepted, _ = listener.accept()
        client = context.wrap_socket(connected, server_hostname="localhost", do_handshake_on_connect=False)
        tls = server_context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
        shaking = gevent.spawn(tls.do_handshake)
        client.do_handshake()
        shaking.get()
        server = splices.join(tls)
        client.settimeout(20)
        server.settimeout(20)
        lines.append(Line(client, server))
        return lines[-1]

    yield make
    for one in lines:
        one.client.close()
        one.server.close()


def read_all(sock: Any) -> bytes:
    data = bytearray()
    while more := sock.recv(50_000):
        data += more
    return bytes(data)


def fill(sock: Any) -> int:
    """Write until nothing more is taken for a while; how much was."""
    total = 0
    sock.settimeout(0.3)
    with contextlib.suppress(TimeoutError):
        while True:
            total += sock.send(b"x" * 50_000)
    sock.settimeout(20)
    return total


def gone(splices: Splices) -> None:
    wait_until(lambda: not splices.open, "nothing is left of it")


def test_bytes_go_both_ways_at_once(line):
    made = line()
    luck = random.Random(7)
    texts = [luck.randbytes(3_000_000) for _ in range(2)]

    def say(sock: Any, text: bytes) -> None:
        place = 0
        while place < len(text):
            size = luck.choice([1, 100, 16_383, 16_384, 16_385, 200_000])
            sock.sendall(text[place : place + size])
            place += size

    def hear(sock: Any, size: int) -> bytes:
        data = bytearray()
        while len(data) < size and (more := sock.recv(luck.choice([10, 5_000, 100_000]))):
            data += more
        return bytes(data)

    ears = [gevent.spawn(hear, made.server, len(texts[0])), gevent.spawn(hear, made.client, len(texts[1]))]
    mouths = [gevent.spawn(say, made.client, texts[0]), gevent.spawn(say, made.server, texts[1])]
    gevent.joinall(ears + mouths, timeout=60)
    assert [ear.get(block=False) for ear in ears] == texts


def test_who_is_not_read_from_can_not_go_on(line):
    """What waits is bounded by a few buffers, in both directions, and none of it is lost."""
    made = line()
    for mouth, ear in ((made.client, made.server), (made.server, made.client)):
        total = fill(mouth)
        assert total < 8_000_000
        heard = 0
        while heard < total and (more := ear.recv(100_000)):
            heard += len(more)
        assert heard >= total, "(TLS may have taken some of what it said it had no room for)"


def test_a_server_that_is_slow_one_way_is_not_held_up_the_other(line):
    made = line()
    fill(made.client)
    made.server.sendall(b"hello")
    assert made.client.recv(10) == b"hello"


def test_the_servers_end_comes_behind_what_it_said_and_with_a_goodbye(line, splices):
    made = line()
    made.server.sendall(b"x" * 20_000)
    made.server.close()
    made.client.suppress_ragged_eofs = False
    assert read_all(made.client) == b"x" * 20_000
    made.client.close()
    gone(splices)


def test_the_servers_half_close_is_told_the_client_and_its_end_the_server(line, splices):
    made = line()
    made.server.shutdown(gevent.socket.SHUT_WR)
    assert made.client.recv(10) == b""
    made.client.close()
    assert made.server.recv(10) == b""
    gone(splices)


def test_the_servers_end_with_something_unread_takes_nothing_back(line, splices):
    made = line()
    made.client.sendall(b"nobody reads this" * 1_000)
    wait_until(lambda: made.server.recv(4, gevent.socket.MSG_PEEK) != b"", "it is there")
    made.server.sendall(b"last words")
    made.server.close()
    assert read_all(made.client) == b"last words"
    made.client.close()
    gone(splices)


def test_a_client_that_stays_after_the_end_is_left(line, splices, monkeypatch):
    monkeypatch.setattr(splice_module, "LINGER_SECONDS", 0.3)
    made = line()
    made.server.close()
    gone(splices)
    assert made.client.recv(10) == b""


def test_what_comes_behind_the_end_is_dropped(line, splices):
    made = line()
    made.server.close()
    with contextlib.suppress(OSError):
        for _ in range(100):
            made.client.sendall(b"x" * 50_000)
    made.client.close()
    gone(splices)


def test_the_clients_goodbye_is_an_end_and_what_is_said_then_still_comes(line, splices):
    """In TLS 1.3 its half; in TLS 1.2 the answer may come, too."""
    made = line()
    made.client.sendall(b"x" * 100_000)
    leaving = gevent.spawn(made.client.unwrap)
    assert read_all(made.server) == b"x" * 100_000
    made.server.close()
    leaving.join()
    made.client.close()
    gone(splices)


def test_an_end_without_a_goodbye_is_an_end_too(line, splices):
    made = line()
    bare = gevent.socket.socket(fileno=made.client.detach())
    bare.shutdown(gevent.socket.SHUT_WR)
    assert made.server.recv(10) == b""
    made.server.close()
    gone(splices)
    bare.close()


@pytest.mark.parametrize("slow", [False, True])
def test_a_reset_ends_both_ways(line, splices, slow):
    made = line()
    if slow:
        fill(made.server)
    made.client.setsockopt(gevent.socket.SOL_SOCKET, gevent.socket.SO_LINGER, RESET)
    made.client.close()
    with contextlib.suppress(ConnectionResetError):
        assert made.server.recv(10) == b""
    made.server.close()
    gone(splices)


def test_a_broken_record_ends_it(line, splices):
    made = line()
    with gevent.socket.socket(fileno=made.client.detach()) as bare:
        bare.sendall(b"\x17\x03\x03\x00\x20" + b"x" * 32)
        gone(splices)
    assert made.server.recv(10) == b""


def test_a_client_that_takes_nothing_is_left_when_the_server_has_gone(line, splices, monkeypatch):
    """The heartbeat ends such a socket; its descriptors must not wait for the client."""
    monkeypatch.setattr(splice_module, "STALL_SECONDS", 0.2)
    made = line()
    fill(made.server)
    assert splices.open, "a slow client is nobody's business while the server waits for it"
    made.server.close()
    gone(splices)


def test_a_slow_client_gets_the_rest_after_the_server_has_gone(line, splices):
    made = line()
    total = fill(made.server)
    made.server.close()
    assert len(read_all(made.client)) == total
    made.client.close()
    gone(splices)


def test_a_fault_of_ours_ends_one_connection_only(line, splices, monkeypatch):
    made, other = line(), line()
    splice = next(iter(splices.open))
    monkeypatch.setattr(splice_module.os, "write", lambda *_: 1 / 0)
    made.client.sendall(b"x")
    wait_until(lambda: splice not in splices.open, "it is ended")
    monkeypatch.undo()
    other.client.sendall(b"x")
    assert other.server.recv(1) == b"x"
