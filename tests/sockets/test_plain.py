"""Plain WebSockets of free rooms: the frames, who may open one, what ends one, and that nothing of it stays."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import websocket

from tests.programs import wait_until
from tests.servers import RunningSidecar
from tests.sockets.clients import Plain, in_time, login_cookie

SEND = "/api/send-websocket/"


@pytest.fixture
def plain(sidecar: RunningSidecar) -> Iterator[Any]:
    """`plain(room)` opens one in a room of the shared sidecar (or of `server`), past its greeting."""
    opened: list[Plain] = []

    def connect(room: str, token: str | None = None, server: RunningSidecar | None = None, **options: Any) -> Plain:
        path = options.pop("path", f"/ws/rooms/{quote(room)}/") + options.pop("query", "")
        opened.append(Plain(server or sidecar, path, token, **options))
        assert opened[-1].next()["type"] == "connection_status"
        return opened[-1]

    yield connect
    for one in opened:
        one.close()


def send(server: RunningSidecar, room: str, message: str = "x", **more: Any) -> int:
    answer = server.post(SEND, {"room": room, "message": message, **more})
    assert answer.status_code == 200, answer.text
    return int(answer.json()["event_id"])


@pytest.mark.parametrize(
    "path",
    [
        "/ws/rooms/{}/",
        "/ws/rooms/{}",
        "/ws/test/{}/",
        "/ws/test/{}",
        "/socket.io/rooms/{}/",
        "/socket.io/rooms/{}",
        "/socket.io/test/{}/",
        "/project-dashboard/ws/rooms/{}/",
        "/project-dashboard/ws/test/{}",
    ],
)
def test_a_room_greets_and_tells_what_is_sent_to_it(sidecar, name, path: str):
    room = quote(f"{name}", safe="")
    one = Plain(sidecar, path.format(room))
    greeting = one.next()
    assert set(greeting) == {"type", "status", "room", "message", "seq", "epoch", "offset", "timestamp"}
    assert (greeting["type"], greeting["status"], greeting["room"]) == ("connection_status", "connected", name)
    send(sidecar, name, "hello", data={"level": 3})
    frame = one.next()
    assert set(frame) == {"type", "message", "timestamp", "source"}
    assert (frame["type"], frame["source"]) == ("api_message", "rest_api")
    message = frame["message"]
    assert set(message) == {"content", "sender", "sender_id", "type", "level", "timestamp"}
    assert (message["content"], message["type"], message["level"]) == ("hello", "api_message", 3)
    assert frame["timestamp"] == message["timestamp"]
    one.close()


@pytest.mark.parametrize("room", ["Züri 部署 🚀", "a/b/c", "50%", "a b", "room:x", "..", "a?b#c", "ws", "  trimmed  "])
def test_a_rooms_name_is_any_text(sidecar, plain, name, room: str):
    one = plain(f"{room}{name}", path=f"/ws/rooms/{quote(room + name, safe='')}/")
    send(sidecar, f"{room}{name}", "hello")
    assert one.next()["message"]["content"] == "hello"


@pytest.mark.parametrize("room", ["", "%20", "a" * 201, "%00", "a%0Ab", quote("a\u202eb"), "\u00e4" * 201])
def test_a_name_that_no_room_can_have_is_400(sidecar, room: str):
    assert handshake(sidecar, f"/ws/rooms/{quote(room, safe='%')}/").status_code == 400


def handshake(server: RunningSidecar, path: str, token: str | None = None, **headers: str) -> httpx.Response:
    """A WebSocket's opening request that is expected to be refused, answered as plain HTTP."""
    given = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
    }
    answer = server.get(path, token, headers=given | headers)
    assert answer.status_code != 101
    return answer


