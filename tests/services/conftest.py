"""An installation in a folder of its own, without a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from config.settings import load_settings
from sidecar.core import Core, open_core
from sidecar.services import maim_connections, maim_queue
from tests.services.authorizing import Clock as DeskClock
from tests.services.authorizing import Desk, Platform
from tests.services.bots import House
from tests.store.conftest import migrated, place, postgres_place  # noqa: F401 (fixtures)
from tests.store.stores import Place


class Clock:
    """Unix seconds that pass only when a test says so."""

    def __init__(self, now: float = 1_800_000_000.0):
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def core(tmp_path: Path) -> Iterator[Core]:
    opened = open_core(load_settings(instance_dir=tmp_path / "instance"))
    yield opened
    opened.close()


@pytest.fixture
def opened(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., House]]:
    """`opened()`: a whole process of one installation with bots; its database is SQLite, or the parameter."""
    for module in (maim_connections, maim_queue):
        monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    database: dict[str, Any] = {}
    if getattr(request, "param", "sqlite") == "postgresql":
        database["database_url"] = request.getfixturevalue("postgres_place").url.replace("+psycopg", "")
    made: list[House] = []

    def make(**settings: Any) -> House:
        made.append(House(tmp_path / "instance", **database, **settings))
        return made[-1]

    yield make
    for house in made:
        house.close()


@pytest.fixture
def house(opened: Callable[..., House]) -> House:
    return opened()


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    """The lines that are logged from now on. (structlog's own would leave every later test with debug lines on.)"""
    with structlog.testing.capture_logs() as lines:
        yield lines
    structlog.reset_defaults()


@pytest.fixture
def desks(place: Place) -> Iterator[Callable[..., Desk]]:  # noqa: F811
    """`desks()`: a process of one installation, on SQLite and on PostgreSQL. All share a platform and a clock."""
    platform, clock = Platform(), DeskClock()
    made: list[Desk] = []

    def make(**given: Any) -> Desk:
        made.append(Desk(place, platform, clock, **given))
        return made[-1]

    yield make
    for desk in made:
        desk.close()


@pytest.fixture
def desk(desks: Callable[..., Desk]) -> Desk:
    return desks()
