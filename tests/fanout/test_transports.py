"""An Engine.IO session over polling, over a WebSocket, and from one to the other, without HTTP around it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from flask import Flask

from sidecar.fanout import clock as clock_module
from sidecar.fanout import engine as engine_module
from sidecar.fanout import transports as transports_module
from sidecar.fanout import websocket as websocket_module
from sidecar.fanout.engine import make_socketio
from sidecar.fanout.transports import WEBSOCKET, BadPayload, EngineSocket, engine_frame
from sidecar.fanout.websocket import Connection, Network
from sidecar.wire.frames import BINARY, TEXT, close_frame, frame
from tests.fanout.stages import wait_until
from tests.fanout.test_websocket import Client, text

QUICK_SECONDS = 0.3


class House:
    """A server whose clock runs quickly, and what its handlers were called with."""

    def __init__(self, network: Network):
        self.network = network
        self.socketio = make_socketio(Flask("transports"), network)
        self.engine = self.socketio.server.eio
        self.engine.ping_interval = self.engine.ping_timeout = QUICK_SECONDS
        self.messages: list[str] = []
        self.ends: list[str] = []
        self.engine.on("message", lambda sid, data: self.messages.append(data))
        self._forget = self.engine.handlers["disconnect"]
        self.engine.on("disconnect", self._end)

    def _end(self, sid: str, reason: str) -> None:
        self._forget(sid, reason)
        self.ends.append(reason)

    def session(self, sid: str = "s", agent: str = "") -> EngineSocket:
        made = self.engine.sockets[sid] = EngineSocket(self.engine, self.network, sid, agent)
        return made

    def polling(self, sid: str = "s", agent: str = "") -> EngineSocket:
        made = self.session(sid, agent)
        made.connected = True
        return made


@pytest.fixture
def network() -> Iterator[Network]:
    made = Network(10_000, 40_000, 1_000_000)
    yield made
    made.stop()


@pytest.fixture
def house(network: Network, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setattr(clock_module, "TICK_SECONDS", 0.01)
    return House(network)


@pytest.fixture
def slow_house(network: Network) -> House:
    """One whose pings don't come while a test looks at something else."""
    made = House(network)
    made.engine.ping_interval = made.engine.ping_timeout = 60
    return made


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Of the sessions' clock, which stands still until the test moves them."""
    hands = [1_000.0]
    monkeypatch.setattr(transports_module, "time", SimpleNamespace(monotonic=lambda: hands[0]))
    return hands


@pytest.fixture
def connect(network: Network) -> Iterator[Callable[[], Client]]:
    clients: list[Client] = []

    def make() -> Client:
        clients.append(Client(network, opened=False))
        return clients[-1]

    yield make
    for client in clients:
        client.sock.close()


def failed(house: House, kind: str, reason: str) -> float | None:
    """How many sockets have, so."""
    figures = house.network.metrics.registry
    return figures.get_sample_value("sidecar_sockets_failed_total", {"kind": kind, "reason": reason})


def take(session: EngineSocket, connection: Connection) -> None:
    session.handle_get_request({WEBSOCKET: connection}, None)


def post(session: EngineSocket, body: str | bytes, length: int | None = None, query: str = "") -> None:
    data = body.encode() if isinstance(body, str) else body
    environ: dict[str, Any] = {"CONTENT_LENGTH": str(len(data) if length is None else length), "QUERY_STRING": query}
    session.handle_post_request(environ | {"wsgi.input": io.BytesIO(data)})


def polled(session: EngineSocket, query: str = "") -> list[str]:
    return [packet.encode() for packet in session.handle_get_request({"QUERY_STRING": query}, None)]