class TestRefused:
    """By the status of the handshake, before any upgrade."""

    @pytest.mark.parametrize("token", ["", "sct_wrong", "a.b.c", "x" * 5_000])
    def test_without_a_right_token(self, sidecar, name, token: str):
        answer = handshake(sidecar, f"/ws/rooms/{name}/", token)
        assert answer.status_code == 401
        assert answer.json()["code"] == "unauthenticated"
        assert "WWW-Authenticate" in answer.headers

    def test_without_the_scope(self, sidecar, name):
        token = sidecar.new_token("messages:send", "deployments:read")
        assert handshake(sidecar, f"/ws/rooms/{name}/", token).status_code == 403

    def test_outside_of_a_browsers_rooms(self, sidecar, plain, name):
        token = sidecar.connection_token(rooms=[f"room:{name}-*"])
        plain(f"{name}-a", token)
        assert handshake(sidecar, f"/ws/rooms/{name}/", token).status_code == 403

    @pytest.mark.parametrize("origin", ["https://evil.example", "null"])
    def test_from_a_foreign_page(self, sidecar, name, origin: str):
        answer = handshake(sidecar, f"/ws/rooms/{name}/", Origin=origin)
        assert (answer.status_code, answer.json()["code"]) == (403, "bad_origin")

    @pytest.mark.parametrize("path", ["/ws/rooms/{}/", "/ws/test/{}", "/socket.io/rooms/{}/"])
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_without_an_upgrade(self, sidecar, name, path: str, method: str):
        answer = sidecar.request(method, path.format(name))
        assert answer.status_code == 426
        assert answer.headers["Upgrade"] == "websocket"

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"Sec-WebSocket-Version": "8"}, 426),
            ({"Sec-WebSocket-Key": "short"}, 400),
            ({"Connection": "keep-alive"}, 400),
        ],
    )
    def test_with_a_bad_handshake(self, sidecar, name, headers: dict[str, str], status: int):
        assert handshake(sidecar, f"/ws/rooms/{name}/", **headers).status_code == status

    @pytest.mark.parametrize("since", ["x", "-1", "1.zz", "9" * 400, "[]"])
    def test_with_a_place_that_is_none(self, sidecar, name, since: str):
        assert handshake(sidecar, f"/ws/rooms/{name}/?since={since}").status_code == 400

    @pytest.mark.parametrize("path", ["/ws/", "/ws/other/x/", "/ws/roomsx/x/", "/socket.io/other/x"])
    def test_at_another_address(self, sidecar, path: str):
        assert handshake(sidecar, path).status_code in (400, 404)


