"""`subscribe_presence`: who may, what is answered, and that it is a room like the others."""

from __future__ import annotations

import json

import pytest

from sidecar.domain.events import Volatile
from sidecar.fanout.hub import Hub, Subscriber
from sidecar.sockets.presence import Meanwhile
from sidecar.wire.news import PRESENCE_JOINED, PRESENCE_LEFT
from tests.programs import wait_until
from tests.sockets.clients import Plain


def told(page) -> list[tuple[str, str, list[str]]]:
    """What it was told of who comes and leaves."""
    bodies = [(body["type"].removeprefix("presence_"), body["payload"]) for body in page.events if "volatile" in body]
    return [(type, payload["room"], payload["users"]) for type, payload in bodies]


def test_the_answer_lists_who_is_there(sidecar, page, name: str):
    ada = page(token=sidecar.connection_token(sub="ada")).connected()
    for one in (ada, page().connected()):
        assert one.call("subscribe_room", name)["ok"]
    plain = Plain(sidecar, f"/ws/rooms/{name}/", sidecar.connection_token(sub="bob"))
    plain.next()
    expected = [{"user": "ada", "connections": 1}, {"user": "bob", "connections": 1}]
    watching = page().connected()
    for command in ("subscribe_presence", "subscribe:presence"):
        wait_until(lambda c=command: watching.call(c, name)["users"] == expected, "it is told", watching.lines)
    answer = watching.call("subscribe_presence", name)
    assert answer == {"ok": True, "room": f"presence:{name}", "users": expected, "anonymous": 1}
    plain.close()


def test_who_watches_is_told_and_who_is_in_the_room_is_not(sidecar, page, name: str):
    watching, inside = page().connected(), page().connected()
    assert watching.call("subscribe_presence", name)["users"] == []
    assert inside.call("subscribe_room", name)["ok"]
    ada = page(token=sidecar.connection_token(sub="ada")).connected()
    assert ada.call("subscribe_room", name)["ok"]
    wait_until(lambda: told(watching) == [("joined", name, ["ada"])], "ada has come", watching.lines)
    inside.call("heartbeat")
    assert inside.events == []
    assert watching.call("unsubscribe_presence", name) == {"ok": True, "room": f"presence:{name}"}
    bob = page(token=sidecar.connection_token(sub="bob")).connected()
    assert bob.call("subscribe_room", name)["ok"]
    other = page().connected()
    wait_until(lambda: len(other.call("subscribe_presence", name)["users"]) == 2, "bob has come", other.lines)
    watching.call("heartbeat")
    assert told(watching) == [("joined", name, ["ada"])]


def test_what_is_told_while_the_list_is_read_is_in_it():
    """The client has heard it before the list, which is older."""
    hub, meanwhile = Hub(lambda subscriber, event: None), Meanwhile()
    hub.join(Subscriber(meanwhile, meanwhile, 0), "presence:r", 0)
    for number, (type, users) in enumerate(
        [(PRESENCE_JOINED, ["ada", "bob"]), (PRESENCE_LEFT, ["bob", "eve", "zoe"]), (PRESENCE_JOINED, ["zoe"])]
    ):
        payload = json.dumps({"room": "r", "users": users})
        hub.publish_volatile(Volatile(type, payload, "presence:r", "2026-01-01T00:00:00Z", str(number)))
    users = {"ada": 3, "eve": 1, "": 2}
    meanwhile.put_into(users)
    assert users == {"ada": 3, "zoe": 1, "": 2}


@pytest.mark.parametrize("bad", [[], [""], [None], [["a"]], ["x" * 201], ["a\nb"], [True]])
def test_a_bad_name_is_refused(page, bad: list):
    one = page().connected()
    for command in ("subscribe_presence", "unsubscribe_presence"):
        assert one.call(command, *bad)["code"] == "bad_name"


def test_it_needs_the_right_to_the_room(sidecar, page, name: str):
    for token in (sidecar.new_token("messages:send"), sidecar.connection_token(sub="ada", rooms=[f"room:{name}-x"])):
        one = page(token=token).connected()
        assert one.call("subscribe_presence", name)["code"] == "not_allowed"
    one = page(token=sidecar.connection_token(sub="ada", rooms=[f"room:{name}"])).connected()
    assert one.call("subscribe_presence", name)["ok"]
    one.call("refresh_token", sidecar.connection_token(sub="ada", rooms=[f"room:{name}-x"]))
    revoked = one.told("subscription:revoked")
    assert (revoked["type"], revoked["id"], revoked["code"]) == ("presence", name, "not_allowed")


def test_strangers_are_not_told(start_sidecar, page, name: str):
    server = start_sidecar(SIDECAR_ANONYMOUS_READ="true", SIDECAR_MAX_ROOMS="10")
    one = page(server=server, token=None).connected()
    assert one.call("subscribe_room", name)["ok"]
    assert one.call("subscribe_presence", name)["code"] == "not_allowed"
    known = page(server=server).connected()
    answers = [known.call("subscribe_presence", f"{name}-{number}") for number in range(11)]
    assert answers[-1]["code"] == "too_many_rooms", "it is one of the rooms of a socket"
    assert [answer["ok"] for answer in answers].count(True) <= 10


def test_a_session_that_is_given_back_goes_on(sidecar, page, name: str):
    """With what comes from now on; what was missed is in the list."""
    one = page(reconnectionDelay=50, reconnectionDelayMax=100).connected()
    assert one.call("subscribe_presence", name)["ok"]
    one.drop()
    assert one.next("connect")["recovered"]
    ada = page(token=sidecar.connection_token(sub="ada")).connected()
    assert ada.call("subscribe_room", name)["ok"]
    wait_until(lambda: told(one) == [("joined", name, ["ada"])], "ada has come", one.lines)
    assert one.call("subscribe_presence", name)["users"] == [{"user": "ada", "connections": 1}]
