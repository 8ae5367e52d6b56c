"""Menus, read from bodies: what is taken, every fault named by its place, and that nothing else is ever raised."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.domain.errors import Invalid
from sidecar.domain.menu import CONTENT, MAX_ITEMS, RESERVED_KEYS
from sidecar.wire.menu import ItemBody, Placed, read_edit, read_whole

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed (tests/requirements.txt)")
st = hypothesis.strategies

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.sampled_from(["\ud800"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=5
)
FIELDS = sorted(ItemBody.model_fields)
GOOD = {"key": "a", "name": "A", "sort_order": 3, "is_active": False, "parent": None, "url": "/a", "icon": "x"}
BODIES = st.dictionaries(st.sampled_from([*FIELDS, "reason", "children", "x"]), VALUES) | st.builds(
    lambda name, value: GOOD | {name: value}, st.sampled_from(FIELDS), VALUES
)


def outcome(read, *arguments: Any) -> tuple[Any, list[str]]:
    """What was read, or the paths of what is wrong with it."""
    try:
        return read(*arguments), []
    except Invalid as error:
        fields = error.fields
    assert fields
    assert all(field.message for field in fields)
    return None, [field.path for field in fields]


def refused(read, *arguments: Any) -> dict[str, str]:
    with pytest.raises(Invalid) as caught:
        read(*arguments)
    paths = [field.path for field in caught.value.fields]
    assert len(set(paths)) == len(paths)
    return {field.path: field.message for field in caught.value.fields}


def sync(*items: Any, **more: Any) -> dict[str, str]:
    return refused(read_whole, {"items": list(items), **more})


@hypothesis.given(BODIES, st.booleans())
def test_anything_is_read_or_refused_as_an_item(body: dict[str, Any], whole: bool):
    found, paths = outcome(read_edit, body, "a", whole)
    assert {path.partition(".")[0] for path in paths} <= {*body, "name"}
    if found is not None:
        assert found[0] == "a"
        assert set(found[1].given) <= set(CONTENT) & set(body)


@hypothesis.given(st.dictionaries(st.sampled_from(["items", "reason", "version", "x"]), VALUES))
def test_anything_is_read_or_refused_as_a_menu(body: dict[str, Any]):
    _, paths = outcome(read_whole, body)
    assert {path.partition("[")[0] for path in paths} <= {*body, "items"}


TREES = st.recursive(BODIES, lambda inner: st.builds(lambda b, c: b | {"children": c}, BODIES, st.lists(inner)))


@hypothesis.settings(max_examples=40)
@hypothesis.given(TREES)
def test_anything_is_read_or_refused_as_a_tree(item: dict[str, Any]):
    found, paths = outcome(read_whole, {"items": [item]})
    assert {path.partition("[")[0] for path in paths} <= {"items"}
    if found is not None:
        assert all(placed.key and placed.given["name"] for placed in found.items)


BAD = [
    *(("key", value) for value in ("", " ", "a/b", "a*", "x" * 51, "a\nb", "\u202e", None, True, 1.5, [], {})),
    *(("key", value) for value in sorted(RESERVED_KEYS)),
    *(("name", value) for value in ("", " ", "x" * 101, "a\nb", None, True, 7, [], {})),
    *(("menu_level", value) for value in ("", "level3", "ROOT", 0, True, [], {})),
    *(("icon", value) for value in ("x" * 101, None, 7, [], {})),
    *(("url", value) for value in ("/" * 201, "/a\n", "javascript:alert(1)", " JavaScript :x", "data:text/html,x")),
    *(("url", value) for value in ("vbscript:x", "java\tscript:x", "\u00a0javascript:x", None, 7, [], {})),
    *(("sort_order", value) for value in ("1", 1.0, 1.5, True, None, 2**31, -(2**31) - 1, [], {})),
    *(("is_active", value) for value in ("true", 1, 0, None, [], {})),
    *(("description", value) for value in ("x" * 1_001, None, 7, [], {})),
    *(("parent", value) for value in ("a/b", "x" * 51, "sync", " ", True, 1.5, [], {})),
    *((name, 1) for name in ("label", "Name", "children_", "latitude")),
]


@pytest.mark.parametrize(("field", "value"), BAD)
def test_a_bad_field_is_named(field: str, value: object):
    body = {"key": "a", "name": "A", field: value}
    here = refused(read_edit, body, "a", True)
    assert set(here) == {field}
    there = sync({"key": "ok", "name": "ok"}, body)
    assert set(there) == {f"items[1].{field}"}
    deep = sync({"key": "ok", "name": "ok", "children": [{"key": "b", "name": "B"}, body]})
    assert set(deep) == {f"items[0].children[1].{field}"}


def test_a_refusal_repeats_no_value():
    said = "hunter2"
    bad = {"key": f"{said}/", "name": [said], "url": {"x": said}, "menu_level": said, "is_active": said}
    with pytest.raises(Invalid) as caught:
        read_whole({"items": [bad]})
    assert len(caught.value.fields) == 5
    assert said not in caught.value.detail + str(caught.value.fields)


@pytest.mark.parametrize("name", ["reason", "items", "children"])
def test_what_belongs_elsewhere_is_no_field(name: str):
    assert set(sync({"key": "a", "name": "A", name: "x"})) == {f"items[0].{name}"}
    if name != "reason":
        assert set(refused(read_edit, {"name": "A", name: []}, "a", True)) == {name}


def test_every_bad_field_is_named_at_once():
    told = sync(
        7,
        {"name": "no key", "children": [{"key": "b"}]},
        {"key": "c", "name": "", "x": 1, "children": [{"key": "a/b", "name": "A"}, None, {"key": "d", "name": "D"}]},
        {"key": "d", "name": "D", "children": {}},
        {"key": "e", "name": "E", "children": [{"key": "f", "name": "F", "parent": "d"}]},
    )
    assert told == {
        "items[0]": "must be an object",
        "items[1].key": "Field required",
        "items[1].children[0].name": "Field required",
        "items[2].name": "must be a string of 1 to 100 printable characters",
        "items[2].x": "is no field here",
        "items[2].children[0].key": "must be 1 to 50 printable characters without / and *",
        "items[2].children[1]": "must be an object",
        "items[3].children": "must be a list",
        "items[3].key": "is there twice",
        "items[4].children[0].parent": "is not the item that it is a child of",
    }


@pytest.mark.parametrize(
    ("body", "path"),
    [({}, "items"), ({"items": None}, "items"), ({"items": {}}, "items"), ({"items": [], "reason": 1}, "reason"),
     ({"items": [], "reason": "x" * 501}, "reason"), ({"items": [], "menu": 1}, "menu")],
)  # fmt: skip
def test_a_menu_that_is_none(body: dict[str, Any], path: str):
    assert set(refused(read_whole, body)) == {path}


def test_too_many_items():
    items = [{"key": f"k{n}", "name": "x"} for n in range(MAX_ITEMS + 1)]
    assert set(sync(*items)) == {"items"}
    assert len(read_whole({"items": items[1:]}).items) == MAX_ITEMS


def test_keys_that_mean_the_same_are_one_key_twice():
    assert set(sync({"key": 7, "name": "x"}, {"key": " 7 ", "name": "x"})) == {"items[1].key"}


def test_a_tree_is_nested_or_flat():
    nested = {"key": "a", "name": "A", "children": [{"key": "b", "name": "B", "children": []}]}
    flat = [{"key": "a", "name": "A", "parent": ""}, {"key": "b", "name": "B", "parent": "a", "children": None}]
    assert read_whole({"items": [nested]}).items == (
        Placed("items[0]", "a", {"name": "A", "sort_order": 1}),
        Placed("items[0].children[0]", "b", {"name": "B", "sort_order": 1, "parent": "a"}),
    )
    assert [placed.given.get("parent") for placed in read_whole({"items": flat}).items] == [None, "a"]
    assert [placed.given["sort_order"] for placed in read_whole({"items": flat}).items] == [1, 2]
    assert read_whole({"items": flat}).path("b") == "items[1].parent"


class TestOneItem:
    def test_only_what_is_given_is_told(self):
        assert read_edit({"icon": "x", "reason": "why"}, "a", False)[1].given == {"icon": "x"}
        assert read_edit({"name": " A ", "menu_level": None}, " a ", True)[0] == "a"
        assert read_edit({"name": " A ", "menu_level": None, "parent": ""}, "a", True)[1].given == {
            "name": "A",
            "parent": None,
        }

    def test_what_the_server_wrote_is_passed_over(self):
        body = {"key": "a", "name": "A", "created_at": "x", "updated_at": 7, "version": 9}
        assert read_edit(body, "a", True)[1].given == {"name": "A"}

    def test_the_address_names_the_item(self):
        assert refused(read_edit, {"key": "b", "name": "B"}, "a", True) == {"key": "is not the one in the address"}
        assert set(refused(read_edit, {"name": ""}, "a*", True)) == {"key", "name"}
        assert set(refused(read_edit, {}, "a", True)) == {"name"}
        assert read_edit({}, "a", False)[1].given == {}
        for key in RESERVED_KEYS:
            assert set(refused(read_edit, {"name": "A"}, key, True)) == {"key"}
