"""Roles and who has them, on both databases: versions, the past brought back, and exactly the touched users told."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import gevent
import pytest

from sidecar.domain.access import Identity
from sidecar.domain.errors import Conflict, Invalid, NotAllowed, NotFound, PreconditionFailed, Unauthenticated
from sidecar.domain.permissions import Role
from sidecar.domain.versions import Condition
from sidecar.services import role_changes, versions
from sidecar.services.idempotency import KeyedRequest
from sidecar.services.permissions import Notified
from sidecar.services.role_changes import role_content
from sidecar.wire.permissions import read_all, read_notice
from tests.store.menus import EDITOR, STRANGER, Broken, House, failing, user
from tests.store.stores import Store

ADMIN = Identity(kind="cookie", name="admin", scopes=frozenset({"admin"}))


@pytest.fixture
def house(store: Store) -> House:
    return House(store)


def put(house: House, name: str, *menus: str, inherits: tuple[str, ...] = (), **more: Any):
    return house.permissions.put_role(EDITOR, Role(name, inherits, (), menus), "", **more)


def give(house: House, who: str, *held: str, **more: Any):
    return house.permissions.put_user(EDITOR, who, tuple(sorted(held)), "", **more)


def state(house: House) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """All roles, and who has which."""
    roles, users = house.permissions.at(EDITOR, house.permissions.state.version)
    return {role.name: role_content(role) for role in roles}, users


def denied(resource: str) -> dict[str, Any]:
    return {"grants": [{"resource": resource, "action": "*", "effect": "deny"}]}


class TestVersions:
    def test_a_burst_with_a_clock_that_goes_backwards(self, house: House, monkeypatch: pytest.MonkeyPatch):
        house.allow({f"r{n}": {} for n in range(8)})
        chooser = random.Random(5)
        monkeypatch.setattr(house.store.writer, "_clock", lambda: 1.9e9 + chooser.randrange(-3, 3))
        calls = [lambda n=n: put(house, f"r{n}", "a*") for n in range(4, 12)]
        calls += [lambda n=n: give(house, "ada", f"r{n}") for n in range(4, 8)]
        calls += [lambda n=n: house.permissions.delete_role(EDITOR, f"r{n}", "") for n in range(4)]
        chooser.shuffle(calls)
        greenlets = [gevent.spawn(call) for call in calls]
        gevent.joinall(greenlets, raise_error=True)
        done = [greenlet.value for greenlet in greenlets]
        assert len({written.version for written in done}) == len(calls)
        assert sorted(done, key=lambda one: one.seq) == sorted(done, key=lambda one: one.version)
        told = [body["version"] for type, body, _ in house.events() if type == "control.permissions"]
        assert told == sorted(set(told))
        assert house.permissions.state.version == told[-1]

    def test_nothing_changed_is_no_version(self, house: House):
        put(house, "r", "a")
        last = give(house, "ada", "r")
        before = house.everything()
        for again in (put(house, "r", "a"), give(house, "ada", "r"), house.allow({"r": {"menus": ["a"]}})):
            assert (again.version, again.changes, again.seq) == (last.version, [], None)
        assert house.everything() == before

    def test_the_menus_version_is_another(self, house: House):
        version = house.menu.state.version
        put(house, "r")
        assert house.menu.state.version == version

    def test_other_processes_hear_of_it(self, house: House):
        other = House(house.store)
        assert other.permissions.given("ada") == ()
        put(house, "r")
        version = give(house, "ada", "r").version
        assert other.permissions.given("ada") == (), "from memory"
        other.permissions.heard(version)
        assert other.permissions.given("ada") == ("r",)
        assert other.permissions.state.version == version


class TestPast:
    @pytest.mark.parametrize("seed", range(2))
    def test_every_version_can_be_read_and_brought_back(self, house: House, seed: int):
        chooser = random.Random(seed)
        names, people = ["a", "b", "c", "d"], ["ada", "bob", "eve"]
        known = {house.permissions.state.version: state(house)}
        while len(known) < 14:
            with suppress(Invalid, NotFound):  # a circle, a role that isn't there or that others need
                match chooser.randrange(5):
                    case 0:
                        house.permissions.delete_role(EDITOR, chooser.choice(names), "")
                    case 1:
                        made = chooser.sample(names, 3)
                        house.allow({name: {} for name in made}, {chooser.choice(people): made[:1]})
                    case 2:
                        put(house, chooser.choice(names), chooser.choice("xyz"), inherits=(chooser.choice(names),))
                    case 3:
                        put(house, chooser.choice(names), chooser.choice("xyz"))
                    case _:
                        give(house, chooser.choice(people), *chooser.sample(names, chooser.randrange(3)))
            known.setdefault(house.permissions.state.version, state(house))
        for version in chooser.sample(sorted(known), 6):
            roles, users = house.permissions.at(EDITOR, version)
            assert ({role.name: role_content(role) for role in roles}, users) == known[version]
            last, before = house.permissions.state.version, state(house)
            written = house.permissions.rollback(EDITOR, None, version, "back")
            assert state(house) == known[version]
            assert (written.version > last) is (before != known[version])
            fresh = House(house.store).permissions
            for who in people:
                assert fresh.given(who) == house.permissions.given(who) == known[version][1].get(who, ())

    def test_a_role_that_users_hold_comes_back_with_them(self, house: House):
        house.allow({"r": {"menus": ["*"]}, "s": {}}, {"ada": ["r", "s"], "bob": ["s"]})
        version = house.permissions.state.version
        written = house.permissions.delete_role(EDITOR, "r", "")
        assert [(c.type, c.kind, c.name) for c in written.changes] == [
            ("delete", "role", "r"),
            ("update", "user", "ada"),
        ]
        assert house.permissions.given("ada") == ("s",)
        house.permissions.rollback(EDITOR, None, version, "")
        assert house.permissions.given("ada") == ("r", "s")
        house.permissions.rollback(EDITOR, None, written.version, "")
        assert (house.permissions.given("ada"), set(house.permissions.state.roles)) == (("s",), {"s"})

    def test_who_was_given_a_role_that_did_not_exist_then_loses_it(self, house: House):
        put(house, "r")
        version = house.permissions.state.version
        put(house, "new")
        give(house, "ada", "r", "new")
        give(house, "bob", "new")
        house.permissions.rollback(EDITOR, None, version, "")
        assert state(house)[1] == {}
        assert set(house.permissions.state.roles) == {"r"}

    def test_what_was_never_a_version(self, house: House):
        put(house, "r")
        for version in (0, 1, house.permissions.state.version + 1, 2**63 - 1):
            with pytest.raises(NotFound):
                house.permissions.at(EDITOR, version)
            with pytest.raises(NotFound):
                house.permissions.rollback(EDITOR, None, version, "")

    def test_a_user_is_told_the_changes_of_what_they_may(self, house: House):
        house.allow({"r": {"inherits": ["base"]}, "base": {}, "other": {}}, {"ada": ["r"], "bob": ["other"]})
        put(house, "base", "x")
        put(house, "other", "x")
        give(house, "bob")
        mine = house.permissions.of(user("ada"), None)
        told = [(one.change.type, one.change.name) for one in house.permissions.newest_changes(mine)]
        assert told == [("update", "base"), ("create", "ada"), ("create", "r"), ("create", "base")]


class TestWrites:
    def test_a_sync_without_users_leaves_them_what_is_left(self, house: House):
        house.allow({"a": {}, "b": {}}, {"ada": ["a", "b"], "bob": ["a"]})
        written = house.allow({"b": {}, "c": {}})
        assert state(house)[1] == {"ada": ("b",)}
        assert [(change.type, change.kind, change.name) for change in written.changes] == [
            ("create", "role", "c"), ("delete", "role", "a"), ("update", "user", "ada"), ("delete", "user", "bob"),
        ]  # fmt: skip

    def test_a_sync_with_users_leaves_the_others(self, house: House):
        house.allow({"a": {}}, {"ada": ["a"], "bob": ["a"]})
        house.allow({"a": {}}, {"ada": [], "eve": ["a"]})
        assert state(house)[1] == {"bob": ("a",), "eve": ("a",)}

    @pytest.mark.parametrize("statement", ["INSERT INTO roles", "INSERT INTO user_roles", "INSERT INTO changes"])
    def test_a_fault_in_the_middle_leaves_nothing(self, house: House, statement: str):
        house.allow({"a": {"menus": ["x"]}}, {"ada": ["a"]})
        before = house.everything()
        with failing(house.store, statement), pytest.raises(Broken):
            house.allow({"a": {"menus": ["y"]}, "b": {}}, {"ada": ["b"], "bob": ["a"]})
        assert house.everything() == before

    def test_a_dry_run_changes_nothing(self, house: House):
        house.allow({"a": {}}, {"ada": ["a"]})
        before = house.everything()
        written = House(house.store).allow({"b": {}}, {"bob": ["b"]}, dry_run=True)
        assert [(change.type, change.name) for change in written.changes] == [
            ("create", "b"), ("delete", "a"), ("delete", "ada"), ("create", "bob"),
        ]  # fmt: skip
        assert (written.version, written.seq) == (house.permissions.state.version, None)
        assert house.everything() == before

    def test_many(self, house: House):
        """More names than a statement takes values, thrice."""
        users = {f"u{n}": ["r"] for n in range(1_201)}
        assert len(house.allow({"r": {}}, users).changes) == 1_202
        assert len(house.permissions.delete_role(EDITOR, "r", "").changes) == 1_202
        assert state(house) == ({}, {})

    @pytest.mark.parametrize(
        ("roles", "users", "path"),
        [
            ({"a": {}, "b": {"inherits": ["c"]}}, {}, "roles[1].inherits"),
            ({"a": {}, "b": {"inherits": ["b"]}}, {}, "roles[1].inherits"),
            ({"a": {}}, {"ada": ["a"], "bob": ["b"]}, "users.bob"),
            ({"a": {}, "authenticated": {}}, {"ada": ["authenticated"]}, "users.ada"),
            ({"anonymous": {}}, {"ada": ["anonymous"]}, "users.ada"),
        ],
    )
    def test_what_can_not_be_is_told_by_its_place(self, house: House, roles, users, path: str):
        before = house.everything()
        with pytest.raises(Invalid) as caught:
            house.allow(roles, users)
        assert [field.path for field in caught.value.fields] == [path]
        assert house.everything() == before

    def test_so_it_is_of_one_role_and_one_user(self, house: House):
        house.allow({"a": {}, "b": {"inherits": ["a"]}})
        for call, path in (
            (lambda: put(house, "a", inherits=("b",)), "inherits"),
            (lambda: put(house, "c", inherits=("nobody",)), "inherits"),
            (lambda: give(house, "ada", "c"), "roles"),
        ):
            with pytest.raises(Invalid) as caught:
                call()
            assert [field.path for field in caught.value.fields] == [path]
        with pytest.raises(Conflict, match="inherited by b"):
            house.permissions.delete_role(EDITOR, "a", "")

    def test_of_several_who_saw_the_same_one_wins(self, house: House):
        version = put(house, "r").version
        condition = Condition(frozenset([version]))

        def attempt(number: int) -> bool:
            try:
                put(house, "r", f"m{number}", condition=condition)
            except PreconditionFailed:
                return False
            return True

        greenlets = [gevent.spawn(attempt, number) for number in range(6)]
        gevent.joinall(greenlets, raise_error=True)
        assert [greenlet.value for greenlet in greenlets].count(True) == 1

    def test_conditions_on_one_role_do_not_mind_the_others(self, house: House):
        version = put(house, "r").version
        put(house, "s")
        assert put(house, "r", "x", condition=Condition(frozenset([version]))).changes
        with pytest.raises(PreconditionFailed):
            put(house, "r", "y", condition=Condition(frozenset([version])))
        with pytest.raises(PreconditionFailed):
            put(house, "r", "y", condition=Condition(exists=False))
        with pytest.raises(PreconditionFailed):
            give(house, "ada", "r", condition=Condition(frozenset([version])))

    def test_the_key_of_a_request_gets_its_first_answer(self, house: House):
        body = read_all({"roles": [{"name": "r"}], "users": {"ada": ["r"]}})
        asked = KeyedRequest.of(EDITOR, "", "permissions-sync", "k", b"1")
        first = house.permissions.sync(EDITOR, asked, body)
        put(house, "s")
        again = house.permissions.sync(EDITOR, asked, body)
        assert (again.version, again.seq, again.changes) == (first.version, first.seq, first.changes)
        assert (first.duplicate, again.duplicate) == (False, True)
        assert "s" in house.permissions.state.roles
        with pytest.raises(Conflict):
            house.permissions.sync(EDITOR, KeyedRequest.of(EDITOR, "", "permissions-sync", "k", b"2"), body)

    def test_who_may_not(self, house: House):
        reader = Identity(kind="token", name="t", scopes=frozenset({"permissions:read", "menu:write"}), token_id="t")
        calls = [
            lambda who: house.permissions.put_role(who, Role("r"), ""),
            lambda who: house.permissions.delete_role(who, "r", ""),
            lambda who: house.permissions.put_user(who, "ada", (), ""),
            lambda who: house.permissions.sync(who, None, read_all({"roles": []})),
            lambda who: house.permissions.rollback(who, None, 1, ""),
            lambda who: house.permissions.notify(who, None, read_notice({"type": "system_notification", "to": "all"})),
        ]
        before = house.everything()
        for call in calls:
            with pytest.raises(NotAllowed):
                call(reader)
            with pytest.raises(Unauthenticated):
                call(STRANGER)
        for who, error in ((user("ada"), NotAllowed), (STRANGER, Unauthenticated)):
            with pytest.raises(error):
                house.permissions.history(who, None, 1)
            with pytest.raises(error):
                house.permissions.of(who, "bob")
        assert house.everything() == before


class TestRights:
    def test_until_a_role_is_written_all_who_are_signed_in_see_everything(self, house: House):
        house.sync("a", "b")
        assert house.sees(user("ada")) == {"a", "b"}
        assert house.sees(STRANGER) == set()
        put(house, "r", "a")
        assert house.sees(user("ada")) == set()
        give(house, "ada", "r")
        assert house.sees(user("ada")) == {"a"}
        assert house.sees(user("bob")) == set()
        house.permissions.delete_role(EDITOR, "r", "")
        assert house.sees(user("ada")) == set(), "it does not come back"
        assert House(house.store).sees(user("ada")) == set()

    def test_roles_that_nobody_is_given(self, house: House):
        house.sync("a", "b", "c")
        house.allow({"anonymous": {"menus": ["a"]}, "authenticated": {"menus": ["b"]}})
        assert house.sees(STRANGER) == {"a"}
        assert house.sees(user("ada")) == house.sees(Identity(kind="token", name="t", token_id="t")) == {"b"}
        assert house.sees(ADMIN) == house.sees(EDITOR) == {"a", "b", "c"}

    def test_who_writes_the_menu_sees_what_is_active_of_it_all(self, house: House):
        house.sync("a", {"key": "b", "name": "b", "is_active": False, "children": [{"key": "c", "name": "c"}]})
        assert house.sees(EDITOR) == house.sees(ADMIN) == {"a"}
        assert len(house.menu.seen(EDITOR, all=True).items) == 2
        assert house.menu.item(EDITOR, "c").key == "c"
        for who in (user("ada"), STRANGER):
            with pytest.raises(NotFound):
                house.menu.item(who, "c")

    def test_within_a_transaction_they_are_the_same(self, house: House):
        house.allow({"r": {"menus": ["a"]}, "authenticated": {"inherits": ["r"]}}, {"ada": ["r"]})
        house.sync("a", "b")
        for who in (user("ada"), user("bob"), STRANGER, ADMIN):
            assert house.store.database.read(lambda c, w=who: house.permissions.rights_in(c, w)) == (
                house.permissions.rights(who)
            )
            snapshot = house.store.database.read(lambda c, w=who: house.menu.snapshot(c, w))
            assert snapshot["items"] == house.menu.seen(who).items


class TestNews:
    """Exactly those are told whom a change touches."""

    def told(self, house: House, call: Any) -> dict[str, list[tuple[str, dict[str, Any]]]]:
        """What each room was told, after the control event."""
        seq = house.store.head()
        version = call().version
        control, *events = house.events(seq)
        assert control == ("control.permissions", {"version": version}, ())
        found: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        for type, body, rooms in events:
            assert len(rooms) == 1
            found.setdefault(rooms[0], []).append((type, body))
            if type == "cache_invalidation":
                assert body["version"] == version
        return found

    @pytest.fixture
    def governed(self, house: House) -> House:
        house.sync("a", "b")
        house.allow({"r": {"menus": ["a"]}, "heir": {"inherits": ["r"]}, "s": {}}, {"ada": ["heir"], "bob": ["s"]})
        return house

    def test_a_users_roles(self, governed: House):
        told = self.told(governed, lambda: give(governed, "bob", "s", "r"))
        assert set(told) == {"permissions:bob"}
        role, permission, access, cache = told["permissions:bob"]
        assert role == (
            "role_updated",
            {"userId": "bob", "oldRole": "s", "newRole": "r, s", "permissions": ["menu:a:view"]},
        )
        assert set(permission[1]) == {"userId", "permissions", "action", "resource", "timestamp"}
        assert (permission[0], permission[1]["action"], permission[1]["resource"]) == (
            "permission_changed", "grant", "menu:a",
        )  # fmt: skip
        assert access == ("menu_access_changed", {"userId": "bob", "menuChanges": {"added": ["a"], "removed": []}})
        assert cache[0] == "cache_invalidation"
        assert (cache[1]["userId"], cache[1]["cacheKeys"]) == ("bob", ["permissions", "menu"])

    def test_a_role_that_others_inherit(self, governed: House):
        told = self.told(governed, lambda: put(governed, "r", "b"))
        assert set(told) == {"permissions:ada"}
        assert [type for type, _ in told["permissions:ada"]] == [
            "permission_changed", "menu_access_changed", "cache_invalidation",
        ]  # fmt: skip
        assert told["permissions:ada"][1][1]["menuChanges"] == {"added": ["b"], "removed": ["a"]}
        assert told["permissions:ada"][0][1]["action"] == "update"

    def test_a_role_that_nobody_has(self, governed: House):
        assert self.told(governed, lambda: put(governed, "new", "*")) == {}

    def test_a_denial(self, governed: House):
        roles = {"r": {"menus": ["a"]}, "heir": {"inherits": ["r"]}, "s": denied("*")}
        told = self.told(governed, lambda: governed.allow(roles, {"ada": ["heir", "s"]}))
        assert set(told) == {"permissions:ada", "permissions:bob"}
        permission = dict(told["permissions:ada"])["permission_changed"]
        assert (permission["action"], permission["permissions"], permission["resource"]) == ("revoke", [], "*")
        assert dict(told["permissions:ada"])["menu_access_changed"]["menuChanges"] == {"added": [], "removed": ["a"]}
        assert "menu_access_changed" not in dict(told["permissions:bob"]), "there was nothing to take"

    def test_a_role_that_goes(self, governed: House):
        told = self.told(governed, lambda: governed.permissions.delete_role(EDITOR, "s", ""))
        assert set(told) == {"permissions:bob"}
        assert dict(told["permissions:bob"])["role_updated"] == {
            "userId": "bob", "oldRole": "s", "newRole": "", "permissions": [],
        }  # fmt: skip

    def test_another_role_that_gives_the_same(self, governed: House):
        told = self.told(governed, lambda: give(governed, "ada", "r"))
        assert [type for type, _ in told["permissions:ada"]] == ["role_updated", "cache_invalidation"]
        assert told["permissions:ada"][1][1]["cacheKeys"] == ["permissions"]

    def test_everybody(self, governed: House):
        told = self.told(governed, lambda: put(governed, "authenticated", "b"))
        assert set(told) == {"permissions"}
        assert {body["userId"] for _, body in told["permissions"]} == {None}
        assert dict(told["permissions"])["menu_access_changed"]["menuChanges"] == {"added": ["b"], "removed": []}

    def test_strangers(self, governed: House):
        told = self.told(governed, lambda: put(governed, "anonymous", "b"))
        assert set(told) == {"anonymous"}

    def test_the_first_role_of_all_is_told_to_everybody(self, house: House):
        house.sync("a", "b")
        told = self.told(house, lambda: house.allow({"r": {"menus": ["a"]}}, {"ada": ["r"]}))
        assert set(told) == {"permissions", "permissions:ada"}
        assert dict(told["permissions"])["menu_access_changed"]["menuChanges"] == {"added": [], "removed": ["a", "b"]}
        assert dict(told["permissions:ada"])["menu_access_changed"]["menuChanges"] == {"added": [], "removed": ["b"]}

    def test_bringing_back_tells_as_well(self, governed: House):
        version = governed.permissions.state.version
        give(governed, "bob")
        told = self.told(governed, lambda: governed.permissions.rollback(EDITOR, None, version, ""))
        assert set(told) == {"permissions:bob"}
        assert dict(told["permissions:bob"])["role_updated"]["newRole"] == "s"


class TestNotices:
    def notify(self, house: House, to: Any, key: str | None = None) -> Notified:
        body = read_notice({"type": "tool_status_changed", "to": to, "data": {"toolId": 7}})
        asked = KeyedRequest.of(EDITOR, "", "notify", key, json.dumps(to).encode())
        return house.permissions.notify(EDITOR, asked, body)

    def test_to_whom(self, house: House):
        house.allow(
            {"r": {}, "heir": {"inherits": ["r"]}, "lonely": {}, "anonymous": {}},
            {"ada": ["r"], "bob": ["heir"], "eve": []},
        )
        for to, rooms in (
            ({"user": "zoe"}, ["permissions:zoe"]),
            ({"role": "r"}, ["permissions:ada", "permissions:bob"]),
            ({"role": "lonely"}, []),
            ({"role": "authenticated"}, ["permissions"]),
            ({"role": "anonymous"}, ["anonymous"]),
            ("all", ["permissions"]),
        ):
            notified = self.notify(house, to)
            assert notified.rooms == rooms
            assert house.events(notified.seq - 1) == [("tool_status_changed", {"toolId": 7}, tuple(rooms))]
        with pytest.raises(Invalid) as caught:
            self.notify(house, {"role": "nobody"})
        assert [field.path for field in caught.value.fields] == ["to.role"]

    def test_once_by_its_key(self, house: House):
        first, again = (self.notify(house, {"user": "ada"}, "k") for _ in range(2))
        assert again == replace(first, duplicate=True)
        assert house.store.head() == first.seq
        with pytest.raises(Conflict):
            self.notify(house, "all", "k")


class TestCrowds:
    """What a change means to each is found out inside of the transaction, so that this has to have an end."""

    def test_more_users_than_are_told_apart_are_told_to_ask(self, house: House, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(role_changes, "TOLD_USERS", 2)
        users = {"ada": ["r"], "bob": ["r"], "eve": ["heir"], "zoe": ["lonely"]}
        house.allow({"r": {}, "heir": {"inherits": ["r"]}, "lonely": {}}, users)
        head = house.store.head()
        written = house.allow({"r": {"menus": ["*"]}, "heir": {"inherits": ["r"]}, "lonely": {}})
        told = [event for event in house.events(head) if not event[0].startswith("control.")]
        payload = {"userId": None, "cacheKeys": ["permissions", "menu"], "version": written.version}
        assert told == [("cache_invalidation", payload, ("permissions:ada", "permissions:bob", "permissions:eve"))]

    def test_more_combinations_of_roles_too(self, house: House, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(role_changes, "TOLD_COMBINATIONS", 1)
        house.allow({"r": {}, "s": {}}, {"ada": ["r"], "bob": ["r", "s"]})
        head = house.store.head()
        house.allow({"r": {"menus": ["*"]}, "s": {}})
        told = [(type, rooms) for type, _, rooms in house.events(head) if not type.startswith("control.")]
        assert told == [("cache_invalidation", ("permissions:ada", "permissions:bob"))]
        house.allow({"r": {"menus": ["*"]}, "s": {"grants": [{"resource": "x", "action": "y"}]}})
        assert house.events()[-1][:1] == ("cache_invalidation",)
        assert house.events()[-1][1]["userId"] == "bob", "one combination is told apart"

    def test_a_page_of_the_past_is_bounded_by_its_changes(self, house: House, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(versions, "MAX_PAGE_CHANGES", 3)
        house.sync("a", "b", "c", "d", "e")
        for key in "abcd":
            house.put(key, icon="x")
        pages, below = [], None
        while True:
            past = house.menu.history(EDITOR, below, 100)
            pages.append([len(changes) for _, changes in past.revisions])
            below = past.next
            if below is None:
                break
        assert pages == [[1, 1, 1], [1], [5], [0]]
