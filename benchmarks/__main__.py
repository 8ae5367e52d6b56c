"""`python -m benchmarks`: our server beside stock Flask-SocketIO and Socket.IO for Node, in turn, on the same load.

Server and load have a core each. Each measurement is made in several rounds, the servers taking turns in each; the
table holds medians, and ratios within the same run, which alone mean something.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.load import Target

ROOT = Path(__file__).parents[1]
PEERS = ROOT / "benchmarks" / "peers"
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- results -->", "<!-- end of results -->"
START_SECONDS = 30
LOAD_SECONDS = 300
SERVERS = ("ours", "node", "stock")


@dataclass(frozen=True)
class Row:
    """A measurement: the load's job, and which of its figures the table shows."""

    name: str
    job: dict[str, Any]
    figures: tuple[tuple[str, str], ...]
    servers: tuple[str, ...] = SERVERS


def rows(clients: int, seconds: float) -> list[Row]:
    kept = (("deliveries_per_second", "deliveries/s"), ("p50_ms", "p50 ms"), ("p99_ms", "p99 ms"))
    wave: dict[str, Any] = {"kind": "fan_out", "clients": clients, "seconds": seconds}
    crowd = f"{clients:,} clients"
    return [
        Row(f"{crowd}, next post when the last is answered", wave | {"posters": 1}, kept[:1]),
        Row(f"{crowd}, 50 posts/s", wave | {"rate": 50}, kept),
        Row(f"{crowd}, 100 posts/s", wave | {"rate": 100}, kept),
        Row(f"{crowd}, 400 posts/s", wave | {"rate": 400}, kept),
        Row(f"{crowd}, more than it can take", wave | {"posters": 16}, kept[:1]),
        Row("8,000 clients, 50 posts/s", wave | {"rate": 50, "clients": 8_000}, kept, ("ours", "node")),
        Row(
            "2,000 clients, connected and subscribed",
            {"kind": "connect", "clients": 2_000},
            (("bytes_per_client", "bytes a client"), ("connects_per_second", "connects/s")),
        ),
        Row("POST, one connection", {"kind": "posts", "clients": 0, "posters": 1, "seconds": seconds}, POSTS),
        Row("POST, 16 connections", {"kind": "posts", "clients": 0, "posters": 16, "seconds": seconds}, POSTS),
        Row(
            "log_batch of 500, 4 connections",
            {"kind": "posts", "clients": 0, "posters": 4, "lines": 500, "seconds": seconds},
            (("lines_per_second", "lines/s"),),
            ("ours",),
        ),
        Row(
            "5,000 clients vanish at once",
            {"kind": "vanish", "clients": 5_000, "seconds": 5},
            (("pause_ms", "longest pause ms"), ("pause_before_ms", "before ms")),
        ),
    ]


POSTS = (("posts_per_second", "posts/s"),)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def serving(name: str, core: int, folder: Path) -> Iterator[tuple[Target, int]]:
    """One of the servers, pinned to a core: where it listens, and its pid."""
    port = free_port()
    environment = dict(os.environ)
    if name == "ours":
        command = [sys.executable, str(ROOT / "app.py")]
        environment |= {
            "SIDECAR_PORT": str(port),
            "SIDECAR_INSTANCE_DIR": str(folder),
            "SIDECAR_OPEN": "true",
            "SIDECAR_RATE_LIMIT": "off",
            "SIDECAR_HANDSHAKE_RATE": "off",
            "SIDECAR_LOG_LEVEL": "warning",
        }
        target = Target(port, "/socket.io/", "/api/webhooks/deployment", "/healthz")
    elif name == "node":
        command = ["node", str(PEERS / "node.js"), str(port)]
        target = Target(port, "/socket.io/", "/", "/")
    else:
        command = [sys.executable, str(PEERS / "stock.py"), str(port)]
        target = Target(port, "/socket.io/", "/", "/")
    with open(folder / "server.log", "wb") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=output,
            stderr=output,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
    try:
        wait_for(port, process, folder)
        yield target, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    sys.exit("The server did not start:\n" + (folder / "server.log").read_text()[-2_000:])


