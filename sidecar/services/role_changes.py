"""A change of roles and of who has them: what it comes to, and whom it touches, who is told what it means to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field

from sqlalchemy import Connection

from sidecar.domain import menu, permissions, rooms
from sidecar.domain.errors import FieldError, Invalid
from sidecar.domain.events import Control
from sidecar.domain.permissions import (
    ANONYMOUS,
    AUTHENTICATED,
    IMPLIED,
    UNGOVERNED,
    Rights,
    Role,
    Roles,
    heirs,
    inherited,
    rights_of,
)
from sidecar.store.journal import Transaction
from sidecar.store.menu import load_menu
from sidecar.store.permissions import (
    RoleRow,
    delete_roles,
    roles_of_users,
    save_roles,
    save_user_roles,
    users_with_roles,
)
from sidecar.store.versions import PERMISSIONS, Changed, Content, ever_changed, log_changes
from sidecar.wire.news import CACHE_INVALIDATION, MENU_ACCESS_CHANGED, PERMISSION_CHANGED, ROLE_UPDATED
from sidecar.wire.spoken import EventType

CHANGED = Control("control.permissions")
"""Type of the control event after which the permissions are read again; its payload `{"version"}` says up to where."""

TOLD_KEYS = 100
TOLD_USERS = 1_000
TOLD_COMBINATIONS = 100
"""Up to so many users, with so many combinations of roles, each is told what has changed for them: to find it out takes
time, in which nobody else can write."""

Held = tuple[str, ...]
"""Roles that somebody was given, in order."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """All roles as they shall be, and the users whose roles are to be these."""

    roles: dict[str, Role]
    users: dict[str, Held] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a write changes: rules and holders before and after; `users` are those whose given roles change."""

    version: int
    before: Roles
    after: Roles
    roles: dict[str, Role]
    gone: list[str]
    held_before: dict[str, Held]
    held_after: dict[str, Held]
    logged: list[Changed]


Path = Callable[[str, str], str]
"""Where in the request a thing ("role" or "user") of this name tells which roles it has."""


def plan_change(connection: Connection, version: int, rows: Mapping[str, RoleRow], wanted: Wanted, path: Path) -> Plan:
    """Raises Invalid for what can't be."""
    problems = permissions.problems(wanted.roles, lambda name: path("role", name))
    for user, given in wanted.users.items():
        if any(role not in wanted.roles for role in given):
            problems.append(FieldError(path("user", user), "names a role that does not exist"))
        elif IMPLIED.intersection(given):
            problems.append(
                FieldError(path("user", user), f"names {ANONYMOUS} or {AUTHENTICATED}, which nobody is given")
            )
    if problems:
        problems = list(dict.fromkeys(problems))
        raise Invalid("; ".join(f"{item.path} {item.message}" for item in problems[:10]) + ".", tuple(problems))
    gone = sorted(set(rows) - set(wanted.roles))
    concerned = set(wanted.users) | users_with_roles(connection, gone)
    held = roles_of_users(connection, concerned)
    before: dict[str, Held] = {}
    after: dict[str, Held] = {}
    for user in sorted(concerned):
        had: Held = held.get(user, ())
        has: Held = tuple(role for role in sorted(wanted.users.get(user, had)) if role in wanted.roles)
        if had != has:
            before[user], after[user] = had, has
    roles = {name: role for name, role in wanted.roles.items() if name not in rows or rows[name].role != role}
    changes = [
        Changed("role", name, name, role_content(rows[name].role) if name in rows else None, role_content(role))
        for name, role in sorted(roles.items())
    ]
    changes += [Changed("role", name, name, role_content(rows[name].role), None) for name in gone]
    changes += [
        Changed("user", user, user, held_content(before[user]), held_content(has)) for user, has in after.items()
    ]
    return Plan(version, rules_of(connection, rows), wanted.roles, roles, gone, before, after, changes)


def carry_out(transaction: Transaction, plan: Plan, version: int) -> Plan:
    """Store it, and tell whom it touches; what touches everybody who is signed in is told to all of them at once. The
    control event comes first: whoever is told and asks finds it done."""
    connection = transaction.connection
    delete_roles(connection, plan.gone)
    save_roles(connection, plan.roles.values(), version)
    save_user_roles(connection, plan.held_after)
    log_changes(connection, PERMISSIONS, version, plan.logged)
    transaction.append(CHANGED, {"version": version}, ())
    news = _News(transaction, plan, version)
    changed = {name for name in {*plan.before, *plan.after} if plan.before.get(name) != plan.after.get(name)}
    touched = heirs(changed, plan.before) | heirs(changed, plan.after)
    everybodys = inherited([AUTHENTICATED], plan.before) & inherited([AUTHENTICATED], plan.after)
    own = changed - everybodys
    users = users_with_roles(connection, heirs(own, plan.before) | heirs(own, plan.after)) | set(plan.held_after)
    held = roles_of_users(connection, users)
    roles = {user: (plan.held_before.get(user, held.get(user, ())), held.get(user, ())) for user in sorted(users)}
    if len(roles) > TOLD_USERS or len(set(roles.values())) > TOLD_COMBINATIONS:
        news.tell_crowd(roles)
    else:
        for user, (had, has) in roles.items():
            news.tell(rooms.permissions(user), user, had, has)
    if AUTHENTICATED in touched:
        news.tell(rooms.PERMISSIONS, None, (), ())
    if ANONYMOUS in touched:
        news.tell(rooms.ANONYMOUS, None, (), (), ANONYMOUS)
    return plan


