"""Idempotency keys: the same key, per sender and route, gets its first answer again, and nothing is stored twice."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from sidecar.domain.access import Identity
from sidecar.domain.errors import Conflict, FieldError, Invalid
from sidecar.domain.times import unix_seconds, utc_text
from sidecar.store.idempotency import first_answer, store_answer
from sidecar.store.journal import Transaction

KEY_MAX_CHARACTERS = 255
KEY_SECONDS = 72 * 3_600


@dataclass(frozen=True, slots=True)
class Request:
    """A request as far as its repetition is recognised by it: who sent it where, with which key (None: without one),
    and what it said."""

    sender: str
    route: str
    key: str | None
    body_sha256: str


def request(identity: Identity, address: str, route: str, key: str | None, body: bytes) -> Request:
    """Raises Invalid for a key that can't be one."""
    if key is not None and not (0 < len(key) <= KEY_MAX_CHARACTERS and key.isprintable()):
        raise Invalid(
            "The request can't be used.",
            (FieldError("Idempotency-Key", f"must be 1 to {KEY_MAX_CHARACTERS} printable characters"),),
        )
    sender = identity.token_id or f"address {address}"
    if identity.user is not None:
        sender = f"{sender} {identity.user}"
    return Request(sender, route, key, hashlib.sha256(body).hexdigest())


def answered(transaction: Transaction, asked: Request, within: str = "") -> dict[str, Any] | None:
    """What a request with this key was answered already, None if this is the first (or has no key). `within` narrows
    what a key counts for: a project's name, say. Raises Conflict if that one had another body."""
    scope = _scope(asked, within)
    if scope is None:
        return None
    first = first_answer(transaction.connection, scope, utc_text(unix_seconds(transaction.now) - KEY_SECONDS))
    if first is None:
        return None
    if first.body_sha256 != asked.body_sha256:
        raise Conflict("This Idempotency-Key was used with another body.")
    return first.answer


def remember(transaction: Transaction, asked: Request, answer: dict[str, Any], within: str = "") -> None:
    """The answer to be given from now on to whoever comes with this key."""
    scope = _scope(asked, within)
    if scope is not None:
        store_answer(transaction.connection, scope, asked.body_sha256, answer, transaction.now)


def _scope(asked: Request, within: str) -> str | None:
    """Nobody can answer or suppress another's post with a key: it counts for its sender, route and `within` only."""
    if asked.key is None:
        return None
    text = "\n".join((asked.sender, asked.route, within, asked.key))
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
