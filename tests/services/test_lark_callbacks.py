"""What the platform calls us with: taken once, answered in time, done in any case."""

from __future__ import annotations

import datetime
import json

import gevent
import pytest
import structlog
from gevent.event import Event as Gate
from sqlalchemy import select, update

from sidecar.domain.access import Identity
from sidecar.domain.authorizations import App
from sidecar.domain.errors import (
    Invalid,
    NotAllowed,
    NotFound,
    ReplayedRequest,
    StaleRequest,
    Unauthenticated,
    Unavailable,
)
from sidecar.domain.times import unix_seconds
from sidecar.services import lark_callbacks, lark_handlers
from sidecar.store.tables import lark_events
from sidecar.wire.authorizations import LinkBody
from sidecar.wire.checks import read
from tests.fanout.stages import wait_until
from tests.services.authorizing import ALICE, APP, BOB, SCOPES, SHOP, browser, together

MESSAGE = "im.message.receive_v1"


class Shop:
    """An embedder's handlers. `seen` are the events; the first `failing` of them raise; at `gate` all wait."""

    def __init__(self) -> None:
        self.handlers = {MESSAGE: self.message}
        self.seen: list[dict] = []
        self.failing = 0
        self.gate: Gate | None = None
        self.answers: object = {"ok": True}

    def message(self, event, told):
        self.seen.append({**event, **told})
        if self.gate is not None:
            self.gate.wait()
        if len(self.seen) <= self.failing:
            raise RuntimeError("the secret of the shop")
        return self.answers


@pytest.fixture
def shop() -> Shop:
    return Shop()


def stored(desk, event_id):
    query = select(lark_events).where(lark_events.c.event_id == event_id)
    row = desk.database.read(lambda connection: connection.execute(query).first())
    return None if row is None else dict(row._mapping)


def redo(desk) -> int:
    """One look of the job, and what comes of it."""
    count = desk.callbacks.redo()
    gevent.idle()
    return count


def at_work(desk, event_id) -> bool:
    """Is it claimed? (Until a later try it is put off for other times.)"""
    until = stored(desk, event_id)["claimed_until"]
    left = 0.0 if until is None else unix_seconds(until) - desk.clock()
    return lark_callbacks.CLAIM_SECONDS - 30 < left < lark_callbacks.CLAIM_SECONDS + 1


def done(desk, event_id) -> bool:
    return stored(desk, event_id)["answer"] is not None


def test_handled_once_and_answered_the_same_each_time(desks, shop):
    one, two = desks(handlers=shop), desks(handlers=shop)
    assert one.called(MESSAGE, {"text": "hi"}, "ev") == {"ok": True}
    assert shop.seen == [
        {"text": "hi", "app_id": "cli_a", "event_id": "ev", "event_type": MESSAGE, "transport": "http"}
    ]
    shop.answers = {"other": 1}
    for desk in (one, two, desks(handlers=shop)):
        assert desk.called(MESSAGE, {"text": "hi"}, "ev") == {"ok": True}
        assert desk.fed(MESSAGE, {"text": "hi"}, "ev") == {"ok": True}, "nor over the other transport"
    assert len(shop.seen) == 1
    row = stored(one, "ev")
    assert (row["sealed"], row["claimed_until"], row["tries"]) == (None, None, 1)


@pytest.mark.parametrize("processes", [1, 2])
def test_the_same_event_many_times_at_once(desks, shop, processes):
    those = [desks(handlers=shop) for _ in range(processes)]
    answers = together(*(lambda at=at: at.called(MESSAGE, {}, "ev") for at in those * 5))
    assert answers == [{"ok": True}] * len(answers)
    assert len(shop.seen) == 1


def test_a_slow_handler_is_answered_for_in_time_and_goes_on_behind(desks, shop, monkeypatch):
    monkeypatch.setattr(lark_callbacks, "ANSWER_SECONDS", 0.2)
    shop.gate = Gate()
    one, two = desks(handlers=shop), desks(handlers=shop)
    assert one.called(MESSAGE, {}, "ev") == {}
    assert two.called(MESSAGE, {}, "ev") == {}, "the repetition waits as long, and then has no answer either"
    assert "text" not in stored(one, "ev")["sealed"]
    assert redo(two) == 0, "somebody is at it"
    shop.gate.set()
    wait_until(lambda: done(one, "ev"), "it is done")
    assert two.called(MESSAGE, {}, "ev") == {"ok": True}
    assert len(shop.seen) == 1


