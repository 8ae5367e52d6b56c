"""A whole run against the simplest of servers: what came is told as it was, and so is what is lacking."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from benchmarks.load import Load, LoadFailed
from benchmarks.servers import Kind, Running, blaster, serving

CLIENTS = 40
EVENTS_A_POST = 3


@pytest.fixture
def server() -> Iterator[Running]:
    with serving(blaster(EVENTS_A_POST), min(os.sched_getaffinity(0))) as running:
        yield running


@pytest.fixture
def pair(server: Running) -> Iterator[list[tuple[str, int]]]:
    with serving(server.kind, min(os.sched_getaffinity(0))) as other:
        yield [server.address, other.address]


def load(server: Running, kind: Kind | None = None) -> Load:
    kind = kind or server.kind
    return Load([server.address], kind.path, kind.body, kind.events_a_post)


def test_a_closed_loop_delivers_each_event_to_each_client(server: Running) -> None:
    with load(server) as it:
        it.connect(CLIENTS, 30)
        runs = (it.closed(2, 0.2, 30) for _ in range(50))  # a busy machine may not answer one post in that time
        outcome = next(run for run in runs if run.posts or run.problems)
    assert outcome.problems == ()
    assert outcome.deliveries == outcome.posts * EVENTS_A_POST * CLIENTS


def test_an_offered_rate_posts_all_that_was_due(server: Running) -> None:
    with load(server) as it:
        it.connect(CLIENTS, 30)
        outcome = it.offered(100, 0.2, 30)
    assert outcome.problems == ()
    assert outcome.posts == 20


def test_a_second_run_does_not_count_what_the_first_delivered(server: Running) -> None:
    with load(server) as it:
        it.connect(CLIENTS, 30)
        it.closed(1, 0.1, 30)
        outcome = it.offered(50, 0.1, 30)
    assert outcome.problems == ()
    assert outcome.deliveries == 5 * EVENTS_A_POST * CLIENTS


def test_events_that_are_lacking_are_told(server: Running) -> None:
    with load(server, replace(server.kind, events_a_post=EVENTS_A_POST + 1)) as it:
        it.connect(CLIENTS, 30)
        outcome = it.offered(100, 0.1, 2)
    assert outcome.problems == (f"{CLIENTS} clients lack events",)


def test_events_that_are_too_many_are_told(server: Running) -> None:
    with load(server, replace(server.kind, events_a_post=EVENTS_A_POST - 1)) as it:
        it.connect(CLIENTS, 30)
        outcome = it.offered(100, 0.1, 30)
    assert "events came twice" in outcome.problems


def test_posts_go_to_several_servers_in_turn(server: Running, pair: list[tuple[str, int]]) -> None:
    """Two that know nothing of each other: each client has what was posted to its own."""
    with Load(pair, server.kind.path, server.kind.body, EVENTS_A_POST) as it:
        it.connect(CLIENTS, 30)
        outcome = it.offered(100, 0.2, 2)
    assert outcome.posts == 20
    assert outcome.deliveries == 10 * EVENTS_A_POST * CLIENTS
    assert f"{CLIENTS} clients lack events" in outcome.problems


def test_clients_are_spread_over_several_servers(server: Running, pair: list[tuple[str, int]]) -> None:
    with Load(pair, server.kind.path, server.kind.body, EVENTS_A_POST, posted_to=pair[:1]) as it:
        it.connect(CLIENTS, 30)
        outcome = it.offered(100, 0.2, 2)
    assert outcome.deliveries == 20 * EVENTS_A_POST * CLIENTS // 2
    assert f"{CLIENTS // 2} clients lack events" in outcome.problems


def test_a_server_that_is_gone_ends_the_run_with_its_reason(server: Running) -> None:
    with load(server) as it:
        it.connect(CLIENTS, 30)
        os.kill(server.pid, 9)
        with pytest.raises(LoadFailed):
            it.offered(100, 30, 30)
