"""What the bodies of requests are made of (names, texts, numbers), and how bad ones are told: every bad field named.

A check says as its `json_schema_input_type` what it takes, for the document of the API."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from sidecar.domain.errors import FieldError, Invalid, SidecarError
from sidecar.domain.rooms import NAME_MAX_CHARACTERS, clean_name
from sidecar.wire.bodies import clean_text

Model = TypeVar("Model", bound="Body")

WORDS = {
    "extra_forbidden": "is no field here",
    "model_type": "must be an object",
    "dict_type": "must be an object",
    "list_type": "must be a list",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
}
"""In place of pydantic's, which name its own classes."""


class Body(BaseModel):
    """Fields that are not named are ignored."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)


class StrictBody(Body):
    """Fields that are not named are refused: a misspelt one would be lost without a word."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


def field_errors(kind: type[Model], body: Mapping[str, Any]) -> Model | list[FieldError]:
    """The body read, or what is wrong with it."""
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        found = {
            _path(item["loc"]): _message(str(item["type"]), str(item["msg"]))
            for item in error.errors(include_url=False, include_input=False, include_context=False)
        }
        return [FieldError(path, message) for path, message in found.items()]


def read(kind: type[Model], body: Mapping[str, Any]) -> Model:
    """Raises Invalid naming every bad field."""
    found = field_errors(kind, body)
    if isinstance(found, list):
        raise invalid(found)
    return found


def invalid(problems: list[FieldError]) -> Invalid:
    """The error that tells all of these."""
    missing = [problem.path for problem in problems if problem.message == "Field required"]
    if set(missing) & {"latitude", "longitude"}:
        return Invalid("Latitude and longitude required", tuple(problems))
    told = "; ".join(f"{problem.path} {problem.message}" for problem in problems[:10])
    return Invalid(f"The request has fields that can't be used: {told}.", tuple(problems))


def _path(places: tuple[int | str, ...]) -> str:
    """`grants[0].resource`"""
    return "".join(f"[{place}]" if isinstance(place, int) else f".{place}" for place in places).removeprefix(".")


def _message(type: str, message: str) -> str:
    if type in WORDS:
        return WORDS[type]
    return message.removeprefix("Value error, ")


def name(value: Any) -> str:
    """Raises ValueError for what no room, user or role can be called."""
    try:
        return clean_name(value, "it")
    except SidecarError as error:
        raise ValueError(error.detail.removeprefix("it ")) from None


def optional_name(value: Any) -> str | None:
    return None if value is None or value == "" else name(value)


def text(limit: int) -> Any:
    """Text of at most so many characters."""

    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError("must be a string")
        if len(value) > limit:
            raise ValueError(f"is longer than {limit} characters")
        return clean_text(value)

    return BeforeValidator(check, json_schema_input_type=Annotated[str, Field(max_length=limit)])


def word(limit: int) -> Any:
    """Printable text, not empty, of at most so many characters; surrounding white space is cut."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or not value.strip() or len(value) > limit or not value.isprintable():
            raise ValueError(f"must be a string of 1 to {limit} printable characters")
        return value.strip()

    return BeforeValidator(check, json_schema_input_type=Annotated[str, Field(min_length=1, max_length=limit)])


def number(least: float, most: float) -> Any:
    """A number, also one written as text, as forms and shells do."""

    def check(value: Any) -> float:
        try:
            found = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            found = math.nan
        if not least <= found <= most:
            raise ValueError(f"must be a number from {least:g} to {most:g}")
        return found

    return BeforeValidator(check, json_schema_input_type=Annotated[float, Field(ge=least, le=most)] | str)


GivenName = Annotated[str, Field(min_length=1, max_length=NAME_MAX_CHARACTERS)] | int
"""What is taken as a name: text, also a whole number."""
Name = Annotated[str, BeforeValidator(name, json_schema_input_type=GivenName)]
OptionalName = Annotated[str | None, BeforeValidator(optional_name, json_schema_input_type=str | int | None)]
