"""Real clients of both generations talk to each other through the sidecar, on one path."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from tests.bots.conftest import Connect
from tests.bots.peers import VERSIONS, RealClient, envelope, text_message
from tests.bots.raw import LINES, Key, RawBot, new_key, undelivered
from tests.programs import wait_until
from tests.servers import RunningSidecar

OLD, NEW = VERSIONS
PAIRS = [(OLD, NEW), (NEW, OLD), (OLD, OLD), (NEW, NEW)]
PATHS = ["/ws", "/ws/", "/project-dashboard/ws", "/project-dashboard/ws/"]
MAX_BYTES = 1_048_576


def ws(server: RunningSidecar, path: str = "/ws") -> str:
    return server.url.replace("http", "ws", 1) + path


@pytest.fixture
def keys(server: RunningSidecar, name: str) -> tuple[Key, Key]:
    """Of two users whom no other test knows."""
    return new_key(server, f"{name}-a"), new_key(server, f"{name}-b")


Pair = tuple[RealClient, RealClient]


@pytest.mark.parametrize(("version", "other_version"), PAIRS)
def test_two_bots_talk(
    server: RunningSidecar, connect: Connect, keys: tuple[Key, Key], version: str, other_version: str
):
    """THE test: content, sender and order in both directions, every frame acknowledged by the server at once, and the
    envelope that a receiver gets as the real server writes it."""
    one_key, two_key = keys
    one = connect(version, ws(server), one_key.key, "wechat")
    two = connect(other_version, ws(server), two_key.key, "qq")
    there, back = (two_key.key, "qq"), (one_key.key, "wechat")

    sent = [one.send_text(f"hello {number}", to=there) for number in range(20)]
    assert [two.next_message() for _ in sent] == sent
    answers = [two.send_text(f"hello back {number}", to=back) for number in range(20)]
    assert [one.next_message() for _ in answers] == answers

    frame = two.next_frame("sys_std")
    assert set(frame) == {"ver", "msg_id", "type", "meta", "payload"}
    assert frame["ver"] == 1
    assert frame["meta"].pop("timestamp") > 0
    assert frame["meta"] == {"sender_user": "server", "target_user": two_key.user, "platform": "qq"}
    acks = [one.next_ack() for _ in sent]
    assert {ack["meta"]["uuid"] for ack in acks} == {one.state["uuid"]}
    assert [ack["payload"]["status"] for ack in acks] == ["received"] * len(sent)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("version", VERSIONS)
def test_every_path_serves_both(
    server: RunningSidecar, connect: Connect, keys: tuple[Key, Key], version: str, path: str
):
    bot = connect(version, ws(server, path), keys[0].key, "wechat")
    bot.send_text("to myself", to=(keys[0].key, "wechat"))
    assert bot.next_text() == "to myself"


def test_every_field_arrives_as_it_was_sent(server: RunningSidecar, connect: Connect, keys: tuple[Key, Key]):
    """Groups, nested segments, templates; and characters that a careless server breaks."""
    one, two = connect(OLD, ws(server), keys[0].key, "wechat"), connect(NEW, ws(server), keys[1].key, "qq")
    someone = {
        "platform": "wechat",
        "user_id": "u-1",
        "user_nickname": "\u738b\u5c0f\u660e",
        "user_cardname": "\U0001f916",
    }
    group = {"platform": "wechat", "group_id": "g-1", "group_name": '\u2028 \x7f " \\ \u202e'}
    info: dict[str, Any] = {
        "format_info": {"content_format": ["text", "image"], "accept_format": ["text"]},
        "template_info": {"template_items": {"a": "\u00e9"}, "template_name": {"b": "c"}, "template_default": False},
        "additional_config": {"deep": [{"er": [1, 2.5, None, True]}]},
        "sender_info": {"user_info": someone, "group_info": group},
        "receiver_info": {"user_info": someone},
    }
    segments = [
        {"type": "text", "data": "\u4f60\u597d \U0001f600 e\u0301"},
        {"type": "seglist", "data": [{"type": "at", "data": "u-1"}, {"type": "image", "data": "aGVsbG8="}]},
    ]
    for sender, receiver, to in ((one, two, (keys[1].key, "qq")), (two, one, (keys[0].key, "wechat"))):
        message = text_message(segments, to, kind="seglist", **info)
        assert sender.send(message)
        assert receiver.next_message() == message


def test_custom_messages_go_to_the_receiver_and_to_hooks(
    server: RunningSidecar, connect: Connect, keys: tuple[Key, Key]
):
    one = connect(OLD, ws(server), keys[0].key, "wechat", custom=["reply", "poke"])
    two = connect(NEW, ws(server), keys[1].key, "qq", custom=["reply", "poke"])
    poke = {"message_dim": {"api_key": keys[1].key, "platform": "qq"}, "strength": 3}
    assert one.send_custom("poke", poke)
    assert two.next_custom() == ("poke", poke)
    poke["message_dim"] = {"api_key": keys[0].address, "platform": "wechat"}
    assert two.send_custom("poke", poke)
    assert one.next_custom() == ("poke", poke)
    for bot in (one, two):
        assert bot.send_custom("notification", {"title": bot.name})
        assert bot.next_custom() == ("reply", {"echo": {"title": bot.name}})


def test_all_connections_of_the_user_on_the_platform_get_it(
    server: RunningSidecar, connect: Connect, keys: tuple[Key, Key]
):
    """Of both generations at once, by each key of the user; not those on another platform."""
    second = new_key(server, keys[1].user)
    receivers = [connect(version, ws(server), key, "qq") for version in VERSIONS for key in (keys[1].key, second.key)]
    other = connect(OLD, ws(server), keys[1].key, "wechat")
    sender = connect(NEW, ws(server), keys[0].key, "qq")
    sender.send_text("to all of qq", to=(keys[1].key, "qq"))
    for receiver in receivers:
        assert receiver.next_text() == "to all of qq"
    sender.send_text("to wechat", to=(keys[1].address, "wechat"))
    assert other.next_text() == "to wechat"
    assert other.texts() == ["to wechat"]
    assert all(receiver.texts() == ["to all of qq"] for receiver in receivers)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_duplicate_is_acknowledged_and_not_delivered_again(
    server: RunningSidecar, connect: Connect, keys: tuple[Key, Key], version: str
):
    sender = connect(version, ws(server), keys[0].key, "wechat")
    receiver = connect(OLD, ws(server), keys[1].key, "qq")
    to = (keys[1].key, "qq")
    frame = envelope(text_message("once", to))
    for _ in range(3):
        assert sender.send_frame(frame)
    for _ in range(3):
        sender.acked(frame["msg_id"])
    again = connect(version, ws(server), keys[0].key, "other")
    assert again.send_frame(frame)
    again.acked(frame["msg_id"])
    # Another key's message may have the same msg_id.
    assert receiver.send_frame({**frame, "payload": text_message("of another", to)})
    sender.send_text("last", to=to)
    assert {receiver.next_text() for _ in range(3)} == {"once", "of another", "last"}
    assert sorted(receiver.texts()) == ["last", "of another", "once"]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_queued_message_waits_for_its_receiver_and_comes_once(
    server: RunningSidecar, connect: Connect, keys: tuple[Key, Key], version: str
):
    other_version = NEW if version == OLD else OLD
    sender = connect(other_version, ws(server), keys[0].key, "wechat")
    to = (keys[1].key, "qq")
    for meta in ({"queue": True}, {"queue": {"ttl_seconds": 600}}, {}):
        frame = envelope(text_message(json.dumps(meta), to), **meta)
        assert sender.send_frame(frame)
        sender.acked(frame["msg_id"])
    early = connect(version, ws(server), keys[1].key, "another-platform")
    receiver = connect(version, ws(server), keys[1].key, "qq")
    kept = [receiver.next_text() for _ in range(2)]
    assert kept == [json.dumps({"queue": True}), json.dumps({"queue": {"ttl_seconds": 600}})]
    receiver.send_text("round", to=to)  # behind its acknowledgements: the server has read them
    assert receiver.next_text() == "round"
    receiver.stop()
    again = connect(version, ws(server), keys[1].key, "qq")
    sender.send_text("last", to=to)
    assert again.next_text() == "last"
    assert (again.texts(), early.texts()) == (["last"], [])


@pytest.mark.parametrize("version", VERSIONS)
def test_a_message_just_below_the_limit_arrives(
    server: RunningSidecar, connect: Connect, keys: tuple[Key, Key], version: str
):
    sender = connect(version, ws(server), keys[0].key, "wechat")
    receiver = connect(NEW if version == OLD else OLD, ws(server), keys[1].key, "qq")
    text = "x" * (MAX_BYTES - 1024)
    sender.send_text(text, to=(keys[1].key, "qq"))
    assert receiver.next_text() == text


@pytest.mark.parametrize("version", VERSIONS)
def test_a_message_over_the_limit_ends_its_connection_alone(
    server: RunningSidecar, connect: Connect, keys: tuple[Key, Key], version: str
):
    """The real client comes back by itself and is served again."""
    sender = connect(version, ws(server), keys[0].key, "wechat")
    receiver = connect(OLD, ws(server), keys[1].key, "qq")
    sender.next("connect")
    sender.send(text_message("x" * MAX_BYTES, (keys[1].key, "qq")))
    sender.next("connect")
    wait_until(lambda: sender.connected, "it is back")
    sender.send_text("small", to=(keys[1].key, "qq"))
    assert receiver.next_text() == "small"
    assert len(receiver.lines("connect")) == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_a_revoked_key_ends_its_connections(
    server: RunningSidecar, connect: Connect, keys: tuple[Key, Key], version: str
):
    """At once, and it doesn't get in again; the user's other key goes on."""
    second = new_key(server, keys[0].user)
    bot, other = (connect(version, ws(server), key, "wechat") for key in (keys[0].key, second.key))
    assert server.request("DELETE", f"/api/maim/keys/{keys[0].id}").status_code == 200
    wait_until(lambda: not bot.connected, "it is disconnected")
    if version == OLD:
        wait_until(lambda: "HTTP 401" in str(bot.last_error), "it is refused")
    other.send_text("still here", to=(second.key, "wechat"))
    assert other.next_text() == "still here"
    assert bot.texts() == []
    listed = server.get(f"/api/maim/connections?user={keys[0].user}").json()["items"]
    assert [item["key_id"] for item in listed] == [second.id]


@pytest.mark.parametrize("version", VERSIONS)
def test_an_unknown_key_is_refused_as_the_real_client_understands_it(
    server: RunningSidecar, bots: Any, name: str, version: str
):
    """0.6.8 would take a connection closed after the 101 for one; 0.7.5 would try an HTTP error again for ever."""
    before = server.get("/api/maim/stats").json()
    with RealClient(bots(version), ws(server), f"no-such-key-{uuid.uuid4().hex}", name) as bot:
        assert bot.connect() is False
        assert bot.connected is False
        assert bot.lines("connect") == []
        failed = server.get("/api/maim/stats").json()["failed_auths"] - before["failed_auths"]
        if version == OLD:
            assert "server rejected WebSocket connection: HTTP 401" in str(bot.last_error)
            assert failed > 1
        else:
            assert "failed to connect" in str(bot.last_error)
            assert failed == 1
    assert server.get(f"/api/maim/connections?platform={name}").json()["items"] == []


def test_both_generations_stand_in_one_list(server: RunningSidecar, connect: Connect, keys: tuple[Key, Key]):
    one, two = connect(OLD, ws(server), keys[0].key, "wechat"), connect(NEW, ws(server), keys[0].key, "qq")
    items = server.get(f"/api/maim/connections?user={keys[0].user}").json()["items"]
    assert {(item["uuid"], item["platform"], item["line"]) for item in items} == {
        (one.state["uuid"], "wechat", "websocket"),
        (two.state["uuid"], "qq", "socketio"),
    }
    for platform, bot in (("wechat", one), ("qq", two)):
        body = {"api_key": keys[0].address, "platform": platform}
        assert server.post("/api/maim/route", body).json()["connections"] == [bot.state["uuid"]]


@pytest.mark.parametrize("line", LINES)
def test_what_reaches_nobody_is_counted_by_its_reason(server: RunningSidecar, keys: tuple[Key, Key], line: str):
    foreign = new_key(server, keys[0].user, tenant="shop")
    with RawBot(server, keys[0].key, "wechat", line) as bot, RawBot(server, foreign.key, "wechat", line) as stranger:
        dims = {
            "no_key": {"platform": "qq"},
            "no_platform": {"api_key": keys[1].key},
            "unknown_receiver": {"api_key": "nobody's", "platform": "qq"},
            "offline": {"api_key": keys[1].key, "platform": "qq"},
            "foreign_tenant": {"api_key": foreign.key, "platform": "wechat"},
        }
        for reason, dim in dims.items():
            before = undelivered(server)
            frame = envelope({**text_message(reason, ("", "")), "message_dim": dim})
            bot.send(frame)
            bot.acked(frame["msg_id"])
            wait_until(
                lambda reason=reason, before=before: undelivered(server).get(reason, 0) == before.get(reason, 0) + 1,
                f"{reason} is counted",
            )
        stranger.send_to((foreign.key, "wechat"), "mine")
        assert stranger.next_text() == "mine"
