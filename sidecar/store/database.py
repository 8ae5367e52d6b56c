"""Opens the database, migrates it, and runs reads off the event loop. It knows no table.

SQLite blocks the whole process while it works, so each read runs in a thread of a small gevent pool; connections
are taken and given back in the loop's own thread, because the pool's locks are gevent's.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from gevent.lock import Semaphore
from gevent.threadpool import ThreadPool
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError, SQLAlchemyError

from sidecar.domain.errors import Unavailable
from sidecar.store.tables import metadata

T = TypeVar("T")

WRITE = "sidecar_write"
"""Execution option of connections whose transactions take SQLite's write lock at once."""

BUSY_TIMEOUT_MILLISECONDS = 5_000
READ_THREADS = 4


class Database:
    """One open database. Made by `open_database`; `close` it."""

    def __init__(self, engine: Engine, lock_path: Path):
        self.engine = engine
        self._lock_path = lock_path
        self._threads = ThreadPool(READ_THREADS)
        self._turns = Semaphore(READ_THREADS)

    def read(self, query: Callable[[Connection], T]) -> T:
        """What `query` returns, run in a thread inside one read transaction, so that all it reads is true at one
        seq. Raises Unavailable when the database can't be read. Readers wait for a thread before they take a
        connection, so that a crowd of them queues instead of running the pool dry."""
        try:
            with self._turns, self.engine.connect() as connection:
                return run_in(self._threads, lambda: _transaction(connection, query))
        except SQLAlchemyError as error:
            raise Unavailable("The database can't be read now.", retry_after_seconds=2) from error

    @contextmanager
    def write_lock(self) -> Iterator[None]:
        """Held around each write transaction, so that processes of one host queue fairly instead of polling
        SQLite's own lock."""
        descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def upgrade(self, found: Callable[[Connection], None]) -> None:
        """Make the schema, or bring it to the newest version, then let `found` fill what a new database needs.
        Safe to run from several processes at once. Raises Unavailable for a database that can't be used."""
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        try:
            with self.write_lock(), self.engine.connect().execution_options(**{WRITE: True}) as connection:
                config.attributes["connection"] = connection
                with connection.begin():
                    command.upgrade(config, "head")
                    found(connection)
        except (SQLAlchemyError, CommandError) as error:
            raise _unusable(error) from error

    def close(self) -> None:
        self._threads.kill()
        self.engine.dispose()


def open_database(app: Flask, url: str, instance_path: Path) -> Database:
    """The database behind `url`, opened through Flask-SQLAlchemy. A SQLite file that is missing is made, readable
    by its owner alone, with its folder. Raises Unavailable; OSError for a folder that can't be made."""
    parsed = make_url(url)
    instance_path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        Path(parsed.database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(parsed.database, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    app.config["SQLALCHEMY_DATABASE_URI"] = url
    options: dict[str, Any] = {"pool_size": 10, "max_overflow": 10, "pool_timeout": 5}
    if parsed.get_backend_name() == "sqlite":
        options["connect_args"] = {"check_same_thread": False, "timeout": BUSY_TIMEOUT_MILLISECONDS / 1000}
    try:
        extension = SQLAlchemy(app, metadata=metadata, engine_options=options)
        with app.app_context():
            engine = extension.engine
    except (ImportError, SQLAlchemyError) as error:
        raise _unusable(error) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    instance_path.mkdir(parents=True, exist_ok=True)
    return Database(engine, instance_path / "write.lock")


def run_in(threads: ThreadPool, call: Callable[[], T]) -> T:
    """What `call` returns or raises, run in a native thread. (An exception that escaped in the thread itself
    would be printed by gevent as well.)"""

    def guarded() -> tuple[T | None, BaseException | None]:
        try:
            return call(), None
        except BaseException as error:
            return None, error

    result, error = threads.apply(guarded)
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


def _transaction(connection: Connection, query: Callable[[Connection], T]) -> T:
    with connection.begin():
        return query(connection)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    """WAL lets readers and the writer be; FULL makes a commit survive a power cut. `isolation_level` None hands
    BEGIN to us (SQLAlchemy, pysqlite dialect: "serializable isolation, savepoints")."""
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        f"busy_timeout={BUSY_TIMEOUT_MILLISECONDS}",
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    immediate = connection.get_execution_options().get(WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _unusable(error: Exception) -> Unavailable:
    """Without the statement that failed and its values."""
    reason = error.orig if isinstance(error, DBAPIError) else error
    return Unavailable(f"The database can't be used: {' '.join(str(reason).split())}", retry_after_seconds=2)


def lost(error: BaseException) -> bool:
    """Is this the database failing (full disk, lock, lost connection) rather than a statement of ours?"""
    return isinstance(error, DBAPIError) and not isinstance(error, (IntegrityError, DataError, ProgrammingError))
