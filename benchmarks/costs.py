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
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from benchmarks import history, report
from benchmarks.clusters import PATH, SECRET, SETUPS, SIDECARS, Cluster, Machine, cluster
from benchmarks.load import Address, Load
from benchmarks.rows import CONNECT_SECONDS, DRAIN_SECONDS, FLOOD_CONNECTIONS, WARM_SECONDS
from benchmarks.servers import OURS, ROOT, ServerFailed, webhook

ALONE, TWO = (next(setup for setup in SETUPS if setup.name == name) for name in ("notices", "two"))
LISTENERS = 16
RATE = 50
QUESTIONS = 100
INSIDE_SECONDS = 60

P50, P99 = "p50 ms", "p99 ms"
PROCESS, POSTGRES, REDIS = "process", "PostgreSQL", "Redis"
COLUMNS = {P50: P50, P99: P99, PROCESS: "CPU µs: process", POSTGRES: "CPU µs: PostgreSQL", REDIS: "CPU µs: Redis"}
"""Names of figures, and their titles."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one step costs, by names of COLUMNS."""

    title: str
    figures: dict[str, float]


def measure(machine: Machine, seconds: float) -> Iterator[Cost]:
    """One round."""
    yield from _inside(machine)
    for setup, by in ((ALONE, "NOTIFY and a read"), (TWO, "Redis")):
        with cluster(setup, machine) as it:
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
            found: dict[str, float] = json.loads(done.stdout)
            return found

        redis = {"SIDECAR_REDIS_URL": machine.redis.url}
        yield Cost("a commit of one event that nobody is told of", inside("unannounced"))
        yield Cost("the same with NOTIFY", inside("commits"))
        yield Cost("the same with NOTIFY and Redis", inside("commits", **redis))
        yield Cost("the read of a gap of one event", inside("reads"))
        for events in (1, 16):
            title = f"to check and publish a batch of another process, {events} in it, no subscribers"
            yield Cost(title, inside(f"hearing_{events}", **redis))


def _idle(it: Cluster, by: str, seconds: float) -> Iterator[Cost]:
    before = it.cpu_seconds()
    time.sleep(seconds)
    each = {name: (used - before[name]) / seconds / len(it.sidecars) * 1e6 for name, used in it.cpu_seconds().items()}
    yield Cost(f"a second in which nothing happens, each process, by {by}", {PROCESS: each.pop(SIDECARS), **each})


def _hearing(it: Cluster, by: str, seconds: float) -> Iterator[Cost]:
    """What all that is posted to one process costs another one that has no subscriber for it."""
    first, second = it.sidecars
    with Load([first.address], PATH, OURS.body) as load:
        load.closed(FLOOD_CONNECTIONS, WARM_SECONDS, DRAIN_SECONDS)
        for title, run in (
            (f"{RATE} a second", lambda: load.offered(RATE, seconds, DRAIN_SECONDS)),
            ("without a pause", lambda: load.closed(FLOOD_CONNECTIONS, seconds, DRAIN_SECONDS)),
        ):
            before = second.cpu_seconds()
            posts = run().posts
            used = second.cpu_seconds() - before
            figures = {PROCESS: used / max(1, posts) * 1e6}
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
