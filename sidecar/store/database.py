"""Opens the database, migrates it, and reads from it. It knows no table, and of the two databases only what they
have in common: where they differ is in `store.sqlite` and `store.postgres`.

Connections are taken and given back in the event loop's own thread, because the pool's locks are gevent's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from gevent.lock import Semaphore
from sqlalchemy import Connection, Engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    PendingRollbackError,
    ProgrammingError,
    SQLAlchemyError,
    TimeoutError,
)

from sidecar.domain.errors import Unavailable
from sidecar.store.postgres import Postgres
from sidecar.store.sqlite import Sqlite
from sidecar.store.tables import metadata

T = TypeVar("T")

DEADLINE_SECONDS = 10
POOL = {"pool_size": 10, "max_overflow": 10, "pool_timeout": 5}


class Lane(Protocol):
    """Where work on a connection is done, so that the event loop goes on meanwhile."""

    def run(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises."""

    def close(self) -> None: ...


class Backend(Protocol):
    """What one kind of database does in its own way. `readers` is how many may read at once; the options are those
    of SQLAlchemy's engine, of connections that read and of those that write."""

    @property
    def engine_options(self) -> Mapping[str, Any]: ...
    @property
    def read_options(self) -> Mapping[str, Any]: ...
    @property
    def write_options(self) -> Mapping[str, Any]: ...
    @property
    def readers(self) -> int: ...

    def prepare(self, engine: Engine) -> None:
        """Have each new connection set up as it must be."""

    def lane(self, workers: int) -> Lane: ...

    def deadline(self, seconds: float) -> AbstractContextManager[None]:
        """Around one read or one batch, waiting included: raises SQLAlchemy's TimeoutError when the database doesn't
        answer. (One that is frozen answers nothing, its own time-outs neither.)"""

    def write_lock(self) -> AbstractContextManager[None]:
        """Held around each write transaction."""

    def lock_schema(self, connection: Connection) -> None:
        """Keep others that would migrate out until the transaction ends."""

    def unblocked(self, engine: Engine, error: DBAPIError) -> bool:
        """Was this the write lock that could not be had, and was its holder one that stands still? It was ended then,
        and another try is worth it."""

    def announce(self, connection: Connection, seq: int) -> None:
        """Tell the other processes, if and when this transaction commits, that the journal has come to this seq."""


class Database:
    """One open database. Made by `open_database`; `close` it."""

    def __init__(self, engine: Engine, backend: Backend):
        self.engine = engine
        self.backend = backend
        self._lane = backend.lane(backend.readers)
        self._turns = Semaphore(backend.readers)

    def read(self, query: Callable[[Connection], T]) -> T:
        """What `query` returns, run inside one read transaction, so that all it reads is true at one seq. Raises
        Unavailable when the database can't be read. Readers wait for their turn before they take a connection, so
        that a crowd of them queues instead of running the pool dry."""
        try:
            with (
                self.backend.deadline(DEADLINE_SECONDS),
                _ended_as_told(),
                self._turns,
                self.engine.connect() as connection,
            ):
                connection.execution_options(**self.backend.read_options)
                with _dropped_if_lost(connection):
                    return self._lane.run(lambda: _transaction(connection, query))
        except SQLAlchemyError as error:
            raise Unavailable("The database can't be read now.", retry_after_seconds=2) from error

    def connect_to_write(self) -> Connection:
        """A connection whose transactions may write. The caller closes it."""
        return self.engine.connect().execution_options(**self.backend.write_options)

    def upgrade(self, found: Callable[[Connection], None]) -> None:
        """Make the schema, or bring it to the newest version, then let `found` fill what a new database needs.
        Safe to run from several processes at once. Raises Unavailable for a database that can't be used."""
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        try:
            with self.backend.write_lock(), self.connect_to_write() as connection:
                config.attributes["connection"] = connection
                with connection.begin():
                    self.backend.lock_schema(connection)
                    command.upgrade(config, "head")
                    found(connection)
        except (SQLAlchemyError, CommandError) as error:
            raise _unusable(error) from error

    def close(self) -> None:
        self._lane.close()
        self.engine.dispose()


def open_database(app: Flask, url: str, instance_path: Path) -> Database:
    """The database behind `url`, opened through Flask-SQLAlchemy. Raises Unavailable; OSError for a folder that
    can't be made."""
    parsed = make_url(url)
    instance_path.mkdir(mode=0o700, parents=True, exist_ok=True)
    backend: Backend
    if parsed.get_backend_name() == "postgresql":
        backend = Postgres()
    else:
        backend = Sqlite(parsed.database, instance_path / "write.lock")
    app.config["SQLALCHEMY_DATABASE_URI"] = url
    try:
        extension = SQLAlchemy(app, metadata=metadata, engine_options={**POOL, **backend.engine_options})
        with app.app_context():
            engine = extension.engine
    except (ImportError, SQLAlchemyError) as error:
        raise _unusable(error) from error
    backend.prepare(engine)
    return Database(engine, backend)


@contextmanager
def _ended_as_told() -> Iterator[None]:
    """A greenlet that is killed in the middle of a query ends by that, not by the complaint of its connection about
    the query being in the middle: a loop that takes Unavailable for a passing fault would go on for ever."""
    try:
        yield
    except SQLAlchemyError as error:
        cause: BaseException | None = error
        while cause is not None:
            if not isinstance(cause, Exception):
                raise cause from None
            cause = cause.__context__
        raise


@contextmanager
def _dropped_if_lost(connection: Connection) -> Iterator[None]:
    """A connection that failed doesn't go back to the pool, where the next reader would meet it."""
    try:
        yield
    except BaseException as error:
        if lost(error) or not isinstance(error, Exception):
            connection.invalidate()
        raise


def _transaction(connection: Connection, query: Callable[[Connection], T]) -> T:
    with connection.begin():
        return query(connection)


def _unusable(error: Exception) -> Unavailable:
    """Without the statement that failed and its values."""
    reason = error.orig if isinstance(error, DBAPIError) else error
    return Unavailable(f"The database can't be used: {' '.join(str(reason).split())}", retry_after_seconds=2)


def lost(error: BaseException) -> bool:
    """Is this the database failing (full disk, lock, lost connection) rather than a statement of ours?"""
    if isinstance(error, (TimeoutError, PendingRollbackError)):
        return True
    return isinstance(error, DBAPIError) and not isinstance(error, (IntegrityError, DataError, ProgrammingError))
