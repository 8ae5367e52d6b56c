"""Who is told of a change of the menu and of permissions: exactly the users whom it touches, alike over Socket.IO and
over plain WebSockets, each event once. (What is absent is shown by a marker that comes after it.)"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.governing import (
    NEWS,
    Answer,
    allow,
    deny,
    give,
    keys,
    notify,
    put_item,
    put_role,
    seen,
    short_name,
    written,
)
from tests.programs import JsClient, wait_until
from tests.servers import RunningSidecar
from tests.sockets.clients import Page, Plain, post_step

Told = list[tuple[str, Answer]]


@pytest.fixture(scope="module")
def governed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSidecar]:
    """A server of this file's own, because what everybody may changes. Strangers may open Socket.IO there."""
    settings = {"SIDECAR_RATE_LIMIT": "off", "SIDECAR_ANONYMOUS_READ": "true"}
    with RunningSidecar(tmp_path_factory.mktemp("governed"), settings) as server:
        put_role(server, "authenticated")
        yield server


@pytest.fixture(autouse=True)
def _as_it_was(governed: RunningSidecar) -> Iterator[None]:
    yield
    for role in ("authenticated", "anonymous"):
        put_role(governed, role)


class Eyes:
    """One user, or a stranger, at a page that watches the menu and at a plain socket."""

    def __init__(self, js: JsClient, server: RunningSidecar, user: str | None, token: str | None = None):
        self.user = user
        self.token = server.connection_token(sub=user) if token is None and user is not None else token
        self.page = Page(js, server, token=self.token).connected()
        if self.token:
            assert self.page.call("subscribe_menu")["ok"]
        self.plain = Plain(server, "/ws/permissions/", self.token or "")
        self.begin = self.plain.next()["seq"]
        self._frames: list[Answer] = []

    def told(self, upto: int) -> Told:
        """(type, payload) of all that came before the event of this seq, which came to both, since last asked."""
        wait_until(lambda: upto in self.page.seqs, f"{upto} has come", lambda: self.page.events)
        wait_until(lambda: self._read() == upto, f"{upto} has come")
        assert self.page.seqs == sorted(set(self.page.seqs))
        events = [event for event in self.page.events if self.begin < event["seq"] <= upto]
        assert self._frames == [
            {"type": event["type"], "data": event["payload"]} | {k: event[k] for k in ("timestamp", "seq", "offset")}
            for event in events
        ]
        self.begin, self._frames = upto, []
        return [(event["type"], event["payload"]) for event in events[:-1] if "marker" not in event["payload"]]

    def _read(self) -> int:
        self._frames = [*self._frames, self.plain.next()]
        return int(self._frames[-1]["seq"])

    def close(self) -> None:
        self.page.disconnect()
        self.plain.close()


class Crowd:
    def __init__(self, js: JsClient, server: RunningSidecar):
        self.server = server
        self.eyes: list[Eyes] = []
        self._js = js

    def add(self, user: str | None, token: str | None = None) -> Eyes:
        self.eyes.append(Eyes(self._js, self.server, user, token))
        return self.eyes[-1]

    def news(self) -> list[Told]:
        """What each was told since this was last asked."""
        strangers = notify(self.server, {"role": "anonymous"}, marker=True)
        members = notify(self.server, "all", marker=True)
        return [one.told(members if one.token else strangers) for one in self.eyes]


@pytest.fixture
def crowd(js: JsClient, governed: RunningSidecar) -> Iterator[Crowd]:
    made = Crowd(js, governed)
    yield made
    for one in made.eyes:
        one.close()


@pytest.fixture
def who() -> Callable[[str], str]:
    """Names of this test's own, by a short word."""
    begin = short_name()
    return lambda word: f"{begin}-{word}"


def kinds(told: Told) -> list[str]:
    return [kind for kind, _ in told]


