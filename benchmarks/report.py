"""Medians and ratios as a Markdown table, and its place in docs/performance.md."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sqlite3
import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from benchmarks.rows import GENERATOR, Measured, Options, Row
from benchmarks.servers import KINDS, NODE, OURS, PEERS, ROOT, STOCK, Kind

PAGE = ROOT / "docs" / "performance.md"
BEGIN = "<!-- results: written by make bench -->"
END = "<!-- end of results -->"
FLAG = "†"


@dataclass
class Results:
    """Figures of all rounds by row, server and figure; problems by row and server."""

    values: dict[tuple[str, str, str], list[float]] = field(default_factory=dict)
    problems: dict[tuple[str, str], set[str]] = field(default_factory=dict)

    def add(self, row: Row, kind: Kind, measured: Measured) -> None:
        for figure, value in measured.figures.items():
            self.values.setdefault((row.name, kind.name, figure), []).append(value)
        for problem in measured.problems:
            self.problems.setdefault((row.name, kind.name), set()).add(problem)

    def figures(self, row: Row) -> list[str]:
        return list(dict.fromkeys(figure for name, _, figure in self.values if name == row.name))

    def median(self, row: Row, kind: Kind, figure: str) -> float | None:
        values = self.values.get((row.name, kind.name, figure))
        return statistics.median(values) if values else None


def table(results: Results, rows: tuple[Row, ...], options: Options, rounds: int) -> str:
    """All that was measured, with where and when."""
    lines = [f"{sentence}  " for sentence in _circumstances(options, rounds)]
    lines += ["", f"| | {' | '.join(kind.title for kind in KINDS)} | to Node | to Flask-SocketIO |"]
    lines += ["|---|" + "---:|" * (len(KINDS) + 2)]
    for row in rows:
        if row not in GENERATOR:
            lines += _lines(results, row, options)
    own = [line for row in rows if row in GENERATOR for line in _generator(results, row, options)]
    if own:
        lines += ["", "The load generator alone, fed by a process that sends ready-made frames:", "", *own]
    lines += _notes(results, rows, options)
    return "\n".join(lines) + "\n"


def _lines(results: Results, row: Row, options: Options) -> Iterator[str]:
    for figure in results.figures(row):
        ours = results.median(row, OURS, figure)
        cells = [_cell(results, row, kind, figure) for kind in KINDS]
        cells += [_ratio(ours, results.median(row, peer, figure)) for peer in (NODE, STOCK)]
        yield f"| {_title(row, options)}: {figure} | {' | '.join(cells)} |"


def _generator(results: Results, row: Row, options: Options) -> Iterator[str]:
    for figure in results.figures(row):
        yield f"- {_title(row, options)}: {_cell(results, row, row.kinds[0], figure)} {figure}"


def _cell(results: Results, row: Row, kind: Kind, figure: str) -> str:
    value = results.median(row, kind, figure)
    if value is None:
        return "–"
    return _number(value) + (f" {FLAG}" if (row.name, kind.name) in results.problems else "")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _ratio(ours: float | None, theirs: float | None) -> str:
    return f"{_number(ours / theirs)} x" if ours and theirs else "–"


def _title(row: Row, options: Options) -> str:
    return row.title.format(clients=f"{options.clients:,}")


def _notes(results: Results, rows: tuple[Row, ...], options: Options) -> Iterator[str]:
    titles = {kind.name: kind.title for row in rows for kind in row.kinds}
    first = True
    for row in rows:
        for kind in row.kinds:
            problems = results.problems.get((row.name, kind.name))
            if problems:
                yield from ["", f"{FLAG} not as it should be in one round or more:", ""] if first else []
                first = False
                yield f"- {_title(row, options)}, {titles[kind.name]}: {'; '.join(sorted(problems))}"


def _circumstances(options: Options, rounds: int) -> Iterator[str]:
    cores = len(os.sched_getaffinity(0) | {options.server_core})
    yield f"{time.strftime('%Y-%m-%d', time.gmtime())}, {_processor()}, {os.cpu_count()} cores" + (
        " (one for the server, one for the load)" if cores > 1 else " (server and load share one)"
    )
    yield f"Medians of {rounds} rounds of {options.seconds:g} s, the servers in turn"
    python = platform.python_version()
    packages = ("gevent", "Flask-SocketIO", "python-socketio", "gevent-websocket")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    yield f"Python {python}, {versions}, SQLite {sqlite3.sqlite_version}{_node()}{_commit()}"


def _processor() -> str:
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1].strip() if found else "unknown processor"


def _node() -> str:
    if shutil.which("node") is None:
        return ""
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    pinned = re.search(r'"socket.io": "(.+)"', (PEERS / "package.json").read_text())
    return f", Node {version.lstrip('v')}, Socket.IO {pinned[1] if pinned else '?'}"


def _commit() -> str:
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return f", this sidecar at {answer.stdout.strip()}" if answer.returncode == 0 else ""


def write(text: str, page: Path = PAGE) -> None:
    """Put the table between the page's two markers; what is around them stays. Raises ValueError without markers."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page.name} lacks the markers {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")
