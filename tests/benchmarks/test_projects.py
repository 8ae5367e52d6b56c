"""The big project of the benchmark, made small: it is filled beside the code that knows the tables."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from benchmarks.projects import DAYS, EVENTS, LINES, STEPS, statements
from sidecar.domain.projects import period
from sidecar.domain.times import utc_text
from sidecar.store.erasing import Erased, begin_erasing, erase_some
from sidecar.store.journal import read_head
from sidecar.store.projects import project_figures
from tests.store.conftest import migrated, place, postgres_place, store  # noqa: F401 (fixtures)

COUNT = 2 * DAYS


@pytest.mark.parametrize("age_days", [0, 40])
def test_the_filled_project_is_one_that_a_sidecar_counts_and_forgets(store, age_days):  # noqa: F811
    binary = "bytea" if store.place.is_postgres else "blob"

    def fill(transaction):
        for statement in statements(COUNT, age_days, binary):
            transaction.connection.execute(text(statement.replace(":", r"\:")))

    store.writer.submit(fill)
    now = utc_text(datetime.now(UTC).timestamp() - age_days * 86_400)
    found = store.database.read(lambda c: project_figures(c, "big", period(None, now[:10] + "T23:59:59.999Z", now), ""))
    assert sum(count for _, _, count in found.counts) == COUNT
    assert {day for day, _, _ in found.counts} == set(period(None, None, now).days)
    assert found.durations.count == COUNT
    assert [(step.name, step.count) for step in found.steps] == [(f"step-{n}", COUNT) for n in range(STEPS)]
    assert store.database.read(read_head).seq == COUNT * EVENTS
    store.writer.submit(lambda t: begin_erasing(t, "big"))
    total = Erased()
    while not total.finished:
        total += store.writer.submit(lambda t: erase_some(t, "big", lambda delivery: ""))
    events = COUNT * EVENTS
    assert total == Erased(COUNT, COUNT * STEPS, COUNT * LINES, events, events, finished=True)
