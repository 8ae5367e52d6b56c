"""Every type of event that leaves for clients, with the form of its payload. (What only the sidecar's own processes are
told is a `Control`.)"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from sidecar.domain.authorizations import State
from sidecar.domain.deployments import Level, Status
from sidecar.domain.messages import API_MESSAGE as API_MESSAGE_NAME
from sidecar.domain.messages import CHAT_MESSAGE as CHAT_MESSAGE_NAME
from sidecar.wire.answers_versions import ChangeType, MenuItem
from sidecar.wire.fields import DeploymentMessage, Line
from sidecar.wire.spoken import EventType, Said


class Reported(DeploymentMessage):
    """What a sender reported: its fields as they came under their names in snake_case, others too. (The forms of those
    below may be sent with each of them.)"""

    model_config = ConfigDict(extra="allow", json_schema_extra={})

    type: ClassVar[None] = None  # type: ignore[misc]
    project: str
    timestamp: str
    logs: str | None = None
    lines_not_kept: Annotated[int | None, Field(description="Lines over a deployment's bound.")] = None


class DeploymentReported(Reported):
    deployment_id: str
    status: Status
    reported_status: Annotated[str | None, Field(description="The sender's own word, where it is another.")] = None


class StepReported(Reported):
    deployment_id: str
    step_name: str
    status: Status


class LineReported(Reported):
    deployment_id: str
    level: Level
    message: str


class KeptLine(Line):
    model_config = ConfigDict(extra="allow")

    level: Level
    message: str
    timestamp: str


class LinesReported(Reported):
    deployment_id: str
    logs: list[KeptLine]  # type: ignore[assignment]


class MetricsReported(Reported):
    deployment_id: str
    metrics: dict[str, Any]


class Tested(Reported):
    deployment_id: ClassVar[None] = None  # type: ignore[misc]


class ProjectCreated(Said):
    project: str


class ProjectDeleted(Said):
    project: str


class ApiMessage(Said):
    """With more fields of the sender's choice."""

    model_config = ConfigDict(extra="allow")

    content: Any
    sender: str
    sender_id: int
    type: Any
    timestamp: str


class ChatMessage(Said):
    message: str
    username: str
    sender: str
    sender_id: int
    source: Literal["websocket_chat"]


class MenuUpdated(Said):
    menuId: str
    action: ChangeType
    menuData: Annotated[MenuItem | None, Field(description="null if not all who hear it see it.")]
    version: int
    affectedUsers: Annotated[list[str], Field(description="Empty: ask.")]


UserId = Annotated[str | None, Field(description="null: all who hear it.")]


class RoleUpdated(Said):
    userId: UserId
    oldRole: str
    newRole: str
    permissions: list[str]


class PermissionChanged(Said):
    userId: UserId
    permissions: Annotated[list[str], Field(description="`resource:action`")]
    action: Literal["grant", "revoke", "update"]
    resource: str
    timestamp: str


class MenuChanges(Said):
    added: list[str]
    removed: list[str]
    more: Annotated[Literal[True] | None, Field(description="There are more than these.")] = None


class MenuAccessChanged(Said):
    userId: UserId
    menuChanges: MenuChanges


class CacheInvalidation(Said):
    userId: UserId
    cacheKeys: list[Literal["permissions", "menu"]]
    version: int


class Notice(Said):
    """What the sender said."""

    model_config = ConfigDict(extra="allow")


class AuthorizationNews(Said):
    session_id: str
    app: str
    user: str
    state: State
    reason: str | None
    name: str | None


OF_A_DEPLOYMENT = "Rooms `project:<name>` and `deployment:<id>`."
DEPLOYMENT_STARTED = EventType("deployment_started", DeploymentReported, f"A deployment began. {OF_A_DEPLOYMENT}")
DEPLOYMENT_COMPLETED = EventType(
    "deployment_completed", DeploymentReported, f"A deployment ended, well or badly. {OF_A_DEPLOYMENT}"
)
STEP_STARTED = EventType("step_started", StepReported, f"A step began. {OF_A_DEPLOYMENT}")
STEP_COMPLETED = EventType("step_completed", StepReported, f"A step ended. {OF_A_DEPLOYMENT}")
STEP_MANUAL = EventType("step_manual", StepReported, f"A step done by hand. {OF_A_DEPLOYMENT}")
LOG_ENTRY = EventType("log_entry", LineReported, f"A log line. {OF_A_DEPLOYMENT}")
LOG_BATCH = EventType("log_batch", LinesReported, f"Several log lines. {OF_A_DEPLOYMENT}")
METRICS_UPDATE = EventType("metrics_update", MetricsReported, f"Figures of a deployment. {OF_A_DEPLOYMENT}")
TEST = EventType("test", Tested, "A sender tries the way. Room `project:<name>`.")

