"""Rows of what Lark tells: requests seen, events to be handled and what they were answered,
and the long connections."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from sidecar.store.journal import Transaction
from sidecar.store.tables import lark_events, lark_links, lark_nonces

_EVENT = lark_events.c
Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event. While it is to be handled, `claimed_until` says until when somebody is at it, and `sealed` what it
    says, encrypted."""

    app_id: str
    event_id: str
    type: str
    transport: str
    received_at: str
    sealed: str | None = field(default=None, repr=False)
    answer: str | None = None
    claimed_until: str | None = None
    tries: int = 0


@dataclass(frozen=True, slots=True)
class LinkRow:
    """A long connection, as its process has told last. The counts are since `started_at`."""

    app_id: str
    started_at: str
    connected: bool
    heard_at: str
    heartbeat_seconds: float
    attempts: int
    successes: int
    failures: int


def seen_before(transaction: Transaction, nonce: str) -> bool:
    """Has this request come before? From now on it has."""
    dialect = postgresql if transaction.connection.dialect.name == "postgresql" else sqlite
    added = dialect.insert(lark_nonces).values(nonce=nonce, at=transaction.now).on_conflict_do_nothing()
    return transaction.connection.execute(added.returning(lark_nonces.c.nonce)).first() is None


def find_event(connection: Connection, app_id: str, event_id: str) -> EventRow | None:
    row = connection.execute(select(lark_events).where(_EVENT.app_id == app_id, _EVENT.event_id == event_id)).first()
    return None if row is None else EventRow(**row._mapping)


def insert_event(connection: Connection, row: EventRow) -> None:
    connection.execute(insert(lark_events).values({name: getattr(row, name) for name in EventRow.__dataclass_fields__}))


def claim_event(connection: Connection, row: EventRow, until: str) -> None:
    """Somebody is at it until then, once more."""
    connection.execute(_of(row).values(claimed_until=until, tries=row.tries + 1))


def finish_event(connection: Connection, row: EventRow, answer: Answer) -> None:
    """It is handled; this is the answer from now on."""
    text = json.dumps(answer, ensure_ascii=False)
    connection.execute(_of(row).values(claimed_until=None, sealed=None, answer=text))


def postpone_event(connection: Connection, row: EventRow, until: str) -> None:
    """It could not be handled, and is to be tried again from then on."""
    connection.execute(_of(row).values(claimed_until=until))


def events_due(connection: Connection, now: str, limit: int) -> list[EventRow]:
    """Events that nobody is at any more, the oldest first."""
    query = select(lark_events).where(_EVENT.claimed_until <= now).order_by(_EVENT.received_at).limit(limit)
    return [EventRow(**row._mapping) for row in connection.execute(query)]


def sealed_events(connection: Connection) -> list[EventRow]:
    """Events that are not handled yet."""
    return [
        EventRow(**row._mapping) for row in connection.execute(select(lark_events).where(_EVENT.sealed.is_not(None)))
    ]


def reseal_event(connection: Connection, row: EventRow, sealed: str) -> None:
    connection.execute(_of(row).values(sealed=sealed))


def retire_lark_events(transaction: Transaction, before: str, limit: int) -> int:
    """Delete handled events that came before then, at most so many."""
    old = (
        select(_EVENT.app_id, _EVENT.event_id)
        .where(_EVENT.received_at < before, _EVENT.claimed_until.is_(None))
        .limit(limit)
    )
    rows = transaction.connection.execute(old).all()
    for app_id, event_id in rows:
        transaction.connection.execute(delete(lark_events).where(_EVENT.app_id == app_id, _EVENT.event_id == event_id))
    return len(rows)


def retire_nonces(transaction: Transaction, before: str, limit: int) -> int:
    old = select(lark_nonces.c.nonce).where(lark_nonces.c.at < before).limit(limit)
    return transaction.connection.execute(delete(lark_nonces).where(lark_nonces.c.nonce.in_(old))).rowcount


def list_links(connection: Connection, since: str) -> list[LinkRow]:
    """Those heard of since then."""
    query = select(lark_links).where(lark_links.c.heard_at >= since).order_by(lark_links.c.heard_at)
    return [LinkRow(**row._mapping) for row in connection.execute(query)]


def save_link(connection: Connection, row: LinkRow) -> None:
    values = {name: getattr(row, name) for name in LinkRow.__dataclass_fields__}
    same = (lark_links.c.app_id == row.app_id) & (lark_links.c.started_at == row.started_at)
    if not connection.execute(update(lark_links).where(same).values(values)).rowcount:
        connection.execute(insert(lark_links).values(values))


def retire_links(transaction: Transaction, before: str) -> int:
    return transaction.connection.execute(delete(lark_links).where(lark_links.c.heard_at < before)).rowcount


def _of(row: EventRow) -> Any:
    return update(lark_events).where(_EVENT.app_id == row.app_id, _EVENT.event_id == row.event_id)
