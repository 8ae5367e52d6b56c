"""The menu as a tree: its checksum, what may be wrong with it, what differs, and what somebody sees of it."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from sidecar.domain.menu import (
    CONTENT,
    MAX_DEPTH,
    MAX_ITEMS,
    MenuItem,
    active,
    ancestors,
    below,
    checksum,
    content,
    diff,
    level_at,
    levelled,
    problems,
    seen,
    shown,
    telling_depth,
    tree,
)

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed (tests/requirements.txt)")
st = hypothesis.strategies

THEN = "2025-08-18T02:33:47.123Z"
ONE = MenuItem("a", "A", "root", "", "", 0, True, "", None, THEN, THEN, 1)


def menu(**parents: str | None) -> dict[str, MenuItem]:
    """`menu(a=None, b="a")`"""
    return {key: replace(ONE, key=key, name=key, parent=parent) for key, parent in parents.items()}


def chain(length: int) -> dict[str, MenuItem]:
    return menu(**{f"k{n}": f"k{n - 1}" if n else None for n in range(length)})


@st.composite
def any_graphs(draw) -> dict[str, MenuItem]:
    """Items whose parents are anything: there, missing, themselves, or in circles."""
    keys = [f"k{n}" for n in range(draw(st.integers(0, 7)))]
    return {key: replace(ONE, key=key, parent=draw(st.none() | st.sampled_from([*keys, "missing"]))) for key in keys}


@st.composite
def menus(draw) -> dict[str, MenuItem]:
    """Valid ones."""
    found: dict[str, MenuItem] = {}
    for key in draw(st.lists(st.sampled_from("abcdefghij"), unique=True)):
        parents = [name for name, item in found.items() if len(ancestors(found, item) or ()) < MAX_DEPTH - 1]
        found[key] = replace(
            ONE,
            key=key,
            name=draw(st.sampled_from(["x", "y"])),
            sort_order=draw(st.integers(-1, 2)),
            is_active=draw(st.sampled_from([True, True, True, False])),
            parent=draw(st.none() | st.sampled_from(parents)) if parents else None,
        )
    return found


VERDICTS = st.dictionaries(st.sampled_from("abcdefghij"), st.sampled_from([True, True, False]))


class TestChecksum:
    AT = "2025-08-18T02:33:47.123456+00:00"
    TWO = (
        MenuItem("a", "菜单", "root", "home", "/a", 1, True, "", None, AT, AT, 1),
        MenuItem("b", "B", "root", "", "/b", 2, True, "", None, AT, "2025-08-18T02:33:48Z", 1),
    )

    def test_the_one_of_the_contract(self):
        assert checksum(self.TWO) == "54e5236cb0d96837ebef13a2a80a1891"
        assert checksum(reversed(self.TWO)) == checksum(self.TWO)

    def test_of_nothing(self):
        assert checksum([]) == hashlib.md5(b"[]", usedforsecurity=False).hexdigest()
        assert checksum([]) == "d751713988987e9331980363e24189ce"
        assert checksum([replace(ONE, is_active=False)]) == checksum([])

    def test_a_fraction_of_zero_is_not_written(self):
        assert checksum([replace(ONE, updated_at="2025-08-18T02:33:48.000Z")]) == checksum(
            [replace(ONE, updated_at="2025-08-18T02:33:48Z")]
        )

    @pytest.mark.parametrize(
        "change",
        [
            {"key": "z"}, {"name": "z"}, {"icon": "z"}, {"url": "z"}, {"sort_order": 9}, {"is_active": False},
            {"updated_at": "2025-08-18T02:33:47.124Z"},
        ],
    )  # fmt: skip
    def test_what_is_in_it(self, change: dict[str, object]):
        assert checksum([replace(ONE, **change)]) != checksum([ONE])

    @pytest.mark.parametrize(
        "change", [{"description": "z"}, {"parent": "z"}, {"menu_level": "level1"}, {"created_at": "z"}, {"version": 9}]
    )
    def test_what_is_not(self, change: dict[str, object]):
        assert checksum([replace(ONE, **change)]) == checksum([ONE])


class TestProblems:
    def told(self, items: dict[str, MenuItem]) -> dict[str, str]:
        found = problems(items, lambda key: key)
        assert len({problem.path for problem in found}) == len(found)
        return {problem.path: problem.message for problem in found}

    def test_none(self):
        assert self.told(menu(a=None, b="a", c="b", d=None)) == {}
        assert self.told({}) == {}

    @hypothesis.given(any_graphs())
    def test_missing_parents_and_circles_are_all_told_and_nothing_else(self, items: dict[str, MenuItem]):
        def ends(key: str | None) -> bool:
            for _ in range(len(items) + 1):
                if key is None or key not in items:
                    return True
                key = items[key].parent
            return False

        told = self.told(items)
        missing = {key for key, item in items.items() if item.parent not in items and item.parent is not None}
        assert {key for key, message in told.items() if "does not exist" in message} == missing
        assert {key for key, message in told.items() if "circle" in message} == {key for key in items if not ends(key)}
        assert set(told) == missing | {key for key in items if not ends(key)}

    def test_depth(self):
        assert self.told(chain(MAX_DEPTH)) == {}
        assert set(self.told(chain(MAX_DEPTH + 2))) == {f"k{MAX_DEPTH}", f"k{MAX_DEPTH + 1}"}

    def test_too_many(self):
        many = menu(**{f"k{n}": None for n in range(MAX_ITEMS)})
        assert self.told(many) == {}
        assert set(self.told(many | menu(more=None))) == {"items"}

    @pytest.mark.parametrize("top", [None, f"k{MAX_ITEMS - 1}"], ids=["chain", "circle"])
    def test_the_worst_menu_is_refused_before_anybody_waits_for_it(self, top: str | None):
        """(It used to take nine seconds, within the one transaction that writes.)"""
        items = chain(MAX_ITEMS) | menu(k0=top)
        levelled(items, items)
        assert len(self.told(items)) == (MAX_ITEMS if top else MAX_ITEMS - MAX_DEPTH)


@hypothesis.given(any_graphs())
def test_ancestors_end_whatever_the_parents_are(items: dict[str, MenuItem]):
    for item in items.values():
        above = ancestors(items, item)
        if above is not None:
            assert len(set(above)) == len(above)
            assert item.key not in above
            assert above[:1] == ([item.parent] if item.parent in items else [])


@hypothesis.given(menus())
def test_what_is_below_has_it_above(items: dict[str, MenuItem]):
    for key in items:
        assert below(items, key) == {other.key for other in items.values() if key in (ancestors(items, other) or [])}
        assert key not in below(items, key)


@hypothesis.given(menus())
def test_levels_follow_the_depth(items: dict[str, MenuItem]):
    done = levelled(items, items)
    assert telling_depth(done) == set(items)
    for key, item in done.items():
        assert item.menu_level == level_at(len(ancestors(items, items[key]) or ()))
        assert replace(item, menu_level="root") == replace(items[key], menu_level="root")
    assert [level_at(depth) for depth in (0, 1, 2, 3, 9)] == ["root", "level1", "level2", "level2", "level2"]


class TestDiff:
    @hypothesis.given(menus(), menus())
    def test_applied_to_before_it_gives_after(self, before: dict[str, MenuItem], after: dict[str, MenuItem]):
        done = dict(before)
        for change in diff(before, after):
            assert change.before == before.get(change.item.key)
            if change.type == "delete":
                del done[change.item.key]
            else:
                assert change.after is not None
                assert (change.type == "create") == (change.item.key not in done)
                done[change.item.key] = change.after
        assert {key: content(item) for key, item in done.items()} == {k: content(item) for k, item in after.items()}

    @hypothesis.given(menus())
    def test_nothing(self, items: dict[str, MenuItem]):
        assert diff(items, items) == []
        touched = {key: replace(item, created_at="x", updated_at="x", version=9) for key, item in items.items()}
        assert diff(items, touched) == []

    @pytest.mark.parametrize("field", CONTENT)
    def test_each_field_that_is_chosen_counts(self, field: str):
        value: object = not ONE.is_active if field == "is_active" else 77 if field == "sort_order" else "z"
        (change,) = diff({"a": ONE}, {"a": replace(ONE, **{field: value})})
        assert change.type == "update"

    def test_made_then_changed_then_gone_each_in_order(self):
        before, after = menu(a=None, c=None, d=None, z=None), menu(b=None, a2=None, a=None, c=None)
        after = {key: replace(item, sort_order=int(key == "a")) for key, item in after.items()}
        after["c"] = replace(after["c"], name="new")
        told = [(change.type, change.item.key) for change in diff(before, after)]
        assert told == [
            ("create", "a2"), ("create", "b"), ("update", "c"), ("update", "a"), ("delete", "d"), ("delete", "z"),
        ]  # fmt: skip


class TestSeen:
    @hypothesis.given(menus(), VERDICTS)
    def test_it_comes_with_its_ancestors_and_holds_nothing_hidden(self, items, verdicts: dict[str, bool]):
        keys = seen(items, verdicts.get)
        for key in keys:
            item = items[key]
            assert item.is_active
            assert verdicts.get(key) is not False
            assert item.parent is None or item.parent in keys
            assert any(verdicts.get(other) for other in {key, *below(items, key)} & keys)

    @hypothesis.given(menus(), VERDICTS)
    def test_what_is_allowed_is_there_unless_something_hides_it(self, items, verdicts: dict[str, bool]):
        keys = seen(items, verdicts.get)
        for item in items.values():
            way = [item, *(items[key] for key in ancestors(items, item) or ())]
            hidden = any(not step.is_active or verdicts.get(step.key) is False for step in way)
            if verdicts.get(item.key) is True:
                assert (item.key in keys) is not hidden

    @hypothesis.given(menus(), VERDICTS, st.sampled_from("abcdefghij"))
    def test_a_denial_more_shows_nothing_more_and_an_allowance_hides_nothing(self, items, verdicts, key: str):
        keys = seen(items, verdicts.get)
        assert seen(items, (verdicts | {key: False}).get) <= keys
        if verdicts.get(key) is None:
            assert seen(items, (verdicts | {key: True}).get) >= keys

    def test_nothing_said_is_nothing_seen(self):
        assert seen(menu(a=None), lambda _key: None) == frozenset()

    def test_the_way_to_an_item_is_seen_but_not_its_siblings(self):
        items = menu(a=None, b="a", c="b", d="a", e=None)
        assert seen(items, {"c": True}.get) == {"a", "b", "c"}
        assert seen(items, {"c": True, "a": False}.get) == frozenset()

    def test_active(self):
        items = menu(a=None, b="a", c="b", d=None)
        items["b"] = replace(items["b"], is_active=False)
        assert active(items) == {"a", "d"}


class TestTree:
    @hypothesis.given(menus(), VERDICTS)
    def test_it_holds_exactly_the_keys(self, items, verdicts: dict[str, bool]):
        keys = seen(items, verdicts.get)
        found: list[str] = []

        def walk(nodes, parent: str | None) -> None:
            order = [(node["sort_order"], node["key"]) for node in nodes]
            assert order == sorted(order)
            for node in nodes:
                assert node["parent"] == parent
                assert {name: value for name, value in node.items() if name != "children"} == shown(items[node["key"]])
                found.append(node["key"])
                walk(node["children"], node["key"])

        walk(tree(items, keys), None)
        assert len(found) == len(keys)
        assert set(found) == keys

    def test_without_keys_it_is_all(self):
        items = menu(a=None, b="a")
        items["a"] = replace(items["a"], is_active=False)
        assert tree(items) == [shown(items["a"]) | {"children": [shown(items["b"]) | {"children": []}]}]

    def test_the_fields_that_are_sent(self):
        assert list(shown(ONE)) == [
            "key", "name", "menu_level", "icon", "url", "sort_order", "is_active", "description", "parent",
            "created_at", "updated_at",
        ]  # fmt: skip
