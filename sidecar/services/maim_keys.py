"""Bots' API keys: made or taken over, listed, revoked, and turned into the account that they belong to."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from sidecar.domain.access import Identity, may_reach_tenant
from sidecar.domain.errors import Conflict, NotAllowed, NotFound
from sidecar.domain.events import Control
from sidecar.domain.maim import DEFAULT_TENANT, Account, id_of
from sidecar.services.access import require
from sidecar.store.database import Database
from sidecar.store.journal import Transaction
from sidecar.store.maim import KeyRow, find_key, find_key_by_id, insert_key, list_keys, mark_key_revoked
from sidecar.store.writer import Submit
from sidecar.wire.maim import MaimKeyBody

SCOPE = "maim:manage"
CHANGED = Control("control.maim_key")
"""Type of the control event whose payload `{"id","revoked"}` names a key that was made or has just been revoked."""

CACHED = 10_000
CACHE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made; `key` is the only time that a generated one is seen."""

    row: KeyRow
    key: str


class BotKeys:
    """`secret` keys the hash under which keys are stored: many are short and chosen by people, and whoever reads the
    table shall not be able to try them. Who was asked for is remembered for half a minute, and forgotten when any key
    changes (`forget`); who comes in by a key is asked for again unless `fresh` says that we would have heard of its
    end. Every method may raise Unavailable."""

    def __init__(
        self,
        database: Database,
        submit: Submit,
        secret: bytes,
        clock: Callable[[], float] = time.time,
        fresh: Callable[[], bool] = lambda: True,
    ):
        self._database = database
        self._submit = submit
        self._secret = secret
        self._clock = clock
        self._fresh = fresh
        self._cache: OrderedDict[bytes, tuple[float, Account | None]] = OrderedDict()
        self._changes = 0

    def create(self, body: MaimKeyBody, identity: Identity | None = None) -> NewKey:
        """A new key, generated unless the body brings one. `identity` None is the operator of this installation.
        Raises Unauthenticated or NotAllowed, and Conflict for a key that is there already, revoked or not."""
        tenant = body.tenant or _own_tenant(identity)
        _check(identity, tenant)
        key = body.key or f"smk_{secrets.token_urlsafe(32)}"
        platforms = None if body.platforms is None else tuple(dict.fromkeys(body.platforms))
        id = secrets.token_hex(6)

        def command(transaction: Transaction) -> KeyRow:
            row = KeyRow(id, tenant, body.user, platforms, body.name or body.user, transaction.now, None)
            if not insert_key(transaction.connection, row, self._hash(key)):
                raise Conflict("There is this key already; one that was revoked can't be used again.")
            transaction.append(CHANGED, {"id": id, "revoked": False}, ())
            return row

        return NewKey(self._submit(command), key)

    def list(self, identity: Identity | None = None) -> list[KeyRow]:
        """Those of the tenants that it may reach, in the order in which they were made."""
        if identity is not None:
            require(identity, SCOPE)
        rows = self._database.read(list_keys)
        return [row for row in rows if identity is None or may_reach_tenant(identity, row.tenant)]

    def revoke(self, id: str, identity: Identity | None = None) -> None:
        """By id; its live connections close as the event passes the tail. Raises NotFound (another tenant's too)."""
        if identity is not None:
            require(identity, SCOPE)

        def command(transaction: Transaction) -> None:
            row = find_key_by_id(transaction.connection, id)
            hidden = row is not None and identity is not None and not may_reach_tenant(identity, row.tenant)
            if row is None or row.revoked_at is not None or hidden:
                raise NotFound("There is no such key, or it is revoked already.")
            mark_key_revoked(transaction.connection, id, transaction.now)
            transaction.append(CHANGED, {"id": id, "revoked": True}, ())

        self._submit(command)

    def holder(self, key: str) -> Account | None:
        """Whose this key is, None for one that is unknown or revoked."""
        return self._by_key(key, self._fresh())

    def receiver(self, named: str) -> Account | None:
        """Whom this key, or the address of a key, stands for as a receiver. An address opens nothing."""
        id = id_of(named)
        if id is None:
            return self._by_key(named, True)
        return self._remembered(named.encode(), lambda: self._database.read(lambda c: find_key_by_id(c, id)), True)

    def forget(self) -> None:
        """A key has changed, here or at another process."""
        self._changes += 1
        self._cache.clear()

    def _by_key(self, key: str, trusted: bool) -> Account | None:
        hashed = self._hash(key)
        return self._remembered(hashed, lambda: self._database.read(lambda c: find_key(c, hashed)), trusted)

    def _remembered(self, name: bytes, find: Callable[[], KeyRow | None], trusted: bool) -> Account | None:
        until, account = self._cache.get(name, (0.0, None))
        if until > self._clock() and trusted:
            return account
        changes = self._changes
        row = find()
        account = None if row is None or row.revoked_at is not None else row.account
        if changes == self._changes:  # otherwise it may have been this one, read before
            self._cache[name] = (self._clock() + CACHE_SECONDS, account)
            while len(self._cache) > CACHED:
                self._cache.popitem(last=False)
        return account

    def _hash(self, key: str) -> bytes:
        return hmac.digest(self._secret, key.encode("utf-8", "replace"), hashlib.sha256)


def _check(identity: Identity | None, tenant: str) -> None:
    if identity is None:
        return
    require(identity, SCOPE)
    if not may_reach_tenant(identity, tenant):
        raise NotAllowed("The token does not give the right to this tenant.")


def _own_tenant(identity: Identity | None) -> str:
    """Of a token for a single project that one; else the default."""
    projects = None if identity is None else identity.projects
    return projects[0] if projects is not None and len(projects) == 1 else DEFAULT_TENANT
