"""Rows of roles, and of who has which."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

from sidecar.domain.permissions import Grant, Role
from sidecar.store.tables import roles, user_roles

NAMES_AT_ONCE = 500
"""An SQL statement takes only so many values."""


@dataclass(frozen=True, slots=True)
class RoleRow:
    """`version` is that of the permissions at which the role was last changed."""

    role: Role
    version: int


def load_roles(connection: Connection) -> dict[str, RoleRow]:
    """All of them, by name."""
    rows = connection.execute(select(roles.c.name, roles.c.inherits, roles.c.grants, roles.c.menus, roles.c.version))
    return {row.name: RoleRow(_role(row.name, row.inherits, row.grants, row.menus), row.version) for row in rows}


def save_roles(connection: Connection, made: Iterable[Role], version: int) -> None:
    """Made or replaced, by their names."""
    rows = [
        {
            "name": role.name,
            "inherits": _json(role.inherits),
            "grants": _json([(grant.resource, grant.action, grant.effect) for grant in role.grants]),
            "menus": _json(role.menus),
            "version": version,
        }
        for role in made
    ]
    if rows:
        delete_roles(connection, [row["name"] for row in rows])  # type: ignore[misc]
        connection.execute(insert(roles), rows)


def delete_roles(connection: Connection, names: Collection[str]) -> None:
    for part in _parts(names):
        connection.execute(delete(roles).where(roles.c.name.in_(part)))


def roles_of_user(connection: Connection, user: str) -> tuple[str, ...]:
    """In order."""
    query = select(user_roles.c.role).where(user_roles.c.user_id == user).order_by(user_roles.c.role)
    return tuple(connection.execute(query).scalars())


def roles_of_users(connection: Connection, users: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Those that have some; each user's in order."""
    found: dict[str, list[str]] = {}
    for part in _parts(users):
        query = select(user_roles).where(user_roles.c.user_id.in_(part)).order_by(user_roles.c.role)
        for user, role in connection.execute(query):
            found.setdefault(user, []).append(role)
    return {user: tuple(names) for user, names in found.items()}


def load_user_roles(connection: Connection) -> dict[str, tuple[str, ...]]:
    """Of everyone who has some."""
    found: dict[str, list[str]] = {}
    for user, role in connection.execute(select(user_roles).order_by(user_roles.c.user_id, user_roles.c.role)):
        found.setdefault(user, []).append(role)
    return {user: tuple(names) for user, names in found.items()}


def users_with_roles(connection: Connection, names: Collection[str]) -> set[str]:
    """Who has one of these roles given (not inherited)."""
    found: set[str] = set()
    for part in _parts(names):
        found.update(connection.execute(select(user_roles.c.user_id).where(user_roles.c.role.in_(part))).scalars())
    return found


def save_user_roles(connection: Connection, given: Mapping[str, Collection[str]]) -> None:
    """These users have these roles and no others."""
    for part in _parts(given):
        connection.execute(delete(user_roles).where(user_roles.c.user_id.in_(part)))
    rows = [{"user_id": user, "role": role} for user, names in given.items() for role in names]
    if rows:
        connection.execute(insert(user_roles), rows)


def _parts(names: Collection[str]) -> Iterable[list[str]]:
    listed = list(names)
    return (listed[start : start + NAMES_AT_ONCE] for start in range(0, len(listed), NAMES_AT_ONCE))


def _role(name: str, inherits: str, grants: str, menus: str) -> Role:
    return Role(
        name,
        tuple(json.loads(inherits)),
        tuple(Grant(*grant) for grant in json.loads(grants)),
        tuple(json.loads(menus)),
    )


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