class TestTokens:
    def test_bearer(self, plain, sidecar, name):
        plain(name, "", header=[f"Authorization: Bearer {sidecar.token}"])

    def test_among_the_subprotocols(self, start_sidecar, plain, name):
        """How a browser gives one: the first is answered, the token stands in no log."""
        server = start_sidecar(SIDECAR_LOG_LEVEL="debug")
        token = server.connection_token(sub="ada")
        one = plain(name, "", server, subprotocols=["sidecar.v1", f"bearer.{token}"])
        assert one.made.getsubprotocol() == "sidecar.v1"
        api = plain(name, "", server, subprotocols=["sidecar.v1", f"bearer.{server.token}"])
        assert api.made.getsubprotocol() == "sidecar.v1"
        refused = handshake(
            server, f"/ws/rooms/{name}/", "", **{"Sec-WebSocket-Protocol": "sidecar.v1, bearer.secret.x.y"}
        )
        assert refused.status_code == 401
        for secret in (token, server.token, "secret.x.y"):
            assert secret not in server.output()

    def test_without_the_first_subprotocol_none_is_answered(self, plain, sidecar, name):
        one = plain(name, "", header=[f"Sec-WebSocket-Protocol: bearer.{sidecar.token}"])
        assert one.made.getsubprotocol() is None

    def test_in_the_url(self, start_sidecar, plain, name):
        server = start_sidecar(SIDECAR_LOG_LEVEL="debug")
        token = server.connection_token(sub="ada")
        plain(name, "", server, query=f"?token={token}")
        long = server.connection_token(sub="ada", ttl_seconds=301)
        for refused in (long, server.token, "a.b.c"):
            assert handshake(server, f"/ws/rooms/{name}/?token={refused}", "").status_code == 401
        for secret in (token, long, server.token):
            assert secret not in server.output()

    def test_by_the_login_cookie_of_the_same_origin(self, sidecar, plain, name):
        cookie = f"sidecar_login={login_cookie(sidecar)}"
        own = f"Origin: http://127.0.0.1:{sidecar.port}"
        plain(name, "", header=[f"Cookie: {cookie}", own])
        assert (
            handshake(sidecar, f"/ws/rooms/{name}/", "", Cookie=cookie, Origin="http://localhost:1").status_code == 403
        )
        assert handshake(sidecar, f"/ws/rooms/{name}/", "", Cookie="sidecar_login=x").status_code == 401

    def test_the_cookie_of_an_allowed_foreign_page_does_not_count(self, start_sidecar, name):
        server = start_sidecar(SIDECAR_ALLOWED_ORIGINS="https://shop.example")
        cookie = f"sidecar_login={login_cookie(server)}"
        answer = handshake(server, f"/ws/rooms/{name}/", "", Cookie=cookie, Origin="https://shop.example")
        assert answer.status_code == 401

    def test_strangers_are_let_in_where_anyone_may_read(self, start_sidecar, plain, name):
        server = start_sidecar(SIDECAR_ANONYMOUS_READ="true")
        one = plain(name, "", server)
        error = one.say(message="hi")
        assert (error["type"], error["code"]) == ("error", "unauthenticated")

    def test_a_revoked_token_closes_it(self, sidecar, plain, name):
        made = sidecar.post("/api/tokens", {"name": name, "scopes": ["rooms:read", "tokens:issue"]}).json()
        browser = sidecar.post("/api/tokens/connection", {"sub": "ada"}, made["token"]).json()["token"]
        sockets = [plain(name, made["token"]), plain(name, browser)]
        other = plain(name)
        assert sidecar.request("DELETE", f"/api/tokens/{made['id']}").status_code == 200
        for one in sockets:
            assert (one.next()["type"], one.closed()) == ("token_expired", 4401)
        assert other.say(message_type="ping")["type"] == "pong"

    def test_an_expired_token_closes_it(self, sidecar, plain, name):
        one = in_time(sidecar.connection_token, lambda token: plain(name, token), sub="ada")
        assert one.next()["type"] == "token_expiring"
        assert one.next()["type"] == "token_expired"
        assert one.closed() == 4401

    def test_a_user_who_is_sent_away(self, sidecar, plain, name):
        one = plain(name, sidecar.connection_token(sub=f"ada-{name}"))
        other = plain(name, sidecar.connection_token(sub=f"bob-{name}"))
        assert sidecar.post(f"/api/users/{quote(f'ada-{name}')}/disconnect").status_code == 200
        assert one.next()["type"] == "disconnected"
        assert one.closed() == 4403
        assert other.say(message_type="ping")["type"] == "pong"