def test_what_was_begun_by_a_process_that_died_is_done_by_another(desks, shop, monkeypatch):
    monkeypatch.setattr(lark_callbacks, "ANSWER_SECONDS", 0.05)
    dying, living = desks(handlers=shop), desks(handlers=shop)
    shop.gate = Gate()
    with pytest.MonkeyPatch.context() as patch:
        spawned = []
        patch.setattr(
            lark_callbacks.gevent, "spawn", lambda *call: spawned.append(gevent.Greenlet.spawn(*call)) or spawned[-1]
        )
        assert dying.called(MESSAGE, {"text": "hi"}, "ev") == {}
    gevent.killall(spawned)
    shop.gate = None
    assert not done(living, "ev")
    assert redo(living) == 0
    living.clock.ahead += lark_callbacks.CLAIM_SECONDS + 1
    assert redo(living) == 1
    wait_until(lambda: done(living, "ev"), "it is done")
    assert [one["text"] for one in shop.seen] == ["hi", "hi"]
    assert living.called(MESSAGE, {"text": "hi"}, "ev") == {"ok": True}


def test_a_failing_handler_is_tried_three_times_more(desks, shop):
    shop.failing = 99
    desk, other = desks(handlers=shop), desks(handlers=shop)
    assert desk.called(MESSAGE, {}, "ev") == {}
    for number, pause in enumerate(lark_callbacks.RETRY_SECONDS, 2):
        assert redo(desk) == 0, "not before its time"
        desk.clock.ahead += pause + 0.1
        both = together(lambda: redo(desk), lambda: redo(other))
        assert sorted(both) == [0, 1]
        wait_until(lambda number=number: len(shop.seen) == number, "it is tried again")
        wait_until(lambda: not at_work(desk, "ev"), "it has failed again")
    wait_until(lambda: done(desk, "ev"), "it is given up")
    desk.clock.ahead += 100_000
    assert redo(desk) == 0
    assert len(shop.seen) == 4
    assert desk.called(MESSAGE, {}, "ev") == {}
    assert (
        desk.figure("sidecar_lark_handlers_failed_total", handler=MESSAGE)
        + other.figure("sidecar_lark_handlers_failed_total", handler=MESSAGE)
        == 4
    )


def test_a_handler_that_fails_once(desks, shop):
    shop.failing = 1
    desk = desks(handlers=shop)
    assert desk.called(MESSAGE, {}, "ev") == {}
    desk.clock.ahead += lark_callbacks.RETRY_SECONDS[0] + 0.1
    assert redo(desk) == 1
    wait_until(lambda: done(desk, "ev"), "it is done")
    assert desk.called(MESSAGE, {}, "ev") == {"ok": True}


def test_a_handler_that_ends_its_process_is_given_up_too(desks, shop, monkeypatch):
    """It would take each process with it, one after the other, for ever."""
    monkeypatch.setattr(lark_callbacks, "ANSWER_SECONDS", 0.01)
    desk = desks(handlers=shop)

    def die(event, told):
        shop.seen.append(event)
        raise gevent.GreenletExit

    desk.handlers._handlers[MESSAGE] = die
    assert desk.called(MESSAGE, {}, "ev") == {}
    for _ in range(8):
        desk.clock.ahead += lark_callbacks.CLAIM_SECONDS + 1
        redo(desk)
    assert len(shop.seen) == 4
    assert done(desk, "ev")


@pytest.mark.parametrize(
    "answer",
    [{"at": datetime.datetime(2026, 1, 1)}, {"n": float("nan")}, {"text": "\ud800"}, {1: {2: object()}}, {"deep": []}],
)
def test_an_answer_that_is_no_json(desks, shop, answer):
    """It counts as a failure; an event that can't be finished would be handled again for ever."""
    if "deep" in answer:
        answer["deep"].append(answer)
    shop.answers = answer
    desk = desks(handlers=shop)
    assert desk.called(MESSAGE, {}, "ev") == {}
    for pause in lark_callbacks.RETRY_SECONDS:
        desk.clock.ahead += pause + 0.1
        assert redo(desk) == 1
        wait_until(lambda: not at_work(desk, "ev"), "it has failed again")
    wait_until(lambda: done(desk, "ev"), "it is given up")
    assert len(shop.seen) == 4
    assert desk.called(MESSAGE, {}, "ev") == {}


@pytest.mark.parametrize("answer", [None, "text", 5, ["a"], True])
def test_an_answer_that_is_no_object_is_none(desks, shop, answer):
    shop.answers = answer
    assert desks(handlers=shop).called(MESSAGE, {}) == {}


def test_the_store_is_away_when_it_comes(desks, shop):
    desk = desks(handlers=shop)
    with desk.broken(), pytest.raises(Unavailable):
        desk.called(MESSAGE, {}, "ev", nonce="n")
    assert (shop.seen, stored(desk, "ev")) == ([], None)
    assert desk.called(MESSAGE, {}, "ev", nonce="n") == {"ok": True}, "the very same request may come again"


