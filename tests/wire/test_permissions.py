"""Roles, who has them, and notices, read from bodies: every fault named by its place, and nothing else ever raised."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sidecar.domain.errors import Invalid
from sidecar.domain.permissions import MAX_GRANTS, MAX_ROLES, Grant, Role
from sidecar.wire.news import NOTICES
from sidecar.wire.permissions import RoleBody, read_all, read_notice, read_role, read_user

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed (tests/requirements.txt)")
st = hypothesis.strategies

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.sampled_from(["\ud800"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=5
)
ROLES = st.dictionaries(st.sampled_from([*RoleBody.model_fields, "reason", "x"]), VALUES)


def outcome(read, *arguments: Any) -> tuple[Any, set[str]]:
    """What was read, or which fields are wrong."""
    try:
        return read(*arguments), set()
    except Invalid as error:
        fields = error.fields
    assert fields
    assert all(field.message for field in fields)
    return None, {re.split(r"[.\[]", field.path)[0] for field in fields}


def refused(read, *arguments: Any) -> dict[str, str]:
    with pytest.raises(Invalid) as caught:
        read(*arguments)
    return {field.path: field.message for field in caught.value.fields}


@hypothesis.given(ROLES)
def test_anything_is_read_or_refused_as_a_role(body: dict[str, Any]):
    found, bad = outcome(read_role, body, "r")
    assert bad <= set(body)
    assert found is None or found[0].name == "r"


@hypothesis.settings(max_examples=50)
@hypothesis.given(st.fixed_dictionaries({"roles": st.lists(ROLES)}, optional={"users": VALUES, "x": VALUES}))
def test_anything_is_read_or_refused_as_all_roles(body: dict[str, Any]):
    outcome(read_all, body)


@hypothesis.given(VALUES)
def test_anything_is_read_or_refused_as_users_with_roles(value: object):
    for body in ({"roles": [], "users": value}, {"roles": [], "users": {"ada": value}}, {"roles": value}):
        outcome(read_all, body)
    assert outcome(read_user, {"roles": value}, "ada")[1] <= {"roles"}


@hypothesis.given(st.dictionaries(st.sampled_from(["type", "to", "data"]), VALUES | st.sampled_from(["all", *NOTICES])))
def test_anything_is_read_or_refused_as_a_notice(body: dict[str, Any]):
    assert outcome(read_notice, body)[1] <= {"type", "to", "data"}


BAD = [
    *(("inherits", value, "inherits") for value in (None, "a", {}, 7, ["a"] * 101)),
    *(("inherits", [value], "inherits[0]") for value in ("", "a/b", "a*", "x" * 101, "a\nb", None, True, [], {})),
    *(("menus", value, "menus") for value in (None, "a", {}, ["a"] * (MAX_GRANTS + 1))),
    *(("menus", ["a", value], "menus[1]") for value in ("", " ", "x" * 51, "a\nb", None, 7, [], {})),
    *(("grants", value, "grants") for value in (None, "a", {}, [{"resource": "a", "action": "b"}] * (MAX_GRANTS + 1))),
    *(("grants", [value], "grants[0]") for value in (None, "a:b", [], 7)),
    *(("grants", [{"resource": v, "action": "a"}], "grants[0].resource") for v in ("", "x" * 201, "\n", None, 7, [])),
    *(("grants", [{"resource": "a", "action": v}], "grants[0].action") for v in ("", "x" * 101, "\n", None, 7, [])),
    *(("grants", [{"resource": "a", "action": "b", "effect": v}], "grants[0].effect") for v in ("", "Allow", None, 1)),
    ("grants", [{"resource": "a"}], "grants[0].action"),
    ("grants", [{"action": "a"}], "grants[0].resource"),
    ("grants", [{"resource": "a", "action": "b", "x": 1}], "grants[0].x"),
    ("x", 1, "x"),
    *(("name", value, "name") for value in (None, "", "a/b", "a*", True, [], "x" * 101)),
]


@pytest.mark.parametrize(("field", "value", "path"), BAD)
def test_a_bad_field_is_named(field: str, value: object, path: str):
    assert set(refused(read_role, {field: value}, "r")) == {path}
    body = {"name": "r", field: value}
    assert set(refused(read_all, {"roles": [{"name": "ok"}, body]})) == {f"roles[1].{path}"}


def test_every_bad_field_is_named_at_once():
    body = {
        "roles": [{}, {"name": "a"}, {"name": "a"}, 7, {"name": "b", "inherits": [""], "x": 1}],
        "users": {"": ["a"], "bob": "a", "eve": [None]},
    }
    assert set(refused(read_all, body)) == {
        "roles[0].name", "roles[2].name", "roles[3]", "roles[4].inherits[0]", "roles[4].x",
        "users", "users.bob.roles", "users.eve.roles[0]",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "roles"), ({"roles": {}}, "roles"), ({"roles": [{}] * (MAX_ROLES + 1)}, "roles"),
        ({"roles": [], "users": []}, "users"), ({"roles": [], "x": 1}, "x"), ({"roles": [], "reason": None}, "reason"),
        ({"roles": [], "users": {" ada": [], "ada": []}}, "users.ada"),
        ({"roles": [], "users": {"x" * 201: []}}, "users"),
    ],
)  # fmt: skip
def test_permissions_that_are_none(body: dict[str, Any], path: str):
    assert set(refused(read_all, body)) == {path}


def test_a_role_is_read():
    body = {
        "inherits": ["b", "a", "b"], "menus": ["m*", "m*", " n "], "reason": "why", "version": 9,
        "grants": [{"resource": "doc", "action": "read"}, {"resource": "*", "action": "*", "effect": "deny"}] * 2,
    }  # fmt: skip
    grants = (Grant("doc", "read"), Grant("*", "*", "deny"))
    assert read_role(body, " r ") == (Role("r", ("b", "a"), grants, ("m*", "n")), "why")
    assert read_role({}, "7") == (Role("7"), "")
    assert refused(read_role, {"name": "q"}, "r") == {"name": "is not the one in the address"}
    for name in ("", "a/b", "a*", "x" * 101):
        assert set(refused(read_role, {}, name)) == {"name"}


def test_a_users_roles_are_read():
    assert read_user({"roles": ["b", "a", "b"], "reason": "why", "user": "ada", "version": 3}, "ada") == (
        ("a", "b"),
        "why",
    )
    assert refused(read_user, {"roles": [], "user": "bob"}, "ada") == {"user": "is not the one in the address"}
    assert set(refused(read_user, {"user": "ada"}, "ada")) == {"roles"}
    assert set(refused(read_user, {"roles": [], "x": 1}, "ada")) == {"x"}


class TestNotices:
    @pytest.mark.parametrize("to", [{"user": "ada"}, {"role": "r"}, {"all": True}, "all", {"user": 7, "all": False}])
    def test_to_somebody(self, to: object):
        assert read_notice({"type": "system_notification", "to": to, "unknown": 1}).type == "system_notification"

    @pytest.mark.parametrize(
        ("body", "path"),
        [
            *(({"to": to}, "to") for to in ({}, {"user": "a", "role": "b"}, {"all": False}, None, "ada", [])),
            ({"to": {"user": ""}}, "to.user"),
            ({"to": {"role": "a*"}}, "to.role"),
            ({"to": {"all": 1}}, "to.all"),
            ({"to": {"everyone": True}}, "to.everyone"),
            *(({"type": kind}, "type") for kind in ("menu_updated", "", None, [], 7)),
            *(({"data": data}, "data") for data in (None, [], "x", 7)),
        ],
    )
    def test_to_nobody(self, body: dict[str, Any], path: str):
        assert set(refused(read_notice, {"type": "system_notification", "to": "all"} | body)) == {path}

    def test_each_missing_field_is_told(self):
        assert set(refused(read_notice, {})) == {"type", "to"}
