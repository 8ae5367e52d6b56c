"""One and several processes of this sidecar for the benchmarks: each with an instance folder of its own, as on several
hosts, on one PostgreSQL, with and without Redis, and behind nginx."""

from __future__ import annotations

import re
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import services
from benchmarks.load import Address
from benchmarks.servers import OURS, Running, serving
from benchmarks.services import Postgres, Redis, Service

SECRET = "of the benchmark's processes, shared"
PATH = "/project-dashboard" + OURS.path
"""nginx leaves /api/ to the application beside it."""

SIDECARS = "sidecars"
TAKEN = re.compile(r'^sidecar_journal_tail_events_total\{road="(\w+)"\} (\S+)$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Setup:
    name: str
    title: str
    processes: int
    postgres: bool = True
    redis: bool = False
    nginx: bool = False
    usual: bool = True


SETUPS = (
    Setup("sqlite", "SQLite, 1 process", 1, postgres=False),
    Setup("one", "PostgreSQL, 1", 1),
    Setup("notices", "PostgreSQL alone, 2", 2),
    Setup("two", "PostgreSQL + Redis, 2", 2, redis=True),
    Setup("four", "PostgreSQL + Redis, 4", 4, redis=True, usual=False),
    Setup("nginx-one", "nginx + PostgreSQL + Redis, 1", 1, redis=True, nginx=True),
    Setup("nginx-two", "nginx + PostgreSQL + Redis, 2", 2, redis=True, nginx=True),
    Setup("nginx-four", "nginx + PostgreSQL + Redis, 4", 4, redis=True, nginx=True, usual=False),
)


@dataclass(frozen=True, slots=True)
class Machine:
    """Which cores serve, and what all setups share."""

    cores: set[int]
    load_core: int
    postgres: Postgres
    redis: Redis

    def cpu_seconds(self) -> float:
        """Of what they share, so far."""
        return self.postgres.cpu_seconds() + self.redis.cpu_seconds()


@dataclass(frozen=True, slots=True)
class Cluster:
    """Started sidecars, and who else works for them, by name."""

    sidecars: list[Running]
    addresses: list[Address]
    """Where clients go: to each sidecar, or to nginx."""
    parts: Mapping[str, Callable[[], float]]
    """The CPU seconds of each so far."""

    def cpu_seconds(self) -> dict[str, float]:
        return {name: seconds() for name, seconds in self.parts.items()}

    def taken(self) -> Counter[str]:
        """How many events the tails of all have taken so far, by the road on which they came."""
        roads: Counter[str] = Counter()
        for server in self.sidecars:
            with urllib.request.urlopen("http://{}:{}/metrics".format(*server.address), timeout=30) as answer:
                for road, count in TAKEN.findall(answer.read().decode()):
                    roads[road] += int(float(count))
        return roads


@contextmanager
def cluster(setup: Setup, machine: Machine) -> Iterator[Cluster]:
    with ExitStack() as stack:
        given = {"SIDECAR_SECRET_KEY": SECRET}
        if setup.postgres:
            given["SIDECAR_DATABASE_URL"] = stack.enter_context(machine.postgres.database())
        if setup.redis:
            given["SIDECAR_REDIS_URL"] = machine.redis.url

        def settings(port: int, folder: Path) -> dict[str, str]:
            return OURS.settings(port, folder) | given

        kind = replace(OURS, settings=settings)
        sidecars = [stack.enter_context(serving(kind, machine.cores)) for _ in range(setup.processes)]
        addresses = [server.address for server in sidecars]
        parts: dict[str, Callable[[], float]] = {SIDECARS: lambda: sum(server.cpu_seconds() for server in sidecars)}
        if setup.postgres:
            machine.postgres.settle()
            parts["PostgreSQL"] = machine.postgres.cpu_seconds
        if setup.redis:
            parts["Redis"] = machine.redis.cpu_seconds
        if setup.nginx:
            proxy: Service = stack.enter_context(services.nginx([port for _, port in addresses], machine.cores))
            parts["nginx"] = proxy.cpu_seconds
            addresses = [proxy.address]
        yield Cluster(sidecars, addresses, parts)
