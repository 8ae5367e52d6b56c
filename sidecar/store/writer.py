"""The one writer of a process: collects commands and commits them as one batch, beside the event loop.

A command is a function of a Transaction, run in order inside the write transaction, so that what it decides on is
not stale. One bad command never fails its batch: each runs under a savepoint, or alone. (Group commit: while one
batch is on its way to the disk, the next one gathers.)
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol, TypeVar

import gevent
import structlog
from gevent.event import AsyncResult
from gevent.event import Event as Signal
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from sidecar.domain.errors import Unavailable
from sidecar.domain.events import Event
from sidecar.domain.times import utc_text
from sidecar.observability.logs import RateLimited, described
from sidecar.store.database import DEADLINE_SECONDS, Database, lost
from sidecar.store.journal import Transaction, holds_batch, lock_head
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
SETTLE_SECONDS = 5
SETTLE_PAUSE_SECONDS = 0.1

_SAVEPOINT = Statement(text("SAVEPOINT command"))
_ROLL_BACK = Statement(text("ROLLBACK TO SAVEPOINT command"))
_RELEASE = Statement(text("RELEASE SAVEPOINT command"))
_PART = Statement(text("SAVEPOINT part"))
_ROLL_BACK_PART = Statement(text("ROLLBACK TO SAVEPOINT part"))
_RELEASE_PART = Statement(text("RELEASE SAVEPOINT part"))


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
        self._lane = database.backend.lane(1)
        self._connection: Connection | None = None
        self._transaction: Transaction | None = None  # the batch on its way, once it holds the lock
        self._commit_sent = False
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
        self._lane.close()

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
            events = self._store(batch)
        except Exception as error:  # the batch is lost as a whole, whatever the reason: told to every sender
            log.warning("writer.batch_failed", commands=len(batch), problem=described(error))
            self.healthy = False
            self._drop_connection()
            found = self._settle() if self._commit_sent else False
            if not found:
                for pending in batch:
                    pending.error = _unavailable(error, known=found is False)
                    pending.settle()
                return
            events = self._transaction.events if self._transaction else []
        self.healthy = True
        if events:
            self._on_commit(events)
        for pending in batch:
            pending.settle()

    def _store(self, batch: list[_Pending]) -> list[Event]:
        """The events of the batch, committed. Tried once more where nothing was done yet: when a connection that was
        kept from the last batch has ended since (the database was restarted, say), or the lock was held by somebody
        who stood still."""
        kept = self._connection is not None
        try:
            return self._try(batch)
        except DBAPIError as error:
            if self._transaction is not None:
                raise
            if kept and error.connection_invalidated:
                self._drop_connection()
            elif not self._database.backend.unblocked(self._database.engine, error):
                raise
            return self._try(batch)

    def _try(self, batch: list[_Pending]) -> list[Event]:
        self._transaction, self._commit_sent = None, False
        with self._database.backend.deadline(DEADLINE_SECONDS):
            if self._connection is None:
                self._connection = self._database.connect_to_write()
            connection = self._connection
            return self._lane.run(lambda: self._write(connection, batch))

    def _write(self, connection: Connection, batch: list[_Pending]) -> list[Event]:
        with self._database.backend.write_lock(), connection.begin() as whole:
            transaction = self._transaction = Transaction(connection, utc_text(self._clock()))
            if len(batch) == 1:  # the transaction itself is its savepoint
                _run_command(transaction, batch[0])
                if batch[0].error is not None:
                    whole.rollback()
            else:
                for pending in batch:
                    _run_under_savepoint(transaction, pending)
            if transaction.events:
                transaction.flush()
                self._database.backend.announce(connection, transaction.seq)
            self._commit_sent = True
            if whole.is_active:
                whole.commit()
            return transaction.events

    def _settle(self) -> bool | None:
        """Was the batch stored whose COMMIT was sent and not answered? None when that can't be found out in time, or
        ever: a batch without events leaves no name in the journal."""
        transaction = self._transaction
        if transaction is None or not transaction.events:
            return None
        found = None
        end = time.monotonic() + SETTLE_SECONDS
        while found is None and (left := end - time.monotonic()) > 0:
            try:
                with self._database.backend.deadline(left):
                    found = self._look_up(transaction.batch, transaction.events[0].seq)
            except Exception as error:
                log.warning("writer.unsettled", problem=described(error))
                gevent.sleep(SETTLE_PAUSE_SECONDS)
        log.warning("writer.settled", events=len(transaction.events), stored=found)
        return found

    def _look_up(self, batch: str, first_seq: int) -> bool:
        """Locks the head first, and so waits until a COMMIT that is still being worked on has come to its end."""

        def look(connection: Connection) -> bool:
            with self._database.backend.write_lock(), connection.begin():
                lock_head(connection)
                return holds_batch(connection, batch, first_seq)

        with self._database.connect_to_write() as connection:
            return self._lane.run(lambda: look(connection))

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


@contextmanager
def part(transaction: Transaction) -> Iterator[None]:
    """A part of a command that may fail alone: the command gets what it raises, and may go on as if the part had not
    been. (Not so when the database itself fails.)"""
    connection, count = transaction.connection, len(transaction.events)
    _PART.run(connection)
    try:
        yield
    except Exception as error:
        if not lost(error):
            transaction.forget(count)
            _ROLL_BACK_PART.run(connection)
            _RELEASE_PART.run(connection)
        raise
    _RELEASE_PART.run(connection)


def _unavailable(error: Exception, known: bool) -> Unavailable:
    """`known`: it is certain that nothing was stored."""
    if known:
        detail = "The store can't commit now; nothing of this request was stored."
    else:
        detail = "The store did not answer; whether this was stored is not known. Repeat it with its Idempotency-Key."
    problem = Unavailable(detail, retry_after_seconds=2)
    problem.__cause__ = error
    return problem
