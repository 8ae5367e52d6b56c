"""Whom a bot's message reaches, what it is answered, and what came before."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from gevent.event import Event as Signal
from sqlalchemy import func, select

from sidecar.domain.access import Identity
from sidecar.domain.errors import Conflict, NotAllowed, NotFound, RateLimited, Unauthenticated, Unavailable
from sidecar.domain.maim import DUPLICATE_SECONDS
from sidecar.services import maim_seen as service
from sidecar.services.idempotency import KeyedRequest
from sidecar.services.inprocess import INSIDER
from sidecar.services.limits import RateLimit
from sidecar.store.tables import events, maim_queue, maim_seen
from sidecar.wire.checks import read
from sidecar.wire.maim import MaimBroadcastBody, MaimRouteBody, MaimSendBody, read_custom, read_value
from tests.fanout.stages import wait_until
from tests.services.bots import SOCKETIO_LINE, Away, House, frame, message


def undelivered(house: House) -> dict[str, int]:
    found: Any = house.sending.stats()["undelivered"]
    return {reason: count for reason, count in found.items() if count}


def count(house: House, table: Any) -> int:
    return int(house.rows(select(func.count()).select_from(table))[0][0])


def test_it_goes_to_every_connection_of_the_user_on_the_platform_and_to_nobody_else(house):
    bob, other_key = house.key("bob"), house.key("bob")
    mine = [house.connect(bob), house.connect(other_key), house.connect(bob, line=SOCKETIO_LINE)]
    others = [
        house.connect(bob, "wechat"),
        house.connect(house.key("eve")),
        house.connect(house.key("bob", "other")),
        alice := house.connect(house.key("alice")),
    ]
    sent = alice.send(bob)
    assert [peer.texts for peer in mine] == [["hello"]] * 3
    assert [peer.texts for peer in others] == [[]] * 4
    assert alice.acked == [sent]
    (got,) = mine[0].got
    assert got["payload"] == message(bob)
    assert got["meta"] | {"timestamp": 0} == {
        "sender_user": "server",
        "target_user": "bob",
        "platform": "qq",
        "timestamp": 0,
    }
    assert alice.bot.key not in str(mine[0].link.frames)
    assert len({peer.got[0]["msg_id"] for peer in mine}) == 1
    assert got["msg_id"] != sent


def test_an_address_stands_for_the_key_and_opens_nothing(house):
    bob = house.key("bob")
    address = f"sma_{house.keys.list()[0].id}"
    peer, alice = house.connect(bob), house.connect(house.key("alice"))
    alice.send(address)
    assert peer.texts == ["hello"]
    with pytest.raises(Unauthenticated):
        house.connect(address)


def test_why_nobody_is_reached(house):
    alice = house.connect(house.key("alice"))
    foreign, bob = house.key("eve", "other"), house.key("bob")
    sent = [alice.send("nobody"), alice.send(""), alice.send(bob, platform=""), alice.send(bob), alice.send(foreign)]
    bad = frame(message(bob) | {"message_segment": "text"})
    alice.say(bad)
    alice.send("sma_000000000000")
    assert alice.acked[:6] == [*sent, bad["msg_id"]]
    assert undelivered(house) == {
        "unknown_receiver": 2,
        "no_key": 1,
        "no_platform": 1,
        "offline": 1,
        "foreign_tenant": 1,
        "invalid": 1,
    }
    (revoked,) = [row.id for row in house.keys.list() if row.user == "bob"]
    house.keys.revoke(revoked)
    alice.send(bob)
    assert undelivered(house)["unknown_receiver"] == 3


def test_frames_that_mean_nothing_are_acknowledged_and_counted(house):
    alice = house.connect(house.key("alice"), "wechat")
    for said in ({"msg_id": "a"}, {"msg_id": "b", "type": "weird"}, {"msg_id": "c", "type": "sys_other"}, {"type": 5}):
        alice.say(said)
    house.bots.receive(alice.bot, None, 5)
    assert (alice.acked, alice.got, undelivered(house)) == (["a", "b", "c"], [], {})
    alice.say({"type": "sys_std", "payload": {"x": 1}})
    assert alice.texts == ["{'x': 1}"], "what is no message comes back"
    alice.say({"type": "sys_ack", "msg_id": "d", "meta": {"acked_msg_id": ["x"]}})
    assert "d" not in alice.acked


def test_a_message_that_came_already_is_acknowledged_and_not_delivered(house):
    bob = house.key("bob")
    peer, alice, eve = house.connect(bob), house.connect(house.key("alice")), house.connect(house.key("eve"))
    for _ in range(3):
        alice.send(bob, msg_id="m")
    eve.send(bob, msg_id="m")
    alice.say(frame({"message_dim": {"api_key": bob, "platform": "qq"}}, "custom_x", msg_id="m"))
    assert (alice.acked, eve.acked) == (["m"] * 4, ["m"])
    assert len(peer.got) == 2, "another key's is another message"
    assert house.sending.stats()["duplicate_messages_ignored"] == 3


def test_it_is_known_at_every_process_and_after_a_restart(opened):
    here, there = opened(), opened()
    bob, alice = here.key("bob"), here.key("alice")
    peer = here.connect(bob)
    senders = [here.connect(alice), there.connect(alice), opened().connect(alice)]
    for sender in senders:
        sender.send(bob, msg_id="m")
        assert sender.acked == ["m"]
    for one in (here, there):
        one.settle()
    assert peer.texts == ["hello"]


def test_it_is_known_for_an_hour(house):
    now = 1_800_000_000.0
    house.bots._seen._clock = house.core.writer._clock = lambda: now
    bob = house.key("bob")
    peer, alice = house.connect(bob), house.connect(house.key("alice"))
    for step in (0, DUPLICATE_SECONDS - 1, 2):
        now += step
        alice.send(bob, msg_id="m")
        if step:
            house.bots._seen._known.clear()
    assert len(peer.got) == 2


def test_what_reached_nobody_may_be_sent_again(house):
    bob = house.key("bob")
    alice = house.connect(house.key("alice"))
    alice.send(bob, msg_id="m")
    peer = house.connect(bob)
    alice.send(bob, msg_id="m")
    assert peer.texts == ["hello"]
    assert count(house, maim_seen) == 1


def test_what_a_process_knows_is_bounded_and_the_database_knows_the_rest(house, monkeypatch):
    monkeypatch.setattr(service, "KNOWN_MESSAGES", 3)
    bob = house.key("bob")
    peer, alice = house.connect(bob), house.connect(house.key("alice"))
    for _ in range(2):
        for number in range(10):
            alice.send(bob, number, msg_id=f"m{number}")
    assert peer.texts == list(range(10))
    assert len(house.bots._seen._known) == 3
    assert len(alice.acked) == 20


def test_of_a_message_that_is_said_twice_at_once_one_is_delivered(house):
    bob, alice = house.key("bob"), house.key("alice")
    peer = house.connect(bob)
    senders = [house.connect(alice) for _ in range(5)]
    gevent.joinall([gevent.spawn(one.send, bob, msg_id="m") for one in senders], raise_error=True)
    assert (peer.texts, [one.acked for one in senders]) == (["hello"], [["m"]] * 5)


def test_a_queued_one_that_is_repeated_is_not_acknowledged_before_it_is_stored(house, monkeypatch):
    """A client that lost its connection sends it again; told that it had come, it forgot what was then not stored."""
    bob, alice = house.key("bob"), house.key("alice")
    slow = Held(house.delivery._submit)
    monkeypatch.setattr(house.delivery, "_submit", slow)
    first, second = house.connect(alice), house.connect(alice)
    sending = [gevent.spawn(one.send, bob, msg_id="m", queue=True) for one in (first, second)]
    wait_until(lambda: slow.waiting == 2, "both wait for the database")
    assert second.acked == []
    slow.fails = 1
    slow.go.set()
    gevent.joinall(sending, raise_error=True)
    assert sorted([first.acked, second.acked]) == [[], ["m"]], "one of them was stored"
    assert count(house, maim_queue) == 1
    second.send(bob, msg_id="m", queue=True)
    assert (second.acked[-1:], count(house, maim_queue)) == (["m"], 1)


class Held:
    """Commands wait until they may go; the first `fails` of them then fail."""

    def __init__(self, real: Any):
        self._real = real
        self.waiting = 0
        self.fails = 0
        self.go = Signal()

    def __call__(self, command: Any) -> Any:
        self.waiting += 1
        self.go.wait()
        if self.fails:
            self.fails -= 1
            raise Unavailable("away")
        return self._real(command)


def test_without_a_database_what_is_at_this_process_is_delivered(opened, monkeypatch):
    here, there = opened(), opened()
    bob, eve = here.key("bob"), here.key("eve")
    peer, alice = here.connect(bob), here.connect(here.key("alice"))
    elsewhere = there.connect(eve)
    alice.send(eve, "before")
    wait_until(lambda: elsewhere.texts == ["before"], "it comes there")
    monkeypatch.setattr(here.delivery, "_submit", away := Away(here.delivery._submit))
    monkeypatch.setattr(here.connections, "_database", Away(here.connections._database))
    alice.send(bob, msg_id="m1")
    alice.send(eve, msg_id="m2")
    assert (peer.texts, undelivered(here)) == (["hello"], {"unavailable": 1})
    assert alice.acked[1:] == ["m1", "m2"]
    away.away = False
    alice.send(eve, "after", msg_id="m2")
    wait_until(lambda: elsewhere.texts == ["before", "after"], "it may be sent again")


def test_custom_messages(house):
    bob = house.key("bob")
    handled: list[Any] = []
    house.bots._hooks.register_custom_handler("x", lambda envelope, metadata: handled.append(envelope["msg_id"]))
    peer, alice = house.connect(bob), house.connect(house.key("alice"))
    to_bob = {"message_dim": {"api_key": bob, "platform": "qq"}, "more": [1]}
    for payload, type, msg_id in ((to_bob, "custom_x", "a"), ("text", "custom_x", "b"), (to_bob, "custom_y", "c")):
        for _ in range(2):
            alice.say(frame(payload, type, msg_id))
    alice.say(frame({"message_dim": 5}, "custom_y", "d"))
    assert handled == ["a", "b"]
    assert [(got["type"], got["payload"], got["msg_id"][:7]) for got in peer.got] == [
        ("custom_x", to_bob, "custom_"),
        ("custom_y", to_bob, "custom_"),
    ]
    assert alice.acked == ["a", "a", "b", "b", "c", "c", "d"]


def test_who_does_not_read_its_acknowledgements_is_cut_off(house):
    alice = house.connect(house.key("alice"))
    alice.link.room = 2
    for _ in range(4):
        alice.say({"msg_id": "x"})
    assert alice.link.cut


def test_a_frame_whose_handling_fails_ends_nothing(house, monkeypatch):
    alice = house.connect(house.key("alice"))
    monkeypatch.setattr(house.bots, "_queue", None)
    alice.say({"type": "sys_ack", "meta": {}})
    assert house.sending.stats()["active_handler_tasks"] == 0


def test_a_flood_is_owed_for(house):
    now = 0.0
    house.bots._limit = RateLimit(10, 5, lambda: now)
    bob, eve = house.key("bob"), house.key("eve")
    one, two, other = house.connect(bob), house.connect(bob), house.connect(eve)
    said, ack = read_value(frame(None)), read_value({"type": "sys_ack"})
    assert [house.bots.pace(one.bot, said) for _ in range(5)] == [0] * 5
    assert house.bots.pace(two.bot, None) == pytest.approx(0.1), "all connections of a key together"
    assert house.bots.pace(one.bot, said) == pytest.approx(0.2)
    assert house.bots.pace(other.bot, said) == 0
    now = 10.0
    assert house.bots.pace(one.bot, ack) == 0
    now = 20.0
    for _ in range(5):
        house.bots.pace(one.bot, said)
    for _ in range(3):
        other.send(bob, msg_id="m")
        other.send(bob)
    assert len(one.got) == 4
    assert [house.bots.pace(one.bot, ack) > 0 for _ in range(6)] == [False] * 4 + [True] * 2, "one for each frame"


def test_who_tries_keys_is_told_to_come_later(house):
    house.bots._limit = RateLimit(1, 3, lambda: 0.0)
    raised = []
    for number in range(5):
        with pytest.raises((Unauthenticated, RateLimited)) as caught:
            house.connect(f"guess-{number}")
        raised.append(caught.type)
    assert raised == [Unauthenticated] * 3 + [RateLimited] * 2
    stats = house.sending.stats()
    assert (stats["total_auth_requests"], stats["successful_auths"], stats["failed_auths"]) == (5, 0, 5)
    house.connect(house.key("bob"))


def test_a_key_is_for_its_platforms_alone(house):
    bob = house.key("bob", platforms=["qq", "微信"])
    house.connect(bob, "微信")
    with pytest.raises(NotAllowed):
        house.connect(bob, "wechat")


def test_figures(house):
    bob = house.key("bob")
    peers = [house.connect(bob), house.connect(bob, "wechat"), house.connect(house.key("alice"))]
    peers[2].send(bob)
    peers[1].close()
    stats = house.sending.stats()
    assert (stats["current_users"], stats["current_connections"], stats["messages_processed"]) == (2, 2, 1)
    network: Any = stats["network"]
    assert (network["total_connections"], network["current_connections"]) == (3, 2)
    assert (network["messages_received"], network["messages_sent"]) == (1, 2)
    assert min(network["bytes_received"], network["bytes_sent"]) > 100


def test_no_key_and_no_content_is_in_a_log(house, logged):
    house.bots._figures._logs = frozenset({"connections", "messages"})
    bob, own = house.key("bob"), house.key("alice", key="my-own-short-key")
    logged.clear()
    peer, alice = house.connect(bob), house.connect(own)
    alice.send(bob, "private words")
    alice.send("another-secret", "private words")
    peer.close()
    alice.say(frame({"message_dim": {"api_key": bob}}, "custom_" + "x" * 500))
    house.settle()
    lines = list(logged)
    assert [line["event"] for line in lines] == [
        *["maim.connected"] * 2,
        *["maim.message"] * 2,
        "maim.disconnected",
        "maim.message",
    ]
    assert lines[2] | {"log_level": ""} == {
        "event": "maim.message",
        "sender": "default/alice",
        "type": "sys_std",
        "connections": 1,
        "reason": None,
        "queued": False,
        "log_level": "",
    }
    for secret in (bob, own, "private", "another-secret"):
        assert secret not in str(lines)
    assert "key" not in repr(peer.bot)
    stored = str(house.rows(select(events)))
    assert bob not in stored
    assert own not in stored


# What back ends send


def keyed(key: str | None, body: str = "") -> KeyedRequest:
    return KeyedRequest.of(INSIDER, "127.0.0.1", "maim/send", key, body.encode())


def send(house: House, payload: Any, key: str | None = None, identity: Identity = INSIDER, **more: Any) -> service.Sent:
    body = read(MaimSendBody, {"message": payload, **more})
    return house.sending.send(identity, body, keyed(key, str(payload)))


def test_a_repeated_request_is_answered_as_the_first_and_delivers_nothing(opened):
    """Also when its receiver has gone since: it used to be told that nobody was there."""
    here, there = opened(), opened()
    bob = here.key("bob")
    peer = here.connect(bob)
    first = send(here, message(bob), "k")
    assert (first.results, first.duplicate) == ({peer.bot.uuid: True}, False)
    for house in (here, there):
        again = send(house, message(bob), "k")
        assert (again.results, again.duplicate) == (first.results, True)
    peer.close()
    assert send(here, message(bob), "k").results == first.results
    with pytest.raises(Conflict):
        send(here, message(bob, text="other"), "k")
    assert peer.texts == ["hello"]
    assert here.sending.stats()["undelivered"]["offline"] == 0


def test_repeated_broadcasts_and_custom_messages_too(house):
    peer = house.connect(house.key("bob"), uuid="u")
    everybody = read(MaimBroadcastBody, {"message": message("", "")})
    one = read_custom({"message_type": "x", "payload": 1, "connection_uuid": "u"})
    results = [house.sending.broadcast(INSIDER, everybody, keyed("a")), house.sending.custom(INSIDER, one, keyed("b"))]
    peer.close()
    results += [house.sending.broadcast(INSIDER, everybody, keyed("a")), house.sending.custom(INSIDER, one, keyed("b"))]
    assert [(one.results, one.duplicate) for one in results] == [({"u": True}, False)] * 2 + [({"u": True}, True)] * 2
    assert len(peer.got) == 2
    with pytest.raises(NotFound):
        house.sending.custom(INSIDER, one)


def test_without_a_database_a_request_with_a_key_does_nothing(house, monkeypatch):
    """It used to be delivered, and again when it was repeated."""
    bob = house.key("bob")
    peer = house.connect(bob)
    monkeypatch.setattr(house.delivery, "_submit", away := Away(house.delivery._submit))
    monkeypatch.setattr(house.sending, "_submit", away)
    with pytest.raises(Unavailable):
        send(house, message(bob), "k")
    submit = away._real
    monkeypatch.setattr(house.sending, "_answered", lambda request: None)
    with pytest.raises(Unavailable):
        send(house, message(bob), "k")
    assert peer.got == []
    assert send(house, message(bob)).results == {peer.bot.uuid: True}
    monkeypatch.undo()
    assert submit == house.delivery._submit
    assert not send(house, message(bob), "k").duplicate
    assert len(peer.got) == 2


def test_a_request_may_be_kept(house):
    bob = house.key("bob")
    sent = send(house, message(bob), "k", queue=True)
    assert (sent.results, sent.reason, sent.queued) == ({}, None, True)
    assert send(house, message(bob), "k", queue=True).queued
    peer = house.connect(bob)
    wait_until(lambda: peer.texts == ["hello"], "it comes")
    assert count(house, maim_queue) == 1
    custom = {"message_type": "x", "payload": 1, "target_user": "bob", "target_platform": "qq", "ttl_seconds": 60}
    assert house.sending.custom(INSIDER, read_custom(custom)).results == {peer.bot.uuid: True}
    house.settle()
    assert [got["type"] for got in peer.got] == ["sys_std", "custom_x"]


def token(*scopes: str, projects: tuple[str, ...] | None = None) -> Identity:
    return Identity("token", "t", frozenset(scopes), projects)


def test_a_token_reaches_the_tenants_that_it_names(house):
    ours, theirs = house.key("bob", "ours"), house.key("bob", "theirs")
    peers = [house.connect(ours, uuid="a"), house.connect(theirs, uuid="b")]
    limited = token("maim:send", projects=("ours",))
    assert send(house, message(ours), identity=limited).results == {"a": True}
    assert send(house, message(theirs), identity=limited).reason == "foreign_tenant"
    assert house.sending.broadcast(limited, read(MaimBroadcastBody, {"message": message("")})).results == {"a": True}
    with pytest.raises(NotAllowed):
        house.sending.broadcast(limited, read(MaimBroadcastBody, {"message": message(""), "tenant": "theirs"}))
    custom = {"message_type": "x", "payload": 1}
    with pytest.raises(NotFound):
        house.sending.custom(limited, read_custom({**custom, "connection_uuid": "b"}))
    user = {"target_user": "bob", "target_platform": "qq"}
    assert house.sending.custom(limited, read_custom({**custom, **user})).results == {"a": True}
    sent = house.sending.custom(limited, read_custom({**custom, **user, "tenant": "theirs"}))
    assert sent.reason == "foreign_tenant"
    assert [row.uuid for row in house.sending.connections(limited)] == ["a"]
    assert house.sending.route(limited, MaimRouteBody(api_key=theirs, platform="qq")).reason == "foreign_tenant"
    assert peers[1].got == []
    for refused in (token("maim:manage"), token()):
        for act in (
            lambda who: send(house, message(ours), identity=who),
            lambda who: house.sending.broadcast(who, read(MaimBroadcastBody, {"message": message("")})),
            lambda who: house.sending.custom(who, read_custom({**custom, **user})),
            lambda who: house.sending.route(who, MaimRouteBody()),
            house.sending.connections,
        ):
            with pytest.raises(NotAllowed):
                act(refused)


def test_a_route_is_told_and_nothing_sent(opened):
    here, there = opened(), opened()
    bob = here.key("bob")
    peers = [here.connect(bob, uuid="a"), there.connect(bob, uuid="b")]
    found = here.sending.route(INSIDER, MaimRouteBody(message=message(bob)))
    assert (found.connections, found.reason) == (["a", "b"], None)
    there_too = here.sending.route(INSIDER, MaimRouteBody(api_key=bob, platform="x", target_platform="qq"))
    assert there_too.connections == ["a", "b"]
    assert here.sending.route(INSIDER, MaimRouteBody(api_key=bob, platform="x")).reason == "offline"
    for odd in ({}, {"message": 5}, {"message": {"message_dim": []}}, {"api_key": 5, "platform": "qq"}):
        assert here.sending.route(INSIDER, MaimRouteBody(**odd)).reason == "no_key"
    assert [peer.got for peer in peers] == [[], []]


def test_a_frame_for_several_processes_is_sealed_and_goes_to_its_receivers_alone(opened):
    here, there = opened(), opened()
    bob = here.key("bob")
    peers = [there.connect(bob), there.connect(bob), here.connect(bob), there.connect(here.key("eve"))]
    alice = here.connect(here.key("alice"))
    alice.send(bob, "private words")
    wait_until(lambda: [len(peer.got) for peer in peers] == [1, 1, 1, 0], "it comes")
    assert len({peer.got[0]["msg_id"] for peer in peers[:3]}) == 1
    assert "private words" not in str(here.rows(select(events)))


def test_order_is_kept_between_two_bots_of_two_processes(opened):
    here, there = opened(), opened()
    bob = here.key("bob")
    peer, alice = there.connect(bob), here.connect(here.key("alice"))
    for number in range(30):
        alice.send(bob, number)
    wait_until(lambda: len(peer.got) == 30, "all come")
    assert peer.texts == list(range(30))
