"""The menu in the database, on both of them: versions that only grow, a log from which every old one can be read and
restored, and writes that happen as one or not at all."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import replace
from typing import Any

import gevent
import pytest

from sidecar.domain.access import Identity
from sidecar.domain.errors import (
    Conflict,
    Invalid,
    NotAllowed,
    NotFound,
    PreconditionFailed,
    SidecarError,
    Unauthenticated,
)
from sidecar.domain.menu import MAX_ITEMS
from sidecar.domain.times import unix_seconds
from sidecar.domain.versions import Condition
from sidecar.services.idempotency import KeyedRequest
from sidecar.services.menu import shown_item
from sidecar.wire.menu import read_whole
from tests.store.menus import EDITOR, STRANGER, Broken, House, contents, failing, user, whole
from tests.store.stores import Store


@pytest.fixture
def house(store: Store) -> House:
    return House(store)


class Sundial:
    """A writer's clock that goes where a test says."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch):
        self.now = 1_900_000_000.0
        monkeypatch.setattr(store.writer, "_clock", lambda: self.now)


@pytest.fixture
def clock(store: Store, monkeypatch: pytest.MonkeyPatch) -> Sundial:
    return Sundial(store, monkeypatch)


def all_at_once(calls: list[Any]) -> list[Any]:
    def outcome(call: Any) -> Any:
        try:
            return call()
        except SidecarError as error:
            return error

    greenlets = [gevent.spawn(outcome, call) for call in calls]
    gevent.joinall(greenlets, raise_error=True)
    return [greenlet.value for greenlet in greenlets]


class TestVersions:
    def test_an_empty_menu_has_one_from_the_start(self, house: House):
        state = house.menu.state
        assert state.version == int(unix_seconds(state.at)) > 1_700_000_000
        assert (state.checksum, state.items, state.newest) == ("d751713988987e9331980363e24189ce", {}, [])
        assert House(house.store).menu.state.version == state.version, "it stays"

    def test_a_burst(self, house: House, clock: Sundial):
        """Deletions are changes as well; they used to be the way back to an older number."""
        house.sync(*(f"k{n}" for n in range(20)))
        before = len(house.events())
        calls = [lambda n=n: house.put(f"k{n}", icon="new") for n in range(10, 30)]
        calls += [lambda n=n: house.menu.delete(EDITOR, f"k{n}", "") for n in range(10)]
        calls += [lambda n=n: house.menu.patch(EDITOR, "k15", {"sort_order": n}, "") for n in range(1, 11)]
        random.Random(3).shuffle(calls)
        done = all_at_once(calls)
        assert sorted(written.version for written in done) == list(range(1_900_000_001, 1_900_000_041))
        by_seq = sorted(done, key=lambda written: written.seq)
        assert by_seq == sorted(done, key=lambda written: written.version)
        told = [payload["version"] for type, payload, _ in house.events()[before:] if type == "menu_updated"]
        assert told == sorted(told)
        assert house.menu.state.version == max(told)
        assert set(house.contents()) == {f"k{n}" for n in range(10, 30)}

    def test_whatever_the_clock_does(self, house: House, clock: Sundial):
        versions = [house.menu.state.version]
        for number, now in enumerate([1.9e9, 1.9e9, 1e9, 0, 1.9e9 + 0.9, 2e9, 1.95e9]):
            clock.now = now
            versions.append(house.put("a", sort_order=number).version)
        versions.append(house.menu.delete(EDITOR, "a", "").version)
        assert versions[1:] == [
            1_900_000_000, 1_900_000_001, 1_900_000_002, 1_900_000_003, 1_900_000_004, 2_000_000_000, 2_000_000_001,
            2_000_000_002,
        ]  # fmt: skip
        assert house.menu.state.version == versions[-1]

    def test_nothing_changed_is_no_version(self, house: House):
        first = house.put("a", icon="x")
        before = house.everything()
        for again in (house.put("a", icon="x"), house.menu.patch(EDITOR, "a", {"icon": "x"}, "why")):
            assert (again.version, again.changes, again.seq, again.revision) == (first.version, [], None, None)
            assert again.said == first.said
            assert again.said["checksum"] == house.menu.state.checksum
        assert house.sync({"key": "a", "name": "a", "icon": "x", "sort_order": 0}).version == first.version
        assert house.menu.rollback(EDITOR, None, first.version, "").version == first.version
        assert house.everything() == before

    def test_the_clock_of_an_item(self, house: House, clock: Sundial):
        house.put("a")
        clock.now += 10
        house.put("b")
        written = house.put("a", icon="x")
        items = house.menu.state.items
        assert unix_seconds(items["a"].created_at) == clock.now - 10
        assert unix_seconds(items["a"].updated_at) == clock.now
        assert items["a"].version == written.version > items["b"].version
        assert written.said["item"] == shown_item(items["a"])