REPORTS: dict[str, EventType] = {
    type: type
    for type in (
        STEP_STARTED,
        STEP_COMPLETED,
        STEP_MANUAL,
        DEPLOYMENT_STARTED,
        DEPLOYMENT_COMPLETED,
        LOG_ENTRY,
        LOG_BATCH,
        METRICS_UPDATE,
        TEST,
    )
}
"""What webhooks become."""

PROJECT_CREATED = EventType(
    "project_created", ProjectCreated, "A project was seen for the first time. Room `projects`."
)
PROJECT_DELETED = EventType(
    "project_deleted",
    ProjectDeleted,
    "A project was deleted, with all that is stored of it. Rooms `projects` and its own.",
)
API_MESSAGE = EventType(
    API_MESSAGE_NAME,
    ApiMessage,
    "A message of a back end. Room `room:<name>` (of a `target_user` only that user's sockets in it), `user:<id>` or "
    "`everyone`.",
)
CHAT_MESSAGE = EventType(CHAT_MESSAGE_NAME, ChatMessage, "Somebody said something. Room `room:<name>`.")

MENU_UPDATED = EventType(
    "menu_updated", MenuUpdated, "An item of the menu changed. Room `menu`, and `anonymous` if strangers see it."
)
OF_A_USER = "Room `permissions:<user>`; `permissions` or `anonymous` where everybody's change."
ROLE_UPDATED = EventType("role_updated", RoleUpdated, f"A user's roles changed. {OF_A_USER}")
PERMISSION_CHANGED = EventType("permission_changed", PermissionChanged, f"A user's grants changed. {OF_A_USER}")
MENU_ACCESS_CHANGED = EventType(
    "menu_access_changed", MenuAccessChanged, f"A user sees other items of the menu. {OF_A_USER}"
)
CACHE_INVALIDATION = EventType(
    "cache_invalidation", CacheInvalidation, f"The last of what a change is told by: ask again. {OF_A_USER}"
)
OF_A_NOTICE = "Sent by POST /api/permissions/notify, to `permissions:<user>` or `permissions`."
SYSTEM_NOTIFICATION = EventType("system_notification", Notice, f"A notice. {OF_A_NOTICE}")
TOOL_STATUS_CHANGED = EventType("tool_status_changed", Notice, f"A notice. {OF_A_NOTICE}")
USER_STATUS_CHANGED = EventType("user_status_changed", Notice, f"A notice. {OF_A_NOTICE}")
NOTICES: dict[str, EventType] = {type: type for type in (SYSTEM_NOTIFICATION, TOOL_STATUS_CHANGED, USER_STATUS_CHANGED)}
OF_PERMISSIONS = (
    MENU_UPDATED,
    ROLE_UPDATED,
    PERMISSION_CHANGED,
    MENU_ACCESS_CHANGED,
    CACHE_INVALIDATION,
    *NOTICES.values(),
)
"""Of the rooms `menu`, `permissions`, `permissions:<user>` and `anonymous`."""

OF_ITS_USER = "Room `user:<id>`."
AUTHORIZATION_COMPLETED = EventType(
    "authorization_completed", AuthorizationNews, f"An authorization is done. {OF_ITS_USER}"
)
AUTHORIZATION_REJECTED = EventType("authorization_rejected", AuthorizationNews, f"The user declined. {OF_ITS_USER}")
AUTHORIZATION_EXPIRED = EventType("authorization_expired", AuthorizationNews, f"Nobody came in time. {OF_ITS_USER}")
AUTHORIZATION_FAILED = EventType(
    "authorization_failed", AuthorizationNews, f"An attempt failed; it may be tried again. {OF_ITS_USER}"
)
AUTHORIZATION_REVOKED = EventType(
    "authorization_revoked", AuthorizationNews, f"The user's tokens are gone, or can't be renewed. {OF_ITS_USER}"
)

EVENT_TYPES: tuple[EventType, ...] = (
    *REPORTS.values(),
    PROJECT_CREATED,
    PROJECT_DELETED,
    API_MESSAGE,
    CHAT_MESSAGE,
    *OF_PERMISSIONS,
    AUTHORIZATION_COMPLETED,
    AUTHORIZATION_REJECTED,
    AUTHORIZATION_EXPIRED,
    AUTHORIZATION_FAILED,
    AUTHORIZATION_REVOKED,
)
