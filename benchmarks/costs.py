"""What single steps of several processes cost, for docs/design/scale-out.md (`python -m benchmarks.scale --costs`)."""

from __future__ import annotations

import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

from benchmarks import history, report
from benchmarks.clusters import PATH, SECRET, SETUPS, SIDECARS, Cluster, Machine, cluster
from benchmarks.load import Address, Load
from benchmarks.rows import CONNECT_SECONDS, DRAIN_SECONDS, FLOOD_CONNECTIONS, WARM_SECONDS
from benchmarks.servers import OURS, ROOT, ServerFailed, webhook

ONE, ALONE, TWO = (next(setup for setup in SETUPS if setup.name == name) for name in ("one", "notices", "two"))
SETTLE_SECONDS = 1.0
QUIET_SECONDS = 2.0
CROWD = 200
MANY_LISTENERS = 64
MESSAGES = 500
MESSAGE_BYTES = 600
LISTENERS = 16
RATE = 50
QUESTIONS = 100
INSIDE_SECONDS = 60

P50, P99 = "p50 ms", "p99 ms"
PROCESS, POSTGRES, REDIS, STATEMENTS = "process", "PostgreSQL", "Redis", "statements"
COLUMNS = {
    P50: P50,
    P99: P99,
    PROCESS: "CPU µs: process",
    POSTGRES: "CPU µs: PostgreSQL",
    REDIS: "CPU µs: Redis",
    STATEMENTS: "statements",
}
"""Names of figures, and their titles."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one step costs, by names of COLUMNS."""

    title: str
    figures: dict[str, float]


def measure(machine: Machine, seconds: float) -> Iterator[Cost]:
    """One round."""
    yield from _inside(machine)
    yield from _listeners(machine)
    yield from _statements(machine)
    for setup, by in ((ALONE, "NOTIFY and a read"), (TWO, "Redis")):
        with cluster(setup, machine) as it:
            time.sleep(SETTLE_SECONDS)
            yield from _idle(it, by, seconds)
            yield from _hearing(it, by, seconds)
            yield from _latency(it, by, seconds)
            if setup is TWO:
                yield from _recovery(it)
                yield from _counting(it)


def _inside(machine: Machine) -> Iterator[Cost]:
    with machine.postgres.database() as url, tempfile.TemporaryDirectory(prefix="sidecar-bench-") as instance:
        given = {
            "SIDECAR_INSTANCE_DIR": instance,
            "SIDECAR_DATABASE_URL": url,
            "SIDECAR_SECRET_KEY": SECRET,
            "SIDECAR_LOG_LEVEL": "warning",
        }
        pids = {POSTGRES: machine.postgres.pid, REDIS: machine.redis.pid}

        def inside(step: str, **more: str) -> dict[str, float]:
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.inside", step, json.dumps(pids)],
                cwd=ROOT,
                env={name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")}
                | given
                | more,
                capture_output=True,
                text=True,
                timeout=INSIDE_SECONDS,
                check=False,
                preexec_fn=lambda: os.sched_setaffinity(0, machine.cores),
            )
            if done.returncode:
                raise ServerFailed(f"benchmarks.inside {step} failed:\n{done.stderr}")
            figures: dict[str, float] = json.loads(done.stdout)
            return figures if more else {name: value for name, value in figures.items() if name != REDIS}

        redis = {"SIDECAR_REDIS_URL": machine.redis.url}
        yield Cost("a commit of one event that nobody is told of", inside("unannounced"))
        yield Cost("the same with NOTIFY", inside("commits"))
        yield Cost("the same with NOTIFY and Redis", inside("commits", **redis))
        yield Cost("the read of a gap of one event", inside("reads"))
        yield Cost("100 users who come into a room, stored at once", inside("presences"))
        for events in (1, 16):
            title = f"to check and publish a batch of another process, {events} in it, no subscribers"
            yield Cost(title, inside(f"hearing_{events}", **redis))


def _listeners(machine: Machine) -> Iterator[Cost]:
    """What it costs the services that more processes hear."""
    for count in (1, MANY_LISTENERS):
        with machine.postgres.listeners(count):
            before = machine.postgres.cpu_seconds()
            machine.postgres.announce(MESSAGES)
            used = machine.postgres.cpu_seconds() - before
        yield Cost(f"a NOTIFY heard by {count}", {POSTGRES: used / MESSAGES * 1e6})
    for count in (1, MANY_LISTENERS):
        before = machine.redis.cpu_seconds()
        machine.redis.publish(bytes(MESSAGE_BYTES), MESSAGES, count)
        used = machine.redis.cpu_seconds() - before
        yield Cost(f"a PUBLISH of {MESSAGE_BYTES} bytes heard by {count}", {REDIS: used / MESSAGES * 1e6})


