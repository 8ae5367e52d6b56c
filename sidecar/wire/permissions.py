"""What editors send to change roles and who has them, and what back ends send to tell users about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from sidecar.domain.errors import FieldError
from sidecar.domain.permissions import MAX_GRANTS, MAX_ROLES, Grant, Role
from sidecar.wire.checks import Body, Name, OptionalName, StrictBody, invalid, name, read, text, word
from sidecar.wire.menu import MAX_REASON_CHARACTERS, located

MAX_ROLE_CHARACTERS = 100
MAX_RESOURCE_CHARACTERS = 200
MAX_ACTION_CHARACTERS = 100
MAX_PATTERN_CHARACTERS = 50
MAX_ROLES_OF_ONE = 100
MAX_USERS = 5_000
"""Of one request."""


def clean_role(value: Any) -> str:
    """Raises ValueError for what no role can be called."""
    found = name(value)
    if len(found) > MAX_ROLE_CHARACTERS or set(found) & {"/", "*"}:
        raise ValueError(f"must be 1 to {MAX_ROLE_CHARACTERS} printable characters without / and *")
    return found


RoleName = Annotated[
    str,
    BeforeValidator(
        clean_role,
        json_schema_input_type=Annotated[str, Field(min_length=1, max_length=MAX_ROLE_CHARACTERS)] | int,
    ),
]
Reason = Annotated[str, text(MAX_REASON_CHARACTERS)]
RoleNames = Annotated[list[RoleName], Field(max_length=MAX_ROLES_OF_ONE)]


class GrantBody(StrictBody):
    resource: Annotated[str, word(MAX_RESOURCE_CHARACTERS)]
    action: Annotated[str, word(MAX_ACTION_CHARACTERS)]
    effect: Literal["allow", "deny"] = "allow"


class RoleBody(StrictBody):
    name: RoleName = ""
    inherits: RoleNames = Field(default_factory=list)
    grants: Annotated[list[GrantBody], Field(max_length=MAX_GRANTS)] = Field(default_factory=list)
    menus: Annotated[list[Annotated[str, word(MAX_PATTERN_CHARACTERS)]], Field(max_length=MAX_GRANTS)] = Field(
        default_factory=list
    )
    version: Any = None

    def role(self, name: str) -> Role:
        return Role(
            name,
            tuple(dict.fromkeys(self.inherits)),
            tuple(dict.fromkeys(Grant(grant.resource, grant.action, grant.effect) for grant in self.grants)),
            tuple(dict.fromkeys(self.menus)),
        )


class EditRoleBody(RoleBody):
    reason: Reason = ""


class UserRolesBody(StrictBody):
    user: OptionalName = None
    version: Any = None
    roles: RoleNames
    reason: Reason = ""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(set(self.roles)))


def _unread(value: Any) -> Any:
    """Read part by part, so that every bad field is told with its place."""
    return value


class NamedRoleBody(RoleBody):
    name: RoleName


class PermissionsBody(StrictBody):
    """All roles, and who has which; without `users` that stays as it is."""

    roles: Annotated[
        list[Any],
        BeforeValidator(_unread, json_schema_input_type=Annotated[list[NamedRoleBody], Field(max_length=MAX_ROLES)]),
        Field(max_length=MAX_ROLES),
    ]
    users: (
        Annotated[
            dict[str, Any],
            BeforeValidator(
                _unread, json_schema_input_type=Annotated[dict[str, RoleNames], Field(max_length=MAX_USERS)]
            ),
            Field(max_length=MAX_USERS),
        ]
        | None
    ) = None
    reason: Reason = ""
    version: Any = None
    checksum: Any = None


@dataclass(frozen=True, slots=True)
class WholePermissions:
    """All roles; and who has which, None to leave that as it is."""

    roles: dict[str, Role]
    users: dict[str, tuple[str, ...]] | None
    reason: str

    def path(self, kind: str, name: str) -> str:
        """Where the request tells which roles this role inherits, or this user has."""
        return f"users.{name}" if kind == "user" else f"roles[{list(self.roles).index(name)}].inherits"


class Receivers(StrictBody):
    """One of them."""

    user: Name | None = None
    role: RoleName | None = None
    all: Annotated[bool, Field(strict=True)] | None = None


def _to(value: Any) -> Any:
    return {"all": True} if value == "all" else value


class NoticeBody(Body):
    type: Literal["system_notification", "tool_status_changed", "user_status_changed"]
    to: Annotated[Receivers, BeforeValidator(_to, json_schema_input_type=Receivers | Literal["all"])]
    data: dict[str, Any] = Field(default_factory=dict)


def read_role(body: Mapping[str, Any], role: str) -> tuple[Role, str]:
    """The role that the address names, and why it is changed. Raises Invalid."""
    found = read(EditRoleBody, body)
    try:
        role = clean_role(role)
    except ValueError as error:
        raise invalid([FieldError("name", str(error))]) from None
    if "name" in found.model_fields_set and found.name != role:
        raise invalid([FieldError("name", "is not the one in the address")])
    return found.role(role), found.reason


def read_user(body: Mapping[str, Any], user: str) -> tuple[tuple[str, ...], str]:
    """The roles of the user whom the address names, and why they change. Raises Invalid."""
    found = read(UserRolesBody, body)
    if found.user is not None and found.user != user:
        raise invalid([FieldError("user", "is not the one in the address")])
    return found.names, found.reason


def read_all(body: Mapping[str, Any]) -> WholePermissions:
    """Raises Invalid naming every bad field."""
    whole = read(PermissionsBody, body)
    problems: list[FieldError] = []
    roles: dict[str, Role] = {}
    for number, value in enumerate(whole.roles):
        here = f"roles[{number}]"
        if not isinstance(value, dict):
            problems.append(FieldError(here, "must be an object"))
            continue
        found = located(RoleBody, value, here, problems)
        if found is None:
            continue
        if not found.name:
            problems.append(FieldError(f"{here}.name", "Field required"))
        elif found.name in roles:
            problems.append(FieldError(f"{here}.name", "is there twice"))
        else:
            roles[found.name] = found.role(found.name)
    users = None if whole.users is None else _users(whole.users, problems)
    if problems:
        raise invalid(problems)
    return WholePermissions(roles, users, whole.reason)


def read_notice(body: Mapping[str, Any]) -> NoticeBody:
    """Raises Invalid."""
    found = read(NoticeBody, body)
    named = [field for field in ("user", "role", "all") if getattr(found.to, field)]
    if len(named) != 1:
        raise invalid([FieldError("to", "must name one of user, role and all")])
    return found


def _users(given: dict[str, Any], problems: list[FieldError]) -> dict[str, tuple[str, ...]]:
    users: dict[str, tuple[str, ...]] = {}
    for key, value in given.items():
        try:
            user = name(key)
        except ValueError as error:
            problems.append(FieldError("users", f"has a name that {error}"))
            continue
        found = located(UserRolesBody, {"roles": value}, f"users.{user}", problems)
        if user in users:
            problems.append(FieldError(f"users.{user}", "is there twice"))
        elif found is not None:
            users[user] = found.names
    return users
