"""What is answered about messages, live pushes and free rooms."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from sidecar.wire.answers import Published, Time


class MessageSent(Published):
    room: str
    sent_at: Time


class Position(TypedDict):
    lat: float
    lng: float


class LocationPushed(Published):
    location: Position
    room: str


class BroadcastSent(Published):
    sent_at: Time


class UserNotified(Published):
    user_id: str
    sent_at: Time


class LivePush(TypedDict):
    """What a room is sent each `interval` seconds; `sender` is the name of the token that started it."""

    room: str
    interval: float
    source: str
    sender: str
    started_at: Time


class LivePushStarted(LivePush):
    success: Literal[True]
    status: Literal["success"]
    message: str
    event_id: str
    epoch: str
    duplicate: bool


class LivePushStopped(TypedDict):
    """`stopped` are the rooms."""

    success: Literal[True]
    status: Literal["success"]
    message: str
    stopped: list[str]


class LivePushList(TypedDict):
    """`sources` are those that a push can have."""

    items: list[LivePush]
    next: None
    sources: list[str]


class UserPresence(TypedDict):
    user: str
    connections: int


class RoomPresence(TypedDict):
    """Who is in a free room, over all processes. `users` is not for strangers; one with 0 `connections` has just left,
    and may come back."""

    room: str
    connections: int
    anonymous: int
    users: NotRequired[list[UserPresence]]


class RoomList(TypedDict):
    items: list[RoomPresence]
    next: None