class _News:
    """The events about a change."""

    def __init__(self, transaction: Transaction, plan: Plan, version: int):
        self._transaction = transaction
        self._plan = plan
        self._version = version
        self._items = load_menu(transaction.connection)
        self._seen: dict[Rights, frozenset[str]] = {}

    def tell(self, room: str, user: str | None, had: Held, has: Held, implied: str = AUTHENTICATED) -> None:
        """What has changed for somebody who had these roles and has those; nothing if that is nothing."""
        before = rights_of((*had, implied), self._plan.before)
        after = rights_of((*has, implied), self._plan.after)
        if had == has and before == after:
            return
        keys = ["permissions"]
        if had != has:
            self._append(
                room,
                ROLE_UPDATED,
                userId=user,
                oldRole=", ".join(had),
                newRole=", ".join(has),
                permissions=after.allowed,
            )
        if before.grants != after.grants:
            self._append(room, PERMISSION_CHANGED, **_permission_change(user, before, after, self._transaction.now))
        was, sees = self._sees(before), self._sees(after)
        if was != sees:
            keys.append("menu")
            self._append(room, MENU_ACCESS_CHANGED, userId=user, menuChanges=_menu_change(was, sees))
        self._append(room, CACHE_INVALIDATION, userId=user, cacheKeys=keys, version=self._version)

    def tell_crowd(self, users: Iterable[str]) -> None:
        """All of these hold a role that has changed: each has to ask what that means to them."""
        payload = {"userId": None, "cacheKeys": ["permissions", "menu"], "version": self._version}
        self._transaction.append(CACHE_INVALIDATION, payload, [rooms.permissions(user) for user in users])

    def _append(self, room: str, type: EventType, **payload: object) -> None:
        self._transaction.append(type, payload, [room])

    def _sees(self, rights: Rights) -> frozenset[str]:
        found = self._seen.get(rights)
        if found is None:
            found = self._seen[rights] = menu.seen(self._items, rights.menu_verdict())
        return found


def _menu_change(was: frozenset[str], sees: frozenset[str]) -> dict[str, object]:
    """The keys of the items that came and went; the first of many, and that there are more: each user is told it."""
    added, removed = sorted(sees - was), sorted(was - sees)
    told: dict[str, object] = {"added": added[:TOLD_KEYS], "removed": removed[:TOLD_KEYS]}
    return told | {"more": True} if len(added) > TOLD_KEYS or len(removed) > TOLD_KEYS else told


def _permission_change(user: str | None, before: Rights, after: Rights, now: str) -> dict[str, object]:
    was, now_may = set(before.allowed), set(after.allowed)
    action = "grant" if now_may > was else "revoke" if now_may < was else "update"
    resources = {grant.resource for grant in set(before.grants) ^ set(after.grants)}
    return {
        "userId": user,
        "permissions": after.allowed,
        "action": action,
        "resource": next(iter(resources)) if len(resources) == 1 else "*",
        "timestamp": now,
    }


def rules_of(connection: Connection, rows: Mapping[str, RoleRow]) -> Roles:
    """The roles that hold. As long as nobody has ever written one, all who are signed in see the menu."""
    return roles_in(rows) if rows or ever_changed(connection, PERMISSIONS) else UNGOVERNED


def roles_in(rows: Mapping[str, RoleRow]) -> dict[str, Role]:
    return {name: row.role for name, row in rows.items()}


def role_content(role: Role) -> Content:
    """A role as it is sent and logged."""
    return {
        "name": role.name,
        "inherits": list(role.inherits),
        "grants": [asdict(grant) for grant in role.grants],
        "menus": list(role.menus),
    }


def read_role(name: str, content: Content) -> Role:
    """The role of this content."""
    grants = tuple(permissions.Grant(**grant) for grant in content["grants"])
    return Role(name, tuple(content["inherits"]), grants, tuple(content["menus"]))


def held_content(held: Held) -> Content | None:
    """What somebody was given as it is logged; None for nothing."""
    return {"roles": list(held)} if held else None