def test_the_store_is_away_when_it_is_done(desks, shop):
    desk = desks(handlers=shop)
    with desk.broken(lambda number: number > 0):
        desk.called(MESSAGE, {}, "ev")
    assert not done(desk, "ev")
    desk.clock.ahead += lark_callbacks.CLAIM_SECONDS + 1
    assert redo(desk) == 1
    wait_until(lambda: done(desk, "ev"), "it is done")
    assert desk.called(MESSAGE, {}, "ev") == {"ok": True}


def test_replayed(desks, shop):
    one, two = desks(handlers=shop), desks(handlers=shop)
    one.called(MESSAGE, {}, "ev1", nonce="same")
    for desk in (one, two):
        for type in (MESSAGE, "nobody.wants.this"):
            with pytest.raises(ReplayedRequest):
                desk.called(type, {}, "ev2", nonce="same")
    assert len(shop.seen) == 1
    assert one.figure("sidecar_lark_callbacks_total", transport="http", outcome="refused_replay") == 2


def test_nobody_handles_it(desk):
    assert desk.called("calendar.changed", {}, "ev") == {}
    assert stored(desk, "ev") is None
    assert desk.figure("sidecar_lark_callbacks_total", transport="http", outcome="unhandled") == 1


def test_the_challenge_of_a_new_address(desk):
    assert desk.called("url_verification", {}, challenge="c-1") == {"challenge": "c-1"}


def test_the_app_whose_secret_proves_it(desk, shop):
    desk.apps.add(App("cli_b", "secret-b"), "B")
    desk.handlers._handlers[MESSAGE] = shop.message
    assert desk.called(MESSAGE, {}, "ev", secret="secret-b") == {"ok": True}
    assert desk.called(MESSAGE, {}, "ev", secret=APP.secret) == {"ok": True}
    assert [one["app_id"] for one in shop.seen] == ["cli_b", "cli_a"], "the ids of events are each app's own"
    with pytest.raises(Unauthenticated):
        desk.called(MESSAGE, {}, "ev3", secret="nobody's")
    body = {"secret": "secret-b", "type": MESSAGE, "event_id": "ev4", "event": {}, "nonce": "n"}
    with pytest.raises(Unauthenticated):
        desk.callbacks.take("cli_a", {}, json.dumps(body).encode())
    with pytest.raises(NotFound):
        desk.callbacks.take("cli_c", {}, json.dumps(body).encode())
    assert desk.callbacks.take("cli_b", {}, json.dumps(body).encode()) == {"ok": True}


def test_what_the_app_that_it_is_for_says_is_told(desk, monkeypatch):
    """Not what the last one of several makes of it, whose key does not fit."""
    desk.apps.add(App("cli_b", "secret-b"), "B")

    def callback(app, headers, raw, now):
        if app.id == "cli_a":
            raise StaleRequest("It is old.")
        raise Unauthenticated("It is for another app.")

    monkeypatch.setattr(desk.platform, "callback", callback)
    with pytest.raises(StaleRequest):
        desk.called(MESSAGE, {})
    assert desk.figure("sidecar_lark_callbacks_total", transport="http", outcome="refused_stale") == 1


def test_the_long_connection_alone(desks):
    desk = desks(over_http=False)
    with pytest.raises(NotFound):
        desk.called(MESSAGE, {})
    assert desk.fed("calendar.changed", {}, "ev") == {}


@pytest.mark.parametrize(
    ("who", "error"),
    [
        (browser("u1"), NotAllowed),
        (Identity(kind="anonymous", name="anonymous"), Unauthenticated),
        (Identity(kind="token", name="x", scopes=frozenset({"authorizations:read"}), projects=None), NotAllowed),
        (Identity(kind="token", name="x", scopes=SCOPES, projects=("cli_b",)), NotAllowed),
    ],
    ids=["browser", "stranger", "reader", "another app's"],
)
def test_who_may_not_feed_events(desk, who, error):
    """A browser that could would click on anybody's card, as anybody."""
    started = desk.start()
    click = {"session_id": started.row.session_id, "action": "reject", "open_id": "ou_x"}
    with pytest.raises(error):
        desk.fed("card.action.trigger", {"click": click}, "ev", who)
    link = {"app": "cli_a", "connected": True, "started_at": "2026-11-21T04:29:00Z"}
    with pytest.raises(error):
        desk.callbacks.linked(who, read(LinkBody, link))
    assert desk.row(started.row.session_id)["state"] == "pending"


def test_an_event_that_is_none(desk):
    with pytest.raises(Invalid):
        desk.callbacks.fed(SHOP, lark_callbacks.EventBody(app="cli_a", event={}))
    with pytest.raises(NotFound):
        desk.fed(MESSAGE, {}, "ev", app="cli_c")
    assert desk.figure("sidecar_lark_callbacks_total", transport="websocket", outcome="unreadable") == 1


