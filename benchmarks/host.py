"""The machine that the figures are of: processor, versions, and how much of it was not ours meanwhile."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from benchmarks.servers import PEERS, ROOT

PACKAGES = ("gevent", "Flask-SocketIO", "python-socketio", "gevent-websocket")
TICKS = os.sysconf("SC_CLK_TCK")
USER, NICE, SYSTEM, STEAL = 0, 1, 2, 7
"""Columns of a core's line in /proc/stat (proc(5)); interrupts are left out, as they are mostly our own packets."""


def processor() -> str:
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return f"{found[1].strip() if found else platform.machine()}, {os.cpu_count()} cores"


def versions() -> str:
    """Of all that takes part, and this repository's commit where git knows it."""
    named = [f"Python {platform.python_version()}"]
    named += [f"{package} {metadata.version(package)}" for package in PACKAGES]
    named += [f"SQLite {sqlite3.sqlite_version}"]
    if shutil.which("node"):
        pinned = re.search(r'"socket.io": "(.+)"', (PEERS / "package.json").read_text())
        named += [f"Node {_said('node', '--version').lstrip('v')}", f"Socket.IO {pinned[1] if pinned else '?'}"]
    return ", ".join([*named, *commit()])


def commit() -> list[str]:
    """This repository's, where git knows it."""
    found = _said("git", "rev-parse", "--short", "HEAD") if shutil.which("git") else ""
    return [f"this repository at {found}"] if found else []


def _said(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def our_seconds() -> float:
    """What this process has used of the cores, and its children that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class OtherLoad:
    """What other programs and the hypervisor take of these cores from now on; `ours` says what we have used so far."""

    def __init__(self, cores: set[int], ours: Callable[[], float] = our_seconds):
        self._cores = cores
        self._our_seconds = ours
        self._begin = time.monotonic()
        self._busy = self._busy_seconds()
        self._ours = ours()

    def share(self) -> float:
        """From 0 to 1."""
        available = (time.monotonic() - self._begin) * len(self._cores)
        others = (self._busy_seconds() - self._busy) - (self._our_seconds() - self._ours)
        return min(1.0, max(0.0, others / available))

    def _busy_seconds(self) -> float:
        ticks = 0
        for line in Path("/proc/stat").read_text().splitlines():
            name, *columns = line.split()
            if name in {f"cpu{core}" for core in self._cores}:
                ticks += sum(int(columns[column]) for column in (USER, NICE, SYSTEM, STEAL))
        return ticks / TICKS