class TestSaying:
    def test_chat_reaches_the_room_on_both_kinds_of_sockets(self, sidecar, plain, page, name):
        """`message_type` is chat unless it says otherwise."""
        one, other, elsewhere = plain(name), plain(name), plain(f"{name}-other")
        browser = page().connected()
        browser.call("subscribe_room", name)
        one.send(message="für alle 🚀", username="Ada")
        fields = {"type", "message", "username", "sender", "sender_id", "source", "timestamp"}
        for frame in (one.next(), other.next()):
            assert set(frame) == fields
            assert (frame["type"], frame["source"]) == ("chat_message", "websocket_chat")
            assert (frame["message"], frame["username"]) == ("für alle 🚀", "Ada")
            assert frame["sender"]
        browser.wait_for(1)
        assert browser.events[0]["type"] == "chat_message"
        assert browser.events[0]["payload"]["message"] == "für alle 🚀"
        other.send(message_type="chat", message="again")
        assert other.next()["username"] == other_name(one)
        assert elsewhere.say(message_type="ping")["type"] == "pong"

    def test_the_sender_is_who_the_token_says(self, sidecar, plain, name):
        token = sidecar.connection_token(sub="ada", rooms=[f"room:{name}"], scopes=["rooms:read", "messages:send"])
        frame = plain(name, token).say(message="x", username="root", sender="root", sender_id=0, timestamp="never")
        assert (frame["username"], frame["sender"]) == ("root", "ada")
        assert frame["sender_id"] != 0
        assert frame["timestamp"] != "never"

    def test_who_may_only_read_is_told(self, sidecar, plain, name):
        one, other = plain(name, sidecar.new_token("rooms:read")), plain(name)
        error = one.say(message="x")
        assert (error["type"], error["code"]) == ("error", "not_allowed")
        assert one.say(message_type="ping")["type"] == "pong"
        assert other.say(message_type="ping")["type"] == "pong"

    def test_ping_and_whatever_else(self, plain, name):
        one = plain(name)
        for kind, answer in (("ping", "pong"), ("anything", "echo"), (None, "echo"), (7, "echo"), ([], "echo")):
            frame = one.say(message_type=kind, more={"a": [1]})
            assert frame["type"] == answer
            assert frame["original_message"] == {"message_type": kind, "more": {"a": [1]}}
            assert frame["timestamp"].endswith("Z")

    @pytest.mark.parametrize("text", ["{", "", "nonsense", "{'a': 1}", '{"a": NaN}', "[" * 100_000, '{"a":1e999}'])
    def test_what_is_no_json(self, plain, name, text: str):
        one = plain(name)
        one.made.send(text)
        frame = one.next()
        assert (frame["type"], frame["error"]) == ("error", "Invalid JSON format")
        assert one.say(message_type="ping")["type"] == "pong"

    @pytest.mark.parametrize("text", ["[]", '"x"', "7", "null", "true", "[" + "0," * 60_000 + "0]"])
    def test_what_is_no_object_or_too_much(self, plain, name, text: str):
        one = plain(name)
        one.made.send(text)
        frame = one.next()
        assert (frame["type"], frame["code"]) == ("error", "invalid")
        assert one.say(message_type="ping")["type"] == "pong"

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({}, "message"),
            ({"message": None}, "message"),
            ({"message": 7}, "message"),
            ({"message": {"a": 1}}, "message"),
            ({"message": "x" * 65_537}, "message"),
            ({"message": "x", "username": 7}, "username"),
            ({"message": "x", "username": "x" * 201}, "username"),
        ],
    )
    def test_a_bad_field_is_named(self, plain, name, fields: dict[str, Any], field: str):
        error = plain(name).say(**fields)
        assert (error["type"], error["code"]) == ("error", "invalid")
        assert [item["path"] for item in error["errors"]] == [field]

    @pytest.mark.parametrize("text", ["\\ud800", "\\u0000", "\\n", "\\u202e"])
    def test_any_text_may_be_said(self, plain, name, text: str):
        one = plain(name)
        one.made.send(f'{{"message":"{text}","username":"{text}"}}')
        assert one.next()["type"] == "chat_message"

    def test_binary_closes_it(self, plain, name):
        one = plain(name)
        one.made.send_binary(b'{"message":"x"}')
        assert one.closed() == 1003

    def test_too_large_a_message_closes_it(self, plain, name):
        one = plain(name)
        one.made.send("x" * 1_048_577)
        assert one.closed() == 1009

    def test_who_says_too_much_is_told_so(self, start_sidecar, plain, name):
        server = start_sidecar(SIDECAR_RATE_LIMIT="1/second, burst 1")
        token = (server.instance / "admin-token").read_text().strip()
        one = plain(name, token, server)
        for _ in range(10):
            one.send(message="x")
        frames = [one.next() for _ in range(10)]
        assert {frame["type"] for frame in frames} == {"chat_message", "error"}
        assert next(frame for frame in frames if frame["type"] == "error")["code"] == "rate_limited"
        assert one.say(message_type="ping")["type"] == "pong"

    def test_messages_are_handled_in_their_order(self, plain, name):
        one = plain(name)
        for number in range(100):
            one.send(message=str(number))
        assert [one.next()["message"] for _ in range(100)] == [str(number) for number in range(100)]


