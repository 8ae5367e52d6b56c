"""Forgetting a project, a small chunk a command, so that nobody waits for it. What has begun is told by the project's
row, which goes last, so whoever finds it can go on. The rows of its events stay, without what they said: `seq` has no
hole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, delete, select, tuple_, update

from sidecar.domain import rooms
from sidecar.domain.events import CONTROL
from sidecar.store.journal import Transaction
from sidecar.store.tables import (
    deliveries,
    deployments,
    event_rooms,
    events,
    idempotency,
    log_lines,
    projects,
    steps,
)

CHUNK = 500
DEPLOYMENTS = 100
ERASED = f"{CONTROL}erased"
"""Type of an event that is forgotten: no browser gets it, and no process does anything about it."""
FORGOTTEN = "erased"
"""Verdict of a delivery that is forgotten."""

_NOTHING_SAID = {"type": ERASED, "payload": "{}", "rooms": "[]", "target": None}
_OF_EVENT = delete(event_rooms).where(
    event_rooms.c.room == bindparam("of_room"), event_rooms.c.seq == bindparam("at_seq")
)


@dataclass(frozen=True, slots=True)
class Erased:
    """How many rows of each kind were forgotten, and whether that was all."""

    deployments: int = 0
    steps: int = 0
    lines: int = 0
    events: int = 0
    deliveries: int = 0
    finished: bool = False

    def __add__(self, other: Erased) -> Erased:
        return Erased(
            self.deployments + other.deployments,
            self.steps + other.steps,
            self.lines + other.lines,
            self.events + other.events,
            self.deliveries + other.deliveries,
            other.finished,
        )

    def __bool__(self) -> bool:
        return any((self.deployments, self.steps, self.lines, self.events, self.deliveries, self.finished))


@dataclass(frozen=True, slots=True)
class KeyedDelivery:
    """What an idempotency key counted for."""

    token_id: str | None
    address: str
    path: str
    key: str
    project: str


def known_project(connection: Connection, name: str) -> bool:
    """Is there such a project, and is it not being deleted?"""
    query = select(projects.c.name).where(projects.c.name == name, projects.c.erase_upto.is_(None))
    return connection.execute(query).first() is not None


def being_erased(connection: Connection, name: str) -> bool:
    query = select(projects.c.name).where(projects.c.name == name, projects.c.erase_upto.is_not(None))
    return connection.execute(query).first() is not None


def begin_erasing(transaction: Transaction, name: str) -> bool:
    """From now on there is no such project for anybody; False if it is so already."""
    begun = transaction.connection.execute(
        update(projects)
        .where(projects.c.name == name, projects.c.erase_upto.is_(None))
        .values(erase_upto=transaction.seq, last_at=transaction.now)
    )
    return begun.rowcount > 0


def abandoned(connection: Connection, before: str) -> list[str]:
    """Projects whose deletion has begun and not gone on since then."""
    query = select(projects.c.name).where(projects.c.erase_upto.is_not(None), projects.c.last_at < before)
    return list(connection.execute(query).scalars())


def erase_some(transaction: Transaction, name: str, scope_of: Callable[[KeyedDelivery], str]) -> Erased:
    """Forget a chunk of a project whose deletion has begun. `scope_of` finds under which name an idempotency key is
    stored."""
    connection = transaction.connection
    this = projects.c.name == name
    going = update(projects).where(this, projects.c.erase_upto.is_not(None)).values(last_at=transaction.now)
    upto = connection.execute(going.returning(projects.c.erase_upto)).scalar()
    if upto is None:
        return Erased(finished=True)
    done = (
        _erase_deployments(connection, name)
        or _erase_events(connection, name, upto)
        or _erase_deliveries(connection, name, scope_of)
    )
    if not done:
        connection.execute(delete(projects).where(this))
        return Erased(finished=True)
    return done


def _erase_deployments(connection: Connection, name: str) -> Erased:
    """Its oldest deployments with all that belongs to them, or as much of that as fits."""
    ids = _column(
        connection,
        select(deployments.c.deployment_id)
        .where(deployments.c.project == name)
        .order_by(deployments.c.number)
        .limit(DEPLOYMENTS),
    )
    numbers = _column(connection, select(log_lines.c.number).where(log_lines.c.deployment_id.in_(ids)).limit(CHUNK))
    connection.execute(delete(log_lines).where(log_lines.c.number.in_(numbers)))
    left = CHUNK - len(numbers)
    places = (steps.c.deployment_id, steps.c.attempt, steps.c.key)
    keys = connection.execute(select(*places).where(steps.c.deployment_id.in_(ids)).limit(left)).all()
    connection.execute(delete(steps).where(tuple_(*places).in_([tuple(key) for key in keys])))
    if len(keys) == left:
        return Erased(lines=len(numbers), steps=len(keys))
    connection.execute(delete(deployments).where(deployments.c.deployment_id.in_(ids)))
    return Erased(deployments=len(set(ids)), lines=len(numbers), steps=len(keys))


def _erase_events(connection: Connection, name: str, upto: int) -> Erased:
    """The oldest events of its room up to `upto`, then the one that told of the project's first sight."""
    room = event_rooms.c
    seqs = _column(
        connection,
        select(room.seq).where(room.room == rooms.project(name), room.seq <= upto).order_by(room.seq).limit(CHUNK),
    ) or _column(
        connection,
        select(room.seq)
        .join(events, events.c.seq == room.seq)
        .where(
            room.room == rooms.PROJECTS,
            room.seq <= upto,
            events.c.payload == json.dumps({"project": name}, ensure_ascii=False, separators=(",", ":")),
        )
        .limit(CHUNK),
    )
    if not seqs:
        return Erased()
    told = connection.execute(select(events.c.seq, events.c.rooms).where(events.c.seq.in_(seqs)))
    connection.execute(
        _OF_EVENT, [{"of_room": name, "at_seq": row.seq} for row in told for name in json.loads(row.rooms)]
    )
    connection.execute(update(events).where(events.c.seq.in_(seqs)).values(_NOTHING_SAID))
    return Erased(events=len(seqs))


