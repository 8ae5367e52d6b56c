"""A connection on a real socket: messages in order, one at a time; every kind of end; nothing left behind."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest

from sidecar.fanout import websocket as websocket_module
from sidecar.fanout.websocket import ABNORMAL, INBOX_MESSAGES, Connection, Network
from sidecar.wire.frames import BINARY, CLOSE, CONTINUATION, NO_CODE, PING, PONG, TEXT, close_frame, frame
from tests.fanout.stages import wait_until
from tests.wire.test_frames import part, sent

LIMIT = 100_000


@pytest.fixture
def network() -> Iterator[Network]:
    made = Network(LIMIT, 4 * LIMIT, 100 * LIMIT)
    yield made
    made.stop()


@pytest.fixture
def connect(network: Network) -> Iterator[Callable[..., Client]]:
    clients: list[Client] = []

    def make(**options: object) -> Client:
        clients.append(Client(network, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.sock.close()


class Client:
    """The far end, and the peer of the connection: an echo that notes what it handles."""

    kind = "test"
    who = None

    def __init__(self, network: Network, beginning: bytes = b"", opened: bool = True):
        ours, self.sock = socket.socketpair()
        ours.setblocking(False)
        self.sock.setblocking(False)
        self.connection = Connection(network, ours.detach(), beginning)
        self.handled: list[str | bytes] = []
        self.ends: list[int] = []
        self.gate: gevent.event.Event | None = None
        self.busy = False
        self.received = b""
        self.over = False
        if opened:
            self.connection.open(self)

    def intercept(self, message: str | bytes) -> bool:
        return message == "quick"

    def handle(self, message: str | bytes) -> None:
        assert not self.busy, "one at a time"
        self.busy = True
        if self.gate is not None:
            self.gate.wait()
        gevent.sleep(0)
        if message == "fail":
            raise RuntimeError("handler")
        self.handled.append(message)
        self.connection.send(message)
        self.busy = False

    def ended(self, code: int) -> None:
        assert not self.busy, "not while a message is being handled"
        self.ends.append(code)

    def send(self, *frames: bytes) -> None:
        self.sock.sendall(b"".join(frames))

    def read(self) -> None:
        try:
            data = self.sock.recv(1_000_000)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        self.over |= not data
        self.received += data

    def expect(self, data: bytes) -> None:
        wait_until(lambda: self.read() or len(self.received) >= len(data), f"{data[:50]!r} came")
        assert self.received == data

    def expect_end(self, data: bytes = b"") -> None:
        wait_until(lambda: self.read() or self.over, "the stream ended")
        assert self.received == data

    def expect_ended(self, code: int) -> None:
        wait_until(lambda: self.ends != [], "the peer heard of the end")
        assert self.ends == [code]


def failed(network: Network, reason: str) -> float | None:
    """How many connections have, so."""
    return network.metrics.registry.get_sample_value("sidecar_sockets_failed_total", {"kind": "test", "reason": reason})


def text(message: str) -> bytes:
    return sent(TEXT, message.encode())


class TestMessages:
    def test_they_are_handled_in_order_one_at_a_time(self, connect: Callable[..., Client]):
        client = connect()
        client.send(*(text(f"m{number}") for number in range(50)))
        client.expect(b"".join(frame(TEXT, b"m%d" % number) for number in range(50)))
        assert client.handled == [f"m{number}" for number in range(50)]

    def test_what_came_with_the_handshake_is_the_first(self, connect: Callable[..., Client]):
        client = connect(beginning=text("first")[:3])
        client.send(text("first")[3:], text("second"))
        client.expect(frame(TEXT, b"first") + frame(TEXT, b"second"))

    def test_binary_stays_binary(self, connect: Callable[..., Client]):
        client = connect()
        client.send(sent(BINARY, b"\x00\xff"))
        client.expect(frame(BINARY, b"\x00\xff"))

    def test_what_is_intercepted_needs_no_greenlet(self, connect: Callable[..., Client]):
        client = connect()
        client.gate = gevent.event.Event()
        client.send(text("held"), text("quick"), sent(PING, b"p"))
        client.expect(frame(PONG, b"p"))
        client.gate.set()
        client.expect(frame(PONG, b"p") + frame(TEXT, b"held"))
        assert client.handled == ["held"]

    def test_pings_between_fragments_are_answered_at_once(self, connect: Callable[..., Client]):
        client = connect()
        client.send(part(TEXT, b"a"), sent(PING, b"1"))
        client.expect(frame(PONG, b"1"))
        client.send(sent(CONTINUATION, b"b"))
        client.expect(frame(PONG, b"1") + frame(TEXT, b"ab"))

    def test_who_sends_faster_than_it_is_handled_is_not_read_any_more(self, connect: Callable[..., Client]):
        client = connect()
        client.gate = gate = gevent.event.Event()
        total = 0
        while not client.connection._paused:
            client.sock.send(text("x" * 100))
            total += 1
            gevent.sleep(0.001)
        held = len(client.connection._inbox or ())
        client.sock.send(text("y" * 100) * 10)
        gevent.sleep(0.01)
        assert len(client.connection._inbox or ()) == held <= INBOX_MESSAGES
        gate.set()
        wait_until(lambda: client.read() or len(client.handled) == total + 10, "all were handled after all")

    def test_a_handler_that_fails_ends_its_connection_alone(
        self, network: Network, connect: Callable[..., Client], capsys
    ):
        client, other = connect(), connect()
        client.send(text("good"), text("fail"), text("late"))
        client.busy = False
        wait_until(lambda: client.read() or client.over, "the stream ended")
        assert client.handled == ["good"]
        other.send(text("well"))
        other.expect(frame(TEXT, b"well"))
        assert "websocket.handler_failed" in capsys.readouterr().out
        wait_until(lambda: failed(network, "internal") == 1, "it was counted")


class TestEnds:
    @pytest.mark.parametrize(
        ("said", "answered", "code"),
        [
            (sent(CLOSE, struct.pack("!H", 1000) + b"bye"), close_frame(1000), 1000),
            (sent(CLOSE, struct.pack("!H", 4001)), close_frame(4001), 4001),
            (sent(CLOSE), frame(CLOSE, b""), NO_CODE),
        ],
    )
    def test_a_close_is_answered_with_its_code(
        self, connect: Callable[..., Client], said: bytes, answered: bytes, code: int
    ):
        client = connect()
        client.send(text("before"), said)
        wait_until(lambda: client.read() or client.over, "the stream ended")
        assert client.received.endswith(answered)
        assert client.handled == ["before"], "what came before is handled"
        client.sock.close()
        client.expect_ended(code)

    @pytest.mark.parametrize(
        ("broken", "code"),
        [
            (b"\x81\x01x", 1002),
            (sent(TEXT, b"\xff"), 1007),
            (b"\x82\xff" + struct.pack("!Q", 8 << 30), 1009),
            (sent(CLOSE, b"\x03"), 1002),
        ],
        ids=["not masked", "not UTF-8", "8 GiB", "bad close"],
    )
    def test_a_fault_is_told_by_its_code(self, connect: Callable[..., Client], broken: bytes, code: int):
        client = connect()
        client.send(broken)
        wait_until(lambda: client.read() or client.over, "the stream ended")
        assert client.received[0] == 0x80 | CLOSE
        assert int.from_bytes(client.received[2:4], "big") == code
        client.send(text("more") * 100)
        client.sock.close()
        client.expect_ended(code)
        assert client.handled == []

    def test_a_stream_that_just_ends(self, connect: Callable[..., Client]):
        client = connect()
        client.send(text("last words"))
        client.sock.close()
        client.expect_ended(ABNORMAL)
        assert client.handled == ["last words"]

    def test_our_close_waits_for_the_answer(self, connect: Callable[..., Client]):
        client = connect()
        client.connection.send("before")
        client.connection.close(1012, "restart")
        client.connection.send("after")
        client.expect(frame(TEXT, b"before") + close_frame(1012, "restart"))
        assert client.ends == []
        client.send(sent(CLOSE, struct.pack("!H", 1012)))
        client.expect_ended(1012)

    def test_who_does_not_answer_our_close_is_dropped(
        self, connect: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(websocket_module, "CLOSE_SECONDS", 0.05)
        client = connect()
        client.connection.close()
        client.expect_end(close_frame(1000))
        client.expect_ended(ABNORMAL)

    def test_who_does_not_read_is_dropped_though_something_waits(
        self, network: Network, connect: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(websocket_module, "CLOSE_SECONDS", 0.05)
        client = connect()
        while client.connection.outbox.offer(frame(BINARY, b"x" * 10_000)):
            gevent.sleep(0)
        client.connection.outbox.put(b"x" * 10_000)
        client.expect_ended(ABNORMAL)
        assert failed(network, "cut_off") == 1
        assert network.flusher.held_bytes == 0

    def test_the_peer_hears_of_the_end_after_what_it_is_handling(
        self, network: Network, connect: Callable[..., Client]
    ):
        client = connect()
        client.gate = gevent.event.Event()
        client.send(text("slow"))
        wait_until(lambda: client.busy, "it is being handled")
        client.sock.close()
        wait_until(lambda: client.connection not in network.connections, "it has ended")
        assert client.ends == []
        client.gate.set()
        client.expect_ended(ABNORMAL)

    def test_a_connection_that_nobody_opened_is_not_read(self, network: Network, connect: Callable[..., Client]):
        client = connect(opened=False)
        client.send(text("x"))
        gevent.sleep(0.01)
        assert not client.connection.opened
        client.connection.abort()
        client.expect_end()
        wait_until(lambda: network.connections == {}, "it has ended")
        figures = [sample for family in network.metrics.registry.collect() for sample in family.samples]
        assert not [sample for sample in figures if sample.name.startswith("sidecar_sockets_")], "nor counted"


class TestCrowds:
    def test_all_are_closed_one_after_the_other(self, network: Network, connect: Callable[..., Client]):
        clients = [connect() for _ in range(20)]
        network.close_all(1012, "restart", 0.5)
        for client in clients:
            client.expect(close_frame(1012, "restart"))
            client.send(sent(CLOSE, struct.pack("!H", 1012)))
        for client in clients:
            client.expect_ended(1012)
        assert network.connections == {}

    def test_a_window_is_used_evenly(
        self, network: Network, connect: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
    ):
        for _ in range(20):
            connect()
        delays: list[float] = []
        monkeypatch.setattr(network.wheel, "add", lambda delay, _item: delays.append(delay))
        network.close_all(1012, "restart", 60)
        assert delays == [3.0 * place for place in range(20)]

    def test_hundreds_that_go_at_once_leave_nothing_behind_and_let_others_speak(
        self, network: Network, connect: Callable[..., Client]
    ):
        descriptors = len(list(Path("/proc/self/fd").iterdir()))
        clients = [connect() for _ in range(300)]
        other = connect()
        for client in clients:
            client.sock.close()
        other.send(text("still here"))
        other.expect(frame(TEXT, b"still here"))
        wait_until(lambda: all(client.ends for client in clients), "all peers heard of it")
        assert {client.ends[0] for client in clients} == {ABNORMAL}
        other.sock.close()
        other.expect_ended(ABNORMAL)
        assert network.connections == {}
        assert len(list(Path("/proc/self/fd").iterdir())) == descriptors

    def test_the_number_of_a_closed_descriptor_serves_the_next_connection(
        self, network: Network, connect: Callable[..., Client]
    ):
        """The loop must not mix up two connections that had the same number."""
        for number in range(50):
            client = connect()
            client.send(text(f"m{number}"))
            client.expect(frame(TEXT, f"m{number}".encode()))
            client.connection.abort()
            client.expect_ended(ABNORMAL)
            client.sock.close()
        assert network.connections == {}

    def test_every_client_of_a_room_sees_the_same_order(self, connect: Callable[..., Client]):
        clients = [connect() for _ in range(10)]
        frames = [frame(TEXT, b"e%d" % number) for number in range(200)]
        for place, event in enumerate(frames):
            for client in clients:
                assert client.connection.outbox.offer(event)
            if place % 7 == 0:
                gevent.sleep(0)
        for client in clients:
            client.expect(b"".join(frames))


def test_a_network_that_stops_drops_what_is_open(network: Network, connect: Callable[..., Client]):
    client = connect()
    descriptor = client.connection.descriptor
    network.stop()
    client.expect_end()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
