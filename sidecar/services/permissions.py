"""Roles and who has them: asked, changed as versions, and told to exactly the users whom a change touches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection

from sidecar.domain import rooms
from sidecar.domain.access import Identity
from sidecar.domain.errors import Conflict, FieldError, Invalid, NotFound
from sidecar.domain.permissions import (
    ANONYMOUS,
    AUTHENTICATED,
    EVERYTHING,
    Rights,
    Role,
    Roles,
    heirs,
    rights_of,
)
from sidecar.domain.versions import UNCONDITIONAL, Condition
from sidecar.services.access import require
from sidecar.services.idempotency import KeyedRequest, answered, remember
from sidecar.services.role_changes import (
    Held,
    Path,
    Plan,
    Wanted,
    carry_out,
    plan_change,
    read_role,
    role_content,
    roles_in,
    rules_of,
)
from sidecar.services.versions import SHOWN_CHANGES, Edit, Versioned, Written, edit_by, state_at
from sidecar.store.database import Database
from sidecar.store.journal import Transaction
from sidecar.store.permissions import (
    RoleRow,
    load_roles,
    load_user_roles,
    roles_of_user,
    users_with_roles,
)
from sidecar.store.versions import (
    PERMISSIONS,
    Content,
    Logged,
    changed_since,
    has_version,
    newest_changes,
    read_version,
)
from sidecar.store.writer import Submit
from sidecar.wire.news import NOTICES
from sidecar.wire.permissions import NoticeBody, WholePermissions

READ = "permissions:read"
WRITE = "permissions:write"
MAX_REMEMBERED = 20_000


@dataclass(frozen=True, slots=True)
class PermissionsState:
    """All roles at a version. `rules` are those that hold; `users` and `rights` remember what was asked for."""

    version: int
    at: str
    roles: Mapping[str, RoleRow]
    rules: Roles
    users: dict[str, Held] = field(default_factory=dict)
    rights: dict[Held, Rights] = field(default_factory=dict)

    def rights_with(self, held: Held) -> Rights:
        """Of somebody who holds these, implied ones included."""
        found = self.rights.get(held)
        if found is None:
            if len(self.rights) >= MAX_REMEMBERED:
                self.rights.clear()
            found = self.rights[held] = rights_of(held, self.rules)
        return found


@dataclass(frozen=True, slots=True)
class Notified:
    """A notice that was sent: its seq, and the rooms that it went to."""

    seq: int
    rooms: list[str]
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class UserRights:
    """What a user (None: who has no name here) may, and sees of the menu."""

    user: str | None
    rights: Rights
    version: int
    at: str


def load_permissions(connection: Connection) -> PermissionsState:
    version = read_version(connection, PERMISSIONS)
    rows = load_roles(connection)
    return PermissionsState(version.version, version.at, rows, rules_of(connection, rows))


class Permissions(Versioned[PermissionsState, Plan]):
    """Writes raise Unauthenticated or NotAllowed for who may not, Invalid, NotFound, PreconditionFailed, Conflict, and
    Unavailable."""

    def __init__(self, database: Database, submit: Submit):
        super().__init__(database, submit, PERMISSIONS, READ, WRITE, load_permissions, carry_out)

    def rights(self, identity: Identity) -> Rights:
        """What the holder of this identity may. Raises Unavailable."""
        return self._rights(identity, self.state, self._held)

    def rights_in(self, connection: Connection, identity: Identity) -> Rights:
        """The same, read within a transaction."""
        return self._rights(identity, load_permissions(connection), lambda _, user: roles_of_user(connection, user))

    def given(self, user: str) -> Held:
        """The roles that this user was given."""
        return self._held(self.state, user)

    def of(self, identity: Identity, user: str | None) -> UserRights:
        """What this user may, or without one the caller. Raises NotAllowed for who may not ask about others."""
        state = self.state
        if user is None or (user == identity.user and not identity.admin):
            return UserRights(identity.user, self.rights(identity), state.version, state.at)
        require(identity, READ)
        return UserRights(user, state.rights_with((*self._held(state, user), AUTHENTICATED)), state.version, state.at)

    def newest_changes(self, held: UserRights) -> list[Logged]:
        """The last changes of what this user may: of their roles, and of those roles themselves; all, of who may
        everything."""
        of = None
        if held.rights is not EVERYTHING:
            of = {"role": held.rights.roles, "user": () if held.user is None else (held.user,)}
        return self._database.read(lambda c: newest_changes(c, PERMISSIONS, SHOWN_CHANGES, of))

    def role(self, name: str) -> RoleRow:
        """Raises NotFound."""
        row = self.state.roles.get(name)
        if row is None:
            raise NotFound("There is no such role.")
        return row

    def put_role(self, identity: Identity, role: Role, reason: str, condition: Condition = UNCONDITIONAL) -> Written:
        def change(_connection: Connection, rows: Mapping[str, RoleRow]) -> Wanted:
            return Wanted({**roles_in(rows), role.name: role})

        return self._change(identity, edit_by(identity, "put", reason), change, condition, role.name)

    def delete_role(self, identity: Identity, name: str, reason: str, condition: Condition = UNCONDITIONAL) -> Written:
        """Nobody has it any more. Raises NotFound; Conflict while others inherit from it."""

        def change(_connection: Connection, rows: Mapping[str, RoleRow]) -> Wanted:
            if name not in rows:
                raise NotFound("There is no such role.")
            heirs = [heir for heir, row in sorted(rows.items()) if name in row.role.inherits]
            if heirs:
                raise Conflict(f"It is inherited by {', '.join(heirs[:10])}: change those first.")
            return Wanted({key: row.role for key, row in rows.items() if key != name})

        return self._change(identity, edit_by(identity, "delete", reason), change, condition, name)

    def put_user(
        self, identity: Identity, user: str, held: Held, reason: str, condition: Condition = UNCONDITIONAL
    ) -> Written:
        """This user has these roles and no others."""

        def change(_connection: Connection, rows: Mapping[str, RoleRow]) -> Wanted:
            return Wanted(roles_in(rows), {user: held})

        return self._change(identity, edit_by(identity, "put", reason), change, condition)

    def sync(
        self,
        identity: Identity,
        request: KeyedRequest | None,
        whole: WholePermissions,
        condition: Condition = UNCONDITIONAL,
        dry_run: bool = False,
    ) -> Written:
        """These are all the roles; the users named have these of them, and the others keep theirs."""

        def change(_connection: Connection, _rows: Mapping[str, RoleRow]) -> Wanted:
            return Wanted(dict(whole.roles), dict(whole.users or {}))

        edit = edit_by(identity, "sync", whole.reason)
        return self._change(identity, edit, change, condition, request=request, dry_run=dry_run, path=whole.path)

    def rollback(
        self,
        identity: Identity,
        request: KeyedRequest | None,
        version: int,
        reason: str,
        condition: Condition = UNCONDITIONAL,
        dry_run: bool = False,
    ) -> Written:
        """A new version in which all is as it was at that one. Raises NotFound."""

        def change(connection: Connection, rows: Mapping[str, RoleRow]) -> Wanted:
            if not has_version(connection, PERMISSIONS, version):
                raise NotFound("There was no such version.")
            wanted, users = roles_in(rows), {}
            for (kind, name), before in changed_since(connection, PERMISSIONS, version).items():
                if kind == "user":
                    users[name] = () if before is None else tuple(before["roles"])
                elif before is None:
                    wanted.pop(name, None)
                else:
                    wanted[name] = read_role(name, before)
            return Wanted(wanted, users)

        edit = edit_by(identity, f"rollback to {version}", reason)
        return self._change(identity, edit, change, condition, request=request, dry_run=dry_run)

    def at(self, identity: Identity, version: int) -> tuple[list[Role], dict[str, Held]]:
        """All roles, and who had which, at that version. Raises NotFound."""
        require(identity, READ)

        def query(connection: Connection) -> tuple[list[Role], dict[str, Held]]:
            now: dict[tuple[str, str], Content] = {
                ("role", name): role_content(row.role) for name, row in load_roles(connection).items()
            }
            now |= {("user", user): {"roles": list(held)} for user, held in load_user_roles(connection).items()}
            found = state_at(connection, PERMISSIONS, version, now)
            roles = [read_role(name, said) for (kind, name), said in sorted(found.items()) if kind == "role"]
            return roles, {name: tuple(said["roles"]) for (kind, name), said in found.items() if kind == "user"}

        return self._database.read(query)

    def notify(self, identity: Identity, request: KeyedRequest | None, body: NoticeBody) -> Notified:
        """Tell users something. Raises Invalid for a role that there is none of."""
        require(identity, WRITE)
        to = body.to

        def command(transaction: Transaction) -> Notified:
            first = answered(transaction, request)
            if first is not None:
                return Notified(first["seq"], first["rooms"], duplicate=True)
            names = _rooms_of(transaction.connection, to.user, to.role)
            event = transaction.append(NOTICES[body.type], body.data, names)
            remember(transaction, request, {"seq": event.seq, "rooms": names})
            return Notified(event.seq, names)

        return self._submit(command)

    def _held(self, state: PermissionsState, user: str) -> Held:
        held = state.users.get(user)
        if held is None:
            held = self._database.read(lambda c: roles_of_user(c, user))
            if len(state.users) >= MAX_REMEMBERED:
                state.users.clear()
            state.users[user] = held
        return held

    def _rights(
        self, identity: Identity, state: PermissionsState, held: Callable[[PermissionsState, str], Held]
    ) -> Rights:
        if identity.admin:
            return EVERYTHING
        if not identity.authenticated:
            return state.rights_with((ANONYMOUS,))
        given = () if identity.user is None else held(state, identity.user)
        return state.rights_with((*given, AUTHENTICATED))

    def _change(
        self,
        identity: Identity,
        edit: Edit,
        change: Callable[[Connection, Mapping[str, RoleRow]], Wanted],
        condition: Condition,
        name: str | None = None,
        request: KeyedRequest | None = None,
        dry_run: bool = False,
        path: Path = lambda kind, _name: "inherits" if kind == "role" else "roles",
    ) -> Written:
        def plan(connection: Connection, _now: str) -> Plan:
            rows = load_roles(connection)
            version = read_version(connection, PERMISSIONS).version
            own = version if name is None else rows[name].version if name in rows else None
            condition.check(version, own)
            return plan_change(connection, version, rows, change(connection, rows), path)

        return self._write(identity, edit, plan, request, dry_run)


def _rooms_of(connection: Connection, user: str | None, role: str | None) -> list[str]:
    if user is not None:
        return [rooms.permissions(user)]
    if role is None or role == AUTHENTICATED:
        return [rooms.PERMISSIONS]
    if role == ANONYMOUS:
        return [rooms.ANONYMOUS]
    roles = roles_in(load_roles(connection))
    if role not in roles:
        raise Invalid("There is no such role.", (FieldError("to.role", "names a role that does not exist"),))
    holding = heirs([role], roles)
    if AUTHENTICATED in holding:
        return [rooms.PERMISSIONS]
    return [rooms.permissions(name) for name in sorted(users_with_roles(connection, holding))]
