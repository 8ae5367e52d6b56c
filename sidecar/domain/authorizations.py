"""Authorizations of users at another platform (Lark): their states, what is kept of them, and why one can fail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["pending", "completed", "expired", "rejected"]
Method = Literal["oauth", "websocket_card", "http_callback"]
Language = Literal["zh", "en"]
AppTokenKind = Literal["tenant", "app"]
ReceiverKind = Literal["open_id", "user_id", "union_id", "email", "chat_id"]

STATES: tuple[State, ...] = ("pending", "completed", "expired", "rejected")
METHODS: tuple[Method, ...] = ("oauth", "websocket_card", "http_callback")
"""How the user was led to the platform's page: by a link, or by a card whose clicks come over the long connection or
over HTTP."""

REASONS = (
    "user_rejected",
    "code_expired",
    "missing_code",
    "wrong_user",
    "misconfigured",
    "provider_unavailable",
    "unknown_error",
)
"""Why an attempt to authorize failed; a metric's label and a field of events."""

MASK_CHARACTERS = 4


@dataclass(frozen=True, slots=True)
class App:
    """An app at the platform, as its console shows it. `verification_token` and `encrypt_key` prove callbacks; empty
    where none is set."""

    id: str
    secret: str = field(repr=False)
    verification_token: str = field(default="", repr=False)
    encrypt_key: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class UserTokens:
    """What the platform gives for a code or a refresh token. Lifetimes in seconds from now; without `refresh` the
    token can't be renewed."""

    access: str = field(repr=False)
    expires_in: float
    refresh: str | None = field(default=None, repr=False)
    refresh_expires_in: float | None = None
    scope: str = ""


@dataclass(frozen=True, slots=True)
class Person:
    """Who has authorized. What the platform does not say is None."""

    open_id: str
    union_id: str | None = None
    name: str | None = None
    mobile: str | None = None
    email: str | None = None


@dataclass(frozen=True, slots=True)
class AppToken:
    """A token of the app itself, for so many seconds from now."""

    text: str = field(repr=False)
    expires_in: float


@dataclass(frozen=True, slots=True)
class Card:
    """What the card of an authorization shows. `authorize_url` while it is pending; `name` of who has completed it."""

    session_id: str
    state: State
    language: Language
    authorize_url: str | None = field(default=None, repr=False)
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Callback:
    """What the platform says to us, proved to come from it. `challenge` is to be given back (nothing else is set then);
    otherwise an event of this `type`, which comes again under the same `event_id` if it was not answered. `nonce` names
    this one request: another one with it is a replay; None where the platform gives no proof of freshness."""

    type: str
    event_id: str = ""
    event: Mapping[str, Any] = field(default_factory=dict)
    nonce: str | None = None
    challenge: str | None = None


@dataclass(frozen=True, slots=True)
class CardClick:
    """Somebody has clicked on a card of ours. `action` is `authorize` or `reject`."""

    session_id: str
    action: Literal["authorize", "reject"]
    open_id: str
    message_id: str | None = None


Toast = Literal["cancelled", "follow_link", "completed", "expired", "failed", "not_yours"]
"""What the one who clicked is told, in a line that goes away by itself."""


def masked(secret: str) -> str:
    """The first and the last four characters, if more than twice as many stay hidden."""
    if len(secret) < 4 * MASK_CHARACTERS:
        return "****"
    return f"{secret[:MASK_CHARACTERS]}****{secret[-MASK_CHARACTERS:]}"


def may_become(old: State, new: State) -> bool:
    """Every state but pending is final."""
    return old == "pending" and new != "pending"


def is_expiring(lifetime: float, left: float, threshold: float) -> bool:
    """Is less than this part of a token's lifetime left (both in seconds)?"""
    return left < lifetime * threshold
