"""A journal of its own for a test: the real database and writer in this process, without a server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gevent
from flask import Flask
from sqlalchemy import Engine, delete, event, select, update

from sidecar.domain.events import Event
from sidecar.store.database import Database, open_database
from sidecar.store.journal import events_after, found_journal, read_head
from sidecar.store.tables import event_rooms, events, journal_head
from sidecar.store.writer import Command, Writer

APPENDER = """
import sys
from pathlib import Path
from tests.store.stores import Place, open_journal
from sidecar.store.writer import Writer
database = open_journal(Place(sys.argv[1], Path(sys.argv[2])))
writer = Writer(database, lambda events: None)
seqs = [writer.run_alone(lambda t: t.append("fact", {"by": sys.argv[3]}, ["room:a"])).seq for _ in range(60)]
print(*seqs)
"""
"""Another process: `python -c APPENDER <url> <folder> <name>` appends sixty events, one commit each, prints their
seqs."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a journal is: the URL of its database, and an instance folder."""

    url: str
    folder: Path

    @property
    def is_postgres(self) -> bool:
        return self.url.startswith("postgresql")


def sqlite_in(folder: Path) -> Place:
    return Place(f"sqlite:///{folder / 'journal.db'}", folder)


def migrated_sqlite_in(folder: Path) -> Place:
    """One that was upgraded: copies are made faster than migrations run. One that is there already stays."""
    place = sqlite_in(folder)
    file = folder / "journal.db"
    if not file.exists():
        file.write_bytes(_migrated())
    return place


@cache
def _migrated() -> bytes:
    with TemporaryDirectory() as folder:
        open_journal(sqlite_in(Path(folder))).close()
        return (Path(folder) / "journal.db").read_bytes()


class Store:
    """A migrated database in `place` (a folder: SQLite in it) and a writer, started; `committed` are the events that
    it handed over."""

    def __init__(
        self, place: Path | Place, started: bool = True, on_commit: Callable[[list[Event]], None] | None = None
    ):
        self.place = place if isinstance(place, Place) else migrated_sqlite_in(place)
        self.folder = self.place.folder
        self.database = open_journal(self.place)
        self.committed: list[Event] = []
        self.writer = Writer(self.database, on_commit or self.committed.extend)
        if started:
            self.writer.start()

    def append(self, *rooms: str, type: str = "fact", **payload: object) -> Event:
        """Commit one event for these rooms."""
        return self.writer.submit(lambda transaction: transaction.append(type, payload, rooms))

    def submit_all(self, commands: Iterable[Command[Any]]) -> list[Any]:
        """Submit each from a greenlet of its own, all at once; each one's result, or what it raised."""
        greenlets = [gevent.spawn(_outcome, self.writer.submit, command) for command in commands]
        gevent.joinall(greenlets, raise_error=True)
        return [greenlet.value for greenlet in greenlets]

    def journal(self) -> list[Event]:
        """Every event stored."""
        return self.database.read(lambda connection: events_after(connection, 0, 1_000_000))

    def seqs(self) -> list[int]:
        return [event.seq for event in self.journal()]

    def head(self) -> int:
        return self.database.read(read_head).seq

    def lose(self, after: int) -> None:
        """The journal forgets what it was given last, as a standby does that had not heard of it."""
        with self.database.connect_to_write() as connection, connection.begin():
            connection.execute(delete(event_rooms).where(event_rooms.c.seq > after))
            connection.execute(delete(events).where(events.c.seq > after))
            mark = connection.execute(select(events.c.mark).where(events.c.seq == after)).scalar()
            connection.execute(update(journal_head).values(seq=after, mark=mark))

    def room_rows(self) -> set[tuple[str, int]]:
        rows = self.database.read(lambda c: c.execute(select(event_rooms.c.room, event_rooms.c.seq)).all())
        return {(row.room, row.seq) for row in rows}

    def close(self) -> None:
        self.writer.stop()
        self.database.close()


def open_journal(place: Path | Place) -> Database:
    """The database of `place` (a folder: SQLite in it), as a process opens it at its start."""
    if isinstance(place, Path):
        place = sqlite_in(place)
    database = open_database(Flask("test"), place.url, place.folder)
    database.upgrade(found_journal)
    return database


def _outcome(submit: Callable[..., Any], command: Command[Any]) -> Any:
    try:
        return submit(command)
    except Exception as error:
        return error


@contextmanager
def counted(engine: Engine, what: str) -> Iterator[list[int]]:
    """How often the engine did it (`commit`, `rollback`), in a list of one number."""
    count = [0]

    def add(*_: object) -> None:
        count[0] += 1

    event.listen(engine, what, add)
    try:
        yield count
    finally:
        event.remove(engine, what, add)