def _statements(machine: Machine) -> Iterator[Cost]:
    """What PostgreSQL is sent, less what one process sends when nothing happens."""
    count = machine.postgres.statements
    with cluster(ONE, machine) as it, Load(it.addresses, PATH, OURS.body) as load:
        load.closed(FLOOD_CONNECTIONS, WARM_SECONDS, DRAIN_SECONDS)

        def beside(act: Callable[[], object]) -> float:
            begin = time.monotonic()
            sent = count(act)
            return sent - quiet * (time.monotonic() - begin)

        quiet = count(lambda: time.sleep(QUIET_SECONDS)) / QUIET_SECONDS
        yield Cost("a second in which nothing happens, one process", {STATEMENTS: quiet})
        yield Cost("a post alone", {STATEMENTS: beside(lambda: _asked(it.addresses[0], PATH)) / QUESTIONS})
        posts: list[int] = []
        sent = beside(lambda: posts.append(load.closed(FLOOD_CONNECTIONS, WARM_SECONDS, DRAIN_SECONDS).posts))
        yield Cost(f"a post of {FLOOD_CONNECTIONS} at a time", {STATEMENTS: sent / max(1, posts[0])})
        sent = beside(lambda: load.connect(CROWD, CONNECT_SECONDS))
        yield Cost("a client that connects and subscribes, in a crowd", {STATEMENTS: sent / CROWD})


def _idle(it: Cluster, by: str, seconds: float) -> Iterator[Cost]:
    before = it.cpu_seconds()
    time.sleep(seconds)
    each = {name: (used - before[name]) / seconds / len(it.sidecars) * 1e6 for name, used in it.cpu_seconds().items()}
    yield Cost(f"a second in which nothing happens, each process, by {by}", {PROCESS: each.pop(SIDECARS), **each})


def _hearing(it: Cluster, by: str, seconds: float) -> Iterator[Cost]:
    """What all that is posted to one process costs another one that has no subscriber for it, beside what it uses when
    nothing happens."""
    first, second = it.sidecars
    before = second.cpu_seconds()
    time.sleep(seconds)
    quiet = (second.cpu_seconds() - before) / seconds
    with Load([first.address], PATH, OURS.body) as load:
        load.closed(FLOOD_CONNECTIONS, WARM_SECONDS, DRAIN_SECONDS)
        for title in (f"{RATE} a second", "without a pause"):
            before = second.cpu_seconds()
            if title == "without a pause":
                outcome = load.closed(FLOOD_CONNECTIONS, seconds, DRAIN_SECONDS)
            else:
                outcome = load.offered(RATE, seconds, DRAIN_SECONDS)
            used = second.cpu_seconds() - before - quiet * outcome.seconds
            figures = {PROCESS: used / max(1, outcome.posts) * 1e6}
            yield Cost(f"an event posted elsewhere, {title}, no subscribers, by {by}", figures)


def _latency(it: Cluster, by: str, seconds: float) -> Iterator[Cost]:
    """From when a post was due at one process to its event at a subscriber of that one, or of the other."""
    first, second = (server.address for server in it.sidecars)
    places = [("the other process", second)] + ([("the same process", first)] if by == "Redis" else [])
    for place, address in places:
        with Load([address], PATH, OURS.body, posted_to=[first]) as load:
            load.connect(LISTENERS, CONNECT_SECONDS)
            load.closed(1, WARM_SECONDS, DRAIN_SECONDS)
            outcome = load.offered(RATE, seconds, DRAIN_SECONDS)
        by_what = f", by {by}" if address == second else ""
        figures = {P50: outcome.p50_ms, P99: outcome.p99_ms}
        yield Cost(f"from a post to a subscriber of {place}{by_what}, {RATE} a second", figures)


def _recovery(it: Cluster) -> Iterator[Cost]:
    first, second = it.sidecars
    for missed in (1, history.MISSED):
        took = sorted(history.recovered(first, second, missed) for _ in range(history.TIMES))
        yield Cost(f"recovery at the other process, {missed:,} missed, all in", {P50: took[len(took) // 2] * 1e3})


def _counting(it: Cluster) -> Iterator[Cost]:
    for title, query in (("a post", ""), ("a post with ?count=all", "?count=all")):
        taken = _asked(it.sidecars[0].address, PATH + query)
        yield Cost(f"{title}, one after the other, two processes", taken)


def _asked(address: Address, path: str) -> dict[str, float]:
    """How long answers take, on one connection."""
    taken = []
    with closing(http.client.HTTPConnection(*address, timeout=30)) as connection:
        for number in range(QUESTIONS):
            begin = time.monotonic()
            connection.request("POST", path, webhook(number, 0), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise ServerFailed(f"{path} was answered {answer.status}")
            taken.append(time.monotonic() - begin)
    taken.sort()
    return {P50: taken[len(taken) // 2] * 1e3, P99: taken[len(taken) * 99 // 100] * 1e3}


def table(rounds: list[list[Cost]]) -> list[str]:
    """Of the medians."""
    values: dict[str, dict[str, list[float]]] = {}
    for cost in (cost for each in rounds for cost in each):
        for name, value in cost.figures.items():
            values.setdefault(cost.title, {}).setdefault(name, []).append(value)
    lines = [f"| | {' | '.join(COLUMNS.values())} |", "|---|" + "---:|" * len(COLUMNS)]
    for title, found in values.items():
        cells = [report.number(statistics.median(found[name])) if name in found else "–" for name in COLUMNS]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines
