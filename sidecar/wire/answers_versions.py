"""What is answered about the menu and the permissions: both are versioned, and tell their changes alike."""

from __future__ import annotations

from typing import Literal, NotRequired

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from sidecar.domain.menu import Level
from sidecar.wire.answers import At, Object, Published, Time

ChangeType = Literal["create", "update", "delete"]


class NamedChange(TypedDict):
    """What a write changed. When, by whom and why is there once it has been carried out."""

    type: ChangeType
    target: Literal["menu", "role", "user"]
    targetId: str
    targetName: str
    timestamp: NotRequired[int]
    author: NotRequired[str]
    reason: NotRequired[str]


class Change(TypedDict):
    """`timestamp` in Unix seconds. Author and reason are for those who may write; others see `system`."""

    type: ChangeType
    target: Literal["menu", "role", "user"]
    targetId: str
    targetName: str
    timestamp: int
    author: str
    reason: str


class WholeChange(Change):
    """With what it was, and what it became."""

    before: Object | None
    after: Object | None


class VersionAnswer(TypedDict):
    """`timestamp` is the Unix second of the last change; `changes` are the last ten, the newest first. A menu that
    can't be read and never was has version 1 and the checksum `error`."""

    version: int
    timestamp: int
    checksum: str
    changes: list[Change]
    author: str
    description: str


class Revision(TypedDict):
    version: int
    at: Time
    action: str
    author: str
    reason: str
    changes: list[WholeChange]


class RevisionList(TypedDict):
    """`next` is the `cursor` of the next page."""

    items: list[Revision]
    next: str | None


class _Written(TypedDict):
    """`event_id` is null and `changed` false where there was nothing to change, or it was only tried."""

    success: Literal[True]
    status: Literal["success"]
    message: str
    version: int
    changed: bool
    event_id: str | None
    epoch: str
    duplicate: bool
    changes: list[NamedChange]


class PermissionsWritten(_Written):
    pass


@with_config(ConfigDict(extra="forbid"))
class MenuItem(TypedDict):
    """As answers and events show it."""

    key: str
    name: str
    menu_level: Level
    icon: str
    url: str
    sort_order: int
    is_active: bool
    description: str
    parent: str | None
    created_at: Time
    updated_at: Time


class VersionedMenuItem(MenuItem):
    """`version` is the menu's at which it was last changed."""

    version: int


class MenuNode(MenuItem):
    """An item with what lies below it."""

    children: list[MenuNode]


class MenuSeen(At):
    """What the caller sees of the menu, and by which roles."""

    version: int
    checksum: str
    items: list[MenuNode]
    roles: list[str]


class MenuThen(TypedDict):
    """The whole menu as it was."""

    version: int
    items: list[MenuNode]


class MenuWritten(_Written):
    """`checksum` is the menu's, `item` the one that the address names."""

    recipients: int
    checksum: str
    item: NotRequired[VersionedMenuItem]


class Grant(TypedDict):
    resource: str
    action: str
    effect: Literal["allow", "deny"]


class Role(TypedDict):
    name: str
    inherits: list[str]
    grants: list[Grant]
    menus: list[str]


class VersionedRole(Role):
    """`version` is that of the permissions at which it was last changed."""

    version: int


class RoleList(TypedDict):
    items: list[VersionedRole]
    next: None
    version: int


class PermissionsOf(At):
    """What a user may. `permissions` are `resource:action` of each allowance that no denial covers whole; `menus` the
    keys of the items that they see."""

    user: str | None
    roles: list[str]
    grants: list[Grant]
    permissions: list[str]
    menus: list[str]
    version: int
    checksum: str


class PermissionCheck(TypedDict):
    has_permission: bool
    user: str | None
    resource: str
    action: str
    version: int


class PermissionsThen(TypedDict):
    """All roles, and who had which, as it was."""

    version: int
    roles: list[Role]
    users: dict[str, list[str]]


class UserRoles(TypedDict):
    user: str
    roles: list[str]
    version: int


class NoticeSent(Published):
    pass
