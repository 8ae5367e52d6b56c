"""Roles and what they allow over HTTP: every route, who may use it, and what is refused."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.servers import RunningSidecar

MINE, VERSION, CHECK = "/api/permissions", "/api/permissions/version", "/api/permissions/check"
SYNC, NOTIFY, HISTORY = "/api/permissions/sync", "/api/permissions/notify", "/api/permissions/history"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSidecar]:
    """One of its own: roles are its installation's."""
    with RunningSidecar(tmp_path_factory.mktemp("permissions"), {"SIDECAR_RATE_LIMIT": "off"}) as running:
        yield running


GRANTS = [{"resource": "doc:*", "action": "read"}, {"resource": "doc:secret", "action": "*", "effect": "deny"}]
ROLES = [
    {"name": "reader", "grants": GRANTS, "menus": ["a"]},
    {"name": "editor", "inherits": ["reader"], "grants": [{"resource": "doc:*", "action": "*"}], "menus": ["b*"]},
    {"name": "anonymous", "menus": ["open"]},
    {"name": "authenticated", "grants": [{"resource": "self", "action": "*"}]},
]


@pytest.fixture
def house(server: RunningSidecar) -> RunningSidecar:
    """Ada is an editor, Bob a reader, Zoe nothing."""
    assert server.post(SYNC, {"roles": []}).status_code == 200  # so that nobody else has any
    users = {"ada": ["editor"], "bob": ["reader"], "zoe": []}
    assert server.post(SYNC, {"roles": ROLES, "users": users}).status_code == 200
    items = [{"key": key, "name": key} for key in ("a", "b1", "open", "x")]
    assert server.post("/api/menu/sync", {"items": items}).status_code == 200
    return server


def as_user(server: RunningSidecar, name: str) -> str:
    return server.connection_token(sub=name)


def put(server: RunningSidecar, path: str, body: Any, token: str | None = None, **headers: str):
    return server.request("PUT", path, token, json=body, headers=headers)


def check(server: RunningSidecar, resource: str, action: str, token: str | None = None, **more: str) -> bool:
    answer = server.get(CHECK, token, params={"resource": resource, "action": action} | more)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert set(body) == {"has_permission", "user", "resource", "action", "version"}
    assert (body["resource"], body["action"]) == (resource, action)
    found: bool = body["has_permission"]
    return found


def rooms_after(server: RunningSidecar, event_id: str, types: dict[str, Any] | None = None) -> set[str]:
    """The rooms of all events of the write whose last one this is."""
    (file,) = server.instance.glob("*.db")
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        rows = connection.execute(
            "SELECT type, payload, rooms FROM events WHERE seq <= ? AND seq > (SELECT max(seq) FROM events WHERE "
            "type = 'control.permissions' AND seq <= ?)",
            (event_id, event_id),
        ).fetchall()
    if types is not None:
        types |= {type: json.loads(payload) for type, payload, _ in rows}
    return {room for _, _, rooms in rows for room in json.loads(rooms)}


def both(path: str) -> list[str]:
    return [path, path + "/", "/project-dashboard" + path, f"/project-dashboard{path}/"]


