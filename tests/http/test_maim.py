"""Bots over HTTP: every bad field named, scopes and tenants, and requests that are repeated."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.servers import RunningSidecar
from tests.services.bots import message
from tests.sockets.clients import Plain

SENDS = ["send", "broadcast", "custom"]


@pytest.fixture
def bot(sidecar: RunningSidecar) -> Iterator[Callable[..., Plain]]:
    """`bot(key)` is connected."""
    opened: list[Plain] = []

    def connect(key: str, uuid: str, platform: str = "qq") -> Plain:
        opened.append(Plain(sidecar, f"/ws?api_key={key}&platform={platform}&uuid={uuid}", token=""))
        return opened[-1]

    yield connect
    for one in opened:
        one.close()


def body(route: str, tenant: str, key: str = "") -> dict[str, Any]:
    """What reaches the user `bob` of this tenant on qq."""
    if route == "send":
        return {"message": message(key)}
    if route == "broadcast":
        return {"message": message(""), "tenant": tenant}
    return {"message_type": "x", "payload": {"a": 1}, "target_user": "bob", "target_platform": "qq", "tenant": tenant}


@pytest.mark.parametrize("route", SENDS)
def test_a_repetition_gets_the_first_answer_and_nobody_gets_it_twice(sidecar, bot, name, route: str):
    key = sidecar.bot_key("bob", tenant=name)["key"]
    one = bot(key, name[-20:])
    said = body(route, name, key)
    answers = [sidecar.post(f"/api/maim/{route}", said, headers={"Idempotency-Key": name}) for _ in range(3)]
    assert [answer.json() for answer in answers] == [{name[-20:]: True}] * 3
    assert [answer.headers.get("X-Maim-Duplicate") for answer in answers] == [None, "true", "true"]
    headers = {"Idempotency-Key": name, "Content-Type": "application/json"}
    other = sidecar.request("POST", f"/api/maim/{route}", content=json.dumps(said, indent=1), headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "conflict")
    bad = sidecar.post(f"/api/maim/{route}", said, headers={"Idempotency-Key": "x" * 256})
    assert bad.json()["errors"][0]["path"] == "Idempotency-Key"
    sidecar.post(f"/api/maim/{route}", said)
    first, second = one.next(), one.next()
    assert first["msg_id"] != second["msg_id"]
    assert one.say(msg_id="last")["type"] == "sys_ack", "nothing more has come"


def test_one_key_for_three_routes_and_two_tokens_suppresses_nothing(sidecar, bot, name):
    key = sidecar.bot_key("bob", tenant=name)["key"]
    one = bot(key, name[-20:])
    for token in (None, sidecar.new_token("maim:send")):
        for route in SENDS:
            answer = sidecar.post(
                f"/api/maim/{route}", body(route, name, key), token, headers={"Idempotency-Key": name}
            )
            assert (answer.json(), answer.headers.get("X-Maim-Duplicate")) == ({name[-20:]: True}, None)
    assert [one.next()["type"] for _ in range(6)] == ["sys_std", "sys_std", "custom_x"] * 2


def test_a_message_may_stand_at_the_top(sidecar, bot, name):
    key = sidecar.bot_key("bob", tenant=name)["key"]
    one = bot(key, name[-20:])
    assert sidecar.post("/api/maim/send", message(key)).json() == {name[-20:]: True}
    assert sidecar.post("/api/maim/broadcast", message("") | {"tenant": name}).json() == {name[-20:]: True}
    found = [one.next() for _ in range(2)]
    assert [told["payload"] for told in found] == [message(key), message("")]
    assert found[1]["meta"]["broadcast"] is True


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (message(""), "no_key"),
        (message("nobody"), "unknown_receiver"),
        (message("KEY", ""), "no_platform"),
        (message("KEY", "x" * 300), "invalid"),
        (message("KEY"), "offline"),
    ],
)
def test_why_nobody_was_reached(sidecar, name, payload: dict[str, Any], reason: str):
    key = sidecar.bot_key(name)["key"]
    dim = payload["message_dim"]
    said = payload | {"message_dim": dim | {"api_key": dim["api_key"].replace("KEY", key)}}
    answer = sidecar.post("/api/maim/send", {"message": said})
    assert (answer.status_code, answer.json(), answer.headers["X-Maim-Undelivered"]) == (200, {}, reason)
    route = sidecar.post("/api/maim/route", {"message": said}).json()
    assert (route["reason"], route["connections"]) == (reason, [])


def test_what_is_kept_is_told(sidecar, bot, name):
    key = sidecar.bot_key("bob", tenant=name)["key"]
    for said in (body("send", name, key), body("custom", name)):
        for more in ({"queue": True}, {"ttl_seconds": 60}, {"queue": True, "ttl_seconds": "60"}):
            answer = sidecar.post(f"/api/maim/{'custom' if 'payload' in said else 'send'}", said | more)
            assert answer.json() == {}
            assert answer.headers["X-Maim-Queued"] == "true"
            assert "X-Maim-Undelivered" not in answer.headers
    one = bot(key, name[-20:])
    assert [one.next()["type"] for _ in range(6)] == ["sys_std"] * 3 + ["custom_x"] * 3


@pytest.mark.parametrize(
    ("route", "said", "paths"),
    [
        ("send", {}, ["message"]),
        ("send", {"message": "text"}, ["message"]),
        ("send", {"message_info": {}}, ["message"]),
        (
            "send",
            {"message": message(""), "target_platform": 1.5, "queue": 1, "ttl_seconds": "soon"},
            ["queue", "target_platform", "ttl_seconds"],
        ),
        ("broadcast", {"platform": [], "tenant": {}}, ["message", "platform", "tenant"]),
        ("custom", {}, ["message_type", "payload"]),
        ("custom", {"message_type": "x", "payload": 1}, ["connection_uuid"]),
        ("custom", {"message_type": "x", "payload": 1, "target_user": "a"}, ["target_platform"]),
        ("route", {"target_platform": []}, ["target_platform"]),
        ("keys", {}, ["user"]),
        ("keys", {"user": [], "platforms": "qq", "key": "a b", "typo": 1}, ["key", "platforms", "typo", "user"]),
        ("keys", {"user": "u", "platforms": ["ok", ""]}, ["platforms[1]"]),
    ],
)
def test_every_bad_field_is_named(sidecar, route: str, said: dict[str, Any], paths: list[str]):
    answer = sidecar.post(f"/api/maim/{route}", said)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
    assert sorted(problem["path"] for problem in answer.json()["errors"]) == paths


@pytest.mark.parametrize("route", [*SENDS, "route", "keys"])
@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b"{", b'{"a":NaN}', b"\xff", b'"x"'])
def test_what_is_no_object_is_refused(sidecar, route: str, raw: bytes):
    headers = {"Content-Type": "application/json"}
    assert sidecar.request("POST", f"/api/maim/{route}", content=raw, headers=headers).status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        *[("POST", f"/api/maim/{route}", "maim:send") for route in [*SENDS, "route"]],
        ("GET", "/api/maim/connections", "maim:send"),
        ("GET", "/api/maim/stats", "maim:send"),
        ("POST", "/api/maim/keys", "maim:manage"),
        ("GET", "/api/maim/keys", "maim:manage"),
        ("DELETE", "/api/maim/keys/000000000000", "maim:manage"),
    ],
)
def test_each_route_needs_its_scope(sidecar, method: str, path: str, scope: str):
    other = "maim:manage" if scope == "maim:send" else "maim:send"
    assert sidecar.request(method, path, "").status_code == 401
    assert sidecar.request(method, path, "sct_wrong").status_code == 401
    answer = sidecar.request(method, path, sidecar.new_token(other, "messages:send"))
    assert answer.status_code == 403
    assert answer.json()["code"] == "not_allowed"
    assert sidecar.request(method, path, sidecar.new_token(scope)).status_code not in (401, 403)
    for way in (f"/project-dashboard{path}/", f"{path}/"):
        assert sidecar.request(method, way, sidecar.new_token(scope)).status_code not in (401, 403, 405)


@pytest.mark.parametrize("path", ["connections", "stats", "keys"])
def test_parameters_that_are_none_are_refused(sidecar, path: str):
    answer = sidecar.get(f"/api/maim/{path}?usr=x")
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, "usr")


def test_a_token_manages_the_tenants_that_it_names(sidecar, name):
    own, foreign = f"{name}-a", f"{name}-b"
    token = sidecar.new_token("maim:manage", projects=[own])
    theirs = sidecar.bot_key("bob", tenant=foreign)
    assert sidecar.post("/api/maim/keys", {"user": "u", "tenant": foreign}, token).status_code == 403
    mine = sidecar.bot_key("bob", token)
    assert mine["tenant"] == own, "a token of one project has that for its tenant"
    assert [row["id"] for row in sidecar.get("/api/maim/keys", token).json()["items"]] == [mine["id"]]
    assert sidecar.request("DELETE", f"/api/maim/keys/{theirs['id']}", token).status_code == 404
    assert sidecar.request("DELETE", f"/api/maim/keys/{mine['id']}", token).status_code == 200
    assert sidecar.request("DELETE", f"/api/maim/keys/{mine['id']}", token).status_code == 404
    two = sidecar.new_token("maim:manage", projects=[own, foreign])
    assert sidecar.post("/api/maim/keys", {"user": "u"}, two).status_code == 403, "default is neither"


def test_a_token_sends_to_the_tenants_that_it_names(sidecar, bot, name):
    own, foreign = f"{name}-a", f"{name}-b"
    keys = {tenant: sidecar.bot_key("bob", tenant=tenant)["key"] for tenant in (own, foreign)}
    uuids = {tenant: tenant[-20:] for tenant in keys}
    peers = {tenant: bot(key, uuids[tenant]) for tenant, key in keys.items()}
    token = sidecar.new_token("maim:send", projects=[own])
    for route in SENDS:
        assert sidecar.post(f"/api/maim/{route}", body(route, own, keys[own]), token).json() == {uuids[own]: True}
    assert sidecar.post("/api/maim/broadcast", body("broadcast", foreign), token).status_code == 403
    for route in ("send", "custom"):
        answer = sidecar.post(f"/api/maim/{route}", body(route, foreign, keys[foreign]), token)
        assert (answer.json(), answer.headers["X-Maim-Undelivered"]) == ({}, "foreign_tenant")
    by_name = {"message_type": "x", "payload": 1, "connection_uuid": uuids[foreign]}
    assert sidecar.post("/api/maim/custom", by_name, token).status_code == 404
    items = sidecar.get("/api/maim/connections", token).json()["items"]
    assert [item["uuid"] for item in items] == [uuids[own]]
    assert peers[foreign].say(msg_id="last")["type"] == "sys_ack", "nothing has come"


def test_who_is_connected_can_be_asked_for(sidecar, bot, name):
    made = sidecar.bot_key(name, tenant=f"t-{name}")
    bot(made["key"], f"{name[-20:]}-1")
    bot(made["key"], f"{name[-20:]}-2", "wechat")

    def found(**params: str) -> list[str]:
        items = sidecar.get("/api/maim/connections", params={"user": name, **params}).json()["items"]
        assert all(set(item) == FIELDS and item["key_id"] == made["id"] for item in items)
        return [item["uuid"][-1] for item in items]

    assert found() == ["1", "2"]
    assert found(platform="wechat", tenant=f"t-{name}") == ["2"]
    assert found(platform="other") == found(tenant="default") == []


FIELDS = {"uuid", "user", "tenant", "platform", "node", "line", "opened_at", "key_id"}


def test_a_key_is_shown_once(sidecar, name):
    made = sidecar.bot_key(name, platforms=["qq", "qq", "微信"], name="the bot")
    assert made["key"].startswith("smk_")
    assert made["platforms"] == ["qq", "微信"]
    assert made["address"] == f"sma_{made['id']}"
    (item,) = [item for item in sidecar.get("/api/maim/keys").json()["items"] if item["user"] == name]
    assert item == {field: value for field, value in made.items() if field not in ("success", "key")}
    again = sidecar.post("/api/maim/keys", {"user": "eve", "key": made["key"]})
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    assert made["key"] not in again.text


@pytest.mark.parametrize("route", [*SENDS, "route"])
def test_a_misspelt_field_is_told(sidecar, route: str):
    """`quue` was a message that was not kept, without a word."""
    said = body("send" if route == "route" else route, "default", "sma_000000000000") | {"quue": True}
    answer = sidecar.post(f"/api/maim/{route}", said)
    assert (answer.status_code, [field["path"] for field in answer.json()["errors"]]) == (400, ["quue"])
