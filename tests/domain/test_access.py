"""Who may do what, as a table: the scope, the project and the pattern all have to allow it."""

from __future__ import annotations

import pytest

from sidecar.domain import rooms
from sidecar.domain.access import (
    SCOPES,
    Identity,
    may,
    may_hold_deployment,
    may_read,
    may_watch_deployment,
    may_watch_project,
    may_watch_room,
    may_write,
    narrower,
    stranger,
    touches,
)


def token(*scopes: str, projects: tuple[str, ...] | None = None) -> Identity:
    return Identity(kind="token", name="t", scopes=frozenset(scopes), projects=projects, token_id="1")


def browser(*patterns: str, projects: tuple[str, ...] | None = None, scopes: str = "deployments:read") -> Identity:
    return Identity(
        kind="connection", name="b", scopes=frozenset(scopes.split()), projects=projects, patterns=patterns, user="7"
    )


class TestStranger:
    @pytest.mark.parametrize(
        ("open", "anonymous_read", "in_networks", "scopes"),
        [
            ("false", False, True, ""),
            ("false", False, False, ""),
            ("webhooks", False, True, "webhooks:write"),
            ("webhooks", False, False, ""),
            ("true", False, True, "webhooks:write deployments:read"),
            ("true", False, False, "deployments:read"),
            ("false", True, True, "deployments:read rooms:read"),
            ("webhooks", True, True, "webhooks:write deployments:read rooms:read"),
            ("webhooks", True, False, "deployments:read rooms:read"),
            ("true", True, True, "webhooks:write deployments:read rooms:read"),
        ],
    )
    def test_nothing_is_open_but_what_the_settings_open(self, open, anonymous_read, in_networks, scopes):
        found = stranger(open, anonymous_read, in_networks)
        assert found.scopes == frozenset(scopes.split())
        assert not found.authenticated
        assert not found.admin

    def test_no_setting_lets_a_stranger_into_the_rooms_of_users(self):
        found = stranger("true", True, True)
        assert not may_watch_room(found, rooms.EVERYONE)
        assert not may_watch_room(found, rooms.MENU)
        assert found.user is None


@pytest.mark.parametrize("scope", sorted(SCOPES))
def test_admin_holds_every_scope_and_others_only_their_own(scope):
    assert may(token("admin"), scope)
    assert may(token(scope), scope)
    assert scope == "admin" or not may(token(), scope)
    assert not may(token(*(SCOPES - {scope, "admin"})), scope)


@pytest.mark.parametrize(
    ("identity", "project", "allowed"),
    [
        (token("webhooks:write"), "a", True),
        (token("webhooks:write", projects=("a",)), "a", True),
        (token("webhooks:write", projects=("a",)), "b", False),
        (token("webhooks:write", projects=()), "a", False),
        (token("deployments:read"), "a", False),
        (token("admin", projects=("a",)), "b", False),
        (token("admin"), "a", True),
    ],
)
def test_writing_needs_scope_and_project(identity, project, allowed):
    assert may_write(identity, project) is allowed


@pytest.mark.parametrize(
    ("identity", "project", "allowed"),
    [
        (token("deployments:read"), "a", True),
        (token("deployments:read", projects=("a",)), "b", False),
        (token("webhooks:write"), "a", False),
        (browser("project:axi-*"), "axi-cloud", True),
        (browser("project:axi-*"), "shop", False),
        (browser("project:*", projects=("a",)), "b", False),
        (browser("deployment:1"), "a", False),
        (browser(), "a", False),
        (browser("*"), "a", True),
        (browser("project:a", scopes="rooms:read"), "a", False),
        (browser("project:[1] x"), "[1] x", True),
    ],
)
def test_reading_and_watching_a_project(identity, project, allowed):
    assert may_read(identity, project) is allowed
    assert may_watch_project(identity, project) is allowed


@pytest.mark.parametrize(
    ("identity", "allowed"),
    [
        (token("deployments:read"), True),
        (token("deployments:read", projects=("b",)), False),
        (browser("project:a"), True),
        (browser("deployment:1"), True),
        (browser("deployment:2"), False),
        (browser("deployment:1", projects=("b",)), False),
        (browser("deployment:1", scopes="rooms:read"), False),
    ],
)
def test_a_deployment_is_watched_by_its_project_or_its_own_pattern(identity, allowed):
    assert may_watch_deployment(identity, "1", "a") is allowed


@pytest.mark.parametrize(
    ("identity", "allowed"),
    [
        (token("deployments:read"), True),
        (token("rooms:read"), False),
        (browser("project:a"), True),
        (browser("deployment:1"), True),
        (browser("deployment:2"), False),
        (browser("room:x"), False),
        (browser("project:a", scopes="rooms:read"), False),
    ],
)
def test_an_unseen_deployment_is_held_by_whoever_might_get_it(identity, allowed):
    assert may_hold_deployment(identity, "1") is allowed


@pytest.mark.parametrize(
    ("identity", "room", "allowed"),
    [
        (token("rooms:read"), "room:lobby", True),
        (token("deployments:read"), "room:lobby", False),
        (browser("room:lob*", scopes="rooms:read"), "room:lobby", True),
        (browser("room:x", scopes="rooms:read"), "room:lobby", False),
        (token(), rooms.EVERYONE, True),
        (browser("project:a"), rooms.EVERYONE, True),
        (token(), rooms.MENU, True),
        (browser("menu"), rooms.MENU, True),
        (browser("project:a"), rooms.MENU, False),
        (token("deployments:read"), rooms.PROJECTS, True),
        (token("deployments:read", projects=("a",)), rooms.PROJECTS, False),
        (browser("*"), rooms.PROJECTS, False),
        (token(), rooms.PROJECTS, False),
    ],
)
def test_the_other_rooms(identity, room, allowed):
    assert may_watch_room(identity, room) is allowed


def test_who_issues_passes_on_no_more_than_it_has():
    wanted = frozenset({"deployments:read", "admin"})
    assert narrower(wanted, token("deployments:read", "tokens:issue")) == {"deployments:read"}
    assert narrower(wanted, token("admin")) == wanted


def test_a_list_of_projects_bounds_also_an_admin():
    assert not touches(token("admin", projects=("a",)), "b")