class TestPast:
    def change(self, house: House, chooser: random.Random) -> None:
        keys = [f"k{n}" for n in range(6)]
        here = sorted(house.menu.state.items)
        parent = chooser.choice([None, *here])
        match chooser.randrange(5):
            case 0:
                house.sync(*chooser.sample(keys, chooser.randrange(6)))
            case 1 if here:
                house.menu.delete(EDITOR, chooser.choice(here), "gone", children=True)
            case 2 if here:
                house.menu.patch(EDITOR, chooser.choice(here), {"parent": parent}, "moved")
            case 3:
                house.put(chooser.choice(keys), icon=chooser.choice("xyz"), is_active=chooser.random() < 0.8)
            case _:
                house.put(chooser.choice(keys), parent=parent)

    @pytest.mark.parametrize("seed", range(3))
    def test_every_version_can_be_read_and_brought_back(self, house: House, clock: Sundial, seed: int):
        chooser = random.Random(seed)
        known = {house.menu.state.version: dict(house.menu.state.items)}
        while len(known) < 12:
            clock.now += chooser.choice([-500, 0, 3])
            with suppress(Invalid):  # moved below itself
                self.change(house, chooser)
            state = house.menu.state
            known.setdefault(state.version, dict(state.items))
        for version, items in known.items():
            assert house.menu.at(EDITOR, version) == items
        for version in chooser.sample(sorted(known), 5):
            last, before = house.menu.state.version, house.contents()
            written = house.menu.rollback(EDITOR, None, version, "back")
            assert house.contents() == contents(known[version])
            assert (written.version > last) is (before != house.contents())
            assert written.said["checksum"] == house.menu.state.checksum
        for version, items in known.items():
            assert house.menu.at(EDITOR, version) == items, "the past stays as it was"

    def test_what_was_never_a_version(self, house: House):
        house.put("a")
        for version in (0, 1, house.menu.state.version + 1, 2**63 - 1):
            with pytest.raises(NotFound):
                house.menu.at(EDITOR, version)
            with pytest.raises(NotFound):
                house.menu.rollback(EDITOR, None, version, "")

    def test_the_log_says_who_what_and_why(self, house: House):
        house.sync("a", "b")
        house.menu.patch(EDITOR, "a", {"name": "新"}, "because")
        house.menu.delete(EDITOR, "b", "no more")
        past = house.menu.history(EDITOR, None, 10)
        told = [
            (revision.action, revision.author, revision.token_id, revision.reason, [(c.type, c.name) for c in changes])
            for revision, changes in past.revisions
        ]
        assert told == [
            ("delete", "editor", "t1", "no more", [("delete", "b")]),
            ("patch", "editor", "t1", "because", [("update", "a")]),
            ("sync", "editor", "t1", "", [("create", "a"), ("create", "b")]),
            ("start", "system", None, "", []),
        ]
        update = past.revisions[1][1][0]
        assert update.before is not None
        assert update.after is not None
        assert (update.label, update.before["name"], update.after["name"]) == ("新", "a", "新")

    def test_its_pages(self, house: House):
        versions = [house.menu.state.version, *(house.put(key).version for key in "abcde")]
        below, found = None, []
        while True:
            page = house.menu.history(EDITOR, below, 4)
            found += [revision.version for revision, _ in page.revisions]
            below = page.next
            if below is None:
                break
        assert found == versions[::-1]
        assert house.menu.history(EDITOR, None, 6).next is None, "no page without anything on it"

    def test_the_newest_ten_changes_are_told(self, house: House):
        house.sync(*(f"k{n:02}" for n in range(12)))
        house.menu.delete(EDITOR, "k00", "why")
        newest = house.menu.state.newest
        assert [logged.change.name for logged in newest] == ["k00", *(f"k{n:02}" for n in range(11, 2, -1))]
        answer = house.menu.state.answer(True)
        assert answer["author"] == "editor"
        assert answer["changes"][0] == {  # type: ignore[index]
            "type": "delete", "target": "menu", "targetId": "k00", "targetName": "k00",
            "timestamp": answer["timestamp"], "author": "editor", "reason": "why",
        }  # fmt: skip
        public = house.menu.state.answer(False)
        assert public["author"] == "system"
        assert {(item["author"], item["reason"]) for item in public["changes"]} == {("system", "")}  # type: ignore[attr-defined]


