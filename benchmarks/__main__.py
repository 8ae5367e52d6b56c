"""python -m benchmarks: measure this sidecar and its peers in turn, and print the table (--write: into the page)."""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys

from benchmarks import history, report
from benchmarks.frames import BadFrame
from benchmarks.host import OtherLoad
from benchmarks.load import LoadFailed
from benchmarks.rows import GENERATOR, ROWS, Measured, Options, Row
from benchmarks.servers import KINDS, Kind, ServerFailed

ALL = ROWS + GENERATOR


def main() -> int:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of an exception, so that servers are ended
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    options = Options(arguments.clients, arguments.seconds, cores[0], cores[-1])
    rows = tuple(row for row in ALL if row.name in arguments.rows)
    kinds = [kind for kind in KINDS if kind.name in arguments.only and not _missing(kind)]
    results = report.Results()
    try:
        for number in range(arguments.rounds):
            _round(number, rows, kinds, options, results)
    except KeyboardInterrupt:
        if results.values:
            print(report.table(results, rows, options, arguments.rounds))
        return 130
    finally:
        history.clean()
    text = report.table(results, rows, options, arguments.rounds)
    print(text)
    if arguments.write:
        report.write(text)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rows", type=Names([row.name for row in ALL]), help=", ".join(row.name for row in ALL))
    parser.add_argument("--only", type=Names([kind.name for kind in KINDS]), help="of ours,stock,node")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=4, help="of posting in each run")
    parser.add_argument("--write", action="store_true", help=f"replace the table in docs/{report.PAGE.name}")
    parser.set_defaults(
        rows=[row.name for row in ALL if row.usual],
        only=[kind.name for kind in KINDS],
    )
    return parser.parse_args()


class Names:
    """A comma list of known names, as argparse wants it."""

    def __init__(self, known: list[str]):
        self._known = known

    def __call__(self, text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in self._known:
                raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(self._known)}")
        return names


def _missing(kind: Kind) -> bool:
    reason = kind.missing()
    if reason:
        print(f"Without {kind.title}: {reason}.", file=sys.stderr)
    return reason is not None


def _round(number: int, rows: tuple[Row, ...], kinds: list[Kind], options: Options, results: report.Results) -> None:
    for row in rows:
        for kind in row.kinds:
            if kind not in KINDS or kind in kinds:
                print(f"{number + 1} {row.name} {kind.name}: {_run(row, kind, options, results)}", file=sys.stderr)


def _run(row: Row, kind: Kind, options: Options, results: report.Results) -> str:
    """Measure and keep; what came out, in a line. A server that fails costs its own figures only."""
    others = OtherLoad({options.server_core, options.load_core})
    try:
        measured = row.measure(kind, options)
    except (BadFrame, LoadFailed, ServerFailed, OSError) as error:
        measured = Measured({}, (str(error),))
    results.add(row, kind, measured)
    other_load = others.share()
    results.other_load.append(other_load)
    figures = [f"{name} {value:,.1f}" for name, value in measured.figures.items()]
    return "; ".join([*figures, *measured.problems, f"other load {other_load:.0%}"])


if __name__ == "__main__":
    sys.exit(main())
