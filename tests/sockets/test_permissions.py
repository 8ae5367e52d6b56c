"""Plain WebSockets about permissions: the frames that older clients know, who may open one, and what ends one."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.governing import allow, deny, give, notify, put_role, short_name, until
from tests.servers import RunningSidecar
from tests.sockets.clients import Plain, in_time, login_cookie
from tests.sockets.test_plain import handshake

FLAT = {"type", "user_id", "groups", "server_time", "features", "data", "timestamp", "seq", "offset", "epoch"}
NESTED = {"user_id", "groups", "server_time", "sessionId", "features"}
FEATURES = {
    "permission_notifications",
    "role_updates",
    "menu_access_updates",
    "cache_invalidation",
    "heartbeat",
    "notifications",
    "permission_check",
}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d.*Z")


@pytest.fixture
def plain(sidecar: RunningSidecar) -> Iterator[Any]:
    """`plain(user)` opens the socket of this user, `plain()` that of nobody; both past the confirmation, which is
    `confirmed`. `path` and `token` may be others."""
    opened: list[Plain] = []

    def connect(
        user: str | None = None, token: str | None = None, server: RunningSidecar | None = None, **options: Any
    ) -> Plain:
        server = server or sidecar
        if token is None:
            token = "" if user is None else server.connection_token(sub=user)
        path = options.pop("path", f"/ws/permissions/{'anonymous' if user is None else quote(user, safe='')}")
        one = Plain(server, path + options.pop("query", ""), token, **options)
        opened.append(one)
        one.confirmed = one.next()  # type: ignore[attr-defined]
        return one

    yield connect
    for one in opened:
        one.close()


@pytest.fixture
def user() -> str:
    return short_name()


def refused(server: RunningSidecar, path: str, token: str = "", **options: Any) -> tuple[int, str]:
    """(close code, error_code) of one whose handshake is accepted, so that a browser can read why it is closed."""
    one = Plain(server, path, token, **options)
    error = one.next()
    assert (error["type"], error["message"] != "") == ("error", True)
    code = one.closed()
    one.close()
    return code, error["error_code"]


class TestConfirmation:
    @pytest.mark.parametrize("end", ["", "/"])
    @pytest.mark.parametrize("root", ["/ws", "/project-dashboard/ws", "/socket.io", "/project-dashboard/socket.io"])
    def test_of_nobody(self, plain, root: str, end: str):
        """It comes before the client has said anything."""
        told = plain(path=f"{root}/permissions/anonymous{end}").confirmed
        assert set(told) == FLAT
        assert set(told["data"]) == NESTED
        assert (told["type"], told["user_id"], told["data"]["user_id"]) == ("connection_confirmed", None, 0)
        assert told["groups"] == told["data"]["groups"] == []
        assert set(told["features"]) == FEATURES
        assert told["features"] == told["data"]["features"]
        assert all(value is True for value in told["features"].values())
        assert isinstance(told["timestamp"], int)
        assert TIME.fullmatch(told["server_time"])
        assert told["data"]["sessionId"].startswith("session_")

    @pytest.mark.parametrize(
        "path", ["/ws/permissions/{}", "/project-dashboard/ws/permissions/{}/", "/ws/permissions/"]
    )
    def test_of_a_user_names_the_roles_given(self, sidecar, plain, user: str, path: str):
        put_role(sidecar, f"{user}-b")
        put_role(sidecar, f"{user}-a", inherits=[f"{user}-b"])
        give(sidecar, user, f"{user}-a")
        told = plain(user, path=path.format(user)).confirmed
        assert (set(told), set(told["data"])) == (FLAT, NESTED)
        assert told["user_id"] == told["data"]["user_id"] == user
        assert told["groups"] == told["data"]["groups"] == [f"{user}-a"]

    @pytest.mark.parametrize("path", ["/ws/permissions", "/ws/permissions/", "/ws/permissions/anonymous/"])
    def test_without_a_name_it_is_who_the_token_says(self, plain, user: str, path: str):
        assert plain(user, path=path).confirmed["user_id"] == user
        assert plain(path=path).confirmed["user_id"] is None

    def test_it_comes_again_after_a_connect_and_is_the_same_session(self, sidecar, plain, user: str):
        put_role(sidecar, f"{user}-late")
        one = plain(user)
        seq = int(give(sidecar, user, f"{user}-late")["event_id"])
        assert [frame["type"] for frame in until(one, seq)] == ["role_updated"]
        again = one.say(type="connect", data={"userId": 7, "client_info": {}}, timestamp=1)
        assert (set(again), set(again["data"])) == (FLAT, NESTED)
        assert again["data"]["sessionId"] == one.confirmed["data"]["sessionId"]
        assert (again["user_id"], again["groups"]) == (user, [f"{user}-late"])
        assert again["seq"] >= seq

    @pytest.mark.parametrize("user", ["7", "用户 🚀", "a/b", "50%", "a b", "permissions:x", "anonymous"])
    def test_a_users_name_is_any_text(self, plain, user: str):
        assert plain(user).confirmed["user_id"] == user


class TestMessages:
    @pytest.mark.parametrize("kind", ["heartbeat", "ping"])
    def test_a_heartbeat_is_answered(self, plain, kind: str):
        began = time.time()
        told = plain().say(type=kind, timestamp=1)
        assert set(told) == {"type", "timestamp", "server_time"}
        assert told["type"] == "heartbeat_response"
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", told["timestamp"])
        assert isinstance(told["server_time"], float)
        assert told["server_time"] >= began - 1

    def test_a_check_gets_the_real_answer(self, sidecar, plain, user: str):
        put_role(sidecar, f"{user}-base", allow("report", "read"), allow(f"{user}:*", "*"))
        put_role(sidecar, user, deny(f"{user}:secret", "write"), inherits=[f"{user}-base"])
        give(sidecar, user, user)
        one = plain(user)
        for resource, action, may in [
            ("report", "read", True),
            ("report", "write", False),
            ("reports", "read", False),
            (f"{user}:any", "delete", True),
            (f"{user}:secret", "read", True),
            (f"{user}:secret", "write", False),
            ("*", "*", False),
        ]:
            told = one.say(type="permission_check", resource=resource, action=action, request_id="r")
            assert set(told) == {"type", "request_id", "resource", "action", "has_permission", "timestamp"}
            assert (told["type"], told["request_id"]) == ("permission_check_response", "r")
            assert (told["resource"], told["action"], told["has_permission"]) == (resource, action, may)
            nested = one.say(type="permission_check", data={"resource": resource, "action": action, "request_id": 8})
            assert (nested["request_id"], nested["has_permission"]) == (8, may)

    def test_the_answer_follows_a_change_that_the_socket_was_told_of(self, sidecar, plain, user: str):
        put_role(sidecar, user)
        give(sidecar, user, user)
        one, other = plain(user), plain(f"{user}-other")
        for granted in (True, False, True):
            seq = int(put_role(sidecar, user, *([allow("door", "open")] if granted else []))["event_id"])
            until(one, seq)
            assert one.say(type="permission_check", resource="door", action="open")["has_permission"] is granted
            assert other.say(type="permission_check", resource="door", action="open")["has_permission"] is False

    def test_who_is_admin_may_everything_and_a_stranger_nothing(self, sidecar, plain, user: str):
        put_role(sidecar, user)  # from here on the menu is governed
        admin = plain(token=sidecar.token, path="/ws/permissions/")
        assert admin.say(type="permission_check", resource=user, action="x")["has_permission"] is True
        assert plain().say(type="permission_check", resource=user, action="x")["has_permission"] is False

    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"resource": "a"},
            {"action": "b"},
            {"resource": "", "action": "b"},
            {"resource": 7, "action": "b"},
            {"resource": "a", "action": None},
            {"resource": "a", "action": ["b"]},
            {"resource": "a" * 201, "action": "b"},
            {"resource": "a", "action": "b" * 101},
            {"data": {"resource": "a"}},
            {"data": [1]},
        ],
    )
    def test_what_a_check_lacks_is_said_with_its_id(self, plain, fields: dict[str, Any]):
        told = plain().say(type="permission_check", request_id="r9", **fields)
        assert (told["type"], told["error_code"], told["request_id"]) == ("error", "missing_parameters", "r9")
        assert told["message"] == "缺少resource或action参数"
        assert TIME.fullmatch(told["timestamp"])

    @pytest.mark.parametrize("request_id", [None, 0, 1.5, [1], {"a": None}, "\ud800\0x"])
    def test_an_id_of_any_kind_comes_back(self, plain, request_id: Any):
        told = plain().say(type="permission_check", resource="a", action="b", request_id=request_id)
        if isinstance(request_id, str):
            assert told["request_id"].endswith("x")
        else:
            assert told["request_id"] == request_id

    def test_types_are_declined_and_taken_up_again(self, sidecar, plain, user: str):
        one, other = plain(user), plain(user)
        told = one.say(type="unsubscribe_notifications", types=["system_notification", "never_heard_of"])
        assert set(told) == {"type", "unsubscribed_types", "timestamp"}
        assert told["type"] == "unsubscription_confirmed"
        assert told["unsubscribed_types"] == ["system_notification", "never_heard_of"]
        muted = notify(sidecar, {"user": user})
        heard = notify(sidecar, {"user": user}, "tool_status_changed", toolId=1)
        assert until(one, heard) == []
        assert [frame["seq"] for frame in until(other, heard)] == [muted]
        told = one.say(type="subscribe_notifications", data={"types": ["system_notification"]})
        assert set(told) == {"type", "subscribed_types", "timestamp"}
        assert (told["type"], told["subscribed_types"]) == ("subscription_confirmed", ["system_notification"])
        assert until(one, notify(sidecar, {"user": user})) == []

    @pytest.mark.parametrize(
        "types", [None, "menu_updated", {}, 7, [7], [""], [None], ["x" * 101], ["x"] * 101, [["menu_updated"]]]
    )
    @pytest.mark.parametrize("kind", ["subscribe_notifications", "unsubscribe_notifications"])
    def test_types_that_are_no_list_of_names(self, plain, kind: str, types: Any):
        one = plain()
        assert one.say(type=kind, types=types)["error_code"] == "missing_parameters"
        assert one.say(type=kind, data={"types": types})["error_code"] == "missing_parameters"
        assert one.say(type="ping")["type"] == "heartbeat_response"

    @pytest.mark.parametrize("kind", ["auth", "auth_confirm", "heartbeat_response", "", None, 7, [], {"a": 1}])
    def test_a_type_that_is_unknown(self, plain, kind: Any):
        told = plain().say(type=kind)
        assert set(told) == {"type", "error_code", "message", "timestamp"}
        assert (told["error_code"], told["message"]) == ("UNKNOWN_MESSAGE_TYPE", "Unknown message type")

    @pytest.mark.parametrize("text", ["{", "", "nonsense", '{"a": NaN}', "[" * 100_000])
    def test_what_is_no_json(self, plain, text: str):
        one = plain()
        one.made.send(text)
        told = one.next()
        assert (told["type"], told["error_code"], told["message"]) == ("error", "INVALID_JSON", "Invalid JSON format")
        assert one.say(type="ping")["type"] == "heartbeat_response"

    @pytest.mark.parametrize("text", ["[]", '"x"', "7", "null"])
    def test_what_is_no_object(self, plain, text: str):
        one = plain()
        one.made.send(text)
        assert one.next()["error_code"] == "invalid"
        assert one.say(type="ping")["type"] == "heartbeat_response"

    def test_binary_closes_it(self, plain):
        one = plain()
        one.made.send_binary(b'{"type":"ping"}')
        assert one.closed() == 1003

    def test_too_large_a_message_closes_it(self, plain):
        one = plain()
        one.made.send("x" * 1_048_577)
        assert one.closed() == 1009


class TestWhoMayCome:
    def test_anothers_name_is_4403(self, sidecar, user: str):
        token = sidecar.connection_token(sub=user)
        for name in (f"{user}-other", user.upper(), "0", "anonymous2", f"{user}/x"):
            assert refused(sidecar, f"/ws/permissions/{name}/", token) == (4403, "not_allowed")

    def test_a_name_with_a_token_of_no_user_is_4403(self, sidecar):
        """An admin's too: whose socket it is follows from the token."""
        assert refused(sidecar, "/ws/permissions/7", sidecar.token) == (4403, "not_allowed")

    @pytest.mark.parametrize("name", ["7", "anonymous", ""])
    @pytest.mark.parametrize("token", ["sct_wrong", "a.b.c", "x" * 5_000])
    def test_a_wrong_token_is_4401(self, sidecar, token: str, name: str):
        assert refused(sidecar, f"/ws/permissions/{name}", token) == (4401, "unauthenticated")
        assert refused(sidecar, f"/ws/permissions/{name}?token={token}") == (4401, "unauthenticated")

    def test_a_name_without_a_token_is_4401(self, sidecar, user: str):
        assert refused(sidecar, f"/ws/permissions/{user}") == (4401, "unauthenticated")
        assert refused(sidecar, f"/ws/permissions/{user}/?token=&userId=7") == (4401, "unauthenticated")

    def test_an_ended_token_is_4401(self, sidecar, plain, user: str):
        token = sidecar.connection_token(sub=user, ttl_seconds=1)
        while sidecar.get("/api/permissions", token).status_code == 200:
            pass
        assert refused(sidecar, f"/ws/permissions/{user}", token) == (4401, "token_expired")

    def test_a_foreign_page_is_refused_before(self, sidecar):
        assert handshake(sidecar, "/ws/permissions/anonymous", "", Origin="https://evil.example").status_code == 403

    @pytest.mark.parametrize("since", ["x", "-1", "1.zz", "[]"])
    def test_so_is_a_place_that_is_none(self, sidecar, since: str):
        assert handshake(sidecar, f"/ws/permissions/anonymous?since={since}", "").status_code == 400

    def test_and_what_is_no_websocket(self, sidecar):
        assert sidecar.get("/ws/permissions/anonymous").status_code == 426

    def test_bearer(self, sidecar, plain, user: str):
        token = sidecar.connection_token(sub=user)
        assert plain(user, "", header=[f"Authorization: Bearer {token}"]).confirmed["user_id"] == user

    def test_in_the_url_and_among_the_subprotocols(self, start_sidecar, plain, user: str):
        """Neither stands in a log."""
        server = start_sidecar(SIDECAR_LOG_LEVEL="debug")
        token = server.connection_token(sub=user)
        assert plain(user, "", server, query=f"?token={token}&userId=7").confirmed["user_id"] == user
        long = server.connection_token(sub=user, ttl_seconds=301)
        assert refused(server, f"/ws/permissions/{user}?token={long}")[0] == 4401
        for offered, answered in [
            (["menu-protocol", f"bearer.{token}"], "menu-protocol"),
            ([f"bearer.{token}", "menu-protocol"], "menu-protocol"),
            (["sidecar.v1", f"bearer.{token}"], "sidecar.v1"),
            (["other", "menu-protocol", f"bearer.{token}"], "menu-protocol"),
        ]:
            one = plain(user, "", server, subprotocols=offered)
            assert (one.made.getsubprotocol(), one.confirmed["user_id"]) == (answered, user)
        only = plain(user, "", server, header=[f"Sec-WebSocket-Protocol: bearer.{token}"])
        assert only.made.getsubprotocol() is None
        assert refused(server, "/ws/permissions/", subprotocols=["menu-protocol", "bearer.secret.x.y"])[0] == 4401
        for secret in (token, long, "secret.x.y"):
            assert secret not in server.output()

    def test_the_older_clients_subprotocol_alone(self, plain):
        assert plain(subprotocols=["menu-protocol"]).made.getsubprotocol() == "menu-protocol"

    def test_it_is_not_that_of_free_rooms(self, sidecar, name: str):
        one = Plain(sidecar, f"/ws/rooms/{name}/", header=["Sec-WebSocket-Protocol: menu-protocol"])
        assert one.made.getsubprotocol() is None
        one.close()

    def test_by_the_login_cookie_of_the_same_origin(self, sidecar, plain):
        """Who is logged in is admin, and no user."""
        headers = [f"Cookie: sidecar_login={login_cookie(sidecar)}", f"Origin: http://127.0.0.1:{sidecar.port}"]
        one = plain(token="", header=headers, path="/ws/permissions/")
        assert one.confirmed["user_id"] is None
        assert one.say(type="permission_check", resource="any", action="thing")["has_permission"] is True


