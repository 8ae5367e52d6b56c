"""What operators and monitors are answered."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict


class Alive(TypedDict):
    status: Literal["ok"]


class Readiness(TypedDict):
    """`problems` says in a sentence each why it is not ready, `warnings` what only makes it slower."""

    ready: bool
    problems: list[str]
    warnings: list[str]


class Info(TypedDict):
    """`who` is the caller's name; `namespaces` are those of Socket.IO; `open` and `anonymous_read` are the settings of
    these names."""

    name: str
    version: str
    prefix: str
    namespaces: list[str]
    open: str
    anonymous_read: bool
    max_body_bytes: int
    who: str
    seq: int
    epoch: str


class FirstSteps(TypedDict):
    """`token` may post webhooks; null if the first one no longer exists."""

    token: str | None
    namespace: str
