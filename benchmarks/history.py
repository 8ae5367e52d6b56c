"""A long journal, and a browser that comes back to it: how long until it has the thousand events that it missed."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import websocket

from benchmarks.servers import OURS, ROOT, Running, serving, webhook

ROWS = 10_000_000
PROJECTS = 1_000
MISSED = 1_000
TIMES = 5
WAIT_SECONDS = 60
EVENT = b'42["event",'


def measure(core: int) -> dict[str, float]:
    """Milliseconds, each the median of a few times: `since` far back in the journal, read from the disk; and recovery
    of what was posted a moment ago."""
    with serving(OURS, core, prepare=_fill) as server:
        deep = [_since(server) for _ in range(TIMES)]
        recent = [recovered(server, server, MISSED) for _ in range(TIMES)]
    return {
        f"{MISSED:,} missed by `since`, all in, ms": sorted(deep)[TIMES // 2] * 1e3,
        f"{MISSED:,} missed by recovery, all in, ms": sorted(recent)[TIMES // 2] * 1e3,
    }


def _since(server: Running) -> float:
    """From the subscribe on."""
    browser = Browser(server)
    browser.join()
    begin = time.monotonic()
    browser.emit("subscribe_project", str(PROJECTS - 1), {"since": ROWS - MISSED * PROJECTS})
    browser.await_events(MISSED)
    seconds = time.monotonic() - begin
    browser.close()
    return seconds


def recovered(former: Running, server: Running, missed: int) -> float:
    """Seconds from the CONNECT packet on, of a browser that was at the one and comes back to the other."""
    browser = Browser(former)
    browser.join()
    browser.emit("subscribe_project", "bench")
    _post(former, 1)
    browser.take(1)
    browser.close()
    _post(former, missed)
    again = Browser(server, browser)
    begin = time.monotonic()
    if not again.join():
        raise AssertionError("The session was not recovered.")
    again.await_events(missed)
    seconds = time.monotonic() - begin
    again.close()
    return seconds


class Browser:
    """As socket.io-client: keeps its pid and its last offset; `former` is what it was before."""

    def __init__(self, server: Running, former: Browser | None = None):
        host, port = server.address
        self._socket = websocket.create_connection(
            f"ws://{host}:{port}/socket.io/?EIO=4&transport=websocket", timeout=WAIT_SECONDS
        )
        assert self._socket.sock is not None
        self._raw = self._socket.sock
        self._socket.recv()
        self.pid: str | None = None if former is None else former.pid
        self.offset: str | None = None if former is None else former.offset

    def join(self) -> bool:
        """CONNECT; whether the session was recovered."""
        given = {name: value for name, value in (("pid", self.pid), ("offset", self.offset)) if value}
        self._socket.send("40" + json.dumps(given))
        answer = json.loads(self._packet()[2:])
        recovered: bool = answer["pid"] == self.pid
        self.pid = answer["pid"]
        return recovered

    def emit(self, *arguments: object) -> None:
        self._socket.send("42" + json.dumps(arguments))

    def take(self, count: int) -> None:
        """Read until so many events have come."""
        while count:
            packet = self._packet()
            if packet.startswith("42"):
                name, *arguments = json.loads(packet[2:])
                if isinstance(arguments[-1], str):
                    self.offset = arguments[-1]
                count -= name == "event"

    def await_events(self, count: int) -> None:
        """The last thing that it does: count events in what comes, unread, because reading takes Python longer than
        sending."""
        seen, rest = 0, b""
        while seen < count:
            data = rest + self._raw.recv(1 << 20)
            seen += data.count(EVENT)
            rest = data[-len(EVENT) + 1 :]

    def close(self) -> None:
        self._socket.close()

    def _packet(self) -> str:
        while True:
            packet = str(self._socket.recv())
            if packet != "2":
                return packet
            self._socket.send("3")


def _post(server: Running, count: int) -> None:
    connection = http.client.HTTPConnection(*server.address, timeout=WAIT_SECONDS)
    for number in range(count):
        connection.request("POST", OURS.path, webhook(number, 0), {"Content-Type": "application/json"})
        connection.getresponse().read()
    connection.close()


def _fill(instance: Path) -> None:
    instance.mkdir(mode=0o700)
    shutil.copyfile(filled(ROWS), instance / "sidecar.db")


@cache
def filled(rows: int) -> Path:
    """A database with a journal of so many events, made once a run. Each event lies in the rooms of its project and of
    its deployment; each room has one of a thousand."""
    folder = Path(tempfile.mkdtemp(prefix="sidecar-bench-"))
    _folders.append(folder)
    environment = os.environ | {"SIDECAR_INSTANCE_DIR": str(folder)}
    subprocess.run([sys.executable, "-m", "sidecar", "db", "upgrade"], cwd=ROOT, env=environment, check=True)
    connection = sqlite3.connect(folder / "sidecar.db", isolation_level=None)
    for statement in _statements(rows):
        connection.execute(statement).fetchall()
    connection.close()
    return folder / "sidecar.db"


def _statements(rows: int) -> Iterator[str]:
    numbers = f"WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < {rows - 1})"
    a_room = rows // PROJECTS
    yield "PRAGMA journal_mode = OFF"
    yield "PRAGMA synchronous = OFF"
    yield f"""{numbers} INSERT INTO events (seq, mark, batch, type, payload, rooms, at)
        SELECT n + 1, 1, '', 'log_entry',
        '{{"project":"bench","deployment_id":"bench-1","level":"info","message":"' || hex(randomblob(60)) || '"}}',
        '["project:' || (n % {PROJECTS}) || '","deployment:' || (n % {PROJECTS}) || '"]', '2026-11-21T06:00:17.000Z'
        FROM numbers"""
    # In the order of the primary key: room after room.
    yield f"""{numbers} INSERT INTO event_rooms (room, seq) SELECT 'deployment:' || (n / {a_room}),
        (n % {a_room}) * {PROJECTS} + n / {a_room} + 1 FROM numbers"""
    yield """INSERT INTO event_rooms (room, seq) SELECT replace(room, 'deployment', 'project'), seq FROM event_rooms
        ORDER BY 1, 2"""
    yield f"UPDATE journal_head SET seq = {rows}, mark = 1"
    yield "PRAGMA journal_mode = WAL"


_folders: list[Path] = []


def clean() -> None:
    """Remove what `measure` made for the whole run."""
    while _folders:
        shutil.rmtree(_folders.pop(), ignore_errors=True)
    filled.cache_clear()