PAGE = """new Promise((done) => {
  const told = [];
  const one = new WebSocket(%s, %s);
  one.onmessage = (message) => {
    const frame = JSON.parse(message.data);
    told.push(frame.error_code || frame.user_id);
    if (frame.type === "connection_confirmed") one.close(1000);
  };
  one.onclose = (event) => done({told, protocol: one.protocol, code: event.code, opened: told.length > 0});
})"""


def test_in_a_browser(sidecar, browser, user: str):
    """Which fails a connection whose subprotocol is not answered, and reads nothing but close codes of a refusal."""
    browser.open(f"{sidecar.url}/healthz")
    url = f"ws://127.0.0.1:{sidecar.port}/ws/permissions"
    token = sidecar.connection_token(sub=user)

    def page(address: str, *offered: str) -> dict[str, Any]:
        found: dict[str, Any] = browser.evaluate(PAGE % (json.dumps(address), json.dumps(offered)))
        return found

    assert page(f"{url}/{user}", "menu-protocol", f"bearer.{token}") == {
        "told": [user],
        "protocol": "menu-protocol",
        "code": 1000,
        "opened": True,
    }
    assert page(f"{url}/anonymous", "menu-protocol")["told"] == [None]
    assert page(f"{url}/{user}?token={token}")["told"] == [user]
    for address, offered, code in [
        (f"{url}/{user}", ["menu-protocol"], 4401),
        (f"{url}/{user}", ["menu-protocol", "bearer.a.b.c"], 4401),
        (f"{url}/{user}-other", ["menu-protocol", f"bearer.{token}"], 4403),
    ]:
        refusal = page(address, *offered)
        assert (refusal["code"], refusal["protocol"]) == (code, "menu-protocol")
        assert refusal["told"] in (["unauthenticated"], ["not_allowed"])


