"""Tests of this folder that ask for `place` or `store` run on SQLite and on PostgreSQL: both keep the same promises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import Copies, Postgres
from tests.store.stores import Place, Store, migrated_sqlite_in, open_journal, sqlite_in


@pytest.fixture(scope="session")
def migrated(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Copies:
    """Of a PostgreSQL database that was upgraded; copies are made faster than migrations run."""
    name = postgres.new_database()
    open_journal(Place(postgres.url(name), tmp_path_factory.mktemp("migrated"))).close()
    return Copies(postgres, name)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where there is no journal yet."""
    if request.param == "sqlite":
        return sqlite_in(tmp_path)
    postgres: Postgres = request.getfixturevalue("postgres")
    return Place(postgres.url(postgres.new_database()), tmp_path)


@pytest.fixture
def postgres_place(postgres: Postgres, migrated: Copies, tmp_path: Path) -> Iterator[Place]:
    name = migrated.take()
    yield Place(postgres.url(name), tmp_path)
    migrated.give_back(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where there is an empty journal."""
    if request.param == "sqlite":
        return migrated_sqlite_in(tmp_path)
    made: Place = request.getfixturevalue("postgres_place")
    return made


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    opened = Store(place)
    yield opened
    opened.close()
