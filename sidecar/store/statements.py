"""Statements of the hot path: written in SQLAlchemy Core, compiled once, and run by the database's own driver.

Building and running a statement through SQLAlchemy takes ten times what SQLite does for it, and a post needs a dozen
of them. Whatever is not run for each post stays with `Connection.execute`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Dialect
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.expression import ClauseElement

Row = tuple[Any, ...]

# Both with values by position, which a tuple made by one `itemgetter` fills.
_DIALECTS: dict[str, Dialect] = {
    "sqlite": SQLiteDialect_pysqlite(paramstyle="qmark"),
    "postgresql": PGDialect_psycopg(paramstyle="format"),  # type: ignore[no-untyped-call]
}
_NOTHING: Mapping[str, object] = {}


class Statement:
    """`clause` with its `bindparam`s; `columns` are those that an INSERT or UPDATE without `values` sets. Every call
    names all of them. Runs in the connection's transaction; raises what SQLAlchemy would (`DBAPIError`)."""

    def __init__(self, clause: ClauseElement, columns: Sequence[str] | None = None):
        self._clause = clause
        self._columns = columns
        self._compiled: dict[str, _Compiled] = {}

    def first(self, connection: Connection, values: Mapping[str, object] = _NOTHING) -> Row | None:
        """The first row found, or returned by a change."""
        rows, _ = self._on(connection).execute(connection, values)
        return rows[0] if rows else None

    def run(self, connection: Connection, values: Mapping[str, object] = _NOTHING) -> int:
        """How many rows were changed."""
        _, changed = self._on(connection).execute(connection, values)
        return changed

    def run_many(self, connection: Connection, rows: Iterable[Mapping[str, object]]) -> None:
        """Once for each of `rows`, in one call of the driver."""
        self._on(connection).execute_many(connection, rows)

    def _on(self, connection: Connection) -> _Compiled:
        name = connection.dialect.name
        compiled = self._compiled.get(name)
        if compiled is None:
            compiled = self._compiled[name] = _Compiled(self._clause, self._columns, _DIALECTS[name])
        return compiled


class _Compiled:
    """A statement as one kind of database understands it."""

    def __init__(self, clause: ClauseElement, columns: Sequence[str] | None, dialect: Dialect):
        compiled = clause.compile(dialect=dialect, column_keys=columns)
        self._text = str(compiled)
        self._fixed = {name: value for name, value in compiled.params.items() if value is not None}
        names: Sequence[str] = getattr(compiled, "positiontup", None) or ()
        self._pick: Callable[[Mapping[str, object]], tuple[object, ...]] = (
            itemgetter(*names) if len(names) > 1 else lambda values: tuple(values[name] for name in names)
        )

    def execute(self, connection: Connection, values: Mapping[str, object]) -> tuple[list[Row], int]:
        """Every row, because a statement that is not read to its end bars SQLite's commit; and how many were
        changed."""
        given = self._pick({**self._fixed, **values} if self._fixed else values)
        try:
            cursor = _driver(connection).execute(self._text, given)
            return cursor.fetchall() if cursor.description else [], cursor.rowcount
        except _errors(connection) as error:
            raise self._problem(error, connection) from error

    def execute_many(self, connection: Connection, rows: Iterable[Mapping[str, object]]) -> None:
        given = [self._pick(row) for row in rows]
        try:
            _driver(connection).cursor().executemany(self._text, given)
        except _errors(connection) as error:
            raise self._problem(error, connection) from error

    def _problem(self, error: Exception, connection: Connection) -> BaseException:
        """The driver's error as SQLAlchemy tells it, without the values: they may hold what nobody should log.
        (PostgreSQL's own message has a second line with them.)"""
        first_line = getattr(getattr(error, "diag", None), "message_primary", None)
        if first_line:
            error.args = (first_line,)
        dialect = connection.dialect
        gone = dialect.is_disconnect(error, connection.connection.dbapi_connection, None)  # type: ignore[arg-type]
        return DBAPIError.instance(
            self._text,
            None,
            error,
            _errors(connection),
            hide_parameters=True,
            connection_invalidated=gone,
            dialect=dialect,
        )


def _errors(connection: Connection) -> type[Exception]:
    errors: type[Exception] = connection.dialect.loaded_dbapi.Error
    return errors


def _driver(connection: Connection) -> Any:
    return connection.connection.dbapi_connection
