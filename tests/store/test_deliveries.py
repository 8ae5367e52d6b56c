"""Deliveries counted by verdict, over holes in their numbers."""

from __future__ import annotations

import pytest
from sqlalchemy import delete

from sidecar.store.deliveries import NewDelivery, count_deliveries, insert_delivery
from sidecar.store.tables import deliveries

VERDICTS = ("stored", "quarantined")
DELIVERY = NewDelivery("/", "", "", None, None, {}, b"{}", "")


def at(minute: int) -> str:
    return f"2026-11-21T10:{minute:02}:00.000Z"


@pytest.fixture
def count(store):
    return lambda since: store.database.read(lambda c: count_deliveries(c, since, VERDICTS))


def test_none_are_counted_where_there_are_none(count):
    assert count(at(0)) == {"stored": 0, "quarantined": 0}


def test_those_since_a_time_are_counted_by_verdict(store, count):
    def fill(transaction):
        for minute in range(40):
            insert_delivery(transaction.connection, DELIVERY, at(minute), VERDICTS[minute % 2])
            insert_delivery(transaction.connection, DELIVERY, at(minute), "other")
        transaction.connection.execute(delete(deliveries).where(deliveries.c.number.between(21, 40)))

    store.writer.submit(fill)
    left = [minute for minute in range(40) if not 10 <= minute < 20]
    for since in range(41):
        newer = [minute for minute in left if minute >= since]
        assert count(at(since)) == {
            "stored": sum(minute % 2 == 0 for minute in newer),
            "quarantined": sum(minute % 2 == 1 for minute in newer),
        }, since
