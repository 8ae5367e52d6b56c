"""Query parameters, declared once for a route: read from a request, every bad one told in a single error, and described
in the document of the API (openapi.py) by the same declaration.

    class LinesQuery(Parameters):
        after: int = whole(0, 0, MAX_NUMBER, "lines with a higher number only")
        q: str | None = text(200, "lines that hold this text")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from werkzeug.datastructures import MultiDict

from sidecar.domain.deployments import parse_time
from sidecar.domain.errors import FieldError, Invalid
from sidecar.domain.rooms import NAME_MAX_CHARACTERS, clean_name

Found = TypeVar("Found", bound="Parameters")

MAX_CHOICES = 50
MAX_NUMBER = 2**63 - 1
TIME = {"examples": ["2026-11-21T12:00:00Z"]}
"""RFC 3339, but other ways to write a time are taken too."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """`parse` makes the value of all that was given under the name, at least one text; it raises Invalid or ValueError.
    `default` is the value where nothing was given."""

    about: str
    schema: Mapping[str, Any]
    parse: Callable[[Sequence[str]], Any]
    default: Any = None
    required: bool = False


class Parameters:
    """What a route takes in its query, a Parameter an attribute; in an instance these are the values of one request.
    Others are refused, since one that was misspelt would do something else than was meant, but by a class with
    `others=True`."""

    declared: ClassVar[Mapping[str, Parameter]] = {}
    others: ClassVar[bool] = False

    def __init_subclass__(cls, others: bool | None = None) -> None:
        own = {name: value for name, value in vars(cls).items() if isinstance(value, Parameter)}
        cls.declared = {**cls.declared, **own}
        cls.others = cls.others if others is None else others

    @classmethod
    def read(cls: type[Found], given: MultiDict[str, str]) -> Found:
        """Raises Invalid naming every bad parameter."""
        found = cls()
        problems = []
        if not cls.others:
            problems = [FieldError(name, "is no parameter here") for name in given if name not in cls.declared]
        for name, parameter in cls.declared.items():
            values = given.getlist(name)
            value = parameter.default
            if values:
                try:
                    value = parameter.parse(values)
                except Invalid as error:
                    problems.append(FieldError(name, error.detail))
                except ValueError as error:
                    problems.append(FieldError(name, str(error)))
            if parameter.required and not any(values):
                problems.append(FieldError(name, "is missing"))
            setattr(found, name, value)
        if problems:
            told = "; ".join(f"{problem.path} {problem.message}" for problem in problems)
            raise Invalid(f"The query can't be used: {told}.", tuple(problems))
        return found


class Nothing(Parameters):
    """No parameter at all."""


class Anything(Parameters, others=True):
    """Whatever is given is passed over: pages, files, and what older clients or monitors call."""


def whole(default: int | None, least: int, most: int, about: str) -> Any:
    """A whole number."""

    def parse(values: Sequence[str]) -> int:
        text = values[0]
        if text.isascii() and text.isdigit() and len(text) <= 19 and least <= int(text) <= most:
            return int(text)
        raise ValueError(f"must be a whole number from {least} to {most}")

    schema = {"type": "integer", "minimum": least, "maximum": most}
    return Parameter(about, schema | ({} if default is None else {"default": default}), parse, default)


def text(most: int, about: str, required: bool = False) -> Any:
    """A text; an empty one counts as none."""

    def parse(values: Sequence[str]) -> str | None:
        if len(values[0]) > most:
            raise ValueError(f"is longer than {most} characters")
        if "\x00" in values[0]:  # SQLite's LIKE would stop reading there and match everything
            raise ValueError("holds a NUL character")
        return values[0] or None

    schema = {"type": "string", "maxLength": most, "pattern": "^[^\\x00]*$"}
    if required:
        schema |= {"minLength": 1, "pattern": "^[^\\x00]+$"}
    return Parameter(about, schema, parse, required=required)


def shortened(most: int, about: str) -> Any:
    """A text whose end is cut, never refused."""
    return Parameter(about, {"type": "string", "default": ""}, lambda values: values[0][:most], "")


def parsed(read: Callable[[str], Any], schema: Mapping[str, Any], about: str) -> Any:
    """What `read` makes of the text; its ValueError or Invalid is told. An empty text counts as none."""

    def parse(values: Sequence[str]) -> Any:
        return read(values[0]) if values[0] else None

    return Parameter(about, {"type": "string", **schema}, parse)


def moment(about: str) -> Any:
    """A time, in any of the ways in which senders write one."""

    def read(given: str) -> str:
        found = parse_time(given)
        if found is None:
            raise ValueError("is no time since 1970")
        return found

    return parsed(read, TIME, about)


def name(about: str) -> Any:
    """A name that a room, a project or a user can have."""

    def parse(values: Sequence[str]) -> str:
        return _clean(values[0])

    return Parameter(about, {"type": "string", "minLength": 1, "maxLength": NAME_MAX_CHARACTERS}, parse)


def names(about: str) -> Any:
    """Names given by repeating the parameter; None when it is absent."""

    def parse(values: Sequence[str]) -> tuple[str, ...]:
        if len(values) > MAX_CHOICES:
            raise ValueError(f"is given more than {MAX_CHOICES} times")
        return tuple(map(_clean, values))

    item = {"type": "string", "minLength": 1, "maxLength": NAME_MAX_CHARACTERS}
    return Parameter(about, {"type": "array", "items": item, "maxItems": MAX_CHOICES}, parse)


def words(known: Sequence[str], about: str) -> Any:
    """Words of `known`, repeated or separated by commas."""

    def parse(values: Sequence[str]) -> tuple[str, ...]:
        given = [item for value in values for item in value.split(",") if item]
        if any(value not in known for value in given):
            raise ValueError(f"must be of {' '.join(known)}")
        return tuple(dict.fromkeys(given))

    return Parameter(about, {"type": "array", "items": {"enum": list(known)}}, parse, ())


def word(known: Sequence[str], default: str | None, about: str) -> Any:
    """One word of `known`."""

    def parse(values: Sequence[str]) -> str:
        if values[0] not in known:
            raise ValueError(f"must be {' or '.join(known)}")
        return values[0]

    schema = {"enum": list(known)} | ({} if default is None else {"default": default})
    return Parameter(about, schema, parse, default)


def flag(about: str) -> Any:
    """True for `1` and `true`; absent and empty are false."""

    def parse(values: Sequence[str]) -> bool:
        given = {item for value in values for item in value.split(",") if item}
        if given - {"1", "true"}:
            raise ValueError("must be of 1 true")
        return bool(given)

    return Parameter(about, {"enum": ["1", "true"]}, parse, False)


def _clean(value: str) -> str:
    try:
        return clean_name(value, "it")
    except Invalid as error:
        raise ValueError(error.detail.removeprefix("it ")) from None
