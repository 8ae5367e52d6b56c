"""python -m benchmarks.projects: a project of 100,000 deployments. How long its figures take, how long it is forgotten,
what the retention does with a month at once, and how long others wait for an answer meanwhile."""

from __future__ import annotations

import argparse
import http.client
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.servers import OURS, ROOT, Running, serving, webhook

DAYS = 30
EVENTS, STEPS, LINES = 8, 2, 10
"""Of each deployment; each event has a delivery."""
TIMES = 5
FIRST_UPKEEP_SECONDS = 70
RETENTION_SECONDS = 1_800


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.projects", description=__doc__)
    parser.add_argument("--deployments", type=int, default=100_000)
    parser.add_argument("--retention", action="store_true", help="let the retention take all of it in place of that")
    parser.add_argument("--database-url", help="an empty PostgreSQL, in place of a SQLite of its own")
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    age = 2 * DAYS if arguments.retention else 0

    def prepare(instance: Path) -> None:
        _prepare(instance, arguments.database_url, arguments.deployments, age)

    def settings(port: int, folder: Path) -> dict[str, str]:
        url = {"SIDECAR_DATABASE_URL": arguments.database_url} if arguments.database_url else {}
        return OURS.settings(port, folder) | {"SIDECAR_DELIVERIES_BYTES": str(2**33)} | url

    with serving(replace(OURS, settings=settings), cores[0], prepare) as server:
        token = (server.folder / "instance" / "admin-token").read_text().strip()
        with waiting(server, "alone"):
            time.sleep(5)
        if arguments.retention:
            _retention(server, arguments.database_url)
        else:
            _figures(server, token)
            _deletion(server, token)
    return 0


def _figures(server: Running, token: str) -> None:
    for path in ("/api/projects/big/metrics", "/api/badges/big.svg?kind=success-rate", "/api/badges/big.svg"):
        before = server.memory_bytes()
        with waiting(server, path):
            took = sorted(_ask(server, "GET", path, token) for _ in range(TIMES))
        more = (server.memory_bytes() - before) / 2**20
        print(f"{path}: {took[TIMES // 2]:.2f} s (of {TIMES}: {took[0]:.2f} to {took[-1]:.2f}); {more:+.0f} MiB")


def _deletion(server: Running, token: str) -> None:
    begin, times = time.monotonic(), 0
    with waiting(server, "deletion"):
        while True:
            status, body = _request(server, "DELETE", "/api/projects/big", token)
            times += 1
            if status != 202:
                break
    print(f"deletion: {time.monotonic() - begin:.1f} s in {times} requests; {status} {body.decode().strip()}")


def _retention(server: Running, url: str | None) -> None:
    begin = time.monotonic()
    with waiting(server, "retention"):
        while time.monotonic() - begin < FIRST_UPKEEP_SECONDS + RETENTION_SECONDS:
            time.sleep(2)
            if all(_oldest(server, url, table) != "old" for table in ("events", "log_lines", "deliveries")):
                break
    print(f"retention: {time.monotonic() - begin:.0f} s, of which about a minute before it begins")


def _oldest(server: Running, url: str | None, table: str) -> str:
    """Whether the first row of a table is one of those that were filled in."""
    key, at = {"events": ("seq", "at"), "log_lines": ("number", "at"), "deliveries": ("number", "received_at")}[table]
    rows = _run(server.folder / "instance", url, [f"SELECT {at} FROM {table} ORDER BY {key} LIMIT 1"])
    recent = _day(timedelta(days=DAYS))
    return "old" if rows and rows[0][0][:10] < recent else "young"


