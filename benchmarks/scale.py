"""python -m benchmarks.scale: one and several processes of this sidecar on one PostgreSQL, with and without Redis, and
behind nginx: what they deliver, how late, and what it costs each part. With --costs: what single steps cost."""

from __future__ import annotations

import argparse
import os
import resource
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from benchmarks import costs, host, report, services
from benchmarks.__main__ import Names
from benchmarks.clusters import PATH, SETUPS, Cluster, Machine, Setup, cluster
from benchmarks.frames import BadFrame
from benchmarks.load import Load, LoadFailed, Outcome
from benchmarks.rows import CONNECT_SECONDS, DRAIN_SECONDS, FLOOD_CONNECTIONS, WARM_SECONDS, fsync_seconds
from benchmarks.servers import OURS, ServerFailed

SCALE = ("<!-- scale: written by python -m benchmarks.scale --write -->", "<!-- end of scale -->")
COSTS = ("<!-- costs: written by python -m benchmarks.scale --costs --write -->", "<!-- end of costs -->")
"""Between which the tables stand."""


@dataclass(frozen=True, slots=True)
class Row:
    """`title` may contain `{clients}`; `figures` makes some of what came out."""

    name: str
    title: str
    run: Callable[[Load, float], Outcome]
    figures: Callable[[Outcome], dict[str, float]]
    clients: bool = True


START, CONNECT = "start", "connect"


def _flood(load: Load, seconds: float) -> Outcome:
    return load.closed(FLOOD_CONNECTIONS, seconds, DRAIN_SECONDS)


def _offered(rate: float) -> Callable[[Load, float], Outcome]:
    return lambda load, seconds: load.offered(rate, seconds, DRAIN_SECONDS)


def _kept(outcome: Outcome) -> dict[str, float]:
    return {"deliveries/s kept": outcome.deliveries_a_second, "p50 ms": outcome.p50_ms, "p99 ms": outcome.p99_ms}


ROWS = (
    Row(
        "posts",
        f"{FLOOD_CONNECTIONS} connections post without a pause, no clients",
        _flood,
        lambda outcome: {"posts/s": outcome.posts_a_second},
        clients=False,
    ),
    Row(
        "flood",
        f"{{clients}} clients, {FLOOD_CONNECTIONS} connections post without a pause",
        _flood,
        lambda outcome: {"deliveries/s": outcome.deliveries_a_second},
    ),
    Row("50", "{clients} clients, 50 posts/s", _offered(50), _kept),
    Row("100", "{clients} clients, 100 posts/s", _offered(100), _kept),
)


@dataclass
class Results:
    """Figures of all rounds by row, figure and setup; problems by row and setup."""

    values: dict[tuple[str, str, str], list[float]] = field(default_factory=dict)
    problems: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    other_load: list[float] = field(default_factory=list)

    def add(self, row: str, setup: str, figures: Mapping[str, float], problems: tuple[str, ...]) -> None:
        for figure, value in figures.items():
            self.values.setdefault((row, figure, setup), []).append(value)
        if problems:
            self.problems.setdefault((row, setup), set()).update(problems)

    def cell(self, row: str, figure: str, setup: str) -> str:
        values = self.values.get((row, figure, setup))
        if not values:
            return "–"
        return report.number(statistics.median(values)) + (f" {report.FLAG}" if (row, setup) in self.problems else "")


def measure(setup: Setup, machine: Machine, arguments: argparse.Namespace, results: Results) -> None:
    """All rows on one start of the setup."""
    with cluster(setup, machine) as it, Load(it.addresses, PATH, OURS.body) as load:
        load.closed(len(it.addresses), WARM_SECONDS, DRAIN_SECONDS)
        for row in ROWS:
            if row.clients and not load.subscribed:
                _connect(setup, it, load, arguments.clients, results)
                load.closed(FLOOD_CONNECTIONS, WARM_SECONDS, DRAIN_SECONDS)
            others = host.OtherLoad(
                machine.cores | {machine.load_core}, lambda: time.process_time() + sum(it.cpu_seconds().values())
            )
            taken, before = it.taken(), it.cpu_seconds()
            outcome = row.run(load, arguments.seconds)
            each = _each(it, before, outcome.posts, "post")
            results.add(row.name, setup.name, row.figures(outcome) | _read(it, taken) | each, outcome.problems)
            results.other_load.append(others.share())


def _connect(setup: Setup, it: Cluster, load: Load, clients: int, results: Results) -> None:
    before = it.cpu_seconds()
    rate = clients / load.connect(clients, CONNECT_SECONDS)
    results.add(CONNECT, setup.name, {"connects/s": rate} | _each(it, before, clients, "connect"), ())


def _each(it: Cluster, before: Mapping[str, float], count: int, what: str) -> dict[str, float]:
    """What each part has used since."""
    used = {name: seconds - before[name] for name, seconds in it.cpu_seconds().items()}
    return {f"CPU ms a {what}: {name}": 1e3 * seconds / max(1, count) for name, seconds in used.items()}


