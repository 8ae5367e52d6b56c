"""What is answered about authorizations of users."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from sidecar.domain.authorizations import AppTokenKind, Method, State
from sidecar.wire.answers import Time


class AuthorizationBegun(TypedDict):
    """`authorize_url` is where the user grants; `page` shows how far it has come, to whoever has its address."""

    success: Literal[True]
    session_id: str
    app: str
    user: str
    state: State
    method: Method
    authorize_url: str
    expires_at: Time
    page: str
    duplicate: bool


class AuthorizationNow(TypedDict):
    state: State
    reason: str | None


class Authorization(AuthorizationNow):
    """`reason` says why it failed; who the user is at the platform is known once it is completed."""

    session_id: str
    app: str
    user: str
    method: Method
    open_id: str | None
    union_id: str | None
    name: str | None
    mobile: str | None
    email: str | None
    message_id: str | None
    created_at: Time
    expires_at: Time
    completed_at: Time | None


class CardSent(TypedDict):
    success: Literal[True]
    message_id: str
    session_id: str
    duplicate: bool


class UserToken(TypedDict):
    """`is_expiring`: it should have been renewed, and could not be."""

    user_access_token: str
    token_expires_at: Time
    expires_in: int
    is_expiring: bool
    scope: str
    open_id: str | None


class TokenRevoked(TypedDict):
    """`revoked` is false where there was none."""

    success: Literal[True]
    revoked: bool


class AppToken(TypedDict):
    token: str
    kind: AppTokenKind
    expires_in: int


class CleanedUp(TypedDict):
    success: Literal[True]
    cleaned_count: int


class TokenUse(TypedDict):
    """Who was given a token of a user (null: of the app itself), when and what for."""

    at: Time
    app: str
    user: str | None
    use: str
    by: str
    token_id: str | None


class TokenUseList(TypedDict):
    items: list[TokenUse]


class Heard(TypedDict):
    success: Literal[True]
