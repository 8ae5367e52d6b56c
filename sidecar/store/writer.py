"""The one writer of a process: collects commands and commits them as one batch, off the event loop.

A command is a function of a Transaction, run in order inside the write transaction, so that what it decides on is
not stale. One bad command never fails its batch: each runs under a savepoint, or alone. (Group commit: while one
batch is on its way to the disk, the next one gathers.)
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import gevent
import structlog
from gevent.event import AsyncResult
from gevent.event import Event as Signal
from gevent.threadpool import ThreadPool
from sqlalchemy import Connection, text

from sidecar.domain.errors import Unavailable
from sidecar.domain.events import Event
from sidecar.domain.times import utc_text
from sidecar.observability.logs import RateLimited
from sidecar.store.database import WRITE, Database, lost, run_in
from sidecar.store.journal import Transaction
from sidecar.store.statements import Statement

T = TypeVar("T")
Command = Callable[[Transaction], T]


class Submit(Protocol):
    """Has a command run and committed, and returns its result: `Writer.submit` or `Writer.run_alone`."""

    def __call__(self, command: Command[T], /) -> T: ...


log = RateLimited(structlog.get_logger("sidecar.writer"))

BATCH_COMMANDS = 256
QUEUE_COMMANDS = 10_000
ANSWER_SECONDS = 30
STOP_SECONDS = 3

_SAVEPOINT = Statement(text("SAVEPOINT command"))
_ROLL_BACK = Statement(text("ROLLBACK TO SAVEPOINT command"))
_RELEASE = Statement(text("RELEASE SAVEPOINT command"))


class _Pending:
    """A command on its way, and what became of it."""

    __slots__ = ("answer", "command", "error", "result")

    def __init__(self, command: Command[Any]):
        self.command = command
        self.answer: AsyncResult = AsyncResult()
        self.result: object = None
        self.error: BaseException | None = None

    def settle(self) -> None:
        if self.error is None:
            self.answer.set(self.result)
        else:
            self.answer.set_exception(self.error)


class Writer:
    """`on_commit` gets the events of each committed batch, in order, before any of its commands is answered."""

    def __init__(
        self,
        database: Database,
        on_commit: Callable[[list[Event]], None],
        clock: Callable[[], float] = time.time,
    ):
        self._database = database
        self._on_commit = on_commit
        self._clock = clock
        self._waiting: deque[_Pending] = deque()
        self._signal = Signal()
        self._thread = ThreadPool(1)
        self._connection: Connection | None = None
        self._stopping = False
        self._greenlet: gevent.Greenlet | None = None
        self.healthy = True

    def start(self) -> None:
        self._greenlet = gevent.spawn(self._run)
        self._greenlet.name = "writer"

    def run_alone(self, command: Command[T]) -> T:
        """Run one command at once as a batch of its own: before `start`, and in the command line's processes."""
        pending = _Pending(command)
        self._commit([pending])
        return pending.answer.get()  # type: ignore[no-any-return]

    def submit(self, command: Command[T]) -> T:
        """What the command returned, once its batch is committed. Raises what the command raised, or Unavailable
        when the batch could not be committed or too many commands wait."""
        if self._stopping or len(self._waiting) >= QUEUE_COMMANDS:
            raise Unavailable("Too much is waiting to be stored; try again.", retry_after_seconds=1)
        pending = _Pending(command)
        self._waiting.append(pending)
        self._signal.set()
        try:
            return pending.answer.get(timeout=ANSWER_SECONDS)  # type: ignore[no-any-return]
        except gevent.Timeout:
            with suppress(ValueError):  # not on its way yet: then it shall not happen after this answer
                self._waiting.remove(pending)
            raise Unavailable("The store did not answer in time.", retry_after_seconds=5) from None

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def stop(self) -> None:
        """Commit what waits, then end. A batch that hangs behind another process's lock is given up after
        STOP_SECONDS: it was not answered, so nothing acknowledged is lost."""
        self._stopping = True
        self._signal.set()
        if self._greenlet is not None:
            self._greenlet.join(timeout=STOP_SECONDS)
            if not self._greenlet.dead:
                log.warning("writer.given_up", commands=len(self._waiting))
                return
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._thread.kill()

    def _run(self) -> None:
        while self._waiting or not self._stopping:
            if not self._waiting:
                self._signal.clear()
                self._signal.wait()
                continue
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_COMMANDS))]
            self._commit(batch)

    def _commit(self, batch: list[_Pending]) -> None:
        try:
            if self._connection is None:
                self._connection = self._database.engine.connect().execution_options(**{WRITE: True})
            connection = self._connection
            events = run_in(self._thread, lambda: self._write(connection, batch))
        except Exception as error:  # the batch is lost as a whole, whatever the reason: told to every sender
            log.warning("writer.batch_failed", commands=len(batch), problem=f"{type(error).__name__}: {error}"[:300])
            self.healthy = False
            self._drop_connection()
            for pending in batch:
                pending.error = _unavailable(error)
                pending.settle()
            return
        self.healthy = True
        if events:
            self._on_commit(events)
        for pending in batch:
            pending.settle()

    def _write(self, connection: Connection, batch: list[_Pending]) -> list[Event]:
        with self._database.write_lock(), connection.begin() as whole:
            transaction = Transaction(connection, utc_text(self._clock()))
            if len(batch) == 1:  # the transaction itself is its savepoint
                _run_command(transaction, batch[0])
                if batch[0].error is not None:
                    whole.rollback()
            else:
                for pending in batch:
                    _run_under_savepoint(transaction, pending)
            transaction.flush()
            return transaction.events

    def _drop_connection(self) -> None:
        """After a failed commit the connection is thrown away; the next batch opens another."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.invalidate()
            connection.close()


def _run_command(transaction: Transaction, pending: _Pending) -> None:
    """Raises only what the whole batch fails of; after any other error the caller rolls the command's rows back."""
    count = len(transaction.events)
    try:
        pending.result = pending.command(transaction)
    except Exception as error:
        if lost(error):
            raise
        transaction.forget(count)
        pending.error = error


def _run_under_savepoint(transaction: Transaction, pending: _Pending) -> None:
    """The savepoint is SQL of our own: SQLAlchemy compiles its `begin_nested` anew at every use."""
    connection = transaction.connection
    _SAVEPOINT.run(connection)
    _run_command(transaction, pending)
    if pending.error is not None:
        _ROLL_BACK.run(connection)
    _RELEASE.run(connection)


def _unavailable(error: Exception) -> Unavailable:
    problem = Unavailable("The store can't commit now; nothing of this request was stored.", retry_after_seconds=2)
    problem.__cause__ = error
    return problem
