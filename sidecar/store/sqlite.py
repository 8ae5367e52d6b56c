"""SQLite as the store. It blocks the whole process while it works, so all of it runs in native threads."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

from gevent.threadpool import ThreadPool
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError

T = TypeVar("T")

WRITE = "sidecar_write"
"""Execution option of connections whose transactions take SQLite's write lock at once."""

BUSY_TIMEOUT_MILLISECONDS = 5_000
READ_THREADS = 4


class Sqlite:
    """A `Backend` (store.database). A file that is missing is made, readable by its owner alone, with its folder."""

    engine_options: Mapping[str, Any] = {
        "connect_args": {"check_same_thread": False, "timeout": BUSY_TIMEOUT_MILLISECONDS / 1000}
    }
    read_options: Mapping[str, Any] = {}
    write_options: Mapping[str, Any] = {WRITE: True}
    readers = READ_THREADS

    def __init__(self, path: str | None, lock_path: Path):
        self._lock_path = lock_path
        if path:
            Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))

    def prepare(self, engine: Engine) -> None:
        event.listen(engine, "connect", _prepare)
        event.listen(engine, "begin", _begin)

    def lane(self, workers: int) -> Threads:
        return Threads(workers)

    def deadline(self, seconds: float) -> AbstractContextManager[None]:
        """None: `busy_timeout` bounds the waiting for a lock, and a native thread can't be interrupted."""
        return nullcontext()

    @contextmanager
    def write_lock(self) -> Iterator[None]:
        """Processes of one host queue here fairly instead of polling SQLite's own lock."""
        descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def lock_schema(self, connection: Connection) -> None:
        """Nothing: `write_lock` and BEGIN IMMEDIATE keep other starts out."""

    def unblocked(self, engine: Engine, error: DBAPIError) -> bool:
        """The lock is the kernel's: who stands still keeps it."""
        return False

    def announce(self, connection: Connection, seq: int) -> None:
        """Nothing: a file wakes nobody."""


class Threads:
    """A `Lane` of native threads."""

    def __init__(self, workers: int):
        self._threads = ThreadPool(workers)

    def run(self, work: Callable[[], T]) -> T:
        """(An exception that escaped in the thread itself would be printed by gevent as well.) Who is killed meanwhile
        waits for the end of the work all the same: its connection is closed then, which must not be in use."""

        def guarded() -> tuple[T | None, BaseException | None]:
            try:
                return work(), None
            except BaseException as error:
                return None, error

        task = self._threads.spawn(guarded)
        try:
            result, error = task.get()
        except BaseException:
            while not task.ready():
                with suppress(BaseException):  # killed once more
                    task.wait()
            raise
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def close(self) -> None:
        self._threads.kill()


def _prepare(connection: Any, _record: object) -> None:
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


def _begin(connection: Connection) -> None:
    immediate = connection.get_execution_options().get(WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
