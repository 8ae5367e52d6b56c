"""PostgreSQL as the store. psycopg waits by gevent's own means, so all of it runs in the greenlets that ask.

SQLAlchemy imports psycopg when a PostgreSQL is opened: who stays with SQLite doesn't load libpq, and psycopg looks at
its import whether gevent has patched `select`.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import gevent
import structlog
from sqlalchemy import Connection, Dialect, Engine, bindparam, event, func, select, text
from sqlalchemy.exc import DBAPIError, InvalidRequestError, SQLAlchemyError, TimeoutError

from sidecar.observability.logs import described
from sidecar.store.statements import Statement

T = TypeVar("T")

log = structlog.get_logger("sidecar.postgres")

CHANNEL = "sidecar"
NAME = "sidecar"
"""Of our sessions at PostgreSQL."""
LOCK_NOT_AVAILABLE = "55P03"
SCHEMA_LOCK = 7_163_540_182_336_009
"""The advisory lock of those who migrate; any number that no other program on this database uses."""

READERS = 8
"""Within the pool's ten connections, with one for the writer and one to spare."""

STILL_SECONDS = 2
SESSION = {
    "idle_in_transaction_session_timeout": f"{STILL_SECONDS}s",
    "lock_timeout": "4s",
    "statement_timeout": "8s",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "8s",
}
"""A client that is frozen or cut off while it holds the counter row holds up every process: for 2 s, then it is
ended. Who waits for the row waits longer than that, and then looks for one that PostgreSQL does not end. A host that is
gone says no farewell: without these PostgreSQL keeps its sessions for two hours, and each further outage adds as
many."""

MIGRATION = {
    "idle_in_transaction_session_timeout": "0",
    "lock_timeout": "60s",
    "statement_timeout": "0",
    "application_name": "sidecar, migrating",
}

_SET_UP = (
    "SELECT set_config('client_encoding', 'UTF8', false), "
    + "".join(f"set_config('{name}', '{value}', false), " for name, value in SESSION.items())
    # Answered means on the disk, whatever the role or the database is set to; what asks for more than that stays.
    + "set_config('synchronous_commit', replace(current_setting('synchronous_commit'), 'off', 'local'), false)"
)
_END_STILL = text(
    """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = :name
        AND wait_event = 'ClientRead' AND state_change < clock_timestamp() - make_interval(secs => :seconds)
        AND pid IN (SELECT pid FROM pg_locks WHERE relation = 'journal_head'::regclass AND mode = 'RowShareLock')
    """
)
"""Ends who has locked the counter row and waits for its client. PostgreSQL does it by itself, but not for a client that
has stopped in the middle of a pipeline, as psycopg's executemany is one: then no timer runs."""
_SET = text("SELECT set_config(:name, :value, true)")
_NOTIFY = Statement(select(func.pg_notify(CHANNEL, bindparam("notice"))))


class Postgres:
    """A `Backend` (store.database). `voice` names this process in its notices, so that it can leave out its own."""

    engine_options: Mapping[str, Any] = {
        "pool_pre_ping": True,
        "connect_args": {
            "application_name": NAME,
            "connect_timeout": 3,
            "keepalives": 1,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 8_000,
        },
    }
    read_options: Mapping[str, Any] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    write_options: Mapping[str, Any] = {"isolation_level": "READ COMMITTED"}
    readers = READERS

    def __init__(self) -> None:
        self.voice = secrets.token_hex(8)

    def prepare(self, engine: Engine) -> None:
        event.listen(engine, "do_connect", _resolve)
        text_dumper = _without_nul(engine.dialect.loaded_dbapi)

        def prepare_connection(connection: Any, _record: object) -> None:
            connection.adapters.register_dumper(str, text_dumper)
            _set_up(connection)

        event.listen(engine, "connect", prepare_connection)

    def lane(self, workers: int) -> Here:
        return Here()

    @contextmanager
    def deadline(self, seconds: float) -> Iterator[None]:
        limit = gevent.Timeout(seconds)
        try:
            with limit:
                yield
        except gevent.Timeout as raised:
            if raised is not limit:
                raise
            raise TimeoutError("PostgreSQL did not answer in time.") from None

    def write_lock(self) -> AbstractContextManager[None]:
        """None: the counter row, which each transaction locks first, is the lock, and its waiters queue."""
        return nullcontext()

    def lock_schema(self, connection: Connection) -> None:
        """Until the end of the transaction. Migrating may take its time. Raises for a database that can't hold every
        text: an emoji would fail the batch that it is in."""
        encoding = connection.execute(text("SHOW server_encoding")).scalar()
        if encoding != "UTF8":
            raise InvalidRequestError(f"its encoding is {encoding}, and has to be UTF8")
        for name, value in MIGRATION.items():
            connection.execute(_SET, {"name": name, "value": value})
        connection.execute(select(func.pg_advisory_xact_lock(SCHEMA_LOCK)))

    def unblocked(self, engine: Engine, error: DBAPIError) -> bool:
        if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
            return False
        try:
            with engine.connect() as connection:
                ended = connection.execute(_END_STILL, {"name": NAME, "seconds": STILL_SECONDS}).scalar()
        except SQLAlchemyError as failure:
            log.warning("postgres.not_unblocked", problem=described(failure))
            return False
        log.warning("postgres.unblocked", sessions=ended)
        return bool(ended)

    def announce(self, connection: Connection, seq: int) -> None:
        """Tell the other processes if and when this transaction commits."""
        _NOTIFY.first(connection, {"notice": f"{self.voice} {seq}"})

    @contextmanager
    def listening(self, engine: Engine) -> Iterator[Iterator[int | None]]:
        """What the other processes announce from now on: the seq up to which the journal has come, None from one of an
        older release. Raises SQLAlchemyError or psycopg's Error when the connection can't be made or is lost. It is
        none of the pool's."""
        taken = engine.raw_connection()
        driver: Any = taken.dbapi_connection
        taken.detach()
        try:
            driver.autocommit = True
            driver.execute(f"LISTEN {CHANNEL}")
            notices = (notice.payload.partition(" ") for notice in driver.notifies())
            yield (_seq(seq) for voice, _, seq in notices if voice != self.voice)
        finally:
            driver.close()


def _seq(text: str) -> int | None:
    """Anybody with a login at the database may notify."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None


class Here:
    """A `Lane` that is the caller's own greenlet."""

    def run(self, work: Callable[[], T]) -> T:
        return work()

    def close(self) -> None:
        """Nothing to end."""


def _resolve(dialect: Dialect, _record: object, _arguments: list[Any], options: dict[str, Any]) -> None:
    """Look the host up by gevent's resolver: libpq would hold up the process while it waits for DNS."""
    host = str(options.get("host") or "")
    if not host or "/" in host or "," in host or options.get("hostaddr"):
        return
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise dialect.loaded_dbapi.OperationalError(f"The host name has no address: {error}") from error
    addresses = list(dict.fromkeys(str(item[4][0]) for item in found))
    options["host"] = ",".join([host] * len(addresses))
    options["hostaddr"] = ",".join(addresses)


def _without_nul(psycopg: Any) -> type:
    """How psycopg shall hand over text: PostgreSQL's can't hold NUL, which becomes U+FFFD, in what is stored as well as
    in what is looked for."""

    class WithoutNul(psycopg.types.string.StrDumperUnknown):  # type: ignore[misc]
        def dump(self, obj: str) -> bytes:
            return obj.replace("\0", "\ufffd").encode()

    return WithoutNul


def _set_up(connection: Any) -> None:
    was, connection.autocommit = connection.autocommit, True
    connection.execute(_SET_UP)
    connection.autocommit = was
