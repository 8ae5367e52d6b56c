"""Two processes on PostgreSQL behind nginx are restarted in turn, as docs/hosting.md has it, while everything goes on:
nobody who asks is refused, and every page comes back with its session."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.chaos.stage import ROUNDS, Stage
from tests.chaos.tally import connects, tell
from tests.postgres import Postgres
from tests.programs import ROOT, Nginx, running_nginx
from tests.servers import RunningSidecar, two_processes

SITE = (ROOT / "nginx" / "sidecar.conf").read_text()
KEEPALIVE = "hash $sidecar_sticky_key consistent;\n    keepalive 16;"
"""nginx since 1.29.7 keeps connections to its upstreams unless told otherwise."""


@pytest.fixture(scope="module")
def pair(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RunningSidecar]]:
    url = postgres.url(postgres.new_database()).replace("+psycopg", "")
    with two_processes(tmp_path_factory.mktemp("pair"), url, apart=True, SIDECAR_DRAIN_SECONDS="2") as servers:
        yield servers


@contextmanager
def site(folder: Path, pair: list[RunningSidecar], keeps_connections: bool) -> Iterator[Nginx]:
    """nginx as docs/nginx.md says to change it for two, of before and after that version."""
    conf = SITE.replace("# server 127.0.0.1:8092 ", f"server 127.0.0.1:{pair[1].port} ", 1)
    if keeps_connections:
        conf = conf.replace("hash $sidecar_sticky_key consistent;", KEEPALIVE, 1)
    assert conf.count(f":{pair[1].port} ") == 1
    assert ("keepalive 16;" in conf) is keeps_connections
    with running_nginx(folder, conf, pair[0].port) as running:
        yield running


class Readers:
    """They GET, each on one connection to an nginx; `faults` are answers that are no 200, and what
    came in place of one."""

    def __init__(self, sites: list[Nginx], token: str):
        self.answered = 0
        self.faults: list[str] = []
        self._token = token
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(one.url,)) for one in 2 * sites]

    def __enter__(self) -> Readers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, url: str) -> None:
        headers = {"Authorization": f"Token {self._token}"}
        with httpx.Client(base_url=url, headers=headers, timeout=20) as client:
            while not self._stop.wait(0.05):
                try:
                    answer = client.get("/project-dashboard/api/projects")
                except httpx.HTTPError as error:
                    self.faults.append(repr(error))
                    continue
                self.answered += 1
                if answer.status_code != 200:
                    self.faults.append(f"{answer.status_code} {answer.text}")


def test_each_is_restarted_and_nobody_is_refused(pair: list[RunningSidecar], tmp_path: Path) -> None:
    with (
        site(tmp_path / "anew", pair, keeps_connections=False) as connecting_anew,
        site(tmp_path / "kept", pair, keeps_connections=True) as keeping,
        Stage([connecting_anew.port, keeping.port], pair[0]) as stage,
        Readers([connecting_anew, keeping], pair[0].token) as readers,
    ):
        senders = stage.send()
        for _ in range(max(1, ROUNDS // 2)):
            for stopped in pair:
                stage.go_on()
                assert stopped.stop() == 0
                stage.settled()  # at the other one
                stage.go_on()
                stopped.start()
        reports = stage.reckon("restarted in turn behind nginx")
        tell(f"{readers.answered} reads, {len(readers.faults)} faults")
        assert readers.faults == []
        assert [sender.unanswered for sender in senders.each] == [0] * len(senders.each)
        # Where the machine is too slow for its database posts are refused, too, and that is logged.
        assert senders.refused == 0 or any("writer.batch_failed" in server.output() for server in pair)
    recovered, fresh = connects(reports)
    assert recovered >= len(reports), "each page was at one of them"
    assert fresh == 0
    assert not any(page["truncated"] for page in reports.values())
