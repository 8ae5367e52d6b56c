"""Two processes on PostgreSQL behind nginx, as in production: each of the parts dies, freezes and comes back."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from sidecar.store.postgres import SESSION
from tests.chaos.hosts import nginx_before
from tests.chaos.stage import ROUNDS, Stage
from tests.chaos.tally import connects
from tests.postgres import Postgres
from tests.programs import Nginx
from tests.servers import RunningSidecar

FROZEN_SECONDS = 3.0
"""Longer than PostgreSQL lets a client hold the counter row without a word."""


@pytest.fixture
def database(postgres: Postgres) -> str:
    return postgres.new_database()


@pytest.fixture
def servers(start_sidecar, postgres: Postgres, database: str) -> list[RunningSidecar]:
    url = postgres.url(database).replace("+psycopg", "")
    settings = {"SIDECAR_DATABASE_URL": url, "SIDECAR_RATE_LIMIT": "off"}
    first = start_sidecar(**settings)
    return [first, start_sidecar(share=first, **settings)]


@pytest.fixture
def nginx(servers: list[RunningSidecar], tmp_path: Path) -> Iterator[Nginx]:
    with nginx_before(servers, tmp_path / "nginx") as running:
        yield running


@contextlib.contextmanager
def frozen(server: RunningSidecar) -> Iterator[None]:
    """Its process stands still in the middle of whatever it does."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


@contextlib.contextmanager
def silent_holder(postgres: Postgres, database: str) -> Iterator[None]:
    """A client like the sidecar that took the counter row, and then says nothing any more."""
    with psycopg.connect(host="127.0.0.1", port=postgres.port, user="sidecar", dbname=database) as connection:
        for name, value in SESSION.items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        connection.commit()
        connection.execute("SELECT seq FROM journal_head FOR UPDATE")
        yield
        with contextlib.suppress(psycopg.Error):  # PostgreSQL has ended it
            connection.rollback()


def test_every_part_breaks_behind_nginx(servers: list[RunningSidecar], nginx: Nginx, postgres: Postgres, database: str):
    """Posts are refused at most, sockets of a living process stay, and nothing is lost."""
    body = {"type": "log_entry", "project": "axi", "deployment_id": "axi-1", "message": "never"}
    with Stage([nginx.port], servers[0]) as stage:
        senders = stage.send()

        def kill(number: int) -> None:
            killed = servers[number % 2]
            stage.kill(killed)
            stage.go_on()
            stage.line.cut(0.2)
            stage.go_on()
            killed.start()

        def restart(number: int) -> None:
            stage.mend()
            stage.settled()
            before, refused = stage.connects(), senders.refused
            postgres.stop(signal.SIGQUIT if number % 2 else signal.SIGINT)
            try:
                stage.wait(lambda: senders.refused > refused + 10, "posts are refused")
                for server in servers:
                    answer = server.post("/api/webhooks/deployment", body)
                    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
                    assert int(answer.headers["Retry-After"]) > 0
                stage.quiet()
                assert stage.connects() == before, "pages stay"
                stage.line.cut(0.1)
            finally:
                postgres.start()
            stage.go_on()

        def hold(_number: int) -> None:
            with silent_holder(postgres, database):
                stage.go_on()

        def freeze(number: int) -> None:
            with frozen(servers[number % 2]):
                stage.line.cut(0.1)
                time.sleep(FROZEN_SECONDS)
            stage.go_on()

        parts: list[Callable[[int], None]] = [kill, restart, hold, freeze]
        for number in range(ROUNDS):
            for act in stage.random.sample(parts, len(parts)):
                stage.break_lines(2)
                act(number)
        stage.break_lines(2)
        reports = stage.reckon("two processes on PostgreSQL behind nginx")
    assert connects(reports)[0] > 0
    assert not any(page["truncated"] for page in reports.values())
    with postgres.connect(database) as connection:
        seqs = [row[0] for row in connection.execute("SELECT seq FROM events ORDER BY seq")]
    assert seqs == list(range(1, len(seqs) + 1))
    for server in servers:
        assert "Traceback" not in server.output()
