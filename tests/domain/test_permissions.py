"""Roles and grants: denials win, inheritance is a union, and no circle of roles is overlooked or followed for ever."""

from __future__ import annotations

import re

import pytest

from sidecar.domain.patterns import fits
from sidecar.domain.permissions import (
    ANONYMOUS,
    AUTHENTICATED,
    EVERYTHING,
    MAX_ROLES,
    UNGOVERNED,
    VIEW,
    Grant,
    Rights,
    Role,
    Roles,
    heirs,
    inherited,
    menu_resource,
    problems,
    rights_of,
    rights_of_all,
)

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed (tests/requirements.txt)")
st = hypothesis.strategies

TEXTS = st.text("ab:", max_size=5)
PATTERNS = st.text("ab:*", min_size=1, max_size=5)
RESOURCES = st.sampled_from(["menu:a", "menu:b", "doc", "docs"])
RESOURCE_PATTERNS = st.sampled_from(["*", "menu:*", "menu:a", "menu:b", "d*", "doc", "*s"])
ACTIONS = st.sampled_from([VIEW, "edit"])
GRANTS = st.builds(
    Grant, RESOURCE_PATTERNS, st.sampled_from(["*", VIEW, "edit", "e*"]), st.sampled_from(["allow", "allow", "deny"])
)
NAMES = ["a", "b", "c", "d", "e"]


@st.composite
def any_roles(draw) -> dict[str, Role]:
    """Inheriting whatever: also themselves, each other, and what is not there."""
    parents = st.lists(st.sampled_from([*NAMES, "missing"]), max_size=3)
    return {
        name: Role(
            name,
            tuple(draw(parents)),
            tuple(draw(st.lists(GRANTS, max_size=3))),
            tuple(draw(st.lists(st.sampled_from(["a", "b*", "*"]), max_size=2))),
        )
        for name in draw(st.lists(st.sampled_from(NAMES), unique=True))
    }


def roles(**parents: str) -> dict[str, Role]:
    return {name: Role(name, tuple(said.split())) for name, said in parents.items()}


def rights(*grants: Grant) -> Rights:
    return rights_of(["r"], {"r": Role("r", grants=grants)})


@hypothesis.given(TEXTS, PATTERNS)
def test_stars_are_any_text(text: str, pattern: str):
    expected = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL)
    assert fits(text, pattern) is (expected is not None)


@pytest.mark.parametrize(
    ("text", "pattern"), [("", "*"), ("a\nb", "a*b"), ("aXbYc", "a*b*c"), ("aa", "a*a"), ("*", "*"), (".", "*")]
)
def test_fits(text: str, pattern: str):
    assert fits(text, pattern)


@pytest.mark.parametrize(
    ("text", "pattern"), [("a", "a*a"), ("ab", "a"), ("A", "a"), ("a", "."), ("", "a*"), ("a", "")]
)
def test_does_not_fit(text: str, pattern: str):
    assert not fits(text, pattern)


def test_many_stars_cost_little():
    """(A matcher that tries every way would not come back.)"""
    assert not fits("a" * 200, "*a" * 100 + "*b")


class TestVerdicts:
    @hypothesis.given(st.lists(GRANTS), RESOURCES, ACTIONS)
    def test_nothing_said_is_no_and_a_denial_wins(self, grants: list[Grant], resource: str, action: str):
        about = [grant for grant in grants if grant.about(resource, action)]
        expected = None if not about else all(grant.allows for grant in about)
        assert rights(*grants).verdict(resource, action) is expected
        assert rights(*grants).may(resource, action) is (expected is True)

    @hypothesis.given(st.lists(GRANTS), GRANTS, RESOURCES, ACTIONS)
    def test_one_more_allowance_takes_nothing_and_one_more_denial_gives_nothing(self, grants, more: Grant, on, action):
        before, after = rights(*grants).may(on, action), rights(*grants, more).may(on, action)
        assert after >= before if more.allows else after <= before

    @hypothesis.given(st.lists(GRANTS, max_size=4), RESOURCES, ACTIONS)
    def test_a_denial_of_everything_leaves_nothing(self, grants: list[Grant], resource: str, action: str):
        assert not rights(*grants, Grant("*", "*", "deny")).may(resource, action)

    @hypothesis.given(
        st.lists(GRANTS | st.builds(Grant, st.builds(menu_resource, PATTERNS), PATTERNS)), st.text("ab:*", max_size=3)
    )
    def test_the_quick_verdict_about_menus_is_the_same(self, grants: list[Grant], key: str):
        made = rights(*grants, Grant("menu:a", VIEW))
        assert made.menu_verdict()(key) is made.verdict(menu_resource(key), VIEW)

    @hypothesis.given(st.lists(GRANTS))
    def test_what_is_told_as_allowed_is_no_grant_that_is_denied_whole(self, grants: list[Grant]):
        made = rights(*grants)
        for grant in made.grants:
            if grant.allows and "*" not in grant.resource + grant.action:
                assert (f"{grant.resource}:{grant.action}" in made.allowed) is made.may(grant.resource, grant.action)
        assert not rights(*grants, Grant("*", "*", "deny")).allowed

    def test_menus_are_allowances_to_view(self):
        made = rights_of(["r"], {"r": Role("r", menus=("a*",))})
        assert made.grants == (Grant("menu:a*", VIEW),)
        assert made.may("menu:ab", VIEW)
        assert not made.may("menu:ab", "edit")

    def test_everything(self):
        assert EVERYTHING.may("whatever", "x")
        assert EVERYTHING.menu_verdict()("a") is True
        assert rights_of(["authenticated"], UNGOVERNED).menu_verdict()("a") is True
        assert rights_of(["anonymous"], UNGOVERNED).menu_verdict()("a") is None


