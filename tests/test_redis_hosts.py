"""Two processes as on two hosts: PostgreSQL decides, Redis hurries, and nothing is lost while it is away."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.postgres import Postgres
from tests.programs import JsClient, wait_until
from tests.redis import RedisServer
from tests.servers import RunningSidecar, two_processes
from tests.sockets.clients import Page, post_step

QUICK = {"reconnectionDelay": 50, "reconnectionDelayMax": 200}
POSTS_A_TURN = 20


@pytest.fixture(scope="module")
def hosts(
    tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, redis_session: RedisServer
) -> Iterator[list[RunningSidecar]]:
    url = postgres.url(postgres.new_database())
    folder = tmp_path_factory.mktemp("hosts")
    with two_processes(folder, url, apart=True, SIDECAR_REDIS_URL=redis_session.url) as servers:
        yield servers
    for server in servers:
        assert "hunter2" not in server.output(), "Redis' password stays out of the log"


@pytest.fixture
def browser(js: JsClient) -> Iterator[Callable[..., Page]]:
    opened: list[Page] = []

    def connect(server: RunningSidecar, **options: Any) -> Page:
        opened.append(Page(js, server, token=server.token, **QUICK, **options))
        return opened[-1].connected()

    yield connect
    for page in opened:
        page.disconnect()


def taken(server: RunningSidecar, road: str) -> float:
    return server.metric(f'sidecar_journal_tail_events_total{{road="{road}"}}')


def connected(servers: list[RunningSidecar]) -> bool:
    return all(server.metric("sidecar_redis_connected") == 1 for server in servers)


def test_posts_to_both_reach_both_in_one_order_as_batches(hosts, browser, redis_server: RedisServer, name: str):
    """How many a busy machine delays beyond the tail's patience is not known; that they come as batches is."""
    wait_until(lambda: connected(hosts), "both are connected")
    before = [taken(server, "heard") for server in hosts]
    pages = [browser(server) for server in hosts]
    for page in pages:
        page.call("subscribe_project", name)
    seqs: list[int] = []

    def heard() -> bool:
        for number in range(POSTS_A_TURN):
            seqs.extend(post_step(server, name, f"{name}-{number}") for server in hosts)
        return all(taken(server, "heard") - count >= POSTS_A_TURN for server, count in zip(hosts, before, strict=True))

    wait_until(heard, "each has heard of the other's")
    assert [page.wait_for(len(seqs)) for page in pages] == [seqs, seqs]


def test_a_live_push_comes_once_to_each_host(hosts, browser, redis_server: RedisServer, name: str):
    wait_until(lambda: connected(hosts), "both are connected")
    pages = [browser(server) for server in hosts]
    for page in pages:
        page.call("subscribe_room", name)
    started = hosts[0].post("/api/start-live-push/", {"room": name, "interval": 0.2, "data_type": "system"})
    assert started.status_code == 200, started.text
    for page in pages:
        wait_until(lambda page=page: len(page.events) >= 4, "four have come")
        times = [(event["type"], event["timestamp"]) for event in page.events]
        assert times == sorted(set(times)), "each once"
    hosts[1].post("/api/stop-live-push/", {"room": name})


@pytest.mark.parametrize("how", ["stopped", "killed", "frozen"])
def test_while_redis_is_away_events_go_on_and_it_is_told(
    hosts, browser, redis_server: RedisServer, name: str, how: str
):
    ways = {
        "stopped": redis_server.away,
        "killed": lambda: redis_server.away(signal.SIGKILL),
        "frozen": redis_server.frozen,
    }
    wait_until(lambda: connected(hosts), "both are connected")
    page = browser(hosts[1])
    page.call("subscribe_project", name)
    with ways[how]():
        wait_until(lambda: all(server.get("/readyz").json()["warnings"] for server in hosts), "both tell it")
        for server in hosts:
            answer = server.get("/readyz")
            assert (answer.status_code, answer.json()["ready"]) == (200, True)
            assert server.metric("sidecar_redis_connected") == 0
        seqs = [post_step(server, name, name) for server in (*hosts, *hosts)]
        assert page.wait_for(4) == seqs
    wait_until(lambda: connected(hosts), "both are back")
    assert [server.get("/readyz").json()["warnings"] for server in hosts] == [[], []]
    heard = taken(hosts[1], "heard")

    def again() -> bool:
        seqs.append(post_step(hosts[0], name, name))
        return taken(hosts[1], "heard") > heard

    wait_until(again, "batches come again")
    assert page.wait_for(len(seqs)) == seqs