class TestRoles:
    def test_a_change_is_told_to_who_has_the_role_or_inherits_it(self, governed, crowd, who):
        put_role(governed, who("base"), allow("page", "read"))
        put_role(governed, who("child"), allow("page", "write"), inherits=[who("base")])
        put_role(governed, who("else"), allow("page", "read"))
        for user, role in (("ada", "base"), ("heir", "child"), ("other", "else")):
            give(governed, who(user), who(role))
        for user in ("ada", "heir", "other", "nothing"):
            crowd.add(who(user))
        crowd.add(None)
        crowd.news()
        answer = put_role(governed, who("base"), allow("page", "read"), allow("page", "print"))
        ada, heir, *others = crowd.news()
        for told, user, permissions in [
            (ada, "ada", ["page:print", "page:read"]),
            (heir, "heir", ["page:print", "page:read", "page:write"]),
        ]:
            assert kinds(told) == ["permission_changed", "cache_invalidation"]
            assert set(told[0][1]) == {"userId", "permissions", "action", "resource", "timestamp"}
            told[0][1].pop("timestamp")
            assert told[0][1] == {
                "userId": who(user),
                "permissions": permissions,
                "action": "grant",
                "resource": "page",
            }
            assert told[1][1] == {"userId": who(user), "cacheKeys": ["permissions"], "version": answer["version"]}
        assert others == [[], [], []]

    def test_all_kinds_of_news_of_a_role_given_and_taken(self, governed, crowd, who):
        put_item(governed, who("item"))
        put_role(governed, who("editor"), allow("doc", "*"), menus=[who("*")])
        ada, _ = crowd.add(who("ada")), crowd.add(who("other"))
        crowd.news()
        version = give(governed, who("ada"), who("editor"))["version"]
        told, nothing = crowd.news()
        assert nothing == []
        assert kinds(told) == list(NEWS)
        role, permission, menu, cache = (payload for _, payload in told)
        allowed = ["doc:*", f"menu:{who('*')}:view"]
        assert role == {"userId": who("ada"), "oldRole": "", "newRole": who("editor"), "permissions": allowed}
        assert (permission["permissions"], permission["action"], permission["resource"]) == (allowed, "grant", "*")
        assert menu == {"userId": who("ada"), "menuChanges": {"added": [who("item")], "removed": []}}
        assert cache == {"userId": who("ada"), "cacheKeys": ["permissions", "menu"], "version": version}
        assert seen(governed, ada.token) == {who("item")}
        written(governed, "DELETE", f"/api/roles/{who('editor')}")
        told, nothing = crowd.news()
        assert (kinds(told), nothing) == (list(NEWS), [])
        assert told[0][1] == {"userId": who("ada"), "oldRole": who("editor"), "newRole": "", "permissions": []}
        assert told[1][1]["action"] == "revoke"
        assert told[2][1]["menuChanges"] == {"added": [], "removed": [who("item")]}

    def test_whose_effective_rights_stay_is_told_nothing(self, governed, crowd, who):
        put_role(governed, who("a"), allow("page", "read"))
        put_role(governed, who("b"), allow("page", "read"))
        give(governed, who("both"), who("a"), who("b"))
        give(governed, who("one"), who("a"))
        crowd.add(who("both"))
        crowd.add(who("one"))
        crowd.news()
        put_role(governed, who("a"))
        both, one = crowd.news()
        assert (both, kinds(one)) == ([], ["permission_changed", "cache_invalidation"])
        assert one[0][1]["action"] == "revoke"
        put_role(governed, who("a"))
        give(governed, who("one"), who("a"))
        assert crowd.news() == [[], []]

    def test_a_sync_that_touches_several_tells_each_their_own(self, governed, crowd, who):
        put_role(governed, who("a"), allow("page", "read"))
        give(governed, who("ada"), who("a"))
        for user in ("ada", "bob", "eve"):
            crowd.add(who(user))
        crowd.news()
        roles = [
            {name: row[name] for name in ("name", "inherits", "grants", "menus")}
            for row in governed.get("/api/roles").json()["items"]
            if row["name"] != who("a")
        ]
        body = {
            "roles": [*roles, {"name": who("b"), "grants": [allow("page", "write")]}],
            "users": {who("bob"): [who("b")]},
        }
        version = written(governed, "POST", "/api/permissions/sync", body)["version"]
        ada, bob, eve = crowd.news()
        assert (kinds(ada), kinds(bob), eve) == (
            [*NEWS[:2], NEWS[3]],
            [*NEWS[:2], NEWS[3]],
            [],
        )
        assert (ada[0][1]["newRole"], bob[0][1]["newRole"]) == ("", who("b"))
        assert {told[-1][1]["version"] for told in (ada, bob)} == {version}

    def test_what_everybody_may_is_told_to_all_who_are_signed_in_once(self, governed, crowd, who):
        put_role(governed, "authenticated")
        put_role(governed, who("heir"), allow("page", "write"), inherits=["authenticated"])
        put_role(governed, who("own"), allow("page", "write"))
        give(governed, who("heir"), who("heir"))
        give(governed, who("own"), who("own"))
        for user in ("heir", "own", "nothing"):
            crowd.add(who(user))
        crowd.add(None, governed.token)
        crowd.add(None)
        crowd.news()
        version = put_role(governed, "authenticated", allow("page", "read"))["version"]
        *members, stranger = crowd.news()
        for told in members:
            assert kinds(told) == ["permission_changed", "cache_invalidation"]
            assert told[0][1]["userId"] is None
            assert told[1][1] == {"userId": None, "cacheKeys": ["permissions"], "version": version}
        assert stranger == []
        put_role(governed, "authenticated")
        assert [kinds(told) for told in crowd.news()] == [["permission_changed", "cache_invalidation"]] * 4 + [[]]

    def test_who_is_touched_beside_everybody_is_told_so(self, governed, crowd, who):
        """Both what all may and what one may change in one version."""
        put_role(governed, who("own"))
        give(governed, who("own"), who("own"))
        crowd.add(who("own"))
        crowd.add(who("nothing"))
        crowd.news()
        roles = {row["name"]: row for row in governed.get("/api/roles").json()["items"]}
        roles["authenticated"]["grants"] = [allow("page", "read")]
        roles[who("own")]["grants"] = [allow("page", "write")]
        written(governed, "POST", "/api/permissions/sync", {"roles": list(roles.values())})
        own, nothing = crowd.news()
        assert [(kind, payload["userId"]) for kind, payload in nothing] == [(NEWS[1], None), (NEWS[3], None)]
        assert [(kind, payload["userId"]) for kind, payload in own if payload["userId"]] == [
            (NEWS[1], who("own")),
            (NEWS[3], who("own")),
        ]

    def test_what_strangers_may_is_told_to_them_alone(self, governed, crowd, who):
        put_role(governed, "anonymous")
        crowd.add(who("ada"))
        crowd.add(None, governed.token)
        crowd.add(None)
        crowd.news()
        put_item(governed, who("open"))
        version = put_role(governed, "anonymous", menus=[who("*")])["version"]
        ada, admin, stranger = crowd.news()
        assert kinds(ada) == kinds(admin) == ["menu_updated"]
        assert kinds(stranger) == list(NEWS[1:])
        assert stranger[1][1] == {"userId": None, "menuChanges": {"added": [who("open")], "removed": []}}
        assert stranger[2][1] == {"userId": None, "cacheKeys": ["permissions", "menu"], "version": version}
        assert seen(governed, "") == {who("open")}
        put_role(governed, "anonymous")
        assert [kinds(told) for told in crowd.news()] == [[], [], list(NEWS[1:])]

    def test_a_stranger_who_signs_in_is_none_any_more(self, governed, js, who):
        page = Page(js, governed).connected()
        token = governed.new_token("deployments:read")
        assert page.call("refresh_token", token)["ok"]
        put_role(governed, "anonymous", allow(who("x"), "y"))
        notify(governed, {"role": "anonymous"})
        last = notify(governed, "all", last=True)
        assert page.wait_for(1) == [last]
        page.disconnect()


