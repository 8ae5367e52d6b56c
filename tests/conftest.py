"""Fixtures that every test may ask for. `sidecar` is one real server shared by a worker's tests, so each test uses
names of its own; `start_sidecar` starts another with settings of the test's choice."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.postgres import Postgres, programs
from tests.programs import JsClient
from tests.redis import RedisServer, program
from tests.savings import save
from tests.servers import RunningSidecar, two_processes

if TYPE_CHECKING:
    from tests.chromium import Browser, Chromium

try:
    import hypothesis
except ImportError:  # tests/requirements.txt has it; its tests skip without it
    pass
else:  # no limit in time for one example: the machine may be busy
    hypothesis.settings.register_profile("sidecar", deadline=None)
    hypothesis.settings.load_profile("sidecar")

# What is imported and collected lives to the end: no collection of garbage need look through it, now or later. Nor
# through what a file's tests leave behind: on a busy machine that takes longer than a database waits for a transaction.
gc.disable()

# What tests write is small and soon forgotten. In memory no commit waits for a disk, which others may hold up for long.
MEMORY = Path("/dev/shm")
if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= 4 * 2**30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

save()

# A shell has what it starts in the background ignore SIGINT, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

Start = Callable[..., RunningSidecar]


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    if nextitem is None or nextitem.path != item.path:
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session")
def sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSidecar]:
    server = RunningSidecar(tmp_path_factory.mktemp("sidecar"), {"SIDECAR_RATE_LIMIT": "off"})
    server.start()
    yield server
    server.stop()
    assert "Traceback" not in server.output(), server.output()


@pytest.fixture
def start_sidecar(tmp_path: Path) -> Iterator[Start]:
    """`start_sidecar(SIDECAR_OPEN="true")`: a new installation, running; stopped at the end of the test. With
    `share` it is another process of that one's installation."""
    servers: list[RunningSidecar] = []

    def start(share: RunningSidecar | None = None, **environment: str) -> RunningSidecar:
        instance = None if share is None else share.instance
        server = RunningSidecar(tmp_path / f"sidecar-{len(servers)}", environment, instance)
        servers.append(server)
        server.start()
        return server

    with contextlib.ExitStack() as stops:  # all of them, also when one fails to
        yield start
        for server in servers:
            stops.callback(server.stop)


@pytest.fixture(scope="session")
def js_session() -> Iterator[JsClient]:
    """One node process for a worker's tests, which ask for `js`."""
    with JsClient() as client:
        yield client


@pytest.fixture
def js(js_session: JsClient) -> Iterator[JsClient]:
    """The official client; a test's sockets end with it."""
    yield js_session
    js_session.forget()


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """One for a worker's tests; each has a browser of its own in it."""
    from tests.chromium import Chromium  # only tests of pages need its client

    program = Chromium(tmp_path_factory.mktemp("chromium") / "profile")
    yield program
    program.close()


@pytest.fixture
def browser(chromium: Chromium) -> Iterator[Browser]:
    """One empty page that shares nothing with another test's."""
    from tests.chromium import Browser

    with Browser(chromium) as browser:
        yield browser


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL for a worker's tests; each asks it for a database of its own."""
    folder = programs()
    if folder is None:
        pytest.skip("PostgreSQL is not installed (make services)")
    server = Postgres(folder)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def redis_session() -> Iterator[RedisServer]:
    """One Redis for a worker's tests; it runs between them. Who writes into it or stops it asks for `redis_server`."""
    if program() is None:
        pytest.skip("redis-server is not installed (make services)")
    server = RedisServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def redis_server(redis_session: RedisServer) -> Iterator[RedisServer]:
    """A Redis that runs and is empty; a test may leave it stopped."""
    with redis_session.client() as client:
        client.flushall()
    yield redis_session
    if not redis_session.running:
        redis_session.start()


_numbers = itertools.count(1)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def two_servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[RunningSidecar]]:
    """Two processes of one installation. With PostgreSQL each has a folder of its own, as on two hosts: they share the
    database alone."""
    url = None
    if request.param == "postgresql":
        postgres = request.getfixturevalue("postgres")
        url = postgres.url(postgres.new_database()).replace("+psycopg", "")
    with two_processes(tmp_path_factory.mktemp("two"), url, apart=url is not None) as servers:
        yield servers


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A project's name that no other test uses."""
    return f"{request.node.name[:60]}-{next(_numbers)}"
