"""The schema: made once, kept when it is there, and the same in the migrations as in tables.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gevent
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from flask import Flask
from sqlalchemy import inspect, text

from sidecar.store import database as database_module
from sidecar.store.database import Database, open_database
from sidecar.store.journal import found_journal, read_head
from sidecar.store.tables import metadata
from tests.store.stores import Place, Store, open_journal


def test_a_fresh_database_gets_every_table(empty_place: Place):
    database = open_journal(empty_place)
    names = set(database.read(lambda c: inspect(c).get_table_names()))
    assert names == set(metadata.tables) | {"alembic_version"}
    database.close()


def test_the_folders_of_a_sqlite_file_are_made(tmp_path: Path):
    open_journal(tmp_path / "new" / "folder").close()
    assert (tmp_path / "new" / "folder" / "journal.db").stat().st_mode & 0o777 == 0o600


def test_upgrading_again_keeps_the_journal_and_its_name(empty_place: Place):
    """Every start upgrades: it must neither rename the epoch (clients would be told truncated) nor touch a row."""
    store = Store(empty_place)
    store.append("room:a")
    head, events = store.database.read(read_head), store.journal()
    store.database.upgrade(found_journal)
    store.close()
    again = Store(empty_place)
    assert again.database.read(read_head) == head
    assert again.journal() == events
    assert again.append("room:a").seq == 2
    again.close()


def test_the_migrations_make_exactly_what_tables_describes(empty_place: Place):
    """A column added to tables.py without a migration would work in no installation."""
    database = open_journal(empty_place)
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
        found = {
            (table, index["name"], tuple(index["column_names"]), bool(index["unique"]))
            for table in metadata.tables
            for index in inspect(connection).get_indexes(table)
            if not index.get("duplicates_constraint")
        }
    described = {
        (table.name, index.name, tuple(column.name for column in index.columns), bool(index.unique))
        for table in metadata.tables.values()
        for index in table.indexes
    }
    assert found == described
    database.close()


def test_several_starts_at_once_make_one_schema_and_one_journal(empty_place: Place):
    databases = [open_database(Flask("test"), empty_place.url, empty_place.folder) for _ in range(3)]
    starts = [gevent.get_hub().threadpool.spawn(database.upgrade, found_journal) for database in databases]
    gevent.joinall(starts, raise_error=True)
    assert len({database.read(read_head).epoch for database in databases}) == 1
    for database in databases:
        database.close()


def test_the_database_commits_durably(tmp_path: Path):
    """An answer 200 must survive a power cut: WAL with synchronous=FULL (2), on the writer's kind of connection."""
    database = open_journal(tmp_path)
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    database.close()


def migrate(database: Database, move: Callable[[Config, str], None], to: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(database_module.__file__).parent / "migrations"))
    with database.connect_to_write() as connection, connection.begin():
        config.attributes["connection"] = connection
        move(config, to)


def test_messages_can_be_migrated_down_and_up_again(empty_place: Place):
    """What was for one user alone is in no room of the version before, which knows no target."""
    store = Store(empty_place)
    store.append("room:a")
    store.writer.submit(lambda t: t.append("fact", {}, ["room:a"], "ada"))
    store.writer.stop()
    migrate(store.database, command.downgrade, "0002")
    tables = set(store.database.read(lambda c: inspect(c).get_table_names()))
    assert not {"live_pushes", "devices"} & tables
    for table, column in (("events", "target"), ("event_rooms", "target"), ("nodes", "rooms")):
        columns = store.database.read(lambda c, t=table: [item["name"] for item in inspect(c).get_columns(t)])
        assert column not in columns
    assert store.database.read(lambda c: c.execute(text("SELECT seq FROM event_rooms")).scalars().all()) == [1]
    assert store.database.read(lambda c: c.execute(text("SELECT count(*) FROM events")).scalar_one()) == 2
    migrate(store.database, command.upgrade, "head")
    store.database.close()
    again = Store(empty_place)
    assert [event.seq for event in again.journal()] == [1, 2]
    assert again.append("room:a").seq == 3
    again.close()
