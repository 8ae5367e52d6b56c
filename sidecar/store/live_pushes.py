"""Rows of live_pushes: what is pushed to free rooms again and again, one a room."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sqlalchemy import Connection, delete, func, insert, select, update

from sidecar.store.tables import live_pushes


@dataclass(frozen=True, slots=True)
class LivePushRow:
    """`room` is the free room's name; `version` the seq of the event that started or changed it."""

    room: str
    interval_seconds: float
    source: str
    token_id: str | None
    sender: str
    sender_id: int
    started_at: str
    version: int


def save_live_push(connection: Connection, row: LivePushRow) -> None:
    """Start it, or change the one of that room."""
    values = asdict(row)
    changed = connection.execute(update(live_pushes).where(live_pushes.c.room == row.room).values(values))
    if not changed.rowcount:
        connection.execute(insert(live_pushes).values(values))


def find_live_push(connection: Connection, room: str) -> LivePushRow | None:
    row = connection.execute(select(live_pushes).where(live_pushes.c.room == room)).first()
    return None if row is None else LivePushRow(**row._mapping)


def list_live_pushes(connection: Connection) -> list[LivePushRow]:
    rows = connection.execute(select(live_pushes).order_by(live_pushes.c.room))
    return [LivePushRow(**row._mapping) for row in rows]


def count_live_pushes(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(live_pushes)).scalar_one()


def delete_live_push(connection: Connection, room: str) -> int:
    return connection.execute(delete(live_pushes).where(live_pushes.c.room == room)).rowcount
