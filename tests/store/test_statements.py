"""Statements of the hot path behave as SQLAlchemy's own do: the same values, the same errors, the same transaction."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import (
    Column,
    Connection,
    Integer,
    MetaData,
    Table,
    Text,
    bindparam,
    create_engine,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from sidecar.store.statements import Statement
from tests.store.stores import Place

metadata = MetaData()
things = Table("things", metadata, Column("name", Text, primary_key=True), Column("size", Integer, nullable=False))

INSERT = Statement(insert(things))
RESIZE = Statement(update(things).where(things.c.name == bindparam("of_name")), ["size"])
FIND = Statement(select(things.c.size).where(things.c.name == bindparam("name")).limit(1))


@pytest.fixture
def connection(empty_place: Place) -> Iterator[Connection]:
    engine = create_engine(empty_place.url)
    metadata.create_all(engine)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def test_what_was_stored_is_found(connection: Connection):
    INSERT.run_many(connection, [{"name": "a", "size": 1}, {"size": 2, "name": "b"}])
    assert FIND.first(connection, {"name": "b"}) == (2,)
    assert FIND.first(connection, {"name": "c"}) is None


def test_a_change_tells_how_many_rows_it_changed(connection: Connection):
    INSERT.run(connection, {"name": "a", "size": 1})
    assert RESIZE.run(connection, {"of_name": "a", "size": 5}) == 1
    assert RESIZE.run(connection, {"of_name": "z", "size": 5}) == 0
    assert FIND.first(connection, {"name": "a"}) == (5,)


def test_a_row_returned_by_a_change_does_not_bar_the_commit(connection: Connection):
    returning = Statement(insert(things).returning(things.c.size))
    assert returning.first(connection, {"name": "a", "size": 7}) == (7,)
    connection.commit()
    assert FIND.first(connection, {"name": "a"}) == (7,)


def test_nothing_to_do_is_nothing_done(connection: Connection):
    INSERT.run_many(connection, [])
    assert connection.execute(select(things)).all() == []


def test_a_broken_rule_is_an_integrity_error_that_tells_no_value(connection: Connection):
    secret = {"name": "a secret", "size": 1}
    INSERT.run(connection, secret)
    connection.connection.commit()
    with pytest.raises(IntegrityError) as of_one:
        INSERT.run(connection, secret)
    connection.connection.rollback()
    with pytest.raises(IntegrityError) as of_many:
        INSERT.run_many(connection, [secret])
    assert "a secret" not in f"{of_one.value} {of_many.value}"


def test_a_failing_database_is_an_error_of_sqlalchemy(connection: Connection):
    with pytest.raises((OperationalError, ProgrammingError)):
        Statement(text("SELECT * FROM nowhere")).first(connection)


def test_a_value_that_is_not_given_is_an_error_and_not_a_null(connection: Connection):
    with pytest.raises(KeyError):
        INSERT.run(connection, {"name": "a"})
