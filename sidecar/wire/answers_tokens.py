"""What is answered about tokens and the session of the pages."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from sidecar.wire.answers import Time


class Token(TypedDict):
    """An API token; its text is not kept."""

    id: str
    name: str
    scopes: list[str]
    projects: list[str] | None
    created_at: Time
    expires_at: Time | None
    revoked_at: Time | None


class TokenList(TypedDict):
    items: list[Token]


class NewToken(TypedDict):
    """`token` is shown this once."""

    success: Literal[True]
    id: str
    token: str
    name: str
    scopes: list[str]
    projects: list[str] | None
    expires_at: Time | None


class NewConnectionToken(TypedDict):
    """It ends at the latest with the token that it was asked for with, so `ttl_seconds` may be less than wanted."""

    success: Literal[True]
    token: str
    expires_at: Time
    ttl_seconds: int


class Session(TypedDict):
    """`csrf_token` goes into the header X-CSRF-Token of what is changed by the login cookie; null without one."""

    name: str
    kind: Literal["token", "connection", "cookie", "anonymous"]
    scopes: list[str]
    csrf_token: str | None
