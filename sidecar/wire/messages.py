"""What back ends POST to have messages sent, and what browsers send over plain WebSockets: checked, every bad field
named."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from sidecar.domain.messages import (
    API_MESSAGE,
    DEFAULT_INTERVAL_SECONDS,
    DEFAULT_ROOM,
    LIVE_ROOM,
    MAX_INTERVAL_SECONDS,
    MIN_INTERVAL_SECONDS,
    RESERVED,
)
from sidecar.wire.checks import Body, Name, OptionalName, name, number, text, word

MAX_MESSAGE_CHARACTERS = 65_536
MAX_TYPE_CHARACTERS = 100
MAX_SOURCE_CHARACTERS = 100
MAX_USERNAME_CHARACTERS = 200
DEFAULT_DEVICE = "unknown"
DEFAULT_SOURCE = "live_stats"


def _device(value: Any) -> str:
    return DEFAULT_DEVICE if value is None or value == "" else name(value)


def _data(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError("must be an object")
    taken = sorted(RESERVED.intersection(value))
    if taken:
        raise ValueError(f"may not hold {' and '.join(taken)}: the server says who and when")
    kind = value.get("type")
    if "type" in value and not (isinstance(kind, str) and len(kind) <= MAX_TYPE_CHARACTERS):
        raise ValueError(f"has a type that is no string of up to {MAX_TYPE_CHARACTERS} characters")
    return value


MessageText = Annotated[str, text(MAX_MESSAGE_CHARACTERS)]
GivenData = Annotated[
    dict[str, Any],
    Field(
        json_schema_extra={
            "properties": {
                "type": {"type": "string", "maxLength": MAX_TYPE_CHARACTERS},
                **dict.fromkeys(sorted(RESERVED), False),
            }
        }
    ),
]
"""The server says who sends and when."""
Data = Annotated[dict[str, Any], BeforeValidator(_data, json_schema_input_type=GivenData | None)]
Type = Annotated[str, word(MAX_TYPE_CHARACTERS)]
Interval = Annotated[float, number(MIN_INTERVAL_SECONDS, MAX_INTERVAL_SECONDS)]


class SendBody(Body):
    room: Name = DEFAULT_ROOM
    message: MessageText = ""
    target_user: OptionalName = None
    data: Data = Field(default_factory=dict)


class LocationBody(Body):
    latitude: Annotated[float, number(-90, 90)]
    longitude: Annotated[float, number(-180, 180)]
    device_id: Annotated[str, BeforeValidator(_device, json_schema_input_type=str | int | None)] = DEFAULT_DEVICE


class StartPushBody(Body):
    room: Name = LIVE_ROOM
    interval: Interval = DEFAULT_INTERVAL_SECONDS
    source: Annotated[str, word(MAX_SOURCE_CHARACTERS)] = DEFAULT_SOURCE


class StopPushBody(Body):
    room: OptionalName = None


class BroadcastBody(Body):
    type: Type = API_MESSAGE
    message: MessageText = ""
    data: Data = Field(default_factory=dict)


class NotifyBody(BroadcastBody):
    user_id: Name


class ChatBody(Body):
    message: MessageText
    username: Annotated[str, text(MAX_USERNAME_CHARACTERS)] = ""
