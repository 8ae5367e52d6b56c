"""Frames of bots and the bodies of `/api/maim/…`, read and bounded (docs/maim.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, with_config
from typing_extensions import TypedDict

from sidecar.domain.errors import FieldError, Invalid, SidecarError
from sidecar.domain.maim import CUSTOM, PARTS, STANDARD, id_of, is_message
from sidecar.wire.bodies import parse_message, sound
from sidecar.wire.checks import Name, OptionalName, StrictBody, name, number, read

MAX_KEY_CHARACTERS = 256
MAX_ID_CHARACTERS = 1_000
MAX_PLATFORMS = 100
MAX_TTL_SECONDS = 30 * 86_400


@dataclass(frozen=True, slots=True)
class Frame:
    """What a bot has said. `type` is empty where it had none that is text, `msg_id` None where there is nothing to be
    acknowledged; `acked` is the msg_id that a sys_ack names. `ttl_seconds` is None if it is not to be kept for a
    receiver who is away, 0 for as long as the server likes."""

    type: str
    msg_id: str | int | None
    payload: Any
    target_platform: str | None = None
    ttl_seconds: float | None = None
    acked: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


def read_text(text: str) -> Frame | None:
    """A text frame; None for what is no frame. Raises Unparsable or Invalid for what is no JSON that we take."""
    return read_frame(parse_message(text))


def read_value(value: Any) -> Frame | None:
    """A frame that the Socket.IO parser has read, or its text. Raises as `read_text`."""
    return read_text(value) if isinstance(value, str) else read_frame(sound(value))


def read_frame(value: Any) -> Frame | None:
    """A frame without envelope that has a message's three parts is a message."""
    if not isinstance(value, dict):
        return None
    type, meta = value.get("type"), value.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    msg_id = value.get("msg_id")
    if isinstance(msg_id, bool) or not isinstance(msg_id, (str, int)) or len(str(msg_id)) > MAX_ID_CHARACTERS:
        msg_id = None
    payload = value.get("payload")
    if type is None and "payload" not in value and all(part in value for part in PARTS):
        type, payload = STANDARD, {part: value[part] for part in PARTS}
    platform, acked = meta.get("target_platform"), meta.get("acked_msg_id")
    return Frame(
        type if isinstance(type, str) else "",
        msg_id if msg_id != "" else None,
        payload,
        platform if isinstance(platform, str) and platform else None,
        _ttl(meta.get("queue")),
        acked if isinstance(acked, str) else None,
        meta,
    )


def _ttl(queue: Any) -> float | None:
    """Of `true`, or `{"ttl_seconds": n}`."""
    if queue is True:
        return 0.0
    if not isinstance(queue, dict):
        return None
    seconds = queue.get("ttl_seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or seconds <= 0:
        return 0.0
    return float(min(seconds, MAX_TTL_SECONDS))


def _key(value: Any) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_KEY_CHARACTERS or not is_key(value):
        raise ValueError(f"must be 1 to {MAX_KEY_CHARACTERS} visible ASCII characters")
    if id_of(value) is not None:
        raise ValueError("must not look like an address")
    return value


def is_key(text: str) -> bool:
    """Can a header carry it?"""
    return text.isascii() and text.isprintable() and " " not in text


@with_config(extra="allow")
class MessageInfo(TypedDict):
    platform: str
    message_id: str
    time: float


@with_config(extra="allow")
class MessageSegment(TypedDict):
    type: str
    data: Any


@with_config(extra="allow")
class GivenMessage(TypedDict):
    """A message as maim_message's clients make it; each part may hold more."""

    message_info: MessageInfo
    message_segment: MessageSegment
    message_dim: dict[str, Any]


def _message(value: Any) -> Any:
    if not is_message(value):
        raise ValueError(
            "must have message_info (platform, message_id, time), message_segment (type, data) and message_dim "
            "(api_key, platform)"
        )
    return {part: value[part] for part in PARTS}


def _custom(value: Any) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= 100 or not value.isprintable():
        raise ValueError("must be a name of 1 to 100 printable characters")
    return value if value.startswith(CUSTOM) else CUSTOM + value


Message = Annotated[Any, BeforeValidator(_message, json_schema_input_type=GivenMessage)]
NewKey = Annotated[
    str,
    BeforeValidator(
        _key,
        json_schema_input_type=Annotated[str, Field(min_length=1, max_length=MAX_KEY_CHARACTERS, pattern=r"^[!-~]+$")],
    ),
]
CustomName = Annotated[
    str, BeforeValidator(_custom, json_schema_input_type=Annotated[str, Field(min_length=1, max_length=100)])
]


class _Queued(StrictBody):
    queue: Annotated[bool, Field(strict=True)] = False
    ttl_seconds: Annotated[float, number(1, MAX_TTL_SECONDS)] | None = None

    @property
    def kept_seconds(self) -> float | None:
        """As Frame.ttl_seconds."""
        return (self.ttl_seconds or 0.0) if self.queue or self.ttl_seconds is not None else None


class MaimSendBody(_Queued):
    message: Message
    target_platform: OptionalName = None


class MaimBroadcastBody(StrictBody):
    message: Message
    platform: OptionalName = None
    tenant: OptionalName = None


class MaimCustomBody(_Queued):
    message_type: CustomName
    payload: Any
    connection_uuid: OptionalName = None
    target_user: OptionalName = None
    target_platform: OptionalName = None
    tenant: OptionalName = None
    api_key: NewKey | None = None
    platform: OptionalName = None


class MaimRouteBody(StrictBody):
    api_key: Any = None
    platform: Any = None
    message: Any = None
    target_platform: OptionalName = None


class MaimKeyBody(StrictBody):
    user: Name
    tenant: OptionalName = None
    platforms: Annotated[list[Name], Field(min_length=1, max_length=MAX_PLATFORMS)] | None = None
    name: OptionalName = None
    key: NewKey | None = None


def with_message(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """A body whose three parts stand at the top, as one with a `message`."""
    if "message" not in body and any(part in body for part in PARTS):
        others = {name: value for name, value in body.items() if name not in PARTS}
        return {**others, "message": {part: body.get(part) for part in PARTS}}
    return body


def read_custom(body: Mapping[str, Any]) -> MaimCustomBody:
    """Raises Invalid, also unless it names exactly one kind of receiver."""
    found = read(MaimCustomBody, body)
    named = [field for field in ("connection_uuid", "target_user", "api_key") if getattr(found, field) is not None]
    if len(named) != 1:
        message = "needs exactly one of connection_uuid, target_user and api_key"
        raise Invalid(f"The request can't be used: it {message}.", (FieldError("connection_uuid", message),))
    if "connection_uuid" in named and found.kept_seconds is not None:
        message = "is for a receiver who comes again: a user or a key, not a connection"
        raise Invalid(f"The request can't be used: queue {message}.", (FieldError("queue", message),))
    if "target_user" in named and found.target_platform is None:
        problem = FieldError("target_platform", "Field required")
        raise Invalid("The request can't be used: target_user needs target_platform.", (problem,))
    return found


def clean_uuid(given: str) -> str | None:
    """The name that a client gives its connection, if it can be one."""
    return given if 0 < len(given) <= 100 and is_key(given) else None


def clean_platform(given: str) -> str:
    """Raises Invalid."""
    try:
        return name(given)
    except (ValueError, SidecarError):
        raise Invalid("The platform must be a name of up to 200 printable characters.") from None


def as_text(value: Any) -> str:
    """JSON, as every line sends it. Raises ValueError for what strict JSON can't hold."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