class TestWebSocket:
    def test_what_waited_leaves_and_packets_come_in(self, slow_house: House, connect):
        session, client = slow_house.session(), connect()
        session.put([engine_frame("0")])
        take(session, client.connection)
        client.expect(frame(TEXT, b"40"))
        client.send(text("42[1]"), text("6"), text("42[2]"))
        wait_until(lambda: slow_house.messages == ["2[1]", "2[2]"], "both were handled")

    def test_pings_and_answers_keep_it_open(self, slow_house: House, hands: list[float], connect):
        session, client = slow_house.session(), connect()
        take(session, client.connection)
        for count in range(1, 4):
            hands[0] += 60
            assert session.due() == 60, "the answer has so long"
            client.expect(frame(TEXT, b"2") * count)
            client.send(text("3"))
            wait_until(lambda: not session._awaiting_pong, "the answer is taken")
            assert session.due() == 60, "the next ping comes after so long"
        assert slow_house.ends == []

    def test_one_that_answers_no_ping_is_closed_with_its_tcp_connection(
        self, house: House, connect, monkeypatch: pytest.MonkeyPatch
    ):
        """The stock server drops the session and keeps the connection for ever."""
        monkeypatch.setattr(websocket_module, "CLOSE_SECONDS", QUICK_SECONDS)
        session, client = house.session(), connect()
        take(session, client.connection)
        wait_until(lambda: house.ends == ["ping timeout"], "its end was told")
        client.expect_end(frame(TEXT, b"2") + close_frame(1000))
        assert "s" not in house.engine.sockets
        assert session.outbox.closed
        wait_until(lambda: failed(house, "socketio", "heartbeat") == 1, "it was counted")

    def test_a_packet_that_no_client_may_send_ends_it(self, slow_house: House, connect):
        session, client = slow_house.session(), connect()
        take(session, client.connection)
        client.send(text("2"))
        wait_until(lambda: slow_house.ends == ["transport error"], "its end was told")

    @pytest.mark.parametrize(("packet", "reason"), [("1", "transport close"), (None, "transport close")])
    def test_the_reason_of_an_end(self, slow_house: House, connect, packet: str | None, reason: str):
        session, client = slow_house.session(), connect()
        take(session, client.connection)
        if packet is not None:
            client.send(text(packet))
        else:
            client.sock.close()
        wait_until(lambda: slow_house.ends == [reason], "its end was told")

    def test_the_server_s_close_says_so_and_closes(self, slow_house: House, connect):
        session, client = slow_house.session(), connect()
        take(session, client.connection)
        session.close(wait=False)
        client.expect(frame(TEXT, b"1") + close_frame(1000))
        assert slow_house.ends == ["server disconnect"]

    def test_one_that_never_reads_is_cut_off_when_it_can_take_no_more(
        self, slow_house: House, connect, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(websocket_module, "CLOSE_SECONDS", QUICK_SECONDS)
        session, client = slow_house.session(), connect()
        take(session, client.connection)
        while not session.closed:
            session.put([engine_frame("x" * 5_000)])
            assert session.outbox.size <= 45_100
            gevent.sleep(0)
        assert slow_house.ends == ["transport error"]
        wait_until(lambda: not slow_house.network.connections, "its connection is closed")
        assert slow_house.network.flusher.held_bytes == 0

    def test_a_second_websocket_of_a_session_is_refused(self, slow_house: House, connect):
        session, first, second = slow_house.session(), connect(), connect()
        take(session, first.connection)
        take(session, second.connection)
        second.expect(close_frame(1000))
        session.put([engine_frame("x")])
        first.expect(frame(TEXT, b"4x"))

    def test_one_that_connects_to_no_namespace_is_closed(self, house: House, connect, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(engine_module, "CONNECT_SECONDS", 0)
        silent, client = connect(), connect()
        environ = {"HTTP_USER_AGENT": "", "flask.app": Flask("x")}
        house.engine.ping_interval = 60
        house.engine._handle_connect(environ | {WEBSOCKET: silent.connection}, None, "websocket")
        wait_until(lambda: house.ends == ["transport error"], "its end was told")
        house.engine._handle_connect(environ | {WEBSOCKET: client.connection}, None, "websocket")
        (sid,) = house.engine.sockets
        house.socketio.server.manager.pre_connect(sid, "/")
        gevent.sleep(5 * clock_module.TICK_SECONDS)
        assert house.ends == ["transport error"]


class TestPolling:
    def test_packets_are_taken_in_order_up_to_what_a_client_takes(self, slow_house: House):
        browser, python = slow_house.polling("a", "Mozilla/5.0"), slow_house.polling("b", "python-requests/2.32")
        for session in (browser, python):
            for number in range(40):
                session.put([engine_frame(str(number))])
        packets = [f"4{number}" for number in range(40)]
        assert polled(browser) == packets
        assert [polled(python) for _ in range(3)] == [packets[:16], packets[16:32], packets[32:]]

    def test_a_held_poll_is_answered_by_the_next_packet(self, slow_house: House):
        session = slow_house.polling()
        held = gevent.spawn(polled, session)
        gevent.sleep(0.01)
        session.put([engine_frame("x"), frame(BINARY, b"\x00\x01")])
        assert held.get(timeout=5) == ["4x", "bAAE="]

    def test_two_polls_at_once_end_the_session(self, slow_house: House):
        session = slow_house.polling()
        held = gevent.spawn(polled, session)
        gevent.sleep(0.01)
        with pytest.raises(BadPayload):
            polled(session)
        assert held.get(timeout=5) == ["1"]
        assert slow_house.ends == ["server disconnect"]

    def test_one_that_polls_no_more_is_closed(self, house: House):
        session = house.polling()
        wait_until(lambda: house.ends == ["ping timeout"], "its end was told")
        assert failed(house, "polling", "heartbeat") == 1
        assert session.outbox.closed
        assert house.network.flusher.held_bytes == 0

    def test_a_heartbeat_by_post_keeps_it_open(self, slow_house: House, hands: list[float]):
        session = slow_house.polling()
        for _ in range(3):
            hands[0] += 60
            assert session.due() == 60, "the answer has so long"
            assert polled(session) == ["2"]
            post(session, "3")
            assert session.due() == 60, "the next ping comes after so long"
        assert slow_house.ends == []

    def test_posted_packets_are_handled_in_order(self, slow_house: House):
        session = slow_house.polling()
        post(session, "42[1]\x1e3\x1e42[2]")
        assert slow_house.messages == ["2[1]", "2[2]"]
        post(session, "1\x1e42[3]")
        assert (slow_house.messages, slow_house.ends) == (["2[1]", "2[2]"], ["transport close"])

    @pytest.mark.parametrize(
        "body",
        ["", "2", "5", "7", "x", "4a\x1e\x1e4b", "\x1e".join(["3"] * 200), b"4\xff", "b!", "bAA", "4a\x1e"],
        ids=lambda body: repr(body)[:12],
    )
    def test_a_bad_payload_is_an_error_of_the_client(self, slow_house: House, body: str | bytes):
        with pytest.raises(BadPayload):
            post(slow_house.polling(), body)

    def test_a_body_that_is_longer_than_allowed_is_not_read(self, slow_house: House):
        with pytest.raises(BadPayload):
            post(slow_house.polling(), "3", length=10_001)


class TestAskedAgain:
    """A browser whose connection ended before an answer came sends the request once more, and the page never hears."""

    def test_a_poll_gets_what_it_got_before(self, slow_house: House):
        session = slow_house.polling()
        session.put([engine_frame("1"), engine_frame("2")])
        assert polled(session, "EIO=4&t=a1") == ["41", "42"]
        session.put([engine_frame("3")])
        assert polled(session, "EIO=4&t=a1") == polled(session, "EIO=4&t=a1") == ["41", "42"]
        assert polled(session, "EIO=4&t=a2") == ["43"]
        session.put([engine_frame("4")])
        assert polled(session, "EIO=4&t=a1") == ["44"], "that is over"

    @pytest.mark.parametrize("query", ["", "t=", "t=1795338137", "transport=polling&t=0"])
    def test_a_name_that_may_be_a_clock_s_is_none(self, slow_house: House, query: str):
        """Some clients give the second, and poll twice in it."""
        session = slow_house.polling()
        for packet in ("1", "2"):
            session.put([engine_frame(packet)])
            assert polled(session, query) == [f"4{packet}"]
            post(session, "42[1]", query=query)
        assert slow_house.messages == ["2[1]", "2[1]"]

    def test_a_poll_that_is_held_for_nobody_ends(self, slow_house: House):
        session = slow_house.polling()
        lost = gevent.spawn(polled, session, "t=a1")
        gevent.sleep(0.01)
        held = gevent.spawn(polled, session, "t=a1")
        assert lost.get(timeout=5) == ["6"]
        session.put([engine_frame("x")])
        assert held.get(timeout=5) == ["4x"]
        assert slow_house.ends == []

    def test_also_when_its_answer_comes_at_the_same_moment(self, slow_house: House):
        session = slow_house.polling()
        lost = gevent.spawn(polled, session, "t=a1")
        gevent.sleep(0.01)
        session.put([engine_frame("x")])
        session.outbox.wake()
        assert polled(session, "t=a1") == ["4x"]
        assert lost.get(timeout=5) == ["6"]
        assert polled(session, "t=a1") == ["4x"]

    def test_between_a_probe_and_its_end_too(self, slow_house: House, connect):
        session, client = slow_house.polling(), connect()
        session.put([engine_frame("1")])
        assert polled(session, "t=a1") == ["41"]
        take(session, client.connection)
        client.send(text("2probe"))
        client.expect(frame(TEXT, b"3probe"))
        session.put([engine_frame("2")])
        assert polled(session, "t=a1") == ["41"]
        assert polled(session, "t=a2") == ["6"]
        client.send(text("5"))
        client.expect(frame(TEXT, b"3probe") + frame(TEXT, b"42"))

    def test_what_is_posted_again_is_handled_once(self, slow_house: House):
        session = slow_house.polling()
        post(session, "42[1]", query="t=a1")
        post(session, "42[1]", query="t=a1")
        post(session, "42[1]", query="t=a2")
        post(session, "42[2]", query="t=a2")
        assert slow_house.messages == ["2[1]", "2[1]", "2[2]"]

    def test_what_nobody_asks_for_any_more_is_not_kept(self, slow_house: House):
        session = slow_house.polling()
        session.put([engine_frame("x" * 1_000)])
        polled(session, "t=a1")
        assert session.outbox.size > 1_000, "it counts as unsent"
        session.close(wait=False)
        assert (session.outbox.size, session.outbox.given) == (0, [])
        assert slow_house.network.flusher.held_bytes == 0


class TestUpgrade:
    def test_nothing_leaves_between_the_probe_and_its_end_but_noop(self, slow_house: House, connect):
        session, client = slow_house.polling(), connect()
        held = gevent.spawn(polled, session)
        gevent.sleep(0.01)
        take(session, client.connection)
        client.send(text("2probe"))
        client.expect(frame(TEXT, b"3probe"))
        assert held.get(timeout=5) == ["6"]
        session.put([engine_frame("while")])
        assert polled(session) == ["6"]
        gevent.sleep(0.01)
        client.read()
        assert client.received == frame(TEXT, b"3probe")
        client.send(text("5"), text("42[1]"))
        client.expect(frame(TEXT, b"3probe") + frame(TEXT, b"4while"))
        session.put([engine_frame("after")])
        client.expect(frame(TEXT, b"3probe") + frame(TEXT, b"4while") + frame(TEXT, b"4after"))
        wait_until(lambda: slow_house.messages == ["2[1]"], "what followed at once is handled")
        assert session.upgraded
        client.sock.close()
        wait_until(lambda: slow_house.ends == ["transport close"], "its end was told")

    @pytest.mark.parametrize("said", [None, "2", "2probe", "42[1]"])
    def test_an_upgrade_that_fails_leaves_the_polling_client_as_it_was(
        self, slow_house: House, connect, said: str | None
    ):
        session, client = slow_house.polling(), connect()
        take(session, client.connection)
        if said is not None:
            client.send(text(said))
            wait_until(lambda: client.read() or client.received != b"", "it was answered")
        client.sock.close()
        wait_until(lambda: not session.upgrading, "the probe is over")
        session.put([engine_frame("x")])
        assert polled(session) == ["4x"]
        assert (slow_house.messages, slow_house.ends) == ([], [])

    def test_a_probe_that_says_nothing_is_closed(self, house: House, connect, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("sidecar.fanout.transports.UPGRADE_SECONDS", QUICK_SECONDS)
        house.engine.ping_interval = 60
        session, client = house.polling(), connect()
        take(session, client.connection)
        client.expect(close_frame(1000))
        client.sock.close()
        wait_until(lambda: not session.upgrading, "the probe is over")

    def test_only_one_probe_at_a_time(self, slow_house: House, connect):
        session, first, second = slow_house.polling(), connect(), connect()
        take(session, first.connection)
        take(session, second.connection)
        second.expect(close_frame(1000))
        first.send(text("2probe"), text("5"))
        first.expect(frame(TEXT, b"3probe"))
        wait_until(lambda: session.upgraded, "it has upgraded")