class TestMine:
    @pytest.mark.parametrize("path", both(MINE))
    def test_what_i_may(self, house, path: str):
        body = house.get(path, as_user(house, "ada")).json()
        assert set(body) == {
            "user", "roles", "grants", "permissions", "menus", "version", "checksum", "seq", "epoch", "offset",
        }  # fmt: skip
        assert (body["user"], body["roles"]) == ("ada", ["authenticated", "editor", "reader"])
        assert {"resource": "doc:secret", "action": "*", "effect": "deny"} in body["grants"]
        assert {"resource": "menu:b*", "action": "view", "effect": "allow"} in body["grants"]
        assert body["menus"] == ["a", "b1"]

    def test_others_may_less(self, house):
        assert house.get(MINE, as_user(house, "bob")).json()["menus"] == ["a"]
        assert house.get(MINE, as_user(house, "zoe")).json()["roles"] == ["authenticated"]
        stranger = house.get(MINE, "").json()
        assert (stranger["user"], stranger["roles"], stranger["menus"]) == (None, ["anonymous"], ["open"])
        assert house.get(MINE, house.new_token("menu:write")).json()["user"] is None

    def test_the_admin_may_everything(self, house):
        body = house.get(MINE).json()
        assert (body["menus"], body["permissions"]) == (["a", "b1", "open", "x"], ["*:*"])

    @pytest.mark.parametrize("path", [MINE, VERSION, CHECK + "?resource=a&action=b"])
    def test_others_are_asked_about_with_the_right_to(self, house, path: str):
        query = f"{path}{'&' if '?' in path else '?'}user=ada"
        assert house.get(query, "").status_code == 401
        assert house.get(query, as_user(house, "bob")).status_code == 403
        assert house.get(query, house.new_token("menu:write")).status_code == 403
        assert house.get(query, as_user(house, "ada")).status_code == 200, "it is her"
        assert house.get(query, house.new_token("permissions:read")).status_code == 200
        assert house.get(query).status_code == 200
        assert house.get(query.replace("ada", "%00")).status_code == 400

    def test_of_others_it_is_the_same_as_they_are_told(self, house):
        mine, hers = house.get(MINE, as_user(house, "ada")).json(), house.get(MINE + "?user=ada").json()
        assert {name: hers[name] for name in hers if name not in ("seq", "offset")} == {
            name: mine[name] for name in mine if name not in ("seq", "offset")
        }
        assert house.get(MINE + "?user=nobody-knows").json()["roles"] == ["authenticated"]

    def test_not_modified(self, house):
        for path in (MINE, VERSION):
            tags = {name: house.get(path, as_user(house, name)).headers["ETag"] for name in ("ada", "bob")}
            assert tags["ada"] != tags["bob"]
            for name, tag in tags.items():
                again = house.get(path, as_user(house, name), headers={"If-None-Match": tag})
                assert (again.status_code, again.content) == (304, b"")
                assert again.headers["Cache-Control"] == "private, no-cache"
        menu_tag = house.get(MINE, as_user(house, "ada")).headers["ETag"]
        put(house, "/api/menu/b2", {"name": "b2"})
        changed = house.get(MINE, as_user(house, "ada"), headers={"If-None-Match": menu_tag})
        assert (changed.status_code, changed.json()["menus"]) == (200, ["a", "b1", "b2"])


def test_an_editor_of_the_menu_hears_of_their_new_roles(house):
    editor = house.connection_token(sub="zoe", scopes=["menu:write"])
    for query in ("", "?all=1"):
        put(house, "/api/users/zoe/roles", {"roles": []})
        tag = house.get("/api/menu" + query, editor).headers["ETag"]
        put(house, "/api/users/zoe/roles", {"roles": ["reader"]})
        again = house.get("/api/menu" + query, editor, headers={"If-None-Match": tag})
        assert (again.status_code, again.json()["roles"]) == (200, ["authenticated", "reader"])


class TestVersion:
    @pytest.mark.parametrize("path", both(VERSION))
    def test_its_fields(self, house, path: str):
        body = house.get(path, as_user(house, "ada")).json()
        assert list(body) == ["version", "timestamp", "checksum", "changes", "author", "description"]
        assert body["checksum"] == house.get(MINE, as_user(house, "ada")).json()["checksum"]
        assert body["description"] == "权限配置版本信息"
        assert house.get(path, "").status_code == 200

    def test_the_changes_are_those_of_this_user_and_who_made_them_is_not_told(self, house):
        put(house, "/api/roles/reader", {"menus": ["x"], "reason": "secret plan"})
        put(house, "/api/users/zoe/roles", {"roles": ["reader"], "reason": "secret plan"})
        ada = house.get(VERSION, as_user(house, "ada"))
        assert ada.json()["changes"][0]["targetId"] == "reader"
        assert "zoe" not in ada.text
        assert "secret plan" not in ada.text
        assert {ada.json()["author"], *(change["author"] for change in ada.json()["changes"])} == {"system"}
        full = house.get(VERSION + "?user=zoe").json()
        assert (full["author"], full["changes"][0]["targetId"], full["changes"][0]["reason"]) == (
            "admin", "zoe", "secret plan",
        )  # fmt: skip
        reader = house.get(VERSION + "?user=zoe", house.new_token("permissions:read"))
        assert "secret plan" not in reader.text


