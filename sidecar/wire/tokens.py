"""What is POSTed to have tokens made. Only its form is read here: what a token may be is checked by the services, for
the command line too, and what they take is said in the JSON Schemas."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, WithJsonSchema

from sidecar.domain.access import ROOM_KINDS, SCOPES
from sidecar.domain.rooms import NAME_MAX_CHARACTERS
from sidecar.wire.checks import Body

MAX_CONNECTION_SECONDS = 86_400
MAX_TOKEN_SECONDS = 3_153_600_000
"""A hundred years."""
MAX_PATTERNS = 100
MAX_PATTERN_CHARACTERS = 220
MAX_PROJECTS = 200

_NAME = {"type": "string", "minLength": 1, "maxLength": NAME_MAX_CHARACTERS}
_SCOPES = {"type": "array", "items": {"enum": sorted(SCOPES)}}
_PATTERN = {"type": "string", "pattern": f"^({'|'.join(ROOM_KINDS)})(:|$)", "maxLength": MAX_PATTERN_CHARACTERS}
_NULL = {"type": "null"}


def _list(value: Any) -> Any:
    if value is not None and not isinstance(value, list):
        raise ValueError("must be a list")
    return value


def _seconds(value: Any) -> Any:
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise ValueError("must be a number of seconds")
    return value


List = Annotated[Any, BeforeValidator(_list)]


class TokenBody(Body):
    """An API token. `projects` null is all of them; without `ttl_seconds` it has no end."""

    model_config = ConfigDict(json_schema_extra={"required": ["name", "scopes"]})

    name: Annotated[Any, WithJsonSchema(_NAME)] = None
    scopes: Annotated[List, WithJsonSchema(_SCOPES | {"minItems": 1})] = None
    projects: Annotated[
        List,
        WithJsonSchema({"anyOf": [{"type": "array", "items": _NAME, "minItems": 1, "maxItems": MAX_PROJECTS}, _NULL]}),
    ] = None
    ttl_seconds: Annotated[
        Any,
        BeforeValidator(_seconds),
        WithJsonSchema({"anyOf": [{"type": "number", "minimum": 1, "maximum": MAX_TOKEN_SECONDS}, _NULL]}),
    ] = None


class ConnectionTokenBody(Body):
    """A browser's token, never wider than the one that it is asked for with. `sub` is the user; `rooms` are patterns
    such as `project:axi-*`, null for all that may be watched."""

    sub: Annotated[Any, WithJsonSchema({"anyOf": [_NAME, {"type": "integer"}, _NULL]})] = None
    rooms: Annotated[
        List, WithJsonSchema({"anyOf": [{"type": "array", "items": _PATTERN, "maxItems": MAX_PATTERNS}, _NULL]})
    ] = None
    scopes: Annotated[List, WithJsonSchema({"anyOf": [_SCOPES, _NULL]})] = None
    ttl_seconds: Annotated[
        Any,
        WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1, "maximum": MAX_CONNECTION_SECONDS}, _NULL]}),
    ] = None


class LoginForm(Body):
    """The code of the link that the sidecar prints at its start, or `python -m sidecar login-link` does."""

    code: str = ""