def other_name(one: Plain) -> str:
    """Who does not say their name goes by that of their token."""
    return str(one.next()["sender"])


class TestPast:
    def test_what_came_after_a_place_comes_in_order_and_then_it_is_live(self, sidecar, plain, name):
        begin = send(sidecar, name, "1") - 1
        for number in range(2, 600):
            send(sidecar, name, str(number))
        one = plain(name, query=f"?since={begin}")
        send(sidecar, name, "600")
        frames = [one.next() for _ in range(600)]
        assert [frame["message"]["content"] for frame in frames] == [str(number) for number in range(1, 601)]
        assert all(frame["offset"] for frame in frames)
        again = plain(name, query=f"?since={frames[-2]['offset']}")
        assert again.next() == frames[-1]
        send(sidecar, name, "live")
        assert "offset" in again.next()

    def test_the_place_of_the_greeting_misses_nothing(self, sidecar, name):
        one = Plain(sidecar, f"/ws/rooms/{name}/")
        offset = one.next()["offset"]
        one.close()
        send(sidecar, name, "missed")
        for _ in range(2):  # also who was cut off when they had read no more than the greeting
            again = Plain(sidecar, f"/ws/rooms/{name}/?since={offset}")
            offset = again.next()["offset"]
            assert again.next()["message"]["content"] == "missed"
            again.close()

    @pytest.mark.parametrize("since", [10**12, "1.deadbeef"])
    def test_a_place_that_is_not_ours_is_told(self, sidecar, plain, name, since: object):
        send(sidecar, name)
        one = plain(name, query=f"?since={since}")
        told = one.next()
        assert (told["type"], told["room"]) == ("truncated", name)
        send(sidecar, name, "live")
        assert one.next()["message"]["content"] == "live"

    def test_only_the_targets_socket_sees_what_is_for_it(self, sidecar, plain, name):
        begin = send(sidecar, name, "first") - 1
        for user in ("ada", "bob"):
            send(sidecar, name, user, target_user=user)
        last = send(sidecar, name, "last")
        assert last > begin
        for user in ("ada", "bob"):
            one = plain(name, sidecar.connection_token(sub=user), query=f"?since={begin}")
            assert [one.next()["message"]["content"] for _ in range(3)] == ["first", user, "last"]


def test_they_count_as_connections(start_sidecar, plain, raw, name):
    """A plain socket more or less is a browser more or less."""
    server = start_sidecar(SIDECAR_MAX_CONNECTIONS="3", SIDECAR_RATE_LIMIT="off")
    raw(server)
    sockets = [plain(name, None, server) for _ in range(2)]
    refused = handshake(server, f"/ws/rooms/{name}/")
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    assert server.get("/socket.io/", params={"EIO": 4, "transport": "polling"}).status_code == 503
    sockets[0].close()
    wait_until(lambda: handshake_taken(server, name), "a place is free again")


def handshake_taken(server: RunningSidecar, room: str) -> bool:
    try:
        Plain(server, f"/ws/rooms/{room}/").close()
    except websocket.WebSocketBadStatusException:
        return False
    return True


@pytest.mark.parametrize("rude", [False, True])
def test_nothing_of_a_closed_socket_stays(start_sidecar, plain, name, rude: bool):
    server = start_sidecar(SIDECAR_RATE_LIMIT="off")
    sockets = [plain(name, None, server) for _ in range(5)]
    assert server.get(f"/api/rooms/{name}/presence").json()["connections"] == 5
    for one in sockets:
        if rude:
            one.reset()
        else:
            one.close()
    wait_until(lambda: server.get("/api/rooms").json()["items"] == [], "the room is empty")


def test_a_server_that_stops_closes_them(start_sidecar, plain, name):
    server = start_sidecar()
    one = plain(name, None, server)
    assert server.stop() == 0
    assert one.closed() in (1001, 1012)