class TestCheck:
    @pytest.mark.parametrize("path", both(CHECK))
    def test_the_real_answer(self, house, path: str):
        answer = house.get(path + "?resource=doc:1&action=read", as_user(house, "bob")).json()
        assert answer == {
            "has_permission": True, "user": "bob", "resource": "doc:1", "action": "read", "version": answer["version"],
        }  # fmt: skip

    def test_grants_denials_inheritance_and_roles_that_nobody_is_given(self, house):
        ada, bob, zoe = (as_user(house, name) for name in ("ada", "bob", "zoe"))
        assert check(house, "doc:1", "write", ada)
        assert not check(house, "doc:1", "write", bob)
        assert not check(house, "doc:1", "read", zoe)
        assert not check(house, "doc:secret", "read", ada), "denied to who she inherits from"
        assert not check(house, "doc:secret", "read", bob)
        assert [check(house, "self", "x", who) for who in (ada, bob, zoe, "")] == [True, True, True, False]
        assert [check(house, "menu:open", "view", who) for who in (ada, zoe, "")] == [False, False, True]
        assert check(house, "doc:secret", "read")
        assert check(house, "doc:1", "write", user="ada")
        assert not check(house, "doc:1", "write", user="bob")
        assert not check(house, "anything", "at all", "")

    @pytest.mark.parametrize(
        ("query", "paths"),
        [("", ["resource", "action"]), ("?resource=a", ["action"]), ("?action=a&resource=", ["resource"]),
         ("?resource=" + "x" * 201 + "&action=" + "x" * 101, ["resource", "action"])],
    )  # fmt: skip
    def test_what_is_no_question(self, house, query: str, paths: list[str]):
        answer = house.get(CHECK + query)
        assert answer.status_code == 400
        assert [error["path"] for error in answer.json()["errors"]] == paths


