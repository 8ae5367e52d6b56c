"""Medians and ratios as a Markdown table, and its place in docs/performance.md."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import host
from benchmarks.rows import GENERATOR, Measured, Options, Row
from benchmarks.servers import KINDS, NODE, OURS, ROOT, STOCK, Kind

PAGE = ROOT / "docs" / "performance.md"
BEGIN = "<!-- results: written by make bench -->"
END = "<!-- end of results -->"
FLAG = "†"


@dataclass
class Results:
    """Figures of all rounds by row, server and figure; problems by row and server."""

    values: dict[tuple[str, str, str], list[float]] = field(default_factory=dict)
    problems: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    other_load: list[float] = field(default_factory=list)
    """What other programs took of the cores in each run, from 0 to 1: how far the figures can be trusted."""

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
    lines = [f"{sentence}  " for sentence in _circumstances(results, options, rounds)]
    lines += ["", f"| | {' | '.join(kind.title for kind in KINDS)} | ours / Node | ours / Flask-SocketIO |"]
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
    return number(value) + (f" {FLAG}" if (row.name, kind.name) in results.problems else "")


def number(value: float) -> str:
    """As it is told in a table: three digits where it is small."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _ratio(ours: float | None, theirs: float | None) -> str:
    return number(ours / theirs) if ours and theirs else "–"


def _title(row: Row, options: Options) -> str:
    return row.title.format(clients=f"{options.clients:,}")


def _notes(results: Results, rows: tuple[Row, ...], options: Options) -> list[str]:
    notes = [
        f"- {_title(row, options)}, {kind.title}: {'; '.join(sorted(results.problems[row.name, kind.name]))}"
        for row in rows
        for kind in row.kinds
        if (row.name, kind.name) in results.problems
    ]
    return ["", f"{FLAG} not as it should be in one round or more:", "", *notes] if notes else []


def _circumstances(results: Results, options: Options, rounds: int) -> Iterator[str]:
    today = time.strftime("%Y-%m-%d", time.gmtime())
    pinned = "server and load share one" if options.server_core == options.load_core else "server and load on one each"
    yield f"{today}; {host.processor()}, {pinned}."
    yield f"Medians of {rounds} rounds of {options.seconds:g} s, servers in turn."
    yield f"{host.versions()}."
    if results.other_load:
        usual, most = statistics.median(results.other_load), max(results.other_load)
        yield f"Other programs took {usual:.0%} of these cores in the median run, {most:.0%} in the worst."


def write(text: str, page: Path = PAGE, markers: tuple[str, str] = (BEGIN, END)) -> None:
    """Put the table between the page's two markers; what is around them stays. Raises ValueError without markers."""
    before, begin, rest = page.read_text().partition(markers[0])
    _, end, after = rest.partition(markers[1])
    if not begin or not end:
        raise ValueError(f"{page.name} lacks the markers {markers[0]} and {markers[1]}")
    page.write_text(f"{before}{begin}\n\n{text}\n{end}{after}")