class TestInheritance:
    @hypothesis.given(any_roles(), st.lists(st.sampled_from(NAMES)))
    def test_it_is_everything_that_can_be_reached(self, made: dict[str, Role], held: list[str]):
        expected = {name for name in held if name in made}
        for _ in made:
            expected |= {parent for name in expected for parent in made[name].inherits if parent in made}
        assert inherited(held, made) == expected
        assert rights_of(held, made).roles == tuple(sorted(expected))
        grants = {grant for name in expected for grant in made[name].all_grants}
        assert rights_of(held, made).grants == tuple(sorted(grants))

    @hypothesis.given(any_roles(), st.permutations(NAMES), st.integers(0, 5))
    def test_no_order_matters(self, made: dict[str, Role], order: list[str], split: int):
        turned: Roles = {
            name: Role(name, made[name].inherits[::-1], made[name].grants[::-1], made[name].menus[::-1])
            for name in order
            if name in made
        }
        whole = rights_of(order, made)
        assert rights_of(order[::-1], turned) == whole
        assert rights_of(order[::-1], turned).checksum == whole.checksum
        parts = rights_of(order[:split], made), rights_of(order[split:], made)
        assert set(parts[0].grants) | set(parts[1].grants) == set(whole.grants)

    @hypothesis.given(any_roles(), st.sets(st.sampled_from(NAMES)))
    def test_heirs_are_those_who_inherit(self, made: dict[str, Role], names: set[str]):
        assert heirs(names, made) == {name for name in made if names & inherited([name], made)}

    def test_a_denial_is_inherited_too(self):
        made = {"a": Role("a", ("b",), menus=("*",)), "b": Role("b", grants=(Grant("menu:x", "*", "deny"),))}
        assert rights_of(["a"], made).menu_verdict()("x") is False
        assert rights_of(["a"], made).menu_verdict()("y") is True

    def test_different_rights_have_different_checksums(self):
        made = [
            rights(), rights(Grant("a", "b")), rights(Grant("a", "b", "deny")), rights(Grant("b", "a")),
            rights_of(["q"], {"q": Role("q")}), rights_of([], {}),
        ]  # fmt: skip
        assert len({one.checksum for one in made}) == len(made)


class TestProblems:
    @hypothesis.given(any_roles())
    def test_circles_and_unknown_roles_are_all_told(self, made: dict[str, Role]):
        told = {problem.path: problem.message for problem in problems(made, str)}
        for name, role in made.items():
            unknown = any(parent not in made for parent in role.inherits)
            circling = any(name in inherited([parent], made) for parent in role.inherits)
            message = told.get(name, "")
            assert ("does not exist" in message) is unknown
            if circling and not unknown:
                assert "circle" in message
            if message and not unknown:
                assert any(
                    other in inherited([parent], made)
                    for other in inherited([name], made)
                    for parent in made[other].inherits
                ), "it leads into one at least"

    def test_circles_of_any_length(self):
        told = [problem.path for problem in problems(roles(a="b", b="c", c="a", d="a", e="", f="f e", g="e"), str)]
        assert told == ["a", "b", "c", "f"]

    def test_a_lattice_is_no_circle(self):
        assert problems(roles(a="b c", b="d", c="d", d=""), str) == []

    def test_too_many(self):
        many = {f"r{n}": Role(f"r{n}") for n in range(MAX_ROLES + 1)}
        assert [problem.path for problem in problems(many, str)] == ["roles"]
        del many["r0"]
        assert problems(many, str) == []

    @pytest.mark.parametrize("circle", [(), ("r0",)])
    def test_the_densest_roles_are_looked_through_before_anybody_waits(self, circle: tuple[str, ...]):
        """(It used to take minutes, within the one transaction that writes.)"""
        many = {f"r{n}": Role(f"r{n}", tuple(f"r{m}" for m in range(n + 1, min(n + 101, 1_000)))) for n in range(1_000)}
        many["r999"] = Role("r999", circle)
        assert len(problems(many, str)) == (1_000 if circle else 0)
        assert len(heirs({"r999"}, many)) == 1_000


class TestEverybody:
    @hypothesis.given(any_roles(), st.lists(st.sampled_from(NAMES)), st.sampled_from("abx"))
    def test_what_everybody_may_nobody_is_denied(self, made: dict[str, Role], held: list[str], key: str):
        roles = made | {AUTHENTICATED: Role(AUTHENTICATED, ("e",))}
        if rights_of_all(roles).menu_verdict()(key):
            assert rights_of([*held, AUTHENTICATED], roles).menu_verdict()(key)

    def test_what_is_denied_to_strangers_alone_is_for_everybody(self):
        roles = {
            AUTHENTICATED: Role(AUTHENTICATED, menus=("*",)),
            ANONYMOUS: Role(ANONYMOUS, grants=(Grant("menu:a", "*", "deny"),)),
            "r": Role("r", grants=(Grant("menu:b", "*", "deny"),)),
        }
        assert [rights_of_all(roles).menu_verdict()(key) for key in "abc"] == [True, False, True]
        assert rights_of_all(UNGOVERNED) == rights_of([AUTHENTICATED], UNGOVERNED)
