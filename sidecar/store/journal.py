"""The journal: what is appended inside a write transaction, and how it is read back in order.

`seq` comes from one counter row changed in the same transaction, so its order is the order of commits and it has
no holes. (See docs/design/journal.md.)
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, exists, func, insert, select, union_all, update
from sqlalchemy.exc import NoResultFound

from sidecar.domain.events import Event, Offset
from sidecar.store.statements import Statement
from sidecar.store.tables import event_rooms, events, journal_head

_SELECT_HEAD = select(journal_head.c.seq, journal_head.c.floor, journal_head.c.epoch, journal_head.c.mark)
_HEAD = Statement(_SELECT_HEAD)
_LOCK_HEAD = Statement(_SELECT_HEAD.with_for_update())
_INSERT_EVENTS = Statement(insert(events))
_INSERT_EVENT_ROOMS = Statement(insert(event_rooms))
_MOVE_HEAD = Statement(update(journal_head), ["seq", "mark"])
_EVENT = (events.c.seq, events.c.mark, events.c.type, events.c.payload, events.c.rooms, events.c.at)
_EVENTS_AFTER = (
    select(*_EVENT).where(events.c.seq > bindparam("after")).order_by(events.c.seq).limit(bindparam("at_most"))
)


@dataclass(frozen=True, slots=True)
class Head:
    """The journal's ends: last seq given out and its mark (None before the first event), `floor` (events up to it are
    no longer kept), and its name."""

    seq: int
    floor: int
    epoch: str
    mark: int | None

    @property
    def offset(self) -> Offset:
        return Offset(self.seq, self.mark)


class Transaction:
    """What a command of the writer works on: the connection, the time, and `append`. `batch` is the random name that
    its events are stored under, by which they are found again when the answer to COMMIT is lost."""

    def __init__(self, connection: Connection, now: str):
        self.connection = connection
        self.now = now
        self.head = lock_head(connection)
        self.batch = secrets.token_hex(8)
        self.events: list[Event] = []

    @property
    def seq(self) -> int:
        """The last seq given out, those of this transaction included."""
        return self.head.seq + len(self.events)

    def append(self, type: str, payload: Mapping[str, object], rooms: Iterable[str]) -> Event:
        """Add an event for these rooms. It is stored when the transaction commits, or not at all.
        Raises ValueError for what strict JSON in UTF-8 can't hold: here, where it fails one command, and not in
        `flush`, where it would fail the batch."""
        text = json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        event = Event(self.seq + 1, secrets.randbits(32), type, text, tuple(dict.fromkeys(rooms)), self.now)
        for part in (type, text, *event.rooms):
            part.encode()
        self.events.append(event)
        return event

    def forget(self, count: int) -> None:
        """Drop the events after the first `count`: the command that appended them was rolled back."""
        del self.events[count:]

    def flush(self) -> None:
        """Write the events and move the counter; the last thing before the commit."""
        if not self.events:
            return
        _INSERT_EVENTS.run_many(
            self.connection,
            (
                {
                    "seq": event.seq,
                    "mark": event.mark,
                    "batch": self.batch,
                    "type": event.type,
                    "payload": event.payload,
                    "rooms": json.dumps(event.rooms, ensure_ascii=False),
                    "at": event.at,
                }
                for event in self.events
            ),
        )
        _INSERT_EVENT_ROOMS.run_many(
            self.connection, ({"room": room, "seq": event.seq} for event in self.events for room in event.rooms)
        )
        _MOVE_HEAD.run(self.connection, {"seq": self.seq, "mark": self.events[-1].mark})


def found_journal(connection: Connection) -> None:
    """Give a new database its journal and a name; leave an old one alone."""
    if _HEAD.first(connection) is None:
        connection.execute(insert(journal_head).values(id=1, seq=0, floor=0, epoch=secrets.token_hex(4)))


def read_head(connection: Connection) -> Head:
    return _head(_HEAD.first(connection))


def lock_head(connection: Connection) -> Head:
    """The head, which nobody else can move before this transaction ends. The first thing that a transaction does
    which writes: from here on it sees whatever was committed before. (SQLite's BEGIN IMMEDIATE has done it.)"""
    return _head(_LOCK_HEAD.first(connection))


def holds_batch(connection: Connection, batch: str, first_seq: int) -> bool:
    """Was this batch stored, which began at `first_seq`?"""
    found = connection.execute(select(events.c.batch).where(events.c.seq == first_seq)).scalar()
    return bool(found == batch)


def mark_of(connection: Connection, seq: int) -> int | None:
    """The mark of the event at `seq`, None if there is none."""
    return connection.execute(select(events.c.mark).where(events.c.seq == seq)).scalar()


def events_after(connection: Connection, seq: int, limit: int) -> list[Event]:
    """The next events of the whole journal, at most `limit`."""
    rows = connection.execute(_EVENTS_AFTER, {"after": seq, "at_most": limit})
    return [_event(row) for row in rows]


@dataclass(frozen=True, slots=True)
class Page:
    """Events in order, complete up to `upto`."""

    events: list[Event]
    upto: int


def room_events(
    connection: Connection, rooms: Sequence[str], after: int, upto: int, limit: int, limit_bytes: int
) -> Page:
    """The events with after < seq <= upto that are in any of the rooms, each once, in order: at most `limit`, and
    no more than `limit_bytes` of payload unless the first alone is larger. One bounded index query a room, merged
    (`room IN (...) ORDER BY seq` would sort every match first)."""
    seqs: set[int] = set()
    for room in rooms:
        seqs.update(
            connection.execute(
                select(event_rooms.c.seq)
                .where(event_rooms.c.room == room, event_rooms.c.seq > after, event_rooms.c.seq <= upto)
                .order_by(event_rooms.c.seq)
                .limit(limit)
            ).scalars()
        )
    wanted = sorted(seqs)[:limit]
    cut = len(wanted) == limit
    sizes = connection.execute(
        select(events.c.seq, func.length(events.c.payload)).where(events.c.seq.in_(wanted)).order_by(events.c.seq)
    )
    taken: list[int] = []
    total = 0
    for seq, size in sizes:
        total += size
        if taken and total > limit_bytes:
            cut = True
            break
        taken.append(seq)
    rows = connection.execute(select(*_EVENT).where(events.c.seq.in_(taken)).order_by(events.c.seq))
    found = [_event(row) for row in rows]
    return Page(found, found[-1].seq if cut and found else upto)


def count_room_events(connection: Connection, room: str, after: int, upto: int, held: Mapping[str, int]) -> int:
    """How many events of the room have after < seq <= upto and did not already go out through one of the `held`
    rooms, each of which covers what lies after its number."""
    query = select(func.count()).where(event_rooms.c.room == room, event_rooms.c.seq > after, event_rooms.c.seq <= upto)
    covering = [(name, since) for name, since in held.items() if since < upto and name != room]
    if covering:
        other = event_rooms.alias()
        clauses = [
            select(other.c.seq).where(and_(other.c.room == name, other.c.seq > max(since, after), other.c.seq <= upto))
            for name, since in covering
        ]
        sent = union_all(*clauses).subquery()
        query = query.where(~exists().where(sent.c.seq == event_rooms.c.seq))
    return connection.execute(query).scalar_one()


def _event(row: Row[Any, Any, Any, Any, Any, Any]) -> Event:
    return Event(row.seq, row.mark, row.type, row.payload, tuple(json.loads(row.rooms)), row.at)


def _head(row: tuple[Any, ...] | None) -> Head:
    if row is None:
        raise NoResultFound("The journal has no head.")
    return Head(*row)
