"""What is SQLite's alone: queries in native threads, which can't be interrupted."""

from __future__ import annotations

import threading
from pathlib import Path

import gevent
from sqlalchemy import Connection, text

from tests.store.stores import Store


def test_who_is_killed_while_it_reads_ends_after_its_query(tmp_path: Path):
    """Its connection was closed under the thread that used it, which crashed the process."""
    store = Store(tmp_path)
    began, gate = threading.Event(), threading.Event()

    def query(connection: Connection) -> int:
        began.set()
        gate.wait(15)
        return connection.execute(text("SELECT 1")).scalar_one()

    reader = gevent.spawn(store.database.read, query)
    while not began.is_set():
        gevent.sleep(0.005)
    for _ in range(3):
        reader.kill(block=False)
        gevent.sleep(0.01)
    assert not reader.dead
    gate.set()
    reader.join(15)
    assert isinstance(reader.value, gevent.GreenletExit)
    assert store.database.read(lambda connection: connection.execute(text("SELECT 2")).scalar_one()) == 2
    store.close()