def _read(it: Cluster, before: Counter[str]) -> dict[str, float]:
    """How many of the events that others had stored were read from the journal, because no doorbell brought them."""
    taken = it.taken() - before
    others = taken["heard"] + taken["read"]
    if len(it.sidecars) == 1 or not others:
        return {}
    return {"of others' events read from the journal, %": 100 * taken["read"] / others}


def table(results: Results, setups: list[Setup], clients: int) -> list[str]:
    lines = [f"| | {' | '.join(setup.title for setup in setups)} |", "|---|" + "---:|" * len(setups)]
    titles = {CONNECT: "{clients} clients connect and subscribe", **{row.name: row.title for row in ROWS}}
    for row, title in titles.items():
        lines.append(f"| **{title.format(clients=f'{clients:,}')}** |" + " |" * len(setups))
        figures = dict.fromkeys(figure for name, figure, _ in results.values if name == row)
        for figure in sorted(figures, key=lambda figure: figure.startswith("CPU")):
            cells = [results.cell(row, figure, setup.name) for setup in setups]
            lines.append(f"| {figure} | {' | '.join(cells)} |")
    if results.problems:
        lines += ["", f"{report.FLAG} not as it should be in one round or more:", ""]
        lines += [f"- {row}, {setup}: {'; '.join(sorted(all_))}" for (row, setup), all_ in results.problems.items()]
    return lines


def circumstances(machine: Machine, rounds: int, seconds: float, other_load: list[float]) -> list[str]:
    """When and where."""
    count = len(machine.cores)
    served = f"{count} cores for all that serves" if count > 1 else "one core for all that serves"
    lines = [
        f"{time.strftime('%Y-%m-%d', time.gmtime())}; {host.processor()}: {served}, another one for the load.  ",
        f"Medians of {rounds} rounds, {seconds:g} s a run.  ",
        f"{', '.join([*services.versions(), *host.commit()])}.  ",
        f"fsync of 4 KiB where PostgreSQL writes: {fsync_seconds(machine.postgres.folder) * 1e3:.2g} ms.  ",
    ]
    if other_load:
        usual, most = statistics.median(other_load), max(other_load)
        lines.append(f"Other programs took {usual:.0%} of these cores in the median run, {most:.0%} in the worst.  ")
    return [*lines, ""]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    names = [setup.name for setup in SETUPS]
    parser.add_argument("--setups", type=Names(names), help=", ".join(names))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=2.5, help="of posting in each run")
    parser.add_argument("--costs", action="store_true", help="what single steps cost, in place of these setups")
    parser.add_argument("--write", action="store_true", help=f"replace the table in docs/{report.PAGE.name}")
    parser.set_defaults(setups=[setup.name for setup in SETUPS if setup.usual])
    return parser.parse_args()


def main() -> int:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if (reason := services.missing()) is not None:
        sys.exit(reason)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    *serving_cores, load_core = sorted(os.sched_getaffinity(0))
    cores = set(serving_cores) or {load_core}
    os.sched_setaffinity(0, {load_core})
    with services.postgres(cores) as postgres, services.redis_server(cores) as redis:
        machine = Machine(cores, load_core, postgres, redis)
        if arguments.costs:
            text, markers = _costs(machine, arguments), COSTS
        else:
            text, markers = _setups(machine, arguments), SCALE
    print(text)
    if arguments.write:
        report.write(text, markers=markers)
    return 0


def _setups(machine: Machine, arguments: argparse.Namespace) -> str:
    setups = [setup for setup in SETUPS if setup.name in arguments.setups]
    results = Results()
    for number in range(arguments.rounds):
        for setup in setups:
            begin = time.monotonic()
            try:
                measure(setup, machine, arguments, results)
            except (BadFrame, LoadFailed, ServerFailed, OSError) as error:
                results.add(START, setup.name, {}, (str(error),))
            print(f"{number + 1} {setup.name}: {time.monotonic() - begin:.0f} s", file=sys.stderr)
    lines = circumstances(machine, arguments.rounds, arguments.seconds, results.other_load)
    return "\n".join([*lines, *table(results, setups, arguments.clients)]) + "\n"


def _costs(machine: Machine, arguments: argparse.Namespace) -> str:
    rounds, other_load = [], []
    for number in range(arguments.rounds):
        others = host.OtherLoad(machine.cores | {machine.load_core}, lambda: host.our_seconds() + machine.cpu_seconds())
        rounds.append(list(costs.measure(machine, arguments.seconds)))
        other_load.append(others.share())
        print(f"{number + 1}: other load {other_load[-1]:.0%}", file=sys.stderr)
    lines = circumstances(machine, arguments.rounds, arguments.seconds, other_load)
    return "\n".join([*lines, *costs.table(rounds)]) + "\n"


if __name__ == "__main__":
    sys.exit(main())