class TestNotices:
    @pytest.mark.parametrize("kind", ["system_notification", "tool_status_changed", "user_status_changed"])
    def test_to_a_user_a_role_and_all(self, governed, crowd, who, kind: str):
        put_role(governed, who("base"))
        put_role(governed, who("child"), inherits=[who("base")])
        give(governed, who("ada"), who("base"))
        give(governed, who("heir"), who("child"))
        for user in ("ada", "heir", "other"):
            crowd.add(who(user))
        crowd.add(None)
        crowd.news()
        notify(governed, {"user": who("ada")}, kind, title="one")
        notify(governed, {"role": who("base")}, kind, title="role")
        notify(governed, {"all": True}, kind, title="all")
        notify(governed, {"role": "authenticated"}, kind, title="members")
        notify(governed, {"role": "anonymous"}, kind, title="strangers")
        told = [[payload["title"] for name, payload in one if name == kind] for one in crowd.news()]
        assert told == [
            ["one", "role", "all", "members"],
            ["role", "all", "members"],
            ["all", "members"],
            ["strangers"],
        ]

    def test_to_a_role_that_everybody_inherits(self, governed, crowd, who):
        put_role(governed, who("base"))
        put_role(governed, "authenticated", inherits=[who("base")])
        give(governed, who("ada"), who("base"))
        crowd.add(who("ada"))
        crowd.add(who("other"))
        crowd.add(None)
        crowd.news()
        notify(governed, {"role": who("base")}, title="base")
        assert [[payload["title"] for _, payload in told] for told in crowd.news()] == [["base"], ["base"], []]


