"""Fixtures of the bots' tests: a process of real clients for each version, and one server with hooks, for a worker."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.bots.peers import Bots, RealClient
from tests.servers import RunningSidecar

Connect = Callable[..., RealClient]


@pytest.fixture(scope="session")
def bots() -> Iterator[Callable[[str], Bots]]:
    """`bots("0.6.8")`: the process that this version's clients live in."""
    running: dict[str, Bots] = {}
    with contextlib.ExitStack() as ends:

        def of(version: str) -> Bots:
            if version not in running:
                running[version] = ends.enter_context(Bots(version))
            return running[version]

        yield of


@pytest.fixture
def connect(bots: Callable[[str], Bots]) -> Iterator[Connect]:
    """`connect(version, url, key, platform)`: a connected real client, stopped at the end of the test."""
    with contextlib.ExitStack() as stops:

        def made(version: str, url: str, api_key: str, platform: str, **more: object) -> RealClient:
            client = stops.enter_context(RealClient(bots(version), url, api_key, platform, **more))
            assert client.connect(), client.state
            return client

        yield made


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSidecar]:
    settings = {"SIDECAR_RATE_LIMIT": "off", "SIDECAR_MAIM_HOOKS": "tests.bots.hooks:echo"}
    running = RunningSidecar(tmp_path_factory.mktemp("bots"), settings)
    running.start()
    yield running
    assert 'status="500"' not in running.get("/metrics").text
    running.stop()
    assert "Traceback" not in running.output(), running.output()
    assert "smk_" not in running.output()  # no bot's key


@pytest.fixture
def name() -> str:
    """A user's name that no other test has."""
    return f"bot-{uuid.uuid4().hex[:12]}"
