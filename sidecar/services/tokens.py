"""API tokens: `sct_<id>_<secret>`, stored hashed, made, listed, revoked, and turned into an identity."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sidecar.domain.access import SCOPES, Identity
from sidecar.domain.errors import FieldError, Invalid, NotFound, TokenExpired, Unauthenticated
from sidecar.domain.events import Control
from sidecar.domain.rooms import clean_name
from sidecar.domain.times import unix_seconds, utc_text
from sidecar.store.database import Database
from sidecar.store.journal import Transaction
from sidecar.store.tokens import TokenRow, find_token, insert_token, list_tokens, mark_revoked
from sidecar.store.writer import Submit
from sidecar.wire.tokens import MAX_PROJECTS, MAX_TOKEN_SECONDS

REVOKED = Control("control.token_revoked")
"""Type of the control event whose payload `{"id"}` names a token that has just been revoked."""

CACHED_TOKENS = 10_000
CACHE_SECONDS = 30.0

_TOKEN = re.compile(r"sct_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token just made; the only time that its text is seen."""

    id: str
    text: str
    name: str
    scopes: tuple[str, ...]
    projects: tuple[str, ...] | None
    expires_at: str | None


class Tokens:
    """`submit` runs a command in the writer. Verified tokens are remembered for half a minute and forgotten at
    once when they are revoked (`forget`). What is remembered counts only while `fresh` says that we would have heard of
    a revocation, but of the last moments."""

    def __init__(
        self,
        database: Database,
        submit: Submit,
        clock: Callable[[], float] = time.time,
        fresh: Callable[[], bool] = lambda: True,
    ):
        self._database = database
        self._submit = submit
        self._clock = clock
        self._fresh = fresh
        self._cache: OrderedDict[bytes, tuple[float, Identity]] = OrderedDict()
        self._revocations = 0

    def create(
        self,
        name: object,
        scopes: Sequence[object],
        projects: Sequence[object] | None = None,
        ttl_seconds: float | None = None,
    ) -> NewToken:
        """A new token. Raises Invalid naming every bad field; an empty list of projects is refused, None is all."""
        problems: list[FieldError] = []
        name_text = _cleaned(name, "name", problems)
        scope_names = tuple(sorted({str(scope) for scope in scopes}))
        if not scope_names or not SCOPES.issuperset(scope_names):
            problems.append(FieldError("scopes", f"needs one or more of {' '.join(sorted(SCOPES))}"))
        project_names = None
        if projects is not None:
            project_names = tuple(_cleaned(item, f"projects[{i}]", problems) for i, item in enumerate(projects))
            if not 1 <= len(project_names) <= MAX_PROJECTS:
                problems.append(FieldError("projects", f"needs 1 to {MAX_PROJECTS} names; leave it out for all"))
        if projects is not None and "admin" in scopes and not problems:
            problems.append(FieldError("projects", "admin holds every project: leave it out, or choose other scopes"))
        if ttl_seconds is not None and not 1 <= ttl_seconds <= MAX_TOKEN_SECONDS:
            problems.append(FieldError("ttl_seconds", "must be from 1 second to 100 years"))
        if problems:
            raise Invalid("The token can't be made so.", tuple(problems))
        id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        expires_at = None if ttl_seconds is None else utc_text(self._clock() + ttl_seconds)

        def command(transaction: Transaction) -> None:
            insert_token(
                transaction.connection,
                id,
                name_text,
                _hash(secret),
                scope_names,
                project_names,
                transaction.now,
                expires_at,
            )

        self._submit(command)
        return NewToken(id, f"sct_{id}_{secret}", name_text, scope_names, project_names, expires_at)

    def list(self) -> list[TokenRow]:
        return self._database.read(list_tokens)

    def revoke(self, id: str) -> None:
        """Revoke by id; live sockets of the token close as the event passes the tail. Raises NotFound."""

        def command(transaction: Transaction) -> None:
            if not mark_revoked(transaction.connection, id, transaction.now):
                raise NotFound("There is no such token, or it is revoked already.")
            transaction.append(REVOKED, {"id": id}, ())

        self._submit(command)

    def verify(self, text: str) -> Identity:
        """Whose token this is. Raises Unauthenticated, or TokenExpired."""
        digest = hashlib.sha256(text.encode("utf-8", "replace")).digest()
        remembered = self._remembered(digest)
        if remembered is not None:
            return self._unexpired(remembered)
        revocations = self._revocations
        match = _TOKEN.fullmatch(text)
        row = self._database.read(lambda c: find_token(c, match[1])) if match else None
        if row is None or match is None or not hmac.compare_digest(row.secret_hash, _hash(match[2])):
            raise Unauthenticated("The token is not known.")
        if row.revoked_at is not None:
            raise Unauthenticated("The token has been revoked.")
        identity = self._unexpired(token_identity(row))
        self._remember(digest, identity, revocations)
        return identity

    def holder(self, id: str) -> Identity:
        """The identity of a token known by its id (the issuer of a connection token, the one behind a cookie).
        Raises Unauthenticated when it is gone or revoked."""
        key = b"id:" + id.encode()
        remembered = self._remembered(key)
        if remembered is not None:
            return self._unexpired(remembered)
        revocations = self._revocations
        row = self._database.read(lambda c: find_token(c, id))
        if row is None or row.revoked_at is not None:
            raise Unauthenticated("The token behind this one is gone or has been revoked.")
        identity = self._unexpired(token_identity(row))
        self._remember(key, identity, revocations)
        return identity

    def _remembered(self, key: bytes) -> Identity | None:
        until, identity = self._cache.get(key, (0.0, None))
        return identity if until > self._clock() and self._fresh() else None

    def _remember(self, key: bytes, identity: Identity, revocations: int) -> None:
        """Not when a token was revoked while this one was being read: it may have been this one."""
        if revocations != self._revocations:
            return
        self._cache[key] = (self._clock() + CACHE_SECONDS, identity)
        while len(self._cache) > CACHED_TOKENS:
            self._cache.popitem(last=False)

    def forget(self, id: str) -> None:
        """A token was revoked, here or by another process."""
        self._revocations += 1
        for key in [key for key, (_, identity) in self._cache.items() if identity.token_id == id]:
            del self._cache[key]

    def _unexpired(self, identity: Identity) -> Identity:
        if identity.expires_at is not None and identity.expires_at <= self._clock():
            raise TokenExpired("The token has expired.")
        return identity


def token_identity(row: TokenRow) -> Identity:
    return Identity(
        kind="token",
        name=row.name,
        scopes=frozenset(row.scopes),
        projects=row.projects,
        token_id=row.id,
        number=row.number,
        expires_at=None if row.expires_at is None else unix_seconds(row.expires_at),
    )


def _hash(secret: str) -> bytes:
    """A plain hash suffices: the secret is 256 random bits, not a password."""
    return hashlib.sha256(secret.encode()).digest()


def _cleaned(name: object, path: str, problems: list[FieldError]) -> str:
    try:
        return clean_name(name, path)
    except Invalid as error:
        problems.append(FieldError(path, error.detail))
        return ""