@contextmanager
def waiting(server: Running, what: str) -> Iterator[None]:
    """How long a look at /healthz and a post to another project take meanwhile, in milliseconds: half of them, 99 of
    100, and the longest, less what the server's main thread and ours waited for a core that others had. (/healthz needs
    no database: it waits for the event loop alone.)"""
    end = threading.Event()
    number = iter(range(10**9))
    probes = {
        "healthz": Probe(server, end, 0.005, lambda: ("GET", "/healthz", None)),
        "post": Probe(server, end, 0.02, lambda: ("POST", OURS.path, webhook(next(number), 0))),
    }
    try:
        yield
    finally:
        end.set()
        for name, probe in probes.items():
            probe.join()
            took = sorted(probe.took) or [0.0]
            half, most, last = took[len(took) // 2], took[len(took) * 99 // 100], took[-1]
            print(
                f"{what}: {name} {half * 1e3:.1f} / {most * 1e3:.1f} / {last * 1e3:.1f} ms of {len(took)}", flush=True
            )


class Probe(threading.Thread):
    """Asks again and again, with a pause between."""

    def __init__(
        self,
        server: Running,
        end: threading.Event,
        pause_seconds: float,
        request: Callable[[], tuple[str, str, bytes | None]],
    ):
        super().__init__()
        self.took: list[float] = []
        self._server = server
        self._end = end
        self._pause_seconds = pause_seconds
        self._request = request
        self.start()

    def run(self) -> None:
        with closing(http.client.HTTPConnection(*self._server.address, timeout=60)) as connection:
            while not self._end.wait(self._pause_seconds):
                method, path, body = self._request()
                begin, waited = time.monotonic(), self._waited()
                connection.request(method, path, body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                self.took.append(max(0.0, time.monotonic() - begin - self._waited() + waited))
                assert answer.status == 200, answer.status

    def _waited(self) -> float:
        """Seconds that both could have run and had no core (proc(5), schedstat)."""
        pid = self._server.pid
        files = (f"/proc/{pid}/task/{pid}/schedstat", f"/proc/self/task/{threading.get_native_id()}/schedstat")
        return sum(int(Path(file).read_text().split()[1]) for file in files) / 1e9


def _ask(server: Running, method: str, path: str, token: str) -> float:
    begin = time.monotonic()
    status, body = _request(server, method, path, token)
    assert status == 200, (status, body)
    return time.monotonic() - begin


def _request(server: Running, method: str, path: str, token: str) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection(*server.address, timeout=120)) as connection:
        connection.request(method, path, headers={"Authorization": f"Token {token}"})
        answer = connection.getresponse()
        return answer.status, answer.read()


def _prepare(instance: Path, url: str | None, deployments: int, age_days: int) -> None:
    environment = os.environ | {"SIDECAR_INSTANCE_DIR": str(instance)}
    if url:
        environment["SIDECAR_DATABASE_URL"] = url
    subprocess.run([sys.executable, "-m", "sidecar", "db", "upgrade"], cwd=ROOT, env=environment, check=True)
    begin = time.monotonic()
    _run(instance, url, statements(deployments, age_days, "blob" if url is None else "bytea"))
    print(f"{deployments:,} deployments, {deployments * EVENTS:,} events, {time.monotonic() - begin:.0f} s to fill")


def _run(instance: Path, url: str | None, wanted: list[str]) -> list[Any]:
    """What the last of the statements finds."""
    if url is None:
        with closing(sqlite3.connect(instance / "sidecar.db", timeout=60)) as connection, connection:
            return [connection.execute(statement).fetchall() for statement in wanted][-1]
    import psycopg

    with psycopg.connect(url.replace("+psycopg", "")) as remote:
        for statement in wanted:
            cursor = remote.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def _day(ago: timedelta) -> str:
    return (datetime.now(UTC) - ago).date().isoformat()


def statements(deployments: int, age_days: int, binary: str) -> list[str]:
    """The project `big`, over the 30 days that ended so many days ago; `binary` is what the database calls bytes."""
    times = [f"{_day(timedelta(days=age_days + number))}T10:00:00.000Z" for number in range(DAYS)]
    spread = ", ".join(f"({number}, '{time}')" for number, time in enumerate(times))
    events = deployments * EVENTS
    body = '{"type":"log_entry","project":"big","deployment_id":"big-1","message":"' + "x" * 80 + '"}'

    def rows(each: int) -> str:
        """So many for each deployment, the oldest first."""
        return (
            "WITH RECURSIVE numbers(n) AS "
            f"(SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < {deployments * each - 1}), "
            f"days(k, at) AS (VALUES {spread}), rows(n, id, at) AS (SELECT n, 'big-' || (n / {each}), at "
            f"FROM numbers JOIN days ON k = {DAYS - 1} - (n / {each}) * {DAYS} / {deployments})"
        )

    return [
        f"INSERT INTO projects (name, first_at, last_at) VALUES ('big', '{times[-1]}', '{times[-1]}')",
        f"""{rows(1)} INSERT INTO deployments (deployment_id, attempt, number, latest, project, status, status_at,
            duration_seconds, lines, first_at, last_at, seq)
            SELECT id, 1, n * {EVENTS} + 1, true, 'big',
            CASE n % 20 WHEN 0 THEN 'failed' WHEN 1 THEN 'cancelled' ELSE 'success' END,
            at, (n * 7919 % 30000) / 10.0, {LINES}, at, at, n * {EVENTS} + {EVENTS} FROM rows""",
        f"""{rows(STEPS)} INSERT INTO steps (deployment_id, attempt, key, name, position, status, status_at,
            duration_seconds, first_at, last_at)
            SELECT id, 1, 'step-' || (n % {STEPS}), 'step-' || (n % {STEPS}), n % {STEPS}, 'success', at,
            (n * 104729 % 9000) / 10.0, at, at FROM rows""",
        f"""{rows(LINES)} INSERT INTO log_lines (deployment_id, attempt, seq, at, level, message)
            SELECT id, 1, n / {LINES} * {EVENTS} + {EVENTS}, at, 'info', '{"x" * 80}' FROM rows ORDER BY n""",
        f"""{rows(EVENTS)} INSERT INTO events (seq, mark, batch, type, payload, rooms, at)
            SELECT n + 1, 1, '', 'log_entry', '{body}', '["project:big","deployment:' || id || '"]', at FROM rows""",
        f"{rows(EVENTS)} INSERT INTO event_rooms (room, seq) SELECT 'project:big', n + 1 FROM rows",
        f"{rows(EVENTS)} INSERT INTO event_rooms (room, seq) SELECT 'deployment:' || id, n + 1 FROM rows",
        f"""{rows(EVENTS)} INSERT INTO deliveries (received_at, path, source, address, headers, body, body_sha256,
            verdict, repaired, project, deployment_id, seq)
            SELECT at, '/api/webhooks/deployment', '', '', '{{}}', CAST('{body}' AS {binary}), '', 'stored', false,
            'big', id, n + 1 FROM rows ORDER BY n""",
        f"UPDATE journal_head SET seq = {events}, mark = 1",
    ]


if __name__ == "__main__":
    sys.exit(main())
