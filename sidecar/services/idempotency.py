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
class KeyedRequest:
    """A request as far as its repetition is recognised by it: who sent it where, with which key (None: without one),
    and what it said."""

    sender: str
    route: str
    key: str | None
    body_sha256: str

    @classmethod
    def of(cls, identity: Identity, address: str, route: str, key: str | None, body: bytes) -> KeyedRequest:
        """Raises Invalid for a key that can't be one."""
        if key is not None and not (0 < len(key) <= KEY_MAX_CHARACTERS and key.isprintable()):
            raise Invalid(
                "The request can't be used.",
                (FieldError("Idempotency-Key", f"must be 1 to {KEY_MAX_CHARACTERS} printable characters"),),
            )
        sender = sender_of(identity.token_id, address)
        if identity.user is not None:
            sender = f"{sender} {identity.user}"
        return cls(sender, route, key, hashlib.sha256(body).hexdigest())


def answered(transaction: Transaction, request: KeyedRequest | None, within: str = "") -> dict[str, Any] | None:
    """What a request with this key was answered already; None if this is the first, or there is no key, or no request
    (a replay, chat, a program in this process). `within` narrows what a key counts for: a project's name, say. Raises
    Conflict if that one had another body."""
    if request is None or request.key is None:
        return None
    since = utc_text(unix_seconds(transaction.now) - KEY_SECONDS)
    first = first_answer(transaction.connection, scope_of(request.sender, request.route, within, request.key), since)
    if first is None:
        return None
    if first.body_sha256 != request.body_sha256:
        raise Conflict("This Idempotency-Key was used with another body.")
    return first.answer


def remember(transaction: Transaction, request: KeyedRequest | None, answer: dict[str, Any], within: str = "") -> None:
    """The answer to be given from now on to whoever comes with this key; nothing where there is none."""
    if request is not None and request.key is not None:
        scope = scope_of(request.sender, request.route, within, request.key)
        store_answer(transaction.connection, scope, request.body_sha256, answer, transaction.now)


def sender_of(token_id: str | None, address: str) -> str:
    """Whose key it is: a token's, or without one an address's."""
    return token_id or f"address {address}"


def scope_of(sender: str, route: str, within: str, key: str) -> str:
    """The name under which an answer is kept. Nobody can answer or suppress another's post with a key: it counts for
    its sender, route and `within` only."""
    text = "\n".join((sender, route, within, key))
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
