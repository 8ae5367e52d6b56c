"""What answers over HTTP hold, for the document of the API: each type names all fields that there are. Nothing is read
or checked by these in a request; tests compare every answer with them (tests/servers.py)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import WithJsonSchema
from typing_extensions import TypedDict

Time = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
"""ISO 8601 in UTC, with `Z`."""
Object = dict[str, Any]
"""A JSON object whose fields others choose."""


class At(TypedDict):
    """Where in the journal the answer is true: who subscribes `since` this `offset` lacks nothing."""

    seq: int
    epoch: str
    offset: str


class Envelope(TypedDict):
    """An event as browsers get it."""

    type: str
    payload: Object
    timestamp: Time
    seq: int
    epoch: str
    offset: str


class Done(TypedDict):
    success: Literal[True]
    message: str


class Nodes(TypedDict):
    """How many processes `recipients` was asked of, null where that could not be found out, and how many answered."""

    asked: int | None
    answered: int


class Published(TypedDict):
    """What was stored and is on its way. `event_id` is its seq; `recipients` are the connections of this process that
    it is for, with `count=all` those of the `nodes` that answered; a `duplicate` was stored before and is not sent
    again."""

    success: Literal[True]
    status: Literal["success"]
    message: str
    event_id: str
    epoch: str
    recipients: int
    nodes: NotRequired[Nodes]
    duplicate: bool


class FieldProblem(TypedDict):
    """One bad field: where it stands (`metrics.total_duration`, `logs[3].level`) and what is wrong with it."""

    path: str
    message: str


class Problem(TypedDict):
    """Why a request was refused (RFC 9457, and the fields that older clients read). `message` is `detail` again."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[FieldProblem]
    request_id: str
    success: Literal[False]
    message: str


class OldProblem(TypedDict):
    """The same where clients of another server call, which know `status` as a word."""

    type: str
    title: str
    status: Literal["error"]
    detail: str
    code: str
    errors: list[FieldProblem]
    request_id: str
    success: Literal[False]
    message: str