@pytest.mark.parametrize("at", ["soon", "0", "99999-01-01", "-1"])
def test_a_link_began_at_no_time(desk, at):
    with pytest.raises(Invalid):
        desk.callbacks.linked(SHOP, read(LinkBody, {"app": "cli_a", "connected": True, "started_at": at}))


def test_clicks(desk):
    started = desk.start(open_id=ALICE.open_id)
    assert desk.clicked(started, "authorize", BOB.open_id) == {"toast": "not_yours", "card": None}
    assert desk.clicked(started, "reject", BOB.open_id) == {"toast": "not_yours", "card": None}
    assert desk.clicked(started, "authorize") == {"toast": "follow_link", "card": None}
    assert desk.row(started.row.session_id)["auth_method"] == "http_callback"
    assert desk.clicked(started, "reject") == {"toast": "cancelled", "card": "rejected"}
    assert desk.clicked(started, "reject") == {"toast": "cancelled", "card": "rejected"}
    labels = {"app_id": "cli_a", "auth_method": "http_callback", "reason": "user_rejected"}
    assert desk.figure("lark_service_auth_failure_total", **labels) == 1, "one authorization was rejected, not two"
    assert desk.told_types() == ["authorization_rejected"]
    late = desk.start()
    desk.clock.ahead += 601
    assert desk.clicked(late, "authorize") == {"toast": "expired", "card": "expired"}
    ready = desk.start("u2")
    desk.come_back(ready)
    assert desk.clicked(ready, "reject") == {"toast": "completed", "card": "completed"}
    assert desk.token("u2").open_id == "ou_alice"


def test_a_click_on_what_another_app_has_sent(desk):
    desk.apps.add(App("cli_b", "secret-b"), "B")
    started = desk.start(app="cli_b")
    assert desk.clicked(started, "reject")["toast"] == "failed"
    assert desk.row(started.row.session_id)["state"] == "pending"


def test_who_clicks_is_who_must_authorize(desk):
    started = desk.start()
    assert desk.clicked(started, "authorize", BOB.open_id)["toast"] == "follow_link"
    assert desk.come_back(started).error.reason == "wrong_user"
    assert desk.clicked(started, "authorize", ALICE.open_id)["toast"] == "not_yours"


def test_a_stranger_s_click_does_not_put_another_in_the_place_of_who_authorized_before(desk):
    """In a group anybody can click; the user's account at the platform stays the same until it is revoked."""
    desk.authorized()
    started = desk.start()
    assert desk.clicked(started, "authorize", BOB.open_id)["toast"] == "not_yours"
    assert desk.clicked(started, "reject", BOB.open_id)["toast"] == "not_yours"
    assert desk.clicked(started, "authorize", ALICE.open_id)["toast"] == "follow_link"


def test_an_event_that_no_key_reads_any_more_is_given_up(desks, shop, monkeypatch):
    monkeypatch.setattr(lark_callbacks, "ANSWER_SECONDS", 0.01)
    shop.failing = 99
    desk = desks(handlers=shop)
    desk.called(MESSAGE, {}, "ev")
    desk.writer.submit(lambda t: t.connection.execute(update(lark_events).values(sealed="x")).rowcount)
    desk.clock.ahead += 1_000
    assert redo(desk) == 1
    assert done(desk, "ev")
    assert len(shop.seen) == 1


def test_handlers_that_are_none(desks):
    for handlers in ({"a": 5}, type("Bad", (), {"handlers": 5})(), type("Bad", (), {"handlers": {"a": None}})()):
        with pytest.raises(Invalid):
            desks(handlers=handlers)


def test_what_a_handler_raises_is_not_logged(desks, shop, logged, monkeypatch):
    monkeypatch.setattr(lark_handlers, "log", structlog.get_logger())  # without the limit that others have used up
    shop.failing = 1
    desk = desks(handlers=shop)
    desk.called(MESSAGE, {"text": "private"}, "ev")
    text = repr(logged)
    assert "RuntimeError at" in text
    assert "the secret of the shop" not in text
    assert "private" not in text


def test_a_handler_that_hangs(desks, monkeypatch):
    monkeypatch.setattr(lark_handlers, "HANDLER_SECONDS", 0.05)

    def hanging(event, told):
        gevent.sleep(60)

    desk = desks(handlers={"hanging": hanging})
    assert desk.called("hanging", {}, "ev") == {}
    assert (stored(desk, "ev")["answer"], stored(desk, "ev")["tries"]) == (None, 1)
    assert stored(desk, "ev")["claimed_until"] is not None, "it is tried again"