class TestEnds:
    def test_a_revoked_token_closes_it(self, sidecar, plain, user: str):
        made = sidecar.post("/api/tokens", {"name": user, "scopes": ["tokens:issue"]}).json()
        issued = sidecar.post("/api/tokens/connection", {"sub": user}, made["token"]).json()["token"]
        sockets = [plain(token=made["token"]), plain(user, issued)]
        other = plain(user)
        assert sidecar.request("DELETE", f"/api/tokens/{made['id']}").status_code == 200
        for one in sockets:
            assert (one.next()["type"], one.closed()) == ("token_expired", 4401)
        assert other.say(type="ping")["type"] == "heartbeat_response"

    def test_an_ended_token_closes_it_after_a_warning(self, sidecar, plain, user: str):
        one = in_time(sidecar.connection_token, lambda token: plain(user, token), sub=user)
        assert one.next()["type"] == "token_expiring"
        assert one.next()["type"] == "token_expired"
        assert one.closed() == 4401

    def test_a_user_who_is_sent_away(self, sidecar, plain, user: str):
        one, other, nobody = plain(user), plain(f"{user}-other"), plain()
        assert sidecar.post(f"/api/users/{user}/disconnect").status_code == 200
        assert (one.next()["type"], one.closed()) == ("disconnected", 4403)
        for left in (other, nobody):
            assert left.say(type="ping")["type"] == "heartbeat_response"
        assert plain(user).confirmed["user_id"] == user

    def test_a_server_that_stops_closes_it(self, start_sidecar, plain, user: str):
        server = start_sidecar()
        one = plain(user, None, server)
        assert server.stop() == 0
        assert one.closed() in (1001, 1012)
