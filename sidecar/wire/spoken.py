"""What goes over sockets declares itself where it is defined: its name, the form of what it carries, and a sentence.
The document at /api/asyncapi.json is made of these, and the type checker lets nothing else be sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class Said(BaseModel):
    """The form of something that is sent, every field of it."""

    model_config = ConfigDict(extra="forbid")


class _Declared(str):
    """A name on the wire, which is the name itself wherever text is wanted."""

    body: type[BaseModel]
    summary: str

    def __new__(cls, name: str, body: type[BaseModel], summary: str) -> Any:
        made = super().__new__(cls, name)
        made.body, made.summary = body, summary
        return made


class EventType(_Declared):
    """A type of event that leaves for clients; `body` is the form of its payload."""


class Frame(_Declared):
    """Something that a socket is told and that is no event: over Socket.IO by this name, over a plain WebSocket as an
    object of this `type`, with the fields of `body`."""


@dataclass(frozen=True, slots=True)
class Argument:
    """One of an event's arguments. `schema` is JSON Schema, or a model."""

    name: str
    schema: type[BaseModel] | dict[str, Any]
    required: bool = True


@dataclass(frozen=True, slots=True)
class Command:
    """An event that a client may emit over Socket.IO: its arguments, and the answer's form if it is not refused.
    `other_name` does the same; `tells` are frames that the same socket is told besides."""

    name: str
    summary: str
    answer: type[BaseModel]
    arguments: tuple[Argument, ...] = ()
    other_name: str | None = None
    tells: tuple[Frame, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,) if self.other_name is None else (self.name, self.other_name)


class Message(_Declared):
    """What a client may say over a plain WebSocket; `answers` are the frames that it may be told for it."""

    answers: tuple[Frame, ...]

    def __new__(cls, name: str, body: type[BaseModel], summary: str, answers: tuple[Frame, ...] = ()) -> Any:
        made = super().__new__(cls, name, body, summary)
        made.answers = answers
        return made


class Refused(Said):
    """The answer to what could not be done."""

    ok: Literal[False]
    code: str
    message: str