class TestMenu:
    def test_each_change_is_told_to_who_watches_the_menu(self, governed, crowd, who):
        put_role(governed, "authenticated", menus=[who("*")])
        crowd.add(who("ada"))
        crowd.add(None)
        crowd.news()
        made = put_item(governed, who("item"), icon="i", url="/u")
        changed = written(governed, "PATCH", f"/api/menu/{who('item')}", {"name": "菜单"})
        deleted = written(governed, "DELETE", f"/api/menu/{who('item')}")
        ada, stranger = crowd.news()
        assert stranger == []
        assert kinds(ada) == ["menu_updated"] * 3
        payloads = [payload for _, payload in ada]
        for payload, action, answer in zip(
            payloads, ("create", "update", "delete"), (made, changed, deleted), strict=True
        ):
            assert set(payload) == {"menuId", "action", "menuData", "version", "affectedUsers"}
            assert (payload["menuId"], payload["action"]) == (who("item"), action)
            assert (payload["version"], payload["affectedUsers"]) == (answer["version"], [])
        item = made["item"]
        item.pop("version")
        assert payloads[0]["menuData"] == item
        assert payloads[1]["menuData"]["name"] == "菜单"
        assert payloads[2]["menuData"] is None

    def test_several_of_one_sync_have_one_version(self, governed, crowd, who):
        crowd.add(who("ada"))
        crowd.news()
        before = governed.get("/api/menu?all=1").json()["items"]
        tree = [{"key": who("a"), "name": "a", "children": [{"key": who("b"), "name": "b"}]}]
        answer = written(governed, "POST", "/api/menu/sync", {"items": [*before, *tree]})
        (ada,) = crowd.news()
        assert {payload["menuId"] for _, payload in ada} == {who("a"), who("b")}
        assert {payload["version"] for _, payload in ada} == {answer["version"]}
        assert written(governed, "POST", "/api/menu/sync", {"items": [*before, *tree]})["changed"] is False
        assert crowd.news() == [[]]

    def test_what_is_not_for_everybody_is_told_without_its_content(self, governed, crowd, who):
        """Neither what nobody is granted, nor what is not active, nor what lies below such, nor what a role denies to
        some."""
        put_role(governed, "authenticated", menus=[who("open*")])
        put_role(governed, who("barred"), deny(f"menu:{who('open-barred')}", "view"))
        put_role(governed, "anonymous", menus=[who("open-all")])
        crowd.add(who("ada"))
        crowd.add(None)
        crowd.news()
        put_item(governed, who("secret"))
        put_item(governed, who("open-off"), is_active=False)
        put_item(governed, who("open-below"), parent=who("open-off"))
        put_item(governed, who("open-barred"))
        put_item(governed, who("open-way"))
        put_item(governed, who("open-all"))
        ada, stranger = crowd.news()
        assert {payload["menuId"] for _, payload in ada if payload["menuData"]} == {who("open-way"), who("open-all")}
        assert len(ada) == 6
        assert [(payload["menuId"], payload["menuData"]["key"]) for _, payload in stranger] == [(who("open-all"),) * 2]
        put_role(governed, "anonymous")
        put_role(governed, "authenticated")

    def test_strangers_are_told_of_what_they_see_and_saw(self, governed, crowd, who):
        """Also of the way to what they are granted; and of what goes out of their sight, without what became of it."""
        put_role(governed, "authenticated", menus=[who("*")])
        put_role(governed, "anonymous", deny(f"menu:{who('hall')}", "view"), menus=[who("room")])
        for key in ("house", "hall"):
            put_item(governed, who(key))
        put_item(governed, who("room"), parent=who("house"))
        put_item(governed, who("closet"), parent=who("hall"))
        crowd.add(who("ada"))
        crowd.add(None)
        crowd.news()
        assert seen(governed, "") == {who("house"), who("room")}
        for path, body in [
            ("closet", {"icon": "x"}),
            ("house", {"icon": "y"}),
            ("room", {"parent": who("hall")}),
            ("room", {"icon": "z"}),
        ]:
            written(governed, "PATCH", f"/api/menu/{who(path)}", body)
        ada, stranger = crowd.news()
        assert [payload["menuId"] for _, payload in ada] == [who(key) for key in ("closet", "house", "room", "room")]
        assert all(payload["menuData"] for _, payload in ada)
        assert [payload["menuId"] for _, payload in stranger] == [who("house"), who("room")]
        assert [payload["menuData"] is None for _, payload in stranger] == [False, True]
        assert seen(governed, "") == set()