def _erase_deliveries(connection: Connection, name: str, scope_of: Callable[[KeyedDelivery], str]) -> Erased:
    """Its oldest deliveries, and the answers that their idempotency keys would get."""
    row = deliveries.c
    found = connection.execute(
        select(row.number, row.token_id, row.address, row.path, row.delivery_id)
        .where(row.project == name)
        .order_by(row.number)
        .limit(CHUNK)
    ).all()
    scopes = [
        scope_of(KeyedDelivery(item.token_id, item.address, item.path, item.delivery_id, name))
        for item in found
        if item.delivery_id is not None
    ]
    connection.execute(delete(idempotency).where(idempotency.c.scope.in_(scopes)))
    erase_deliveries(connection, [item.number for item in found])
    return Erased(deliveries=len(found))


def erase_deliveries(connection: Connection, numbers: Sequence[int]) -> None:
    """That they came stays; from whom, with which words and about what does not."""
    connection.execute(
        update(deliveries)
        .where(deliveries.c.number.in_(numbers))
        .values(
            verdict=FORGOTTEN,
            body=b"",
            body_sha256="",
            headers="{}",
            source="",
            address="",
            delivery_id=None,
            project=None,
            deployment_id=None,
            reason=None,
        )
    )


def quarantined_after(connection: Connection, number: int, limit: int) -> list[tuple[int, bytes]]:
    """The next bodies in quarantine, with their numbers."""
    row = deliveries.c
    query = (
        select(row.number, row.body)
        .where(row.verdict.in_(("quarantined", "replayed")), row.project.is_(None), row.number > number)
        .order_by(row.number)
        .limit(limit)
    )
    return [(item.number, item.body) for item in connection.execute(query)]


def _column(connection: Connection, query: object) -> list[object]:
    """The values of a query's one column."""
    return list(connection.execute(query).scalars())  # type: ignore[call-overload]
