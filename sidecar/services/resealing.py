"""Everything that is encrypted for authorizations, encrypted anew with the first key: after it, older keys can go."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from sidecar.services.vault import Unreadable, Vault
from sidecar.store.authorizations import (
    change_session,
    find_session,
    list_apps,
    reseal_app,
    sealed_after,
)
from sidecar.store.database import Database
from sidecar.store.journal import Transaction
from sidecar.store.lark_events import reseal_event, sealed_events
from sidecar.store.writer import Submit

PAGE = 100
SEALED = ("sealed", "user_access_token", "refresh_token")


@dataclass(frozen=True, slots=True)
class Resealed:
    """How many values were encrypted anew, and how many no key of ours reads."""

    done: int
    unreadable: int


def reseal_all(database: Database, submit: Submit, vault: Vault) -> Resealed:
    """Page by page, beside a running server: what it changes meanwhile is read again in the transaction that writes.
    Raises Unavailable."""
    done = unreadable = 0

    def count(good: int, bad: int) -> None:
        nonlocal done, unreadable
        done += good
        unreadable += bad

    count(*submit(partial(_reseal_apps, vault)))
    count(*submit(partial(_reseal_events, vault)))
    after = ""
    while rows := database.read(partial(sealed_after, session_id=after, limit=PAGE)):
        count(*submit(partial(_reseal_sessions, vault, [row.session_id for row in rows])))
        after = rows[-1].session_id
    return Resealed(done, unreadable)


def _reseal_apps(vault: Vault, transaction: Transaction) -> tuple[int, int]:
    good = bad = 0
    for row in list_apps(transaction.connection):
        try:
            reseal_app(transaction.connection, row.app_id, vault.reseal(row.sealed))
            good += 1
        except Unreadable:
            bad += 1
    return good, bad


def _reseal_events(vault: Vault, transaction: Transaction) -> tuple[int, int]:
    good = bad = 0
    for row in sealed_events(transaction.connection):
        try:
            reseal_event(transaction.connection, row, vault.reseal(row.sealed or ""))
            good += 1
        except Unreadable:
            bad += 1
    return good, bad


def _reseal_sessions(vault: Vault, session_ids: list[str], transaction: Transaction) -> tuple[int, int]:
    good = bad = 0
    for session_id in session_ids:
        row = find_session(transaction.connection, session_id)
        values: dict[str, object] = {}
        for name in SEALED if row is not None else ():
            sealed = getattr(row, name)
            if sealed is None:
                continue
            try:
                values[name] = vault.reseal(sealed)
            except Unreadable:
                bad += 1
        good += len(values)
        if values:
            change_session(transaction.connection, session_id, **values)
    return good, bad
