"""The menu over HTTP: every route, who may use it, and what is refused without doing half of it."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest

from sidecar.domain.menu import MAX_DEPTH, MAX_ITEMS, RESERVED_KEYS
from tests.servers import RunningSidecar

VERSION, MENU, SYNC = "/api/menu/version", "/api/menu", "/api/menu/sync"
SIX = {"version", "timestamp", "checksum", "changes", "author", "description"}
EMPTY = "d751713988987e9331980363e24189ce"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSidecar]:
    """One of its own: a menu is its installation's."""
    with RunningSidecar(tmp_path_factory.mktemp("menu"), {"SIDECAR_RATE_LIMIT": "off"}) as running:
        yield running


@pytest.fixture
def menu(server: RunningSidecar) -> RunningSidecar:
    """A menu of `a` with `b` in it and `c`, where `authenticated` may see all of it and `anonymous` may see c."""
    roles = [{"name": "authenticated", "menus": ["*"]}, {"name": "anonymous", "menus": ["c"]}]
    assert server.post("/api/permissions/sync", {"roles": roles}).status_code == 200
    sync(server, {"key": "a", "name": "A", "children": [{"key": "b", "name": "B"}]}, {"key": "c", "name": "C"})
    return server


def sync(server: RunningSidecar, *items: Any, **more: Any) -> dict[str, Any]:
    answer = server.post(SYNC, {"items": list(items), **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def put(server: RunningSidecar, key: str, body: Any, token: str | None = None, **headers: str) -> httpx.Response:
    return server.request("PUT", f"{MENU}/{key}", token, json=body, headers=headers)


def patch(server: RunningSidecar, key: str, body: Any, token: str | None = None, **headers: str) -> httpx.Response:
    return server.request("PATCH", f"{MENU}/{key}", token, json=body, headers=headers)


def keys(server: RunningSidecar, token: str | None = None, query: str = "") -> Any:
    def of(nodes: Any) -> Any:
        return {node["key"]: of(node["children"]) for node in nodes}

    answer = server.get(MENU + query, token)
    assert answer.status_code == 200, answer.text
    return of(answer.json()["items"])


def journal(server: RunningSidecar, after: int) -> list[tuple[str, dict[str, Any], list[str]]]:
    """The events after this seq: type, payload, rooms."""
    (file,) = server.instance.glob("*.db")
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT type, payload, rooms FROM events WHERE seq > ? ORDER BY seq", (after,))
        return [(type, json.loads(payload), json.loads(rooms)) for type, payload, rooms in rows]


def unchanged(server: RunningSidecar) -> tuple[int, str]:
    body = server.get(VERSION).json()
    return body["version"], body["checksum"]


def both(path: str) -> list[str]:
    return [path, path + "/", "/project-dashboard" + path, f"/project-dashboard{path}/"]


class TestVersion:
    def test_of_a_menu_that_nobody_has_written(self, start_sidecar):
        body = start_sidecar().get(VERSION, "").json()
        assert list(body) == ["version", "timestamp", "checksum", "changes", "author", "description"]
        assert (body["checksum"], body["changes"], body["author"]) == (EMPTY, [], "system")
        assert body["version"] == body["timestamp"] > 1_700_000_000
        assert body["description"] == "菜单配置版本信息"

    @pytest.mark.parametrize("path", both(VERSION))
    @pytest.mark.parametrize("token", ["", None], ids=["stranger", "admin"])
    def test_everybody_reads_it(self, menu, path: str, token: str | None):
        answer = menu.get(path, token)
        assert (answer.status_code, set(answer.json())) == (200, SIX)
        assert answer.headers["Content-Type"] == "application/json"

    def test_every_change_is_a_higher_one(self, menu):
        versions = [menu.get(VERSION).json()["version"]]
        for change in (
            lambda: put(menu, "d", {"name": "D"}),
            lambda: patch(menu, "d", {"icon": "x"}),
            lambda: menu.request("DELETE", MENU + "/d"),
        ):
            answer = change().json()
            body = menu.get(VERSION, "").json()
            assert (answer["version"], answer["checksum"]) == (body["version"], body["checksum"])
            versions.append(body["version"])
        assert versions == sorted(set(versions))

    def test_author_and_reason_are_for_editors(self, menu):
        editor = menu.new_token("menu:write")
        patch(menu, "a", {"icon": "x", "reason": "secret plan"}, editor)
        for token in ("", menu.new_token("permissions:write"), menu.connection_token(sub="ada")):
            body = menu.get(VERSION, token)
            assert "secret plan" not in body.text
            assert (body.json()["author"], body.json()["changes"][0]["author"]) == ("system", "system")
            assert body.json()["changes"][0]["reason"] == ""
        body = menu.get(VERSION, editor).json()
        assert (body["author"], body["changes"][0]["reason"]) == ("test", "secret plan")
        assert set(body["changes"][0]) == {"type", "target", "targetId", "targetName", "timestamp", "author", "reason"}

    def test_not_modified(self, menu):
        for token in ("", None):
            first = menu.get(VERSION, token)
            tag = first.headers["ETag"]
            assert tag.strip('"').partition("-")[0] == str(first.json()["version"])
            for asked in (tag, f"W/{tag}", f'"1", {tag}'):
                again = menu.get(VERSION, token, headers={"If-None-Match": asked})
                assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
            for asked in ('"1"', tag.replace("1", "2"), '""', ""):
                assert menu.get(VERSION, token, headers={"If-None-Match": asked}).status_code == 200
        public = menu.get(VERSION, "").headers["ETag"]
        assert menu.get(VERSION, headers={"If-None-Match": public}).status_code == 200, "an editor is told more"
        put(menu, "d", {"name": "D"})
        assert menu.get(VERSION, "", headers={"If-None-Match": public}).status_code == 200

    def test_a_wrong_token_is_told(self, menu):
        assert menu.get(VERSION, "sct_wrong").status_code == 401


class TestSeeing:
    @pytest.mark.parametrize("path", both(MENU))
    def test_a_tree(self, menu, path: str):
        answer = menu.get(path)
        body = answer.json()
        assert set(body) == {"version", "checksum", "items", "roles", "seq", "epoch", "offset"}
        a, c = body["items"]
        assert set(a) == {
            "key", "name", "menu_level", "icon", "url", "sort_order", "is_active", "description", "parent",
            "created_at", "updated_at", "children",
        }  # fmt: skip
        assert (a["key"], a["children"][0]["key"], a["children"][0]["parent"], c["children"]) == ("a", "b", "a", [])
        assert body["checksum"] == menu.get(VERSION).json()["checksum"]

    def test_each_sees_what_they_may(self, menu):
        patch(menu, "b", {"is_active": False})
        assert keys(menu, "") == {"c": {}}
        assert keys(menu, menu.connection_token(sub="ada")) == {"a": {}, "c": {}}
        assert keys(menu, menu.new_token("permissions:read")) == {"a": {}, "c": {}}
        for token in (None, menu.new_token("menu:write")):
            assert keys(menu, token) == {"a": {}, "c": {}}
            assert keys(menu, token, "?all=1") == {"a": {"b": {}}, "c": {}}
        assert menu.get(MENU, "").json()["roles"] == ["anonymous"]
        assert menu.get(MENU, menu.connection_token(sub="ada")).json()["roles"] == ["authenticated"]

    def test_all_of_it_is_for_editors(self, menu):
        assert menu.get(MENU + "?all=1", "").status_code == 401
        assert menu.get(MENU + "?all=1", menu.connection_token(sub="ada")).status_code == 403
        assert menu.get(MENU + "?all=yes").status_code == 400

    def test_one_item(self, menu):
        for path in both(MENU + "/b"):
            assert menu.get(path).json()["name"] == "B"
        item = menu.get(MENU + "/b")
        assert item.headers["ETag"] == f'"{item.json()["version"]}"'
        assert menu.get(MENU + "/b", headers={"If-None-Match": item.headers["ETag"]}).status_code == 304
        assert menu.get(MENU + "/c", "").status_code == 200
        for key in ("b", "nothing", "sync"):
            assert menu.get(f"{MENU}/{key}", "").status_code == 404

    def test_not_modified_as_long_as_nothing_changes_for_this_caller(self, menu):
        tokens = ["", menu.connection_token(sub="ada"), None]
        tags = [menu.get(MENU, token).headers["ETag"] for token in tokens]
        assert len(set(tags)) == 3
        for token, tag in zip(tokens, tags, strict=True):
            answers = [menu.get(MENU, token, headers={"If-None-Match": asked}).status_code for asked in tags]
            assert answers == [304 if asked == tag else 200 for asked in tags]
        roles = [{"name": "authenticated", "menus": ["a"]}, {"name": "anonymous", "menus": ["c"]}]
        menu.post("/api/permissions/sync", {"roles": roles})
        answers = [
            menu.get(MENU, token, headers={"If-None-Match": tag}).status_code
            for token, tag in zip(tokens, tags, strict=True)
        ]
        assert answers == [304, 200, 304]

    def test_no_proxy_keeps_what_one_caller_sees(self, menu):
        for path in (MENU, MENU + "/c"):
            headers = menu.get(path, "").headers
            assert headers["Cache-Control"] == "private, no-cache"
            assert {"Authorization", "Cookie", "X-API-Key"} <= {part.strip() for part in headers["Vary"].split(",")}


class TestEditing:
    def test_an_item_is_made_changed_and_deleted(self, menu):
        made = put(menu, "d", {"name": "D", "parent": "a", "reason": "why"})
        body = made.json()
        assert {
            "success", "message", "version", "checksum", "changed", "changes", "item", "event_id", "epoch",
        } <= set(body)  # fmt: skip
        assert (body["success"], body["changed"], body["duplicate"]) == (True, True, False)
        (change,) = body["changes"]
        assert (change["type"], change["target"], change["targetId"], change["targetName"]) == (
            "create",
            "menu",
            "d",
            "D",
        )
        assert (change["author"], change["reason"]) == ("admin", "why")
        assert made.headers["ETag"] == f'"{body["version"]}"'
        assert body["item"]["menu_level"] == "level1"
        assert menu.get(MENU + "/d").json() == body["item"]
        changed = patch(menu, "d", {"url": "/d"}).json()
        assert (changed["item"]["url"], changed["item"]["name"]) == ("/d", "D")
        assert changed["changes"][0]["type"] == "update"
        replaced = put(menu, "d", {"name": "D2"}).json()
        assert (replaced["item"]["url"], replaced["item"]["parent"]) == ("", None)
        assert replaced["item"]["created_at"] == body["item"]["created_at"]
        deleted = menu.request("DELETE", MENU + "/d?reason=enough").json()
        assert (deleted["changes"][0]["type"], deleted["changes"][0]["reason"]) == ("delete", "enough")
        assert "item" not in deleted
        assert menu.get(MENU + "/d").status_code == 404

    @pytest.mark.parametrize("path", both(MENU + "/d"))
    def test_under_every_spelling(self, menu, path: str):
        assert menu.request("PUT", path, json={"name": "D"}).status_code == 200
        assert menu.request("PATCH", path, json={"icon": "x"}).status_code == 200
        assert menu.request("DELETE", path).status_code == 200

    def test_what_was_read_may_be_sent_back(self, menu):
        item = menu.get(MENU + "/b").json()
        assert put(menu, "b", item).json()["changed"] is False
        whole = menu.get(MENU + "?all=1").json()
        assert menu.post(SYNC, whole).json()["changed"] is False
        version = menu.get(f"{MENU}/versions/{whole['version']}").json()
        assert menu.post(SYNC, version).json()["changed"] is False

    def test_nothing_to_change(self, menu):
        before = unchanged(menu)
        for answer in (put(menu, "c", {"name": "C", "sort_order": 2}), patch(menu, "c", {})):
            body = answer.json()
            assert (answer.status_code, body["changed"], body["changes"], body["event_id"]) == (200, False, [], None)
            assert body["item"]["name"] == "C"
        assert unchanged(menu) == before

    def test_what_has_children(self, menu):
        answer = menu.request("DELETE", MENU + "/a")
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
        assert menu.request("DELETE", MENU + "/a?children=0").status_code == 400
        body = menu.request("DELETE", MENU + "/a?children=1").json()
        assert [change["targetId"] for change in body["changes"]] == ["a", "b"]
        assert keys(menu) == {"c": {}}

    @pytest.mark.parametrize("method", ["PATCH", "DELETE"])
    def test_what_is_not_there(self, menu, method: str):
        answer = menu.request(method, MENU + "/nothing", json={})
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")

    def test_keys_of_any_writing(self, menu):
        for key, path in (("菜单", "菜单"), ("a b", "a%20b"), ("x?y#z", "x%3Fy%23z"), ("50%", "50%25")):
            assert put(menu, path, {"name": "x", "key": key}).json()["item"]["key"] == key
            assert menu.get(f"{MENU}/{path}").json()["key"] == key

    def test_what_each_change_tells(self, menu):
        answers = [
            put(menu, "c", {"name": "C2", "sort_order": 2}).json(),
            patch(menu, "c", {"is_active": False}).json(),
            menu.request("DELETE", MENU + "/c").json(),
        ]
        events = [journal(menu, int(answer["event_id"]) - 1)[0] for answer in answers]
        assert {type for type, _, _ in events} == {"menu_updated"}
        assert [rooms for _, _, rooms in events] == [["menu", "anonymous"], ["menu", "anonymous"], ["menu"]]
        for answer, (_, body, _) in zip(answers, events, strict=True):
            assert set(body) == {"menuId", "action", "menuData", "version", "affectedUsers"}
            assert (body["menuId"], body["version"], body["affectedUsers"]) == ("c", answer["version"], [])
        assert [body["action"] for _, body, _ in events] == ["update", "update", "delete"]
        assert events[0][1]["menuData"] == {
            name: value for name, value in answers[0]["item"].items() if name != "version"
        }
        assert [body["menuData"] for _, body, _ in events[1:]] == [None, None], "nobody sees it"


class TestConditions:
    def tag(self, server: RunningSidecar, path: str = MENU + "/b") -> str:
        return str(server.get(path).headers["ETag"])

    def test_the_items_version(self, menu):
        tag = self.tag(menu)
        patch(menu, "c", {"icon": "x"})
        assert patch(menu, "b", {"icon": "x"}, **{"If-Match": tag}).status_code == 200, "c is no concern of b's"
        answer = patch(menu, "b", {"icon": "y"}, **{"If-Match": tag})
        assert (answer.status_code, answer.json()["code"]) == (412, "precondition_failed")
        assert menu.get(MENU + "/b").json()["icon"] == "x"

    @pytest.mark.parametrize("path", [VERSION, MENU, MENU + "?all=1"])
    def test_the_menus_version(self, menu, path: str):
        tag = self.tag(menu, path)
        for method, address in (("PUT", MENU + "/c"), ("PATCH", MENU + "/c"), ("POST", SYNC), ("DELETE", MENU + "/c")):
            body = {"items": []} if method == "POST" else {"name": "C", "icon": method}
            before = unchanged(menu)
            stale = menu.request(method, address, json=body, headers={"If-Match": '"1"'})
            assert (stale.status_code, stale.json()["code"]) == (412, "precondition_failed")
            assert unchanged(menu) == before
        assert patch(menu, "c", {"icon": "x"}, **{"If-Match": tag}).status_code == 200
        assert menu.post(SYNC, {"items": []}, headers={"If-Match": tag}).status_code == 412
        assert menu.post(SYNC, {"items": []}, headers={"If-Match": self.tag(menu, path)}).status_code == 200

    def test_how_tags_are_written(self, menu):
        for written in ('"{}"', 'W/"{}"', '"1", "{}"', '"{}-abc"', 'W/"{}-full"', "*"):
            tag = written.format(patch(menu, "b", {"icon": written}).json()["version"])
            assert patch(menu, "b", {"icon": "x"}, **{"If-Match": tag}).status_code == 200, tag
        version = unchanged(menu)[0]
        for tag in ("", '""', '"x"', '"x-1"', f'"{version}0"', f'"{"9" * 40}"', '"٧"', "-"):
            headers = {"If-Match": tag.encode()}
            answer = menu.request("PATCH", MENU + "/b", json={"icon": "z"}, headers=headers)
            assert answer.status_code == 412, tag

    def test_only_if_there_is_one(self, menu):
        for method in ("PUT", "PATCH", "DELETE"):
            answer = menu.request(method, MENU + "/new", json={"name": "x"}, headers={"If-Match": "*"})
            assert answer.status_code == 412
        assert put(menu, "c", {"name": "x"}, **{"If-Match": "*"}).status_code == 200

    def test_only_if_there_is_none(self, menu):
        assert put(menu, "c", {"name": "x"}, **{"If-None-Match": "*"}).status_code == 412
        assert put(menu, "new", {"name": "x"}, **{"If-None-Match": "*"}).status_code == 200
        assert put(menu, "new", {"name": "y"}, **{"If-None-Match": "*"}).status_code == 412
        assert menu.get(MENU + "/new").json()["name"] == "x"

    @pytest.mark.parametrize("path", [MENU + "/b", MENU], ids=["item", "menu"])
    def test_of_two_editors_who_saw_the_same_one_wins(self, menu, path: str):
        tag = self.tag(menu, path)
        answers: list[httpx.Response] = []
        gate = threading.Barrier(4)

        def edit(icon: str) -> None:
            gate.wait()
            answers.append(patch(menu, "b", {"icon": icon}, **{"If-Match": tag}))

        threads = [threading.Thread(target=edit, args=(icon,)) for icon in "wxyz"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412]
        (won,) = (answer.json() for answer in answers if answer.status_code == 200)
        assert menu.get(MENU + "/b").json() == won["item"]


class TestSync:
    @pytest.mark.parametrize("path", both(SYNC))
    def test_the_whole_menu_in_one_version(self, menu, path: str):
        body = {"items": [{"key": "c", "name": "C"}, {"key": "d", "name": "D", "parent": "c"}], "reason": "new"}
        answer = menu.post(path, body).json()
        assert [(change["type"], change["targetId"]) for change in answer["changes"]] == [
            ("create", "d"), ("update", "c"), ("delete", "a"), ("delete", "b"),
        ]  # fmt: skip
        assert {change["reason"] for change in answer["changes"]} == {"new"}
        assert keys(menu) == {"c": {"d": {}}}
        events = journal(menu, int(answer["event_id"]) - 4)
        assert {body["version"] for _, body, _ in events} == {answer["version"]}
        assert menu.post(path, body).json()["changed"] is False

    def test_a_dry_run_only_tells(self, menu):
        before, seq = unchanged(menu), menu.get(MENU).json()["seq"]
        body = menu.post(SYNC + "?dry_run=1", {"items": [{"key": "c", "name": "new"}]}).json()
        assert [(change["type"], change["targetId"]) for change in body["changes"]] == [
            ("update", "c"), ("delete", "a"), ("delete", "b"),
        ]  # fmt: skip
        assert (body["version"], body["checksum"], body["event_id"], body["changed"]) == (*before, None, False)
        assert unchanged(menu) == before
        assert menu.get(MENU).json()["seq"] == seq
        assert menu.post(SYNC + "?dry_run=1", {"items": [{"key": "c"}]}).status_code == 400
        assert menu.post(SYNC + "?dry_run=no", {"items": []}).status_code == 400
        for method, path, name in (
            ("POST", SYNC, "dryrun"), ("DELETE", f"{MENU}/a", "child"), ("PUT", f"{MENU}/a", "dry_run"),
            ("PATCH", f"{MENU}/a", "dry_run"), ("GET", MENU, "al"), ("PUT", "/api/roles/a", "dry_run"),
            ("POST", "/api/permissions/notify", "dry_run"), ("GET", "/api/permissions", "usr"),
            ("GET", "/api/permissions/check", "usr"),
        ):  # fmt: skip
            misspelt = menu.request(method, f"{path}?{name}=1", json={"items": [], "name": "x"})
            assert misspelt.status_code == 400
            assert {"path": name, "message": "is no parameter here"} in misspelt.json()["errors"]
        assert menu.get(VERSION + "?_=1", "").status_code == 200
        assert unchanged(menu) == before

    def test_a_dry_run_of_a_server_that_has_just_started(self, start_sidecar):
        server = start_sidecar()
        body = server.post(SYNC + "?dry_run=1", {"items": [{"key": "a", "name": "A"}]}).json()
        assert [change["type"] for change in body["changes"]] == ["create"]

    def test_the_same_key_gets_the_first_answer(self, menu, name):
        def post(body: Any, token: str | None = None) -> httpx.Response:
            return menu.post(SYNC, body, token, headers={"Idempotency-Key": name})

        body = {"items": [{"key": "x", "name": "X"}], "reason": "once"}
        first = post(body).json()
        patch(menu, "x", {"icon": "y"})
        version = unchanged(menu)
        again = post(body).json()
        assert (first.pop("duplicate"), again.pop("duplicate")) == (False, True)
        assert again == first
        assert unchanged(menu) == version
        assert post({"items": []}).status_code == 409
        assert unchanged(menu) == version
        assert post(body, menu.new_token("menu:write")).json()["duplicate"] is False

    BAD = (
        ([{"key": "a", "name": "A", "parent": "x"}], ["items[0].parent"]),
        ([{"key": "a", "name": "A", "parent": "a"}], ["items[0].parent"]),
        (
            [{"key": "a", "name": "A", "parent": "b"}, {"key": "b", "name": "B", "parent": "a"}, {"key": "c"}],
            ["items[2].name"],
        ),
        (
            [{"key": "a", "name": "A", "parent": "b"}, {"key": "b", "name": "B", "parent": "a"}],
            ["items[0].parent", "items[1].parent"],
        ),
        ([{"key": "a", "name": "A", "children": [{"key": "b", "name": "B", "parent": "c"}]}],
         ["items[0].children[0].parent"]),
        ([{"key": "a", "name": "A"}, {"key": "b", "name": "B", "children": [{"key": "a", "name": "A"}]}],
         ["items[1].children[0].key"]),
        ([{"key": "version", "name": "A", "url": "javascript:alert(1)"}], ["items[0].key", "items[0].url"]),
        ([{"key": "a", "name": "A", "label": "x"}, 7, {"name": "B"}], ["items[0].label", "items[1]", "items[2].key"]),
        ([{"key": f"k{n}", "name": "x", "parent": f"k{n - 1}" if n else None} for n in range(MAX_DEPTH + 1)],
         [f"items[{MAX_DEPTH}].parent"]),
        ([{"key": f"k{n}", "name": "x"} for n in range(MAX_ITEMS + 1)], ["items"]),
    )  # fmt: skip

    @pytest.mark.parametrize(("items", "paths"), BAD, ids=range(len(BAD)))
    @pytest.mark.parametrize("query", ["", "?dry_run=1"])
    def test_what_is_no_menu_is_refused_whole(self, menu, items: Any, paths: list[str], query: str):
        before = unchanged(menu)
        answer = menu.post(SYNC + query, {"items": [{"key": "new", "name": "new"}, *items][1:]})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
        assert [error["path"] for error in answer.json()["errors"]] == paths
        assert unchanged(menu) == before

    @pytest.mark.parametrize(
        "raw",
        [
            b'{"items":[],"items":[{"key":"a","name":"A"}]}',
            b'{"items":[{"key":"a","name":"A","name":"B"}]}',
            b'{"items":[{"key":"a","name":"A","\\u006eame":"B"}]}',
            b'{"items":[', b"[]", b"null", b"\xff", b'{"items":[NaN]}', b'{"items":""x""}', b'{"items":[1e999]}',
            b'{"reason":1,"message":""x"","items":[]}', b"", b'{"items":' + b"[" * 40 + b"]" * 40 + b"}",
        ],
    )  # fmt: skip
    def test_what_is_not_even_json_is_refused(self, menu, raw: bytes):
        before = unchanged(menu)
        for method, path in (("POST", SYNC), ("PUT", MENU + "/x"), ("PATCH", MENU + "/a")):
            answer = menu.request(method, path, content=raw, headers={"Content-Type": "application/json"})
            assert answer.status_code == 400, answer.text
            assert answer.json()["message"]
        assert unchanged(menu) == before

    def test_a_body_over_the_limit(self, menu):
        assert menu.post(SYNC, {"items": [], "reason": "x" * 2**20}).status_code == 413


class TestOneBadItem:
    @pytest.mark.parametrize("key", [*sorted(RESERVED_KEYS), "a*", "x" * 51, "%00", "%20"])
    def test_what_no_item_can_be_called(self, menu, key: str):
        answer = put(menu, key, {"name": "x"})
        assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, "key")

    @pytest.mark.parametrize(
        ("body", "paths"),
        [
            ({}, ["name"]),
            ({"name": "x", "key": "y"}, ["key"]),
            ({"name": "", "sort_order": "1", "is_active": 1, "x": 1}, ["name", "sort_order", "is_active", "x"]),
            ({"name": "x", "parent": "nothing"}, ["parent"]),
            ({"name": "x", "parent": "a"}, ["parent"]),
            ({"name": "x", "parent": "b"}, ["parent"]),
            ({"name": "x", "url": " javascript:x"}, ["url"]),
        ],
    )
    def test_every_bad_field_is_named(self, menu, body: dict[str, Any], paths: list[str]):
        before = unchanged(menu)
        answer = put(menu, "a", body)
        assert answer.status_code == 400
        assert [error["path"] for error in answer.json()["errors"]] == paths
        assert unchanged(menu) == before


class TestPast:
    def test_its_pages(self, menu):
        made = [patch(menu, "c", {"sort_order": n + 10, "reason": f"r{n}"}).json()["version"] for n in range(5)]
        found: list[dict[str, Any]] = []
        cursor = ""
        while len(found) < 5:
            page = menu.get(f"{MENU}/history?limit=2{cursor}").json()
            found += page["items"]
            cursor = f"&cursor={page['next']}"
            assert len(page["items"]) == 2
        assert [item["version"] for item in found[:5]] == made[::-1]
        first = found[0]
        assert (first["action"], first["author"], first["reason"]) == ("patch", "admin", "r4")
        (change,) = first["changes"]
        assert (change["before"]["sort_order"], change["after"]["sort_order"]) == (13, 14)
        for path in both(MENU + "/history"):
            assert menu.get(path).json()["items"][0] == first

    def test_its_end(self, menu):
        everything, cursor = [], ""
        while True:
            page = menu.get(f"{MENU}/history?limit=100{cursor}").json()
            everything += page["items"]
            if page["next"] is None:
                break
            cursor = f"&cursor={page['next']}"
        assert (everything[-1]["action"], everything[-1]["changes"]) == ("start", [])
        assert len({item["version"] for item in everything}) == len(everything)
        assert menu.get(f"{MENU}/history?cursor={everything[-1]['version']}").json() == {"items": [], "next": None}

    @pytest.mark.parametrize(
        "query", ["limit=0", "limit=101", "limit=x", "cursor=x", "cursor=-1", "cursor=" + "9" * 30]
    )
    def test_what_is_no_page(self, menu, query: str):
        assert menu.get(f"{MENU}/history?{query}").status_code == 400

    def test_an_old_version_is_read_and_brought_back(self, menu):
        version, checksum = unchanged(menu)
        whole = menu.get(MENU + "?all=1").json()["items"]
        menu.request("DELETE", MENU + "/a?children=1")
        patch(menu, "c", {"name": "new"})
        for path in both(f"{MENU}/versions/{version}"):
            assert menu.get(path).json() == {"version": version, "items": whole}
        tried = menu.post(f"{MENU}/versions/{version}/rollback?dry_run=1", {"reason": "oops"}).json()
        assert (tried["changed"], unchanged(menu)) == (False, (tried["version"], tried["checksum"]))
        answer = menu.post(f"{MENU}/versions/{version}/rollback", {"reason": "oops"}).json()
        assert [change["targetId"] for change in tried["changes"]] == [c["targetId"] for c in answer["changes"]]
        assert answer["version"] > version
        assert sorted((change["type"], change["targetId"]) for change in answer["changes"]) == [
            ("create", "a"), ("create", "b"), ("update", "c"),
        ]  # fmt: skip
        assert {change["reason"] for change in answer["changes"]} == {"oops"}
        assert keys(menu) == {"a": {"b": {}}, "c": {}}
        assert answer["checksum"] != checksum, "the time of a change is in it"
        assert menu.get(f"{MENU}/history?limit=1").json()["items"][0]["action"] == f"rollback to {version}"
        assert menu.post(f"{MENU}/versions/{version}/rollback").json()["changed"] is False

    def test_a_key_brings_back_once(self, menu, name):
        version = unchanged(menu)[0]
        patch(menu, "c", {"name": "new"})
        path = f"{MENU}/versions/{version}/rollback"
        first = menu.post(path, headers={"Idempotency-Key": name}).json()
        patch(menu, "c", {"name": "newer"})
        again = menu.post(path, headers={"Idempotency-Key": name}).json()
        assert again == first | {"duplicate": True}
        assert menu.get(MENU + "/c").json()["name"] == "newer"

    @pytest.mark.parametrize("version", ["0", "1", str(2**63 - 1), str(2**63), "9" * 40, "x", "-1", "1.5"])
    def test_what_was_never_a_version(self, menu, version: str):
        assert menu.get(f"{MENU}/versions/{version}").status_code == 404
        assert menu.post(f"{MENU}/versions/{version}/rollback").status_code == 404

    def test_only_if_nobody_has_changed_it(self, menu):
        version = unchanged(menu)[0]
        patch(menu, "c", {"name": "new"})
        path = f"{MENU}/versions/{version}/rollback"
        assert menu.post(path, headers={"If-Match": f'"{version}"'}).status_code == 412
        assert menu.post(path, {"reason": "x", "x": 1}).status_code == 400
        assert menu.post(path, headers={"If-Match": menu.get(VERSION).headers["ETag"]}).status_code == 200


WRITES = [
    ("PUT", MENU + "/z", {"name": "z"}), ("PATCH", MENU + "/a", {"icon": "x"}), ("DELETE", MENU + "/c", None),
    ("POST", SYNC, {"items": []}), ("POST", SYNC + "?dry_run=1", {"items": []}), ("GET", MENU + "/history", None),
    ("GET", MENU + "/versions/1", None), ("POST", MENU + "/versions/1/rollback", {}), ("GET", MENU + "?all=1", None),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_editing_needs_its_scope(menu, method: str, path: str, body: Any):
    before = unchanged(menu)
    stranger = menu.request(method, path, "", json=body)
    assert (stranger.status_code, "WWW-Authenticate" in stranger.headers) == (401, True)
    for token in (menu.new_token("permissions:write", "messages:send"), menu.connection_token(sub="ada")):
        assert menu.request(method, path, token, json=body).status_code == 403
    assert unchanged(menu) == before
    assert menu.request(method, path, menu.new_token("menu:write"), json=body).status_code in (200, 404)


@pytest.mark.parametrize(
    ("path", "methods"),
    [(VERSION, "DELETE POST"), (MENU, "PUT POST DELETE PATCH"), (MENU + "/a", "POST"), (MENU + "/history", "POST")],
)
def test_other_methods(menu, path: str, methods: str):
    for method in methods.split():
        answer = menu.request(method, path, json={})
        assert answer.status_code in ((405, 400, 404) if path != MENU else (405,)), (method, answer.text)
    assert keys(menu) == {"a": {"b": {}}, "c": {}}


def test_a_menu_that_can_not_be_read_and_never_was(start_sidecar):
    """(Of a process that has read it already the last answer holds: tests/services/test_versions.py.)"""
    server = start_sidecar()
    (file,) = server.instance.glob("*.db")
    with closing(sqlite3.connect(file, timeout=10)) as connection:
        connection.execute("ALTER TABLE versions RENAME TO gone")
    answer = server.get(VERSION, "")
    body = answer.json()
    assert (answer.status_code, set(body), body["version"], body["checksum"]) == (500, SIX, 1, "error")
    assert body["description"].startswith("获取版本信息失败")
    assert server.get(MENU, "").status_code == 503
    with closing(sqlite3.connect(file, timeout=10)) as connection:
        connection.execute("ALTER TABLE gone RENAME TO versions")
    good = server.get(VERSION, "")
    assert (good.status_code, good.json()["checksum"]) == (200, EMPTY)
    with closing(sqlite3.connect(file, timeout=10)) as connection:
        connection.execute("ALTER TABLE versions RENAME TO gone")
    assert server.get(VERSION, "").content == good.content, "the last known answer"
