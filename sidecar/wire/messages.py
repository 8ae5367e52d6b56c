"""What back ends POST to have messages sent, and what browsers send over plain WebSockets: checked, every bad field
named."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from sidecar.domain.errors import FieldError, Invalid, SidecarError
from sidecar.domain.messages import (
    API_MESSAGE,
    DEFAULT_INTERVAL_SECONDS,
    DEFAULT_ROOM,
    LIVE_ROOM,
    MAX_INTERVAL_SECONDS,
    MIN_INTERVAL_SECONDS,
    RESERVED,
)
from sidecar.domain.rooms import clean_name
from sidecar.wire.bodies import clean_text

MAX_MESSAGE_CHARACTERS = 65_536
MAX_TYPE_CHARACTERS = 100
MAX_SOURCE_CHARACTERS = 100
MAX_USERNAME_CHARACTERS = 200
DEFAULT_DEVICE = "unknown"
DEFAULT_SOURCE = "live_stats"

Body = TypeVar("Body", bound="_Body")


def _name(value: Any) -> str:
    try:
        return clean_name(value, "it")
    except SidecarError as error:
        raise ValueError(error.detail.removeprefix("it ")) from None


def _optional_name(value: Any) -> str | None:
    return None if value is None or value == "" else _name(value)


def _device(value: Any) -> str:
    return DEFAULT_DEVICE if value is None or value == "" else _name(value)


def _text(limit: int) -> Any:
    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError("must be a string")
        if len(value) > limit:
            raise ValueError(f"is longer than {limit} characters")
        return clean_text(value)

    return BeforeValidator(check)


def _word(limit: int) -> Any:
    def check(value: Any) -> str:
        if not isinstance(value, str) or not value.strip() or len(value) > limit or not value.isprintable():
            raise ValueError(f"must be a string of 1 to {limit} printable characters")
        return value.strip()

    return BeforeValidator(check)


def _number(least: float, most: float) -> Any:
    """A number, also one written as text, as forms and shells do."""

    def check(value: Any) -> float:
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not least <= number <= most:
            raise ValueError(f"must be a number from {least:g} to {most:g}")
        return number

    return BeforeValidator(check)


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


Name = Annotated[str, BeforeValidator(_name)]
OptionalName = Annotated[str | None, BeforeValidator(_optional_name)]
MessageText = Annotated[str, _text(MAX_MESSAGE_CHARACTERS)]
Data = Annotated[dict[str, Any], BeforeValidator(_data)]
Type = Annotated[str, _word(MAX_TYPE_CHARACTERS)]
Interval = Annotated[float, _number(MIN_INTERVAL_SECONDS, MAX_INTERVAL_SECONDS)]


class _Body(BaseModel):
    """Fields that are not named here are ignored."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)


class SendBody(_Body):
    room: Name = DEFAULT_ROOM
    message: MessageText = ""
    target_user: OptionalName = None
    data: Data = {}


class LocationBody(_Body):
    latitude: Annotated[float, _number(-90, 90)]
    longitude: Annotated[float, _number(-180, 180)]
    device_id: Annotated[str, BeforeValidator(_device)] = DEFAULT_DEVICE


class StartPushBody(_Body):
    room: Name = LIVE_ROOM
    interval: Interval = DEFAULT_INTERVAL_SECONDS
    source: Annotated[str, _word(MAX_SOURCE_CHARACTERS)] = DEFAULT_SOURCE


class StopPushBody(_Body):
    room: OptionalName = None


class BroadcastBody(_Body):
    type: Type = API_MESSAGE
    message: MessageText = ""
    data: Data = {}


class NotifyBody(BroadcastBody):
    user_id: Name


class ChatBody(_Body):
    message: MessageText
    username: Annotated[str, _text(MAX_USERNAME_CHARACTERS)] = ""


def read(kind: type[Body], body: Mapping[str, Any]) -> Body:
    """Raises Invalid naming every bad field."""
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        found = {
            ".".join(map(str, item["loc"])): str(item["msg"]).removeprefix("Value error, ")
            for item in error.errors(include_url=False, include_input=False, include_context=False)
        }
        fields = tuple(FieldError(path, message) for path, message in found.items())
        raise Invalid(_sentence(fields), fields) from None


def _sentence(fields: tuple[FieldError, ...]) -> str:
    missing = [field.path for field in fields if field.message == "Field required"]
    if set(missing) & {"latitude", "longitude"}:
        return "Latitude and longitude required"
    return "The request has fields that can't be used: " + "; ".join(f"{f.path} {f.message}" for f in fields) + "."
