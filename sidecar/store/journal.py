"""The journal: what is appended inside a write transaction, and how it is read back in order.

`seq` comes from one counter row changed in the same transaction, so its order is the order of commits and it has
no holes. (See docs/design/journal.md.)
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, and_, bindparam, exists, func, insert, or_, select, union, union_all, update
from sqlalchemy.exc import NoResultFound

from sidecar.domain.events import Control, Event, Offset
from sidecar.store.statements import Statement
from sidecar.store.tables import event_rooms, events, journal_head
from sidecar.wire.spoken import EventType

_SELECT_HEAD = select(journal_head.c.seq, journal_head.c.floor, journal_head.c.epoch, journal_head.c.mark)
_HEAD = Statement(_SELECT_HEAD)
_LOCK_HEAD = Statement(_SELECT_HEAD.with_for_update())
_INSERT_EVENTS = Statement(insert(events))
_INSERT_EVENT_ROOMS = Statement(insert(event_rooms))
_MOVE_HEAD = Statement(update(journal_head), ["seq", "mark"])
QUERY_ROOMS = 400
"""SQLite joins 500 queries at most, and there is one a room."""
_EVENT = (events.c.seq, events.c.mark, events.c.type, events.c.payload, events.c.rooms, events.c.at, events.c.target)
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

    def append(
        self, type: EventType | Control, payload: Mapping[str, object], rooms: Iterable[str], target: str | None = None
    ) -> Event:
        """Add an event for these rooms; with a `target` for this user's subscribers in them alone. It is stored when
        the transaction commits, or not at all.
        Raises ValueError for what strict JSON in UTF-8 can't hold: here, where it fails one command, and not in
        `flush`, where it would fail the batch."""
        text = json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        names = tuple(dict.fromkeys(rooms))
        event = Event(self.seq + 1, secrets.randbits(32), str(type), text, names, self.now, target)
        for part in (type, text, *names, target or ""):
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
                    "target": event.target,
                }
                for event in self.events
            ),
        )
        _INSERT_EVENT_ROOMS.run_many(
            self.connection,
            ({"room": room, "seq": event.seq, "target": event.target} for event in self.events for room in event.rooms),
        )
        _MOVE_HEAD.run(self.connection, {"seq": self.seq, "mark": self.events[-1].mark})


def found_journal(connection: Connection) -> None:
    """Give a new database its journal and a name; leave an old one alone."""
    if _HEAD.first(connection) is None:
        connection.execute(insert(journal_head).values(id=1, seq=0, floor=0, epoch=secrets.token_hex(4)))


def same_secret(connection: Connection, fingerprint: str, adopt: bool) -> bool:
    """Is the database written by the master secret of this fingerprint? The first is noted down; with `adopt` any."""
    known = connection.execute(select(journal_head.c.secret)).scalar()
    if known is None or adopt:
        connection.execute(update(journal_head).values(secret=fingerprint))
        return True
    return bool(known == fingerprint)


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
    connection: Connection,
    rooms: Sequence[str],
    after: int,
    upto: int,
    limit: int,
    limit_bytes: int,
    user: str | None = None,
) -> Page:
    """The events with after < seq <= upto that are in any of the rooms, each once, in order, without those that are
    for others than this `user` alone: at most `limit`, and no more than `limit_bytes` of payload (counted in
    characters) unless the first alone is larger."""
    if len(rooms) > QUERY_ROOMS:
        parts = (rooms[start : start + QUERY_ROOMS] for start in range(0, len(rooms), QUERY_ROOMS))
        pages = [room_events(connection, part, after, upto, limit, limit_bytes, user) for part in parts]
        return _merged(pages, limit, limit_bytes)
    if not rooms:
        return Page([], upto)
    given: dict[str, object] = {f"room{number}": room for number, room in enumerate(rooms)}
    bounds = {"after": after, "upto": upto, "at_most": limit, "at_most_bytes": limit_bytes, "user": user}
    rows = _page_of(len(rooms)).all(connection, given | bounds)
    found = [_event(row[:-1]) for row in rows]
    due = rows[0][-1] if rows else 0
    return Page(found, found[-1].seq if len(found) < due or due == limit else upto)


def _merged(pages: list[Page], limit: int, limit_bytes: int) -> Page:
    """Pages of different rooms after the same place as one, as far as each of them is complete."""
    upto, size = min(page.upto for page in pages), 0
    found = {event.seq: event for page in pages for event in page.events if event.seq <= upto}
    events: list[Event] = []
    for _, event in sorted(found.items()):
        size += len(event.payload)
        if len(events) == limit or (events and size > limit_bytes):
            return Page(events, events[-1].seq)
        events.append(event)
    return Page(events, upto)


@lru_cache(maxsize=256)
def _page_of(rooms: int) -> Statement:
    """The page of so many rooms; each row ends with how many rows there would be without the bound in bytes. One
    bounded index query a room, merged (`room IN (...) ORDER BY seq` would sort every match first)."""
    seqs = []
    for number in range(rooms):
        place = event_rooms.alias()
        of_room = (
            select(place.c.seq)
            .where(
                place.c.room == bindparam(f"room{number}"),
                place.c.seq > bindparam("after"),
                place.c.seq <= bindparam("upto"),
                or_(place.c.target.is_(None), place.c.target == bindparam("user")),
            )
            .order_by(place.c.seq)
            .limit(bindparam("at_most"))
        )
        seqs.append(select(of_room.subquery().c.seq))
    merged = (union(*seqs) if rooms > 1 else seqs[0]).subquery()
    wanted = select(merged.c.seq).order_by(merged.c.seq).limit(bindparam("at_most")).subquery()
    size = func.length(events.c.payload)
    page = (
        select(
            *_EVENT,
            size.label("size"),
            func.sum(size).over(order_by=events.c.seq).label("total"),
            func.count().over().label("due"),
        )
        .join(wanted, wanted.c.seq == events.c.seq)
        .subquery()
    )
    columns = [page.c[column.name] for column in _EVENT]
    return Statement(
        select(*columns, page.c.due)
        .where(or_(page.c.total <= bindparam("at_most_bytes"), page.c.total == page.c.size))
        .order_by(page.c.seq)
    )


def count_room_events(
    connection: Connection, room: str, after: int, upto: int, held: Mapping[str, int], user: str | None = None
) -> int:
    """How many events of the room, for everybody or this `user`, have after < seq <= upto and did not already go out
    through one of the `held` rooms, each of which covers what lies after its number."""
    place = event_rooms.c
    query = select(func.count()).where(place.room == room, place.seq > after, place.seq <= upto)
    query = query.where(or_(place.target.is_(None), place.target == user))
    covering = [(name, since) for name, since in held.items() if since < upto and name != room]
    for start in range(0, len(covering), QUERY_ROOMS):
        other = event_rooms.alias()
        clauses = [
            select(other.c.seq).where(and_(other.c.room == name, other.c.seq > max(since, after), other.c.seq <= upto))
            for name, since in covering[start : start + QUERY_ROOMS]
        ]
        sent = union_all(*clauses).subquery()
        query = query.where(~exists().where(sent.c.seq == event_rooms.c.seq))
    return connection.execute(query).scalar_one()


def _event(row: Sequence[Any]) -> Event:
    """A row of `_EVENT`."""
    seq, mark, type, payload, rooms, at, target = row
    return Event(seq, mark, type, payload, tuple(json.loads(rooms)), at, target)


def _head(row: Sequence[Any] | None) -> Head:
    if row is None:
        raise NoResultFound("The journal has no head.")
    return Head(*row)
