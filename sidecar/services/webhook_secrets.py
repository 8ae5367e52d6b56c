"""Webhook secrets: made or taken over, listed, revoked; and who has signed a body."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

import gevent
import structlog
from cryptography.fernet import Fernet, InvalidToken

from sidecar.domain.access import Identity
from sidecar.domain.errors import Conflict, NotFound, SignatureMismatch, Unauthenticated
from sidecar.domain.events import Control
from sidecar.store.database import Database
from sidecar.store.journal import Transaction
from sidecar.store.webhook_secrets import (
    SecretRow,
    active_secrets,
    count_active,
    insert_secret,
    list_secrets,
    revoke_secret,
)
from sidecar.store.writer import Submit
from sidecar.wire.signatures import signed_with
from sidecar.wire.webhook_secrets import WebhookSecretBody

log = structlog.get_logger("sidecar.webhook_secrets")

SCOPE = "webhooks:write"
CHANGED = Control("control.webhook_secrets")
"""Type of the control event (payload `{"id"}`) that tells of a secret made or revoked."""

MAX_ACTIVE = 64
"""Each is tried until one fits."""
MARK = "whs_"
"""How ids begin: no API token's does."""
CACHE_SECONDS = 30.0
INLINE_BYTES = 262_144
"""As much is hashed on the loop (a tenth of a millisecond or two); more in a native thread."""


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A secret just made; `secret` is the only time that a generated one is seen."""

    row: SecretRow
    secret: str


@dataclass(frozen=True, slots=True)
class Signer:
    """A secret that bodies may be signed with."""

    identity: Identity
    secret: bytes


class WebhookSecrets:
    """`seal` encrypts what is stored. The active ones are remembered for half a minute, and forgotten when one changes
    (`forget`); they count only while `fresh` says that we would have heard of it. Every method may raise
    Unavailable."""

    def __init__(
        self,
        database: Database,
        submit: Submit,
        seal: Fernet,
        clock: Callable[[], float] = time.time,
        fresh: Callable[[], bool] = lambda: True,
    ):
        self._database = database
        self._submit = submit
        self._seal = seal
        self._clock = clock
        self._fresh = fresh
        self._signers: tuple[float, list[Signer]] = (0.0, [])
        self._changes = 0

    def create(self, body: WebhookSecretBody) -> NewSecret:
        """A new secret, generated unless the body brings one. Raises Conflict when there are MAX_ACTIVE, or this one
        already."""
        id = f"{MARK}{secrets.token_hex(6)}"
        secret = body.secret or f"{id}_{secrets.token_urlsafe(32)}"
        projects = None if body.projects is None else tuple(dict.fromkeys(body.projects))
        name = body.name or (projects[0] if projects else "all projects")
        sealed = self._seal.encrypt(secret.encode()).decode()

        def command(transaction: Transaction) -> SecretRow:
            connection = transaction.connection
            if count_active(connection) >= MAX_ACTIVE:
                raise Conflict(f"There are {MAX_ACTIVE} webhook secrets already: revoke one that is no longer used.")
            if any(signer.secret == secret.encode() for signer in self._opened(active_secrets(connection))):
                raise Conflict("There is this secret already; which projects a body may write must be clear.")
            row = SecretRow(id, name, projects, sealed, transaction.now)
            insert_secret(connection, row)
            transaction.append(CHANGED, {"id": id}, ())
            return row

        made = NewSecret(self._submit(command), secret)
        self.forget()  # here it counts before the answer; elsewhere as the event passes the tail
        return made

    def revoke(self, id: str) -> None:
        """Raises NotFound."""

        def command(transaction: Transaction) -> None:
            if not revoke_secret(transaction.connection, id, transaction.now):
                raise NotFound("There is no such webhook secret, or it is revoked already.")
            transaction.append(CHANGED, {"id": id}, ())

        self._submit(command)
        self.forget()

    def signer(self, body: bytes, digest: bytes) -> Identity:
        """Whose secret this body was signed with. Raises SignatureMismatch."""
        signers = self._active()

        def first() -> Identity | None:
            return next((signer.identity for signer in signers if signed_with(signer.secret, body, digest)), None)

        inline = len(body) * len(signers) <= INLINE_BYTES
        found: Identity | None = first() if inline else gevent.get_hub().threadpool.apply(first)
        if found is None:
            raise SignatureMismatch("The signature was made with no secret that is active here, or over another body.")
        return found

    def count(self) -> int:
        """How many are active."""
        return len(self._active())

    def holder(self, id: str) -> Identity:
        """The identity behind a secret known by its id. Raises Unauthenticated when it is gone or revoked."""
        for signer in self._active():
            if signer.identity.token_id == id:
                return signer.identity
        raise Unauthenticated("The webhook secret behind this is gone or has been revoked.")

    def forget(self) -> None:
        """A secret has changed, here or at another process."""
        self._changes += 1
        self._signers = (0.0, [])

    def _active(self) -> list[Signer]:
        until, signers = self._signers
        if until > self._clock() and self._fresh():
            return signers
        changes = self._changes
        signers = self._opened(self._database.read(active_secrets))
        if changes == self._changes:  # otherwise one may have changed since they were read
            self._signers = (self._clock() + CACHE_SECONDS, signers)
        return signers

    def _opened(self, rows: list[SecretRow]) -> list[Signer]:
        """Those that can be decrypted: another master secret than they were made under opens none."""
        signers = []
        for row in rows:
            try:
                secret = self._seal.decrypt(row.sealed)
            except InvalidToken:
                log.warning("webhook_secrets.unreadable", id=row.id)
                continue
            identity = Identity("signature", row.name, frozenset({SCOPE}), row.projects, token_id=row.id)
            signers.append(Signer(identity, secret))
        return signers

    def list(self, project: str | None = None) -> list[SecretRow]:
        """In the order in which they were made; with `project` those that may write to it."""
        rows = self._database.read(list_secrets)
        return [row for row in rows if project is None or row.projects is None or project in row.projects]