class TestSync:
    def test_it_is_one_version_and_says_what_it_does(self, house: House):
        house.sync("a", "b", "c")
        seq = house.store.head()
        written = house.sync("c", {"key": "a", "name": "a", "children": [{"key": "d", "name": "D"}]})
        told = [(change.type, change.name) for change in written.changes]
        assert told == [("create", "d"), ("update", "c"), ("update", "a"), ("delete", "b")]
        assert {item.version for key, item in house.menu.state.items.items()} == {written.version}
        assert house.menu.state.items["d"].menu_level == "level1"
        control, *events = house.events(seq)
        assert control == ("control.menu", {"version": written.version}, ())
        assert [(type, body["menuId"], body["action"], body["version"]) for type, body, _ in events] == [
            ("menu_updated", key, action, written.version) for action, key in told
        ]
        assert written.seq == house.store.head()

    def test_what_it_does_not_name_is_as_in_a_new_item(self, house: House):
        house.put("a", icon="x", description="y", is_active=False, menu_level="level2")
        house.sync("a")
        item = house.menu.state.items["a"]
        assert (item.icon, item.description, item.is_active, item.menu_level) == ("", "", True, "root")

    @pytest.mark.parametrize("statement", ["INSERT INTO menu_items", "INSERT INTO changes", "DELETE FROM menu_items"])
    def test_a_fault_in_the_middle_leaves_nothing(self, house: House, statement: str):
        house.sync("a", "b")
        before = house.everything()
        outcomes: list[Any] = []

        def sync() -> None:
            with pytest.raises(Broken):
                house.sync("c", {"key": "a", "name": "new"})
            outcomes.append("failed")

        with failing(house.store, statement):
            other = house.store.writer.submit
            greenlets = [gevent.spawn(sync), gevent.spawn(other, lambda _transaction: outcomes.append("other"))]
            gevent.joinall(greenlets, raise_error=True)
        assert sorted(outcomes) == ["failed", "other"]
        assert house.everything() == before
        assert House(house.store).menu.state == replace(house.menu.state, seen={})

    def test_a_menu_that_can_be_none_leaves_nothing(self, house: House):
        house.sync("a")
        before = house.everything()
        with pytest.raises(Invalid) as caught:
            house.sync("b", {"key": "c", "name": "c", "parent": "nowhere"})
        assert [field.path for field in caught.value.fields] == ["items[1].parent"]
        assert house.everything() == before

    def test_a_dry_run_changes_nothing(self, house: House):
        house.sync("a", "b")
        before, version = house.everything(), house.menu.state.version
        fresh = House(house.store)  # which has not read the menu yet
        written = fresh.sync("a", {"key": "b", "name": "B"}, "c", dry_run=True)
        assert [(change.type, change.name) for change in written.changes] == [("create", "c"), ("update", "b")]
        assert (written.version, written.revision, written.seq) == (version, None, None)
        with pytest.raises(Invalid):
            fresh.sync({"key": "a", "name": "a", "parent": "a"}, dry_run=True)
        with pytest.raises(PreconditionFailed):
            fresh.sync("a", dry_run=True, condition=Condition(frozenset([version - 1])))
        assert house.everything() == before

    def test_the_largest(self, house: House):
        """More rows than a statement takes values."""
        items = [{"key": f"k{n}", "name": "x", "description": "y" * 20} for n in range(MAX_ITEMS)]
        assert len(house.sync(*items).changes) == MAX_ITEMS
        assert len(house.sync(*(item | {"icon": "z"} for item in items)).changes) == MAX_ITEMS
        assert len(house.sync().changes) == MAX_ITEMS
        assert house.menu.state.items == {}

    def test_the_key_of_a_request_gets_its_first_answer(self, house: House):
        body = read_whole({"items": [{"key": "a", "name": "A"}], "reason": "why"})
        asked = KeyedRequest.of(EDITOR, "", "menu-sync", "k", b"1")
        first = house.menu.sync(EDITOR, asked, body)
        house.put("b")
        before = house.everything()
        again = house.menu.sync(EDITOR, asked, body)
        assert again == replace(first, duplicate=True)
        assert house.everything() == before
        nothing = KeyedRequest.of(EDITOR, "", "menu-sync", "n", b"1")
        house.sync("a")
        same = [house.menu.sync(EDITOR, nothing, read_whole({"items": [{"key": "a", "name": "a"}]})) for _ in range(2)]
        assert [(one.changes, one.revision, one.seq) for one in same] == [([], None, None)] * 2
        with pytest.raises(Conflict):
            house.menu.sync(EDITOR, KeyedRequest.of(EDITOR, "", "menu-sync", "k", b"2"), body)