class TestHides:
    def test_a_revoked_grant_hides_the_item_and_closes_nothing_else(self, governed, crowd, who):
        put_item(governed, who("item"))
        put_item(governed, who("other"))
        put_role(governed, who("a"), menus=[who("*")])
        give(governed, who("ada"), who("a"))
        ada = crowd.add(who("ada"))
        assert ada.page.call("subscribe_project", who("project"))["ok"]
        crowd.news()
        assert seen(governed, ada.token) == {who("item"), who("other")}
        put_role(governed, who("a"), menus=[who("other")])
        (told,) = crowd.news()
        assert kinds(told) == list(NEWS[1:])
        assert told[1][1]["menuChanges"] == {"added": [], "removed": [who("item")]}
        assert seen(governed, ada.token) == {who("other")}
        assert governed.get(f"/api/menu/{who('item')}", ada.token).status_code == 404
        seq = post_step(governed, who("project"), "d")
        wait_until(lambda: seq in ada.page.seqs, "the step has come")
        assert ada.plain.say(type="ping")["type"] == "heartbeat_response"
        put_item(governed, who("other"), icon="new")
        notify(governed, {"user": who("ada")})
        (menu, notice) = (ada.plain.next() for _ in range(2))
        assert (menu["type"], notice["type"]) == ("menu_updated", "system_notification")
        assert [line["what"] for line in ada.page.lines()].count("disconnect") == 0

    def test_a_token_that_does_not_name_the_menu_is_not_told_of_it(self, governed, js, who):
        """Of its permissions it is. Nor is a page that has not asked for the menu."""
        token = governed.connection_token(sub=who("ada"), rooms=["project:x"])
        one = Plain(governed, "/ws/permissions/", token)
        one.next()
        page = Page(js, governed, token=token).connected()
        assert page.call("subscribe_menu")["code"] == "not_allowed"
        other = Page(js, governed, token=governed.connection_token(sub=who("ada"))).connected()
        put_item(governed, who("item"))
        last = notify(governed, {"user": who("ada")})
        assert one.next()["seq"] == last
        assert page.wait_for(1) == other.wait_for(1) == [last]
        for each in (page, other):
            each.disconnect()
        one.close()


def test_the_menu_and_the_news_agree(governed, who):
    """What the events add and remove is what GET answers."""
    token = governed.connection_token(sub=who("ada"))
    one = Plain(governed, "/ws/permissions/", token)
    one.next()
    known = seen(governed, token)
    for number in range(3):
        put_item(governed, who(f"{number}"))
    put_role(governed, who("a"))
    give(governed, who("ada"), who("a"))
    for menus in (["*"], [who("1")], [], [who("*")], [who("0"), who("2")]):
        put_role(governed, who("a"), menus=menus)
        last = notify(governed, {"user": who("ada")})
        while (frame := one.next())["seq"] != last:
            if frame["type"] == "menu_access_changed":
                known = (known | set(frame["data"]["menuChanges"]["added"])) - set(
                    frame["data"]["menuChanges"]["removed"]
                )
        assert keys(governed.get("/api/menu", token).json()["items"]) == known
    one.close()
