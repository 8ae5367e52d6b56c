"""Sessions of clients that can't come back, with a clock of the test's and a Socket.IO server that only takes notes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import flask
import gevent
import pytest
from flask_socketio import ConnectionRefusedError

import sidecar.sockets.watch as watch_module
from sidecar.domain.access import Identity
from sidecar.domain.errors import Unauthenticated
from sidecar.fanout.hub import Hub
from sidecar.observability.metrics import Metrics
from sidecar.sockets.rights import Rights
from sidecar.sockets.sessions import Sessions
from sidecar.sockets.watch import Watch
from sidecar.wire.origins import Origins
from tests.fanout.recipients import FakeRecipient
from tests.fanout.stages import wait_until


class NotingSocketIO:
    """The few names of Flask-SocketIO that Sessions uses; sids are their own Engine.IO sids."""

    def __init__(self) -> None:
        self.handlers: dict[tuple[str, str], Callable[..., Any]] = {}
        self.emitted: list[tuple[str, str, Any]] = []
        self.disconnected: list[str] = []
        self.engine: dict[str, Any] = {}
        self.server = SimpleNamespace(
            eio=SimpleNamespace(sockets=self.engine),
            manager=SimpleNamespace(eio_sid_from_sid=lambda sid, namespace: sid),
            disconnect=lambda sid, namespace: self.disconnected.append(sid),
        )

    def on_event(self, name: str, handler: Callable[..., Any], namespace: str) -> None:
        self.handlers[name, namespace] = handler

    def emit(self, name: str, body: Any, namespace: str, to: str) -> None:
        self.emitted.append((to, name, body))


@dataclass
class Doorkeeper:
    """Says who somebody is as the test decides."""

    answer: Callable[[str], Identity]
    asked: list[str] = field(default_factory=list)

    def by_credential(self, text: str, in_url: bool = False) -> Identity:
        self.asked.append(text)
        return self.answer(text)


IDENTITY = Identity(kind="token", name="t", scopes=frozenset({"deployments:read"}), token_id="t1")


class House:
    def __init__(self, answer: Callable[[str], Identity]):
        self.now = 1_000.0
        self.socketio = NotingSocketIO()
        self.hub = Hub(lambda subscriber, event: None)
        self.access = Doorkeeper(answer)
        tail = SimpleNamespace(last=0, epoch="e")
        rights = Rights(self.socketio, self.hub, lambda names: dict.fromkeys(names))
        self.watch = Watch(lambda: self.now)
        self.sessions = Sessions(
            self.socketio,
            ("/",),
            self.access,
            Origins(frozenset(), None),
            self.hub,
            tail,
            catchup=None,
            rights=rights,
            watch=self.watch,
            recovery=None,
            bots=SimpleNamespace(disconnect=lambda _sid: None),
            metrics=Metrics(),
            clock=lambda: self.now,
        )
        self._app = flask.Flask("house")

    def connect(self, sid: str, token: str = "x") -> None:
        self.socketio.engine[sid] = SimpleNamespace(sid=sid, closed=False, number=None, outbox=FakeRecipient())
        self._event("connect", sid, {"token": token})

    def disconnect(self, sid: str) -> None:
        self._event("disconnect", sid, "transport close")

    def _event(self, name: str, sid: str, *args: Any) -> None:
        with self._app.test_request_context("/"):
            request: Any = flask.request
            request.sid, request.namespace = sid, "/"
            self.socketio.handlers[name, "/"](*args)


@pytest.mark.parametrize("fault", [TypeError("unexpected"), KeyError("x"), RuntimeError("x")])
def test_a_fault_in_the_connect_handler_lets_nobody_in(fault: Exception, capsys):
    """Flask-SocketIO calls a connect handler that raised TypeError once more without auth: as whoever is let in
    without a token."""

    def fail(text: str) -> Identity:
        raise fault

    house = House(fail)
    with pytest.raises(ConnectionRefusedError) as refused:
        house.connect("s")
    assert refused.value.error_args["data"] == {"code": "error"}
    assert len(house.sessions) == 0
    assert house.hub.room_count == 0
    assert "sockets.connect_failed" in capsys.readouterr().out


def test_a_fault_while_the_session_opens_lets_nobody_in(capsys):
    house = House(lambda text: IDENTITY)
    house.socketio.server.manager = None
    with pytest.raises(ConnectionRefusedError):
        house.connect("s")
    assert len(house.sessions) == 0
    assert "sockets.connect_failed" in capsys.readouterr().out


def test_a_connection_that_ended_meanwhile_gets_no_session():
    """Its disconnect has been handled already: the session would stay for ever."""
    house = House(lambda text: IDENTITY)
    house.socketio.engine["s"] = SimpleNamespace(sid="s", closed=True)
    with pytest.raises(ConnectionRefusedError):
        house._event("connect", "s", {"token": "x"})
    assert len(house.sessions) == 0
    assert house.hub.room_count == 0


def test_a_token_revoked_while_it_was_read_opens_no_session():
    def read_slowly(text: str) -> Identity:
        if len(house.access.asked) == 1:  # the revocation passes the tail while the row is on its way
            house.watch.token_revoked("t1")
            return IDENTITY
        raise Unauthenticated("The token has been revoked.")

    house = House(read_slowly)
    with pytest.raises(ConnectionRefusedError):
        house.connect("s")
    assert len(house.sessions) == 0


def test_ends_of_sessions_gone_are_forgotten_long_before_they_come():
    """A page that reconnects every minute with a token of a year would have left half a million of them."""
    house = House(lambda text: replace(IDENTITY, expires_at=house.now + 365 * 86_400))
    house.connect("stays")
    for number in range(2_000):
        house.connect(f"s{number}")
        house.disconnect(f"s{number}")
    assert len(house.sessions) == 1
    assert len(house.watch._expiries) < 100


def test_the_warning_comes_half_a_minute_before_the_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watch_module, "LOOK_SECONDS", 0.005)
    house = House(lambda text: replace(IDENTITY, expires_at=2_000.0))
    house.watch.start()
    house.connect("s")
    house.connect("gone")
    house.disconnect("gone")
    told = house.socketio.emitted

    house.now = 1_969.9
    assert_nothing_for_a_while(lambda: told == [])
    house.now = 1_970.0
    wait_until(lambda: bool(told), "the warning")
    assert told == [("s", "token_expiring", {"expires_at": "1970-01-01T00:33:20.000Z"})]

    house.now = 1_999.9
    assert_nothing_for_a_while(lambda: len(told) == 1)
    house.now = 2_000.0
    wait_until(lambda: house.socketio.disconnected == ["s"], "the end")
    assert told[1:] == [("s", "token_expired", {"code": "token_expired", "message": "The token has expired."})]
    assert house.hub.room_count == 0
    house.watch.stop()


def test_a_renewed_session_is_not_ended_by_its_first_token(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watch_module, "LOOK_SECONDS", 0.005)
    ends = {"first": 2_000.0, "second": 3_000.0}
    house = House(lambda text: replace(IDENTITY, expires_at=ends[text]))
    house.watch.start()
    house.connect("s", "first")
    session = next(iter(house.sessions._sessions.values()))
    house.sessions.renew(session, house.sessions.renewal(session, "second"), {})
    house.now = 2_500.0
    assert_nothing_for_a_while(lambda: house.socketio.emitted == [])
    house.now = 3_000.0
    wait_until(lambda: house.socketio.disconnected == ["s"], "the second end")
    house.watch.stop()


def assert_nothing_for_a_while(still: Callable[[], bool]) -> None:
    """The watcher has looked several times since, and it still holds."""
    for _ in range(5):
        gevent.sleep(0.006)
        assert still()