def measure(row: Row, server: str) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory(prefix="sidecar-bench-") as folder,
        serving(server, 0, Path(folder)) as (target, pid),
    ):
        job = row.job | {"target": asdict(target), "pid": pid, "core": (os.cpu_count() or 1) - 1}
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.load", json.dumps(job)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=LOAD_SECONDS,
            check=False,
        )
    if done.returncode != 0:
        return {"problems": [done.stderr.strip().splitlines()[-1]]}
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def fsync_ms(folder: Path) -> float:
    """The disk's own share of every answer: the median time of a small write that is synced."""
    times = []
    with open(folder / "fsync", "wb") as file:
        for _ in range(200):
            begun = time.perf_counter()
            file.write(b"x" * 4096)
            file.flush()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1e3


def shown(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def table(wanted: list[Row], results: dict[tuple[str, str], list[dict[str, Any]]], servers: list[str]) -> list[str]:
    lines = ["| work | figure | " + " | ".join(servers) + " | ours : node |", "|---|---|" + "---|" * (len(servers) + 1)]
    notes = []
    for row in wanted:
        for key, label in row.figures:
            middle: dict[str, float | None] = {}
            for server in servers:
                values = [r[key] for r in results.get((row.name, server), []) if r.get(key) is not None]
                middle[server] = statistics.median(values) if values else None
            ours, node = middle.get("ours"), middle.get("node")
            ratio = f"{ours / node:.2f}" if ours and node else "–"
            lines.append(f"| {row.name} | {label} | " + " | ".join(shown(middle[s]) for s in servers) + f" | {ratio} |")
        for server in servers:
            for result in results.get((row.name, server), []):
                if result.get("missing"):
                    notes.append(f"- {row.name}, {server}: {result['missing']:,} deliveries had not come at the end.")
                notes += [f"- {row.name}, {server}: {problem}" for problem in result["problems"]]
    return [*lines, "", *sorted(set(notes))]


def machine(rounds: int) -> list[str]:
    processor = platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    versions = {"Python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in ("gevent", "flask-socketio", "python-socketio")}
    if shutil.which("node"):
        versions["Node"] = subprocess.run(
            ["node", "--version"], capture_output=True, text=True, check=True
        ).stdout.strip()
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as folder:
        disk = fsync_ms(Path(folder))
    return [
        f"Measured {datetime.now(UTC):%Y-%m-%d} on {os.cpu_count()} cores of {processor}, one for the server and one "
        f"for the load; medians of {rounds} rounds. A synced write of 4 KiB takes {disk:.2f} ms.",
        "",
        ", ".join(f"{name} {version}" for name, version in versions.items()) + ", socket.io 4.8.4.",
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--only", choices=SERVERS, action="append", help="these servers alone")
    parser.add_argument("--rows", default="", help="only rows whose name contains this")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    options = parser.parse_args()
    servers = list(options.only or SERVERS)
    if "node" in servers and not (shutil.which("node") and (PEERS / "node_modules").is_dir()):
        print("Node or its packages are missing (make bench installs them): without that peer.", file=sys.stderr)
        servers.remove("node")
    wanted = [row for row in rows(options.clients, options.seconds) if options.rows in row.name]
    results: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for turn in range(options.rounds):
        for row in wanted:
            for server in (server for server in servers if server in row.servers):
                result = measure(row, server)
                results.setdefault((row.name, server), []).append(result)
                figures = ", ".join(f"{label} {shown(result.get(key))}" for key, label in row.figures)
                print(f"[{turn + 1}] {row.name}: {server}: {figures} {result['problems'] or ''}", file=sys.stderr)
    text = "\n".join([*machine(options.rounds), *table(wanted, results, servers)])
    print(text)
    if options.write:
        page = PAGE.read_text()
        head, _, rest = page.partition(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
