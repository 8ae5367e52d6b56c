"""Saying something in a free room over Socket.IO."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sockets.clients import NAMESPACES


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize("said", ["hello", {"message": "hello"}, {"message": "hello", "username": ""}])
def test_it_is_acknowledged_and_reaches_the_room(sidecar, page, name, namespace: str, said: Any):
    one, other = page(namespace).connected(), page().connected()
    elsewhere = page().connected()
    for each in (one, other):
        each.call("subscribe_room", name)
    answer = one.call("chat", name, said)
    assert set(answer) == {"ok", "room", "event_id"}
    assert (answer["ok"], answer["room"]) == (True, f"room:{name}")
    for each in (one, other):
        assert each.wait_for(1) == [int(answer["event_id"])]
        (event,) = each.events
        payload = event["payload"]
        assert event["type"] == "chat_message"
        assert set(payload) == {"message", "username", "sender", "sender_id", "source"}
        assert (payload["message"], payload["source"]) == ("hello", "websocket_chat")
        assert payload["username"] == payload["sender"]
    assert elsewhere.quiet() == []


def test_who_says_it_is_the_token_and_not_the_client(sidecar, page, name):
    token = sidecar.connection_token(sub="ada", rooms=[f"room:{name}"], scopes=["rooms:read", "messages:send"])
    one = page(token=token).connected()
    one.call("subscribe_room", name)
    said = {"message": "x", "username": " Root ", "sender": "root", "sender_id": 0, "source": "rest_api"}
    assert one.call("chat", name, said)["ok"]
    one.wait_for(1)
    payload = one.events[0]["payload"]
    assert (payload["username"], payload["sender"], payload["source"]) == ("Root", "ada", "websocket_chat")
    assert payload["sender_id"] != 0


def test_one_need_not_be_in_the_room(sidecar, page, name):
    one = page().connected()
    assert one.call("chat", name, "x")["ok"]
    assert one.quiet() == []


@pytest.mark.parametrize("scopes", [["rooms:read"], ["deployments:read", "push:manage"]])
def test_it_needs_its_scope(sidecar, page, name, scopes: list[str]):
    one = page(token=sidecar.new_token(*scopes)).connected()
    answer = one.call("chat", name, "x")
    assert (answer["ok"], answer["code"]) == (False, "not_allowed")


def test_a_browser_speaks_in_its_rooms_alone(sidecar, page, name):
    token = sidecar.connection_token(rooms=[f"room:{name}-*"], scopes=["messages:send"])
    one = page(token=token).connected()
    assert one.call("chat", f"{name}-a", "x")["ok"]
    for room in (name, f"x{name}-a", "everyone", f"user:{name}-a"):
        assert one.call("chat", room, "x")["code"] == "not_allowed"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], "invalid"),
        (["r"], "invalid"),
        (["", "x"], "bad_name"),
        (["a\nb", "x"], "bad_name"),
        (["x" * 201, "x"], "bad_name"),
        ([None, "x"], "bad_name"),
        ([True, "x"], "bad_name"),
        ([{}, "x"], "bad_name"),
        (["r", None], "invalid"),
        (["r", 7], "invalid"),
        (["r", True], "invalid"),
        (["r", []], "invalid"),
        (["r", {}], "invalid"),
        (["r", {"message": None}], "invalid"),
        (["r", {"message": "x", "username": 7}], "invalid"),
        (["r", {"message": "x", "username": "x" * 201}], "invalid"),
        (["r", "x" * 65_537], "invalid"),
    ],
)
def test_what_can_not_be_said_is_refused(page, arguments: list[Any], code: str):
    answer = page().connected().call("chat", *arguments)
    assert (answer["ok"], answer["code"]) == (False, code)
    assert answer["message"]


@pytest.mark.parametrize("text", ["\\ud800", "\\u0000", "\\ud83d\\ude00", "\\u202e\\n"])
def test_any_text_may_be_said(sidecar, raw, name, text: str):
    """What no client could decode is replaced."""
    one = raw.joined(sidecar)
    one.send(f'421["subscribe_room","{name}"]')
    while not str(one.recv()).startswith("431"):
        pass
    one.send(f'422["chat","{name}",{{"message":"{text}","username":"{text}"}}]')
    frames = [str(one.recv()) for _ in range(2)]
    assert any(frame.startswith('432[{"ok":true') for frame in frames), frames
    assert any('"chat_message"' in frame for frame in frames), frames


def test_a_lone_surrogate_is_no_rooms_name(sidecar, raw):
    one = raw.joined(sidecar)
    one.send('421["chat","\\ud800","x"]')
    assert '"code":"bad_name"' in str(one.recv())


def test_who_says_too_much_is_told_so(start_sidecar, page, name):
    server = start_sidecar(SIDECAR_RATE_LIMIT="1/second, burst 1")
    one = page(server=server).connected()
    answers = [one.call("chat", name, "x") for _ in range(10)]
    assert "rate_limited" in {answer.get("code") for answer in answers}
    assert one.call("heartbeat")["ok"]
