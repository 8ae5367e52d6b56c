"""Statements of the hot path: written in SQLAlchemy Core, compiled once, and run by SQLite's own driver.

Building and running a statement through SQLAlchemy takes ten times what SQLite does for it, and a post needs a dozen
of them. Whatever is not run for each post stays with `Connection.execute`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.expression import ClauseElement

Row = tuple[Any, ...]

_DIALECT = SQLiteDialect_pysqlite(paramstyle="qmark")
_NOTHING: Mapping[str, object] = {}


class Statement:
    """`clause` with its `bindparam`s; `columns` are those that an INSERT or UPDATE without `values` sets. Every call
    names all of them. Runs in the connection's transaction; raises what SQLAlchemy would (`DBAPIError`)."""

    def __init__(self, clause: ClauseElement, columns: Sequence[str] | None = None):
        compiled = clause.compile(dialect=_DIALECT, column_keys=columns)
        self._text = str(compiled)
        self._fixed = {name: value for name, value in compiled.params.items() if value is not None}
        names: Sequence[str] = getattr(compiled, "positiontup", None) or ()
        self._pick = itemgetter(*names) if len(names) > 1 else lambda values: tuple(values[name] for name in names)

    def first(self, connection: Connection, values: Mapping[str, object] = _NOTHING) -> Row | None:
        """The first row found, or returned by a change."""
        rows = self._execute(connection, values).fetchall()  # to the end: a statement that is open bars the commit
        return rows[0] if rows else None

    def run(self, connection: Connection, values: Mapping[str, object] = _NOTHING) -> int:
        """How many rows were changed."""
        return self._execute(connection, values).rowcount

    def run_many(self, connection: Connection, rows: Iterable[Mapping[str, object]]) -> None:
        """Once for each of `rows`, in one call of the driver."""
        given = [self._pick(row) for row in rows]
        try:
            _driver(connection).executemany(self._text, given)
        except sqlite3.Error as error:
            raise self._problem(error) from error

    def _execute(self, connection: Connection, values: Mapping[str, object]) -> sqlite3.Cursor:
        given = self._pick({**self._fixed, **values} if self._fixed else values)
        try:
            return _driver(connection).execute(self._text, given)
        except sqlite3.Error as error:
            raise self._problem(error) from error

    def _problem(self, error: sqlite3.Error) -> BaseException:
        """The driver's error as SQLAlchemy tells it, without the values: they may hold what nobody should log."""
        return DBAPIError.instance(self._text, None, error, sqlite3.Error, hide_parameters=True, dialect=_DIALECT)


def _driver(connection: Connection) -> sqlite3.Connection:
    driver: sqlite3.Connection = connection.connection.dbapi_connection  # type: ignore[assignment]
    return driver
