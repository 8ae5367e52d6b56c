"""Forgetting what is older than the retention, a small chunk a command, so that nobody waits for it."""

from __future__ import annotations

import json

from sqlalchemy import bindparam, delete, select, update

from sidecar.store.idempotency import forget_answers
from sidecar.store.journal import Transaction
from sidecar.store.tables import deliveries, event_rooms, events, journal_head, log_lines, login_links

CHUNK = 200

_OF_EVENT = delete(event_rooms).where(
    event_rooms.c.room == bindparam("of_room"), event_rooms.c.seq == bindparam("at_seq")
)


def retire_events(transaction: Transaction, before: str) -> int:
    """Delete the oldest events stored before this time, and move the journal's floor; how many they were. An event
    that claims a later time than one behind it (the clock was put back) goes with it."""
    connection = transaction.connection
    rows = connection.execute(
        select(events.c.seq, events.c.at, events.c.rooms).order_by(events.c.seq).limit(CHUNK)
    ).all()
    floor = max((row.seq for row in rows if row.at < before), default=0)
    old = [row for row in rows if row.seq <= floor]
    if not old:
        return 0
    pairs = [{"of_room": room, "at_seq": row.seq} for row in old for room in json.loads(row.rooms)]
    if pairs:
        connection.execute(_OF_EVENT, pairs)
    connection.execute(delete(events).where(events.c.seq <= floor))
    connection.execute(update(journal_head).values(floor=floor))
    return len(old)


def retire_lines(transaction: Transaction) -> int:
    """Delete log lines whose event is gone; lines are numbered in the order of their events."""
    connection = transaction.connection
    floor = connection.execute(select(journal_head.c.floor)).scalar_one()
    rows = connection.execute(
        select(log_lines.c.number, log_lines.c.seq).order_by(log_lines.c.number).limit(CHUNK)
    ).all()
    old = [row.number for row in rows if row.seq <= floor]
    if old:
        connection.execute(delete(log_lines).where(log_lines.c.number <= old[-1]))
    return len(old)


def retire_deliveries(transaction: Transaction, before: str) -> int:
    connection = transaction.connection
    rows = connection.execute(
        select(deliveries.c.number, deliveries.c.received_at).order_by(deliveries.c.number).limit(CHUNK)
    ).all()
    old = [row.number for row in rows if row.received_at < before]
    if old:
        connection.execute(delete(deliveries).where(deliveries.c.number <= old[-1]))
    return len(old)


def retire_login_links(transaction: Transaction) -> int:
    """Delete login links that can no longer be used."""
    ended = select(login_links.c.code_hash).where(login_links.c.expires_at < transaction.now).limit(CHUNK)
    return transaction.connection.execute(delete(login_links).where(login_links.c.code_hash.in_(ended))).rowcount


def retire_answers(transaction: Transaction, before: str) -> int:
    return forget_answers(transaction.connection, before, CHUNK)