class TestEdits:
    def test_moving_an_item_takes_along_what_is_below_it(self, house: House):
        tree = {
            "key": "b",
            "name": "b",
            "children": [{"key": "c", "name": "c", "children": [{"key": "d", "name": "d"}]}],
        }
        house.sync("a", tree)
        house.menu.patch(EDITOR, "c", {"menu_level": "root"}, "")
        house.menu.patch(EDITOR, "b", {"parent": "a"}, "")
        levels = {key: item.menu_level for key, item in house.menu.state.items.items()}
        assert levels == {"a": "root", "b": "level1", "c": "root", "d": "level2"}, "c says something else on purpose"

    def test_so_does_writing_it_whole_at_another_place(self, house: House):
        house.sync("a", {"key": "b", "name": "b", "children": [{"key": "c", "name": "c"}]})
        house.put("b", parent="a")
        levels = {key: item.menu_level for key, item in house.menu.state.items.items()}
        assert levels == {"a": "root", "b": "level1", "c": "level2"}

    @pytest.mark.parametrize("parent", ["c", "b", "a"])
    def test_nothing_is_moved_below_itself(self, house: House, parent: str):
        house.sync({"key": "a", "name": "a", "children": [{"key": "b", "name": "b"}]}, "c")
        house.menu.patch(EDITOR, "c", {"parent": "b"}, "")
        before = house.everything()
        with pytest.raises(Invalid) as caught:
            house.menu.patch(EDITOR, "a", {"parent": parent}, "")
        (field,) = caught.value.fields
        assert field.path == "parent"
        assert "circle" in field.message
        assert house.everything() == before

    def test_a_deletion_takes_what_is_below_only_if_told_so(self, house: House):
        house.sync({"key": "a", "name": "a", "children": [{"key": "b", "name": "b"}]}, "c")
        before = house.everything()
        with pytest.raises(Conflict):
            house.menu.delete(EDITOR, "a", "")
        assert house.everything() == before
        written = house.menu.delete(EDITOR, "a", "", children=True)
        assert [(change.type, change.name) for change in written.changes] == [("delete", "a"), ("delete", "b")]
        assert set(house.contents()) == {"c"}
        assert "item" not in written.said

    def test_what_is_not_there(self, house: House):
        for write in (house.menu.patch, house.menu.delete):
            with pytest.raises(NotFound):
                write(EDITOR, "a", {"name": "x"}, "")  # type: ignore[arg-type, operator]

    def test_of_several_who_saw_the_same_one_wins(self, house: House):
        version = house.put("a").version
        condition = Condition(frozenset([version]))
        done = all_at_once(
            [lambda n=n: house.menu.patch(EDITOR, "a", {"sort_order": n}, "", condition) for n in range(1, 9)]
        )
        assert [isinstance(one, PreconditionFailed) for one in done].count(False) == 1
        (won,) = (one for one in done if not isinstance(one, PreconditionFailed))
        assert shown_item(house.menu.state.items["a"]) == won.said["item"]

    def test_of_several_who_make_the_same_one_wins(self, house: House):
        done = all_at_once(
            [lambda n=n: house.menu.put(EDITOR, "a", {"name": f"{n}"}, "", Condition(exists=False)) for n in range(8)]
        )
        assert [isinstance(one, PreconditionFailed) for one in done].count(False) == 1

    @pytest.mark.parametrize(("who", "error"), [(STRANGER, Unauthenticated), (user("ada"), NotAllowed)])
    def test_who_may_not(self, house: House, who: Identity, error: type[SidecarError]):
        before = house.everything()
        for call in (
            lambda: house.menu.put(who, "a", {}, ""),
            lambda: house.menu.patch(who, "a", {}, ""),
            lambda: house.menu.delete(who, "a", ""),
            lambda: house.menu.sync(who, None, read_whole({"items": []})),
            lambda: house.menu.sync(who, None, read_whole({"items": []}), dry_run=True),
            lambda: house.menu.rollback(who, None, 1, ""),
            lambda: house.menu.history(who, None, 1),
            lambda: house.menu.at(who, 1),
            lambda: house.menu.seen(who, all=True),
        ):
            with pytest.raises(error):
                call()
        assert house.everything() == before


