"""What sockets of browsers are told beside events, and what they may say, with the form of each."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from sidecar.domain.rooms import NAME_MAX_CHARACTERS
from sidecar.wire.messages import ChatBody
from sidecar.wire.news import ApiMessage, ChatMessage
from sidecar.wire.spoken import Argument, Command, Frame, Message, Said

Kind = Literal["project", "deployment", "room", "menu", "projects"]
Place = Annotated[str, Field(description="Opaque: give it back as it is.")]

# What both kinds of sockets are told


class Expiring(Said):
    expires_at: str


class Ended(Said):
    code: str
    message: str


TOKEN_EXPIRING = Frame("token_expiring", Expiring, "The token ends in half a minute; `refresh_token` keeps the socket.")
TOKEN_EXPIRED = Frame("token_expired", Ended, "The token has ended, or was revoked; the socket is closed for good.")
DISCONNECTED = Frame("disconnected", Ended, "The user was sent away; the socket is closed.")

# Socket.IO


class SessionBegan(Said):
    recovered: bool
    seq: int
    epoch: str
    timestamp: str


class Confirmed(Said):
    type: Kind
    id: str
    timestamp: str


class RoomRevoked(Said):
    type: str
    id: str
    code: Literal["not_allowed"]
    timestamp: str


class Snapshot(Said):
    type: Kind
    id: str
    room: str
    snapshot: Annotated[dict[str, Any] | None, Field(description="As the read API shows it; null where none is.")]
    seq: int | None
    offset: Place | None
    epoch: str
    timestamp: str


class Beat(Said):
    timestamp: str


SESSION = Frame("session", SessionBegan, "The first event of a connection that can be taken up again.")
SUBSCRIPTION_CONFIRMED = Frame("subscription:confirmed", Confirmed, "The socket is in the room.")
UNSUBSCRIPTION_CONFIRMED = Frame("unsubscription:confirmed", Confirmed, "The socket is not in the room any more.")
SUBSCRIPTION_REVOKED = Frame("subscription:revoked", RoomRevoked, "The token does not give this room (any more).")
SNAPSHOT = Frame(
    "snapshot", Snapshot, "Some of what `since` asked for is not kept any more: how what the room is about stands."
)
HEARTBEAT_ACK = Frame("heartbeat:ack", Beat, "The answer to `heartbeat`, for clients without callbacks.")
SOCKETIO_FRAMES = (
    SESSION,
    SUBSCRIPTION_CONFIRMED,
    UNSUBSCRIPTION_CONFIRMED,
    SUBSCRIPTION_REVOKED,
    SNAPSHOT,
    HEARTBEAT_ACK,
    TOKEN_EXPIRING,
    TOKEN_EXPIRED,
    DISCONNECTED,
)


class Subscribed(Said):
    ok: Literal[True]
    room: str
    seq: int
    offset: Place
    epoch: str
    replayed: Annotated[int, Field(description="Events that are about to come.")]
    truncated: Annotated[bool, Field(description="Some of what was asked for is not kept any more.")]


class Unsubscribed(Said):
    ok: Literal[True]
    room: str


class Present(Said):
    user: str
    connections: Annotated[int, Field(description="0: has just left, and may come back.")]


class PresenceSubscribed(Said):
    ok: Literal[True]
    room: str
    users: list[Present]
    anonymous: Annotated[int, Field(description="Connections without a user.")]


class Heard(Said):
    ok: Literal[True]
    timestamp: str


class Renewed(Said):
    ok: Literal[True]
    expires_at: str | None


class Sent(Said):
    ok: Literal[True]
    room: str
    event_id: str


class Since(Said):
    """What came after this place comes first."""

    model_config = ConfigDict(extra="allow")

    since: Annotated[str | int | None, Field(description="An `offset`, or a `seq`.")] = None
    epoch: Annotated[str | None, Field(description="With a bare seq: of which journal.")] = None


NAME = {
    "type": ["string", "integer"],
    "minLength": 1,
    "maxLength": NAME_MAX_CHARACTERS,
    "description": "A name or id; a whole number counts as its digits.",
}
NAMED = {"project": "project", "deployment": "deployment_id", "room": "room"}
"""Kinds of rooms of which there are many, with what names one."""
OF_KIND = {
    "project": "a project",
    "deployment": "a deployment, also one that nobody has seen yet",
    "projects": "projects that are seen for the first time",
    "room": "a free room",
    "menu": "the menu",
}


def subscribe(kind: str) -> Command:
    options = Argument("options", Since, required=False)
    named = (Argument(NAMED[kind], NAME),) if kind in NAMED else ()
    return Command(
        f"subscribe_{kind}",
        f"Hear of {OF_KIND[kind]}.",
        Subscribed,
        (*named, options),
        f"subscribe:{kind}",
        (SUBSCRIPTION_CONFIRMED, SNAPSHOT),
    )


def unsubscribe(kind: str) -> Command:
    named = (Argument(NAMED[kind], NAME),) if kind in NAMED else ()
    return Command(
        f"unsubscribe_{kind}",
        f"Hear no more of {OF_KIND[kind].partition(',')[0]}.",
        Unsubscribed,
        named,
        f"unsubscribe:{kind}",
        (UNSUBSCRIPTION_CONFIRMED,),
    )


SUBSCRIBE_PRESENCE = Command(
    "subscribe_presence",
    "Who is in a free room, and from now on who comes and leaves.",
    PresenceSubscribed,
    (Argument("room", NAME),),
    "subscribe:presence",
)
UNSUBSCRIBE_PRESENCE = Command(
    "unsubscribe_presence",
    "Hear no more of who comes and leaves.",
    Unsubscribed,
    (Argument("room", NAME),),
    "unsubscribe:presence",
)


class TokenGiven(Said):
    model_config = ConfigDict(extra="allow")

    token: str


HEARTBEAT = Command("heartbeat", "Is the server there? Nobody must ask.", Heard, tells=(HEARTBEAT_ACK,))
REFRESH_TOKEN = Command(
    "refresh_token",
    "Go on with another token of the same user.",
    Renewed,
    (Argument("token", {"anyOf": [{"type": "string"}, {"$ref": "#/components/schemas/TokenGiven"}]}),),
    tells=(SUBSCRIPTION_REVOKED,),
)
CHAT = Command(
    "chat",
    "Say something in a free room.",
    Sent,
    (
        Argument("room", NAME),
        Argument("message", {"anyOf": [{"type": "string"}, {"$ref": "#/components/schemas/ChatBody"}]}),
    ),
)
REFERRED = (TokenGiven, ChatBody)
"""What arguments refer to."""


class PlainFrame(Said):
    timestamp: str


class PlainExpiring(Expiring, PlainFrame): ...


class PlainEnded(Ended, PlainFrame): ...


PLAIN_TOKEN_EXPIRING = Frame(
    "token_expiring", PlainExpiring, "The token ends in half a minute: connect again with another."
)
PLAIN_TOKEN_EXPIRED = Frame("token_expired", PlainEnded, "The token has ended, or was revoked; then close code 4401.")
PLAIN_DISCONNECTED = Frame("disconnected", PlainEnded, "The user was sent away; then close code 4403.")
PLAIN_ENDS = {frame: frame for frame in (PLAIN_TOKEN_EXPIRED, PLAIN_DISCONNECTED)}

# Plain WebSockets in free rooms


class RoomGreeting(PlainFrame):
    status: Literal["connected"]
    room: str
    message: str
    seq: int
    epoch: str
    offset: Place


class RoomTruncated(PlainFrame):
    room: str
    seq: int
    epoch: str
    offset: Place


class Returned(PlainFrame):
    original_message: dict[str, Any]


class FieldProblem(Said):
    path: str
    message: str


class RoomProblem(PlainFrame):
    error: str
    code: str | None = None
    errors: list[FieldProblem] = Field(default_factory=list)


class RoomApiMessage(PlainFrame):
    message: ApiMessage
    source: Literal["rest_api"]
    offset: Place | None = None


class RoomChatMessage(ChatMessage, PlainFrame):
    offset: Place | None = None


class SaidInRoom(ChatBody):
    message_type: Literal["chat"] = "chat"


class Ping(Said):
    model_config = ConfigDict(extra="allow")

    message_type: Literal["ping"]


class Other(Said):
    model_config = ConfigDict(extra="allow")

    message_type: Any


CONNECTION_STATUS = Frame("connection_status", RoomGreeting, "The first frame.")
ROOM_TRUNCATED = Frame("truncated", RoomTruncated, "Some of what `since` asked for is no longer kept.")
PONG = Frame("pong", Returned, "The answer to `ping`.")
ECHO = Frame("echo", Returned, "The answer to a `message_type` that is not known.")
ROOM_ERROR = Frame("error", RoomProblem, "A message could not be taken.")
BARE_API_MESSAGE = Frame("api_message", RoomApiMessage, "A message of a back end came.")
BARE_CHAT_MESSAGE = Frame("chat_message", RoomChatMessage, "Somebody said something.")
ROOM_FRAMES = (
    CONNECTION_STATUS,
    ROOM_TRUNCATED,
    BARE_API_MESSAGE,
    BARE_CHAT_MESSAGE,
    PONG,
    ECHO,
    ROOM_ERROR,
    PLAIN_TOKEN_EXPIRING,
    PLAIN_TOKEN_EXPIRED,
    PLAIN_DISCONNECTED,
)
SAY = Message("chat", SaidInRoom, "Say something (`message_type` may be left out).", (BARE_CHAT_MESSAGE, ROOM_ERROR))
PING = Message("ping", Ping, "Is the server there?", (PONG,))
ANYTHING = Message("other", Other, "Anything else comes back.", (ECHO,))
ROOM_MESSAGES = (SAY, PING, ANYTHING)

# Plain WebSockets about permissions


class Features(Said):
    permission_notifications: bool
    role_updates: bool
    menu_access_updates: bool
    cache_invalidation: bool
    heartbeat: bool
    notifications: bool
    permission_check: bool


class ConnectionData(Said):
    user_id: str | Literal[0]
    groups: list[str]
    server_time: str
    sessionId: str
    features: Features


class ConnectionConfirmed(Said):
    user_id: str | None
    groups: list[str]
    server_time: str
    features: Features
    data: ConnectionData
    timestamp: Annotated[int, Field(description="Milliseconds since 1970.")]
    seq: int
    offset: Place
    epoch: str


class PermissionsTruncated(PlainFrame):
    seq: int
    offset: Place
    epoch: str


class HeartbeatResponse(Said):
    timestamp: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$")]
    server_time: Annotated[float, Field(description="Seconds since 1970.")]


class PermissionChecked(PlainFrame):
    request_id: Any
    resource: str
    action: str
    has_permission: bool


class TypesHeard(PlainFrame):
    subscribed_types: list[str]


class TypesDeclined(PlainFrame):
    unsubscribed_types: list[str]


class PermissionsProblem(PlainFrame):
    error_code: str
    message: str
    request_id: Any = None


class Asked(Said):
    """Fields may also stand in `data`."""

    model_config = ConfigDict(extra="allow")

    type: str


class CheckAsked(Asked):
    type: Literal["permission_check"]
    resource: str | None = None
    action: str | None = None
    request_id: Any = None
    data: Any = None


class TypesChosen(Asked):
    types: list[str] | None = None
    data: Any = None


CONNECTION_CONFIRMED = Frame("connection_confirmed", ConnectionConfirmed, "The first, flat and in `data` at once.")
PERMISSIONS_TRUNCATED = Frame(
    "truncated", PermissionsTruncated, "Some of what `since` asked for is no longer kept: ask for everything again."
)
HEARTBEAT_RESPONSE = Frame("heartbeat_response", HeartbeatResponse, "The answer to `heartbeat` and `ping`.")
PERMISSION_CHECK_RESPONSE = Frame("permission_check_response", PermissionChecked, "May the user do this?")
TYPES_HEARD = Frame("subscription_confirmed", TypesHeard, "These are pushed again.")
TYPES_DECLINED = Frame("unsubscription_confirmed", TypesDeclined, "These are pushed no more.")
PERMISSIONS_ERROR = Frame("error", PermissionsProblem, "A message could not be taken, or why the socket is closed.")
PERMISSIONS_FRAMES = (
    CONNECTION_CONFIRMED,
    PERMISSIONS_TRUNCATED,
    HEARTBEAT_RESPONSE,
    PERMISSION_CHECK_RESPONSE,
    TYPES_HEARD,
    TYPES_DECLINED,
    PERMISSIONS_ERROR,
    PLAIN_TOKEN_EXPIRING,
    PLAIN_TOKEN_EXPIRED,
    PLAIN_DISCONNECTED,
)
CONNECT_AGAIN = Message("connect", Asked, "Confirm the connection again.", (CONNECTION_CONFIRMED, PERMISSIONS_ERROR))
PLAIN_HEARTBEAT = Message("heartbeat", Asked, "Is the server there?", (HEARTBEAT_RESPONSE,))
PLAIN_PING = Message("ping", Asked, "The same as `heartbeat`.", (HEARTBEAT_RESPONSE,))
PERMISSION_CHECK = Message(
    "permission_check", CheckAsked, "Ask for one right.", (PERMISSION_CHECK_RESPONSE, PERMISSIONS_ERROR)
)
HEAR_TYPES = Message("subscribe_notifications", TypesChosen, "Hear these again.", (TYPES_HEARD, PERMISSIONS_ERROR))
DECLINE_TYPES = Message(
    "unsubscribe_notifications",
    TypesChosen,
    "Hear these no more; every type is pushed until it is declined.",
    (TYPES_DECLINED, PERMISSIONS_ERROR),
)
PERMISSIONS_MESSAGES = (CONNECT_AGAIN, PLAIN_HEARTBEAT, PLAIN_PING, PERMISSION_CHECK, HEAR_TYPES, DECLINE_TYPES)