class TestRoles:
    def test_a_role_is_made_changed_and_deleted(self, house):
        made = put(house, "/api/roles/new", {"menus": ["x"], "inherits": ["reader"], "reason": "why"})
        body = made.json()
        assert (body["success"], body["changed"], body["duplicate"]) == (True, True, False)
        assert {(c["type"], c["target"], c["targetId"], c["reason"]) for c in body["changes"]} == {
            ("create", "role", "new", "why")
        }
        assert made.headers["ETag"] == f'"{body["version"]}"'
        for path in both("/api/roles/new"):
            role = house.get(path)
            assert role.json() == {
                "name": "new", "inherits": ["reader"], "grants": [], "menus": ["x"], "version": body["version"],
            }  # fmt: skip
        assert put(house, "/api/roles/new", role.json()).json()["changed"] is False, "as it was read"
        assert house.get("/api/roles/new", headers={"If-None-Match": role.headers["ETag"]}).status_code == 304
        assert put(house, "/api/roles/new", {}).json()["changes"][0]["type"] == "update"
        deleted = house.request("DELETE", "/api/roles/new?reason=enough").json()
        assert (deleted["changes"][0]["type"], deleted["changes"][0]["reason"]) == ("delete", "enough")
        assert house.get("/api/roles/new").status_code == 404
        assert house.request("DELETE", "/api/roles/new").status_code == 404

    @pytest.mark.parametrize("path", both("/api/roles"))
    def test_all_of_them(self, house, path: str):
        answer = house.get(path)
        body = answer.json()
        assert [role["name"] for role in body["items"]] == ["anonymous", "authenticated", "editor", "reader"]
        assert answer.headers["ETag"] == f'"{body["version"]}"'
        assert house.get(path, headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304

    def test_who_has_one_loses_it_with_it(self, house):
        body = house.request("DELETE", "/api/roles/editor").json()
        assert [(c["type"], c["target"], c["targetId"]) for c in body["changes"]] == [
            ("delete", "role", "editor"), ("delete", "user", "ada"),
        ]  # fmt: skip
        assert house.get("/api/users/ada/roles").json()["roles"] == []

    def test_one_that_others_inherit_stays(self, house):
        answer = house.request("DELETE", "/api/roles/reader")
        assert (answer.status_code, answer.json()["detail"]) == (409, "It is inherited by editor: change those first.")
        assert house.get("/api/roles/reader").status_code == 200

    @pytest.mark.parametrize(
        ("role", "body", "paths"),
        [
            ("r", {"inherits": ["nobody"]}, ["inherits"]),
            ("r", {"inherits": ["r"]}, ["inherits"]),
            ("reader", {"inherits": ["editor"]}, ["inherits"]),
            ("r", {"name": "q"}, ["name"]),
            ("a*", {}, ["name"]),
            ("r", {"grants": [{"resource": "", "action": "x", "effect": "maybe"}], "menus": [""], "x": 1},
             ["grants[0].resource", "grants[0].effect", "menus[0]", "x"]),
        ],
    )  # fmt: skip
    def test_what_can_be_no_role(self, house, role: str, body: dict[str, Any], paths: list[str]):
        before = house.get(VERSION).json()["version"]
        answer = put(house, f"/api/roles/{role}", body)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
        assert [error["path"] for error in answer.json()["errors"]] == paths
        assert house.get(VERSION).json()["version"] == before

    def test_a_field_named_twice(self, house):
        for path in ("/api/roles/r", "/api/users/ada/roles"):
            raw = b'{"roles":[],"menus":[],"menus":["*"],"roles":["editor"]}'
            assert house.request("PUT", path, content=raw).status_code == 400
        assert house.post(SYNC, content=b'{"roles":[],"users":{"ada":[],"ada":["editor"]}}').status_code == 400

    def test_conditions(self, house):
        tag = house.get("/api/roles/reader").headers["ETag"]
        assert put(house, "/api/roles/other", {}).status_code == 200
        assert put(house, "/api/roles/reader", {"menus": ["x"]}, **{"If-Match": tag}).status_code == 200
        assert put(house, "/api/roles/reader", {"menus": ["y"]}, **{"If-Match": tag}).status_code == 412
        assert house.request("DELETE", "/api/roles/reader", headers={"If-Match": tag}).status_code == 412
        assert put(house, "/api/roles/reader", {}, **{"If-None-Match": "*"}).status_code == 412
        assert put(house, "/api/roles/nobody", {}, **{"If-Match": "*"}).status_code == 412
        assert put(house, "/api/roles/new", {}, **{"If-None-Match": "*"}).status_code == 200
        for path in ("/api/roles", VERSION, "/api/users/ada/roles"):
            tag = house.get(path).headers["ETag"]
            stale = {"If-Match": '"1"'}
            assert house.post(SYNC, {"roles": []}, headers=stale).status_code == 412
            assert put(house, "/api/users/ada/roles", {"roles": []}, **stale).status_code == 412
            assert put(house, "/api/users/ada/roles", {"roles": []}, **{"If-Match": tag}).status_code == 200
            put(house, "/api/users/ada/roles", {"roles": ["reader"]})


class TestUsers:
    def test_their_roles(self, house):
        for path in both("/api/users/ada/roles"):
            body = house.get(path).json()
            assert body == {"user": "ada", "roles": ["editor"], "version": body["version"]}
            assert put(house, path, body).json()["changed"] is False, "as it was read"
        body = put(house, "/api/users/ada/roles", {"roles": ["reader", "editor", "reader"], "reason": "why"}).json()
        (change,) = body["changes"]
        told = [change[field] for field in ("type", "target", "targetId", "reason")]
        assert told == ["update", "user", "ada", "why"]
        assert house.get("/api/users/ada/roles").json()["roles"] == ["editor", "reader"]
        assert put(house, "/api/users/ada/roles", {"roles": []}).json()["changes"][0]["type"] == "delete"

    def test_names_of_any_writing(self, house):
        for path, user in (("a%2Fb", "a/b"), ("用户", "用户"), ("x%20y", "x y")):
            assert put(house, f"/api/users/{path}/roles", {"roles": ["reader"]}).status_code == 200
            assert house.get(f"/api/users/{path}/roles").json()["user"] == user
            assert check(house, "doc:1", "read", as_user(house, user))

    def test_my_own_i_may_read(self, house):
        assert house.get("/api/users/ada/roles", as_user(house, "ada")).json()["roles"] == ["editor"]
        assert house.get("/api/users/ada/roles", as_user(house, "bob")).status_code == 403
        assert house.get("/api/users/ada/roles", "").status_code == 401
        assert house.get("/api/users/ada/roles", house.new_token("permissions:read")).status_code == 200

    @pytest.mark.parametrize(
        ("user", "body", "path"),
        [
            ("ada", {"roles": ["nobody"]}, "roles"),
            ("ada", {"roles": ["authenticated"]}, "roles"),
            ("ada", {"roles": ["anonymous"]}, "roles"),
            ("ada", {"roles": [7.5]}, "roles[0]"),
            ("ada", {"roles": ["reader"], "user": "bob"}, "user"),
            ("ada", {}, "roles"),
        ],
    )
    def test_what_is_refused(self, house, user: str, body: dict[str, Any], path: str):
        answer = put(house, f"/api/users/{user}/roles", body)
        assert (answer.status_code, [error["path"] for error in answer.json()["errors"]]) == (400, [path])
        assert house.get(f"/api/users/{user}/roles").json()["roles"] == ["editor"]

    def test_a_change_is_told_to_exactly_whom_it_touches(self, house):
        types: dict[str, Any] = {}
        body = put(house, "/api/users/zoe/roles", {"roles": ["reader"]}).json()
        assert rooms_after(house, body["event_id"], types) == {"permissions:zoe"}
        assert set(types) == {"role_updated", "permission_changed", "menu_access_changed", "cache_invalidation"}
        assert types["role_updated"] == {
            "userId": "zoe", "oldRole": "", "newRole": "reader",
            "permissions": ["doc:*:read", "menu:a:view", "self:*"],
        }  # fmt: skip
        assert types["cache_invalidation"] == {
            "userId": "zoe", "cacheKeys": ["permissions", "menu"], "version": body["version"],
        }  # fmt: skip
        body = put(house, "/api/roles/reader", {"menus": ["x"]}).json()
        assert rooms_after(house, body["event_id"]) == {"permissions:ada", "permissions:bob", "permissions:zoe"}
        body = put(house, "/api/roles/authenticated", {}).json()
        assert rooms_after(house, body["event_id"]) == {"permissions"}


class TestSync:
    def test_all_of_it(self, house):
        roles = [role for role in ROLES if role["name"] != "editor"]
        body = house.post(SYNC, {"roles": roles, "users": {"bob": []}, "reason": "why"}).json()
        assert [(c["type"], c["target"], c["targetId"]) for c in body["changes"]] == [
            ("delete", "role", "editor"), ("delete", "user", "ada"), ("delete", "user", "bob"),
        ]  # fmt: skip
        assert rooms_after(house, body["event_id"]) == {"permissions:ada", "permissions:bob"}

    def test_a_dry_run(self, house):
        before = house.get(VERSION).json()
        body = house.post(SYNC + "?dry_run=1", {"roles": []}).json()
        assert {change["type"] for change in body["changes"]} == {"delete"}
        assert (body["version"], body["event_id"]) == (before["version"], None)
        assert house.get(VERSION).json() == before

    def test_the_same_key_gets_the_first_answer(self, house, name):
        body = {"roles": ROLES, "users": {"zoe": ["reader"]}}
        first, again = (house.post(SYNC, body, headers={"Idempotency-Key": name}).json() for _ in range(2))
        assert again == first | {"duplicate": True}
        assert house.post(SYNC, {"roles": []}, headers={"Idempotency-Key": name}).status_code == 409

    def test_every_bad_field_is_named(self, house):
        answer = house.post(
            SYNC, {"roles": [{"name": "a"}, {"name": "a"}, {"menus": 1}, 7], "users": {"bob": 1}, "x": 1}
        )
        assert [error["path"] for error in answer.json()["errors"]] == ["x"]
        answer = house.post(SYNC, {"roles": [{"name": "a"}, {"name": "a"}, {"menus": 1}, 7], "users": {"bob": 1}})
        assert [error["path"] for error in answer.json()["errors"]] == [
            "roles[1].name", "roles[2].menus", "roles[3]", "users.bob.roles",
        ]  # fmt: skip
        answer = house.post(SYNC, {"roles": [{"name": "a", "inherits": ["b"]}], "users": {"bob": ["c"]}})
        assert [error["path"] for error in answer.json()["errors"]] == ["roles[0].inherits", "users.bob"]


class TestPast:
    def test_it_is_read_and_brought_back(self, house):
        version = house.get(VERSION).json()["version"]
        house.post(SYNC, {"roles": [], "reason": "oops"})
        old = house.get(f"/api/permissions/versions/{version}").json()
        assert {role["name"] for role in old["roles"]} == {"anonymous", "authenticated", "editor", "reader"}
        assert old["users"] == {"ada": ["editor"], "bob": ["reader"]}
        tried = house.post(f"/api/permissions/versions/{version}/rollback?dry_run=1", {"reason": "back"}).json()
        assert (tried["changed"], house.get(VERSION).json()["version"]) == (False, tried["version"])
        body = house.post(f"/api/permissions/versions/{version}/rollback", {"reason": "back"}).json()
        assert [change["targetId"] for change in tried["changes"]] == [c["targetId"] for c in body["changes"]]
        assert body["version"] > version
        assert house.get("/api/users/ada/roles").json()["roles"] == ["editor"]
        assert check(house, "doc:1", "write", as_user(house, "ada"))
        assert house.post(SYNC, old).json()["changed"] is False, "as it was read"
        assert house.get(HISTORY + "?limit=1").json()["items"][0]["action"] == f"rollback to {version}"

    def test_its_pages(self, house):
        made = [put(house, "/api/roles/r", {"menus": [f"m{n}"], "reason": f"{n}"}).json()["version"] for n in range(3)]
        for path in both(HISTORY):
            page = house.get(path + "?limit=2").json()
            assert [item["version"] for item in page["items"]] == made[:0:-1]
            rest = house.get(path, params={"limit": 1, "cursor": page["next"]}).json()
            assert [item["version"] for item in rest["items"]] == made[:1]
        assert page["items"][0]["changes"][0]["after"]["menus"] == ["m2"]

    @pytest.mark.parametrize("version", ["0", str(2**63 - 1), "9" * 40, "x"])
    def test_what_was_never_a_version(self, house, version: str):
        assert house.get(f"/api/permissions/versions/{version}").status_code == 404
        assert house.post(f"/api/permissions/versions/{version}/rollback").status_code == 404


class TestNotices:
    def test_to_whom(self, house, name):
        for to, rooms in (
            ({"user": "ada"}, {"permissions:ada"}),
            ({"role": "reader"}, {"permissions:ada", "permissions:bob"}),
            ({"all": True}, {"permissions"}),
            ("all", {"permissions"}),
        ):
            body = {"type": "system_notification", "to": to, "data": {"title": name}}
            answer = house.post(NOTIFY, body, headers={"Idempotency-Key": f"{name}-{rooms}-{to}"})
            said = answer.json()
            assert set(said) == {"success", "status", "message", "event_id", "epoch", "recipients", "duplicate"}
            types: dict[str, Any] = {}
            found = rooms_after(house, said["event_id"], types)
            assert rooms <= found
            assert types["system_notification"] == {"title": name}
            again = house.post(NOTIFY, body, headers={"Idempotency-Key": f"{name}-{rooms}-{to}"}).json()
            assert again == said | {"duplicate": True}

    @pytest.mark.parametrize(
        ("body", "path"),
        [
            ({"type": "menu_updated"}, "type"), ({"to": {}}, "to"), ({"to": {"role": "nobody"}}, "to.role"),
            ({"to": {"user": "a", "all": True}}, "to"), ({"data": []}, "data"),
        ],
    )  # fmt: skip
    def test_to_nobody(self, house, body: dict[str, Any], path: str):
        answer = house.post(NOTIFY, {"type": "system_notification", "to": "all"} | body)
        assert (answer.status_code, [error["path"] for error in answer.json()["errors"]]) == (400, [path])


READS = [
    ("GET", "/api/roles", None), ("GET", "/api/roles/reader", None), ("GET", HISTORY, None),
    ("GET", "/api/permissions/versions/1", None), ("GET", "/api/users/bob/roles", None),
    ("GET", MINE + "?user=bob", None),
]  # fmt: skip
WRITES = [
    ("PUT", "/api/roles/r", {}), ("DELETE", "/api/roles/r", None), ("PUT", "/api/users/bob/roles", {"roles": []}),
    ("POST", SYNC, {"roles": []}), ("POST", SYNC + "?dry_run=1", {"roles": []}),
    ("POST", "/api/permissions/versions/1/rollback", {}),
    ("POST", NOTIFY, {"type": "system_notification", "to": "all"}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body"), [*READS, *WRITES])
def test_each_needs_its_scope(house, method: str, path: str, body: Any):
    read = (method, path, body) in READS
    stranger = house.request(method, path, "", json=body)
    assert (stranger.status_code, "WWW-Authenticate" in stranger.headers) == (401, True)
    lacking = ["menu:write", "permissions:write" if read else "permissions:read"]
    for token in (house.new_token(*lacking), as_user(house, "ada")):
        assert house.request(method, path, token, json=body).status_code == 403
    enough = house.new_token("permissions:read" if read else "permissions:write")
    assert house.request(method, path, enough, json=body).status_code in (200, 404)


def test_until_the_first_role_everybody_who_is_signed_in_sees_the_menu(start_sidecar):
    server: RunningSidecar = start_sidecar()
    server.post("/api/menu/sync", {"items": [{"key": "a", "name": "A"}, {"key": "b", "name": "B"}]})
    ada = as_user(server, "ada")

    def sees(token: str) -> list[str]:
        return [item["key"] for item in server.get("/api/menu", token).json()["items"]]

    assert (sees(ada), sees(server.new_token("menu:write")), sees("")) == (["a", "b"], ["a", "b"], [])
    assert check(server, "menu:a", "view", ada)
    assert not check(server, "doc:1", "read", ada)
    types: dict[str, Any] = {}
    body = put(server, "/api/roles/reader", {"menus": ["a"]}).json()
    assert rooms_after(server, body["event_id"], types) == {"permissions"}
    assert types["menu_access_changed"] == {"userId": None, "menuChanges": {"added": [], "removed": ["a", "b"]}}
    assert (sees(ada), sees("")) == ([], [])
    put(server, "/api/users/ada/roles", {"roles": ["reader"]})
    assert sees(ada) == ["a"]
    assert sees(server.token) == ["a", "b"]
    server.request("DELETE", "/api/roles/reader")
    assert sees(ada) == []