class TestNews:
    """Room `menu` holds everybody who is signed in, whatever they may see; room `anonymous` everybody else."""

    def told(self, house: House, key: str, **given: Any) -> tuple[bool, tuple[str, ...]]:
        """Was the item itself told when it was changed so, and to whom?"""
        seq = house.store.head()
        written = house.put(key, **given)
        ((_, body, rooms),) = [made for made in house.events(seq) if made[1].get("menuId") == key]
        assert set(body) == {"menuId", "action", "menuData", "version", "affectedUsers"}
        assert (body["version"], body["affectedUsers"]) == (written.version, [])
        if body["menuData"] is not None:
            assert body["menuData"] == whole(house.menu.state.items)[key]
        return body["menuData"] is not None, rooms

    def test_without_roles_all_who_are_signed_in_are_told(self, house: House):
        assert self.told(house, "a") == (True, ("menu",))

    def test_what_is_for_everybody(self, house: House):
        house.allow({"authenticated": {"menus": ["a*"]}, "anonymous": {"menus": ["ab*"]}})
        assert self.told(house, "a") == (True, ("menu",))
        assert self.told(house, "ab") == (True, ("menu", "anonymous"))
        assert self.told(house, "c") == (False, ("menu",))

    def test_what_strangers_see_is_told_to_them_too(self, house: House):
        house.allow({"authenticated": {"menus": ["*"]}, "anonymous": {"menus": ["a"]}})
        assert self.told(house, "a") == (True, ("menu", "anonymous"))
        assert self.told(house, "b") == (True, ("menu",))
        assert self.told(house, "a", is_active=False) == (False, ("menu", "anonymous")), "it is gone for them"

    def test_nothing_is_told_of_an_item_under_a_hidden_one(self, house: House):
        house.allow(
            {
                "authenticated": {"menus": ["*"], "grants": [deny("menu:secret")]},
                "anonymous": {"menus": ["*"], "grants": [deny("menu:secret")]},
            }
        )
        assert self.told(house, "secret") == (False, ("menu",))
        assert self.told(house, "plan", parent="secret") == (False, ("menu",))

    def test_nothing_is_told_of_an_item_that_is_off(self, house: House):
        assert self.told(house, "a", is_active=False) == (False, ("menu",))
        assert self.told(house, "b", parent="a") == (False, ("menu",))

    def test_nothing_is_told_of_an_item_that_some_may_not_see(self, house: House):
        """Ada is in the room as well."""
        house.allow(
            {"authenticated": {"menus": ["*"]}, "guest": {"grants": [deny("menu:a*")]}, "r": {"inherits": ["guest"]}},
            {"ada": ["r"]},
        )
        assert self.told(house, "ab") == (False, ("menu",))
        assert self.told(house, "b") == (True, ("menu",))
        assert house.sees(user("ada")) == {"b"}

    def test_the_way_to_an_item_for_everybody_is_for_everybody(self, house: House):
        house.allow({"authenticated": {"menus": ["leaf"]}})
        house.sync({"key": "top", "name": "top", "children": [{"key": "leaf", "name": "leaf"}]})
        assert self.told(house, "top", icon="new") == (True, ("menu",))

    def test_what_is_gone_is_told_without_itself(self, house: House):
        house.allow({"authenticated": {"menus": ["*"]}, "anonymous": {"menus": ["*"]}})
        house.put("a")
        seq = house.store.head()
        house.menu.delete(EDITOR, "a", "")
        ((_, body, rooms),) = [made for made in house.events(seq) if made[0] == "menu_updated"]
        assert (body["action"], body["menuData"], rooms) == ("delete", None, ("menu", "anonymous"))


def deny(resource: str) -> dict[str, str]:
    return {"resource": resource, "action": "view", "effect": "deny"}
