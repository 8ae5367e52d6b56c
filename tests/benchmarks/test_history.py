"""The long journal of the benchmark, made short: it is filled beside the code that knows the tables."""

from __future__ import annotations

from flask import Flask

from benchmarks.history import PROJECTS, clean, filled
from sidecar.store.database import open_database
from sidecar.store.journal import read_head, room_events

ROWS = 3 * PROJECTS


def test_the_filled_journal_is_one_that_a_sidecar_reads():
    path = filled(ROWS)
    try:
        database = open_database(Flask("bench"), f"sqlite:///{path}", path.parent)
        head = database.read(read_head)
        assert (head.seq, head.mark) == (ROWS, 1)
        for room in ("project:7", "deployment:7"):
            page = database.read(lambda c, room=room: room_events(c, [room], 0, ROWS, 10, 100_000))
            assert [event.seq for event in page.events] == [8, 1_008, 2_008]
            assert all(room in event.rooms for event in page.events)
        database.close()
    finally:
        clean()
