"""Rows of deliveries: what was posted, as it came."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, update

from sidecar.store.statements import Statement
from sidecar.store.tables import deliveries

PRUNE_ROWS = 500

_INSERT_DELIVERY = Statement(
    insert(deliveries).returning(deliveries.c.number),
    [column.name for column in deliveries.c if column.name != "number"],
)

_LISTED: list[ColumnElement[Any]] = [
    *(column for column in deliveries.c if column.name != "body"),
    func.length(deliveries.c.body).label("body_bytes"),
]


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """A posted body with what is known of its sender; `headers` hold no secret."""

    path: str
    source: str
    address: str
    token_id: str | None
    delivery_id: str | None
    headers: dict[str, str]
    body: bytes
    body_sha256: str


def insert_delivery(
    connection: Connection,
    delivery: NewDelivery,
    now: str,
    verdict: str,
    reason: object = None,
    repaired: bool = False,
    project: str | None = None,
    deployment_id: str | None = None,
    seq: int | None = None,
    replay_of: int | None = None,
) -> int:
    """The number of the stored delivery."""
    values = {
        "received_at": now,
        "path": delivery.path,
        "source": delivery.source,
        "address": delivery.address,
        "token_id": delivery.token_id,
        "delivery_id": delivery.delivery_id,
        "headers": json.dumps(delivery.headers, ensure_ascii=False),
        "body": delivery.body,
        "body_sha256": delivery.body_sha256,
        "verdict": verdict,
        "reason": None if reason is None else json.dumps(reason, ensure_ascii=False),
        "repaired": repaired,
        "project": project,
        "deployment_id": deployment_id,
        "seq": seq,
        "replay_of": replay_of,
    }
    row = _INSERT_DELIVERY.first(connection, values)
    assert row is not None
    number: int = row[0]
    return number


def mark_replayed(connection: Connection, number: int) -> None:
    connection.execute(update(deliveries).where(deliveries.c.number == number).values(verdict="replayed"))


def find_delivery(connection: Connection, number: int) -> dict[str, Any] | None:
    row = (
        connection.execute(select(*_LISTED, deliveries.c.body).where(deliveries.c.number == number)).mappings().first()
    )
    return None if row is None else _shown(dict(row))


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """Empty and None are any; `since` and `until` compare with the time of arrival."""

    verdicts: tuple[str, ...] = ()
    projects: tuple[str, ...] | None = None
    since: str | None = None
    until: str | None = None

    def clauses(self) -> list[ColumnElement[bool]]:
        columns = deliveries.c
        conditions: list[ColumnElement[bool]] = []
        if self.verdicts:
            conditions.append(columns.verdict.in_(self.verdicts))
        if self.projects is not None:
            conditions.append(columns.project.in_(self.projects))
        if self.since is not None:
            conditions.append(columns.received_at >= self.since)
        if self.until is not None:
            conditions.append(columns.received_at < self.until)
        return conditions


def list_deliveries(
    connection: Connection, wanted: DeliveryFilter, before: int | None, limit: int
) -> list[dict[str, Any]]:
    """Newest first, without their bodies, of which `body_bytes` tells the length."""
    query = select(*_LISTED).where(*wanted.clauses()).order_by(deliveries.c.number.desc()).limit(limit)
    if before is not None:
        query = query.where(deliveries.c.number < before)
    return [_shown(dict(row)) for row in connection.execute(query).mappings()]


def count_deliveries(connection: Connection, since: str, verdicts: Sequence[str]) -> dict[str, int]:
    """How many came at this time or later, by each of these verdicts. Their own number and the index of verdicts alone
    are read, never a body."""
    columns = deliveries.c
    first = _first_since(connection, since)
    counted = select(func.count()).select_from(deliveries).where(columns.number >= first)
    return {verdict: connection.execute(counted.where(columns.verdict == verdict)).scalar_one() for verdict in verdicts}


def _first_since(connection: Connection, since: str) -> int:
    """A number that those before this time lie below. Numbers grow as time does, so halving finds it."""
    columns = deliveries.c
    least, most = connection.execute(select(func.min(columns.number), func.max(columns.number))).one()
    if least is None:
        return 0
    end = int(most) + 1
    first = int(least)
    while first < end:
        middle = (first + end) // 2
        row = connection.execute(
            select(columns.number, columns.received_at)
            .where(columns.number >= middle)
            .order_by(columns.number)
            .limit(1)
        ).one()
        if row.received_at < since:
            first = row.number + 1
        else:
            end = middle
    return first


def body_bytes(connection: Connection) -> int:
    """Bytes of all the bodies kept."""
    total: int = connection.execute(select(func.coalesce(func.sum(func.length(deliveries.c.body)), 0))).scalar_one()
    return total


def prune_deliveries(connection: Connection, excess_bytes: int) -> int:
    """Forget the oldest deliveries until so many bytes are free, at most PRUNE_ROWS at once and never the newest; the
    bytes set free."""
    oldest = connection.execute(
        select(deliveries.c.number, func.length(deliveries.c.body))
        .where(deliveries.c.number < select(func.max(deliveries.c.number)).scalar_subquery())
        .order_by(deliveries.c.number)
        .limit(PRUNE_ROWS)
    )
    freed, last = 0, None
    for number, size in oldest:
        if freed >= excess_bytes:
            break
        freed, last = freed + size, number
    if last is not None:
        connection.execute(delete(deliveries).where(deliveries.c.number <= last))
    return freed


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    row["headers"] = json.loads(row["headers"])
    row["reason"] = None if row["reason"] is None else json.loads(row["reason"])
    return row
