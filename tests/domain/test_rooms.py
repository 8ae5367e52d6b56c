"""Names from outside: taken as people write them, refused where no room can be called so."""

from __future__ import annotations

import pytest

from sidecar.domain import rooms
from sidecar.domain.errors import BadName
from sidecar.domain.rooms import NAME_MAX_CHARACTERS, clean_name

pytest.importorskip("hypothesis", reason="hypothesis is not installed (tests/requirements.txt)")

from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("given_name", "name"),
    [
        ("axi-star-cloud", "axi-star-cloud"),
        ("  shop ", "shop"),
        ("owner/repo", "owner/repo"),
        ("项目 β ✅", "项目 β ✅"),
        ("a:b", "a:b"),
        (123456789, "123456789"),
        (0, "0"),
        (-5, "-5"),
        ("x" * NAME_MAX_CHARACTERS, "x" * NAME_MAX_CHARACTERS),
    ],
)
def test_names_as_people_write_them(given_name, name):
    assert clean_name(given_name) == name


@pytest.mark.parametrize(
    ("given_name", "problem"),
    [
        (None, "must be a string or a whole number"),
        (True, "must be a string or a whole number"),
        (1.5, "must be a string or a whole number"),
        (["a"], "must be a string or a whole number"),
        ({}, "must be a string or a whole number"),
        ("", "is empty"),
        (" \t\n", "is empty"),
        ("x" * (NAME_MAX_CHARACTERS + 1), "is longer than"),
        (10**NAME_MAX_CHARACTERS, "is longer than"),
        (-(10 ** (NAME_MAX_CHARACTERS - 1)), "is longer than"),
        pytest.param(10**10_000, "is longer than", id="ten-thousand-digits"),
        ("a\nb", "holds a control character"),
        ("a\x00b", "holds a control character"),
        ("a\x1b[31mb", "holds a control character"),
        ("a\u202eb", "holds a control character"),
        ("a\ud800b", "lone surrogate"),
    ],
)
def test_names_that_no_room_can_have(given_name, problem):
    with pytest.raises(BadName, match=problem) as raised:
        clean_name(given_name, "project")
    assert raised.value.detail.startswith("project ")


@given(st.one_of(st.text(), st.integers(), st.floats(), st.none()))
def test_a_clean_name_is_clean_and_stays_so(value):
    try:
        name = clean_name(value)
    except BadName:
        return
    assert 0 < len(name) <= NAME_MAX_CHARACTERS
    assert clean_name(name) == name
    name.encode()


def test_a_client_s_name_is_only_ever_a_part_of_a_room_s_name():
    """Protects the fixed rooms and other people's: a project called `everyone` is not the room of all."""
    for make in (rooms.project, rooms.deployment, rooms.user, rooms.permissions, rooms.free):
        for name in (rooms.EVERYONE, rooms.MENU, rooms.PROJECTS, "user:7", "deployment:1"):
            kind, colon, rest = make(name).partition(":")
            assert (colon, rest) == (":", name)
            assert kind in ("project", "deployment", "user", "permissions", "room")
