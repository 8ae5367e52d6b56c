"""What a live push can be fed from: counts of the installation, figures of this machine, the user's functions."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import psutil
from gevent.threadpool import ThreadPool

from sidecar.domain.errors import Invalid
from sidecar.domain.times import utc_text
from sidecar.observability.logs import described
from sidecar.services.live_push import Source
from sidecar.store.database import Database
from sidecar.store.deployments import count_all_deployments
from sidecar.store.devices import count_devices

SOURCE_SECONDS = 30.0


class SourceFailed(Exception):
    """A source that said nothing usable; the text says why."""


def builtin_sources(
    database: Database, connections: Callable[[], int], sessions: Callable[[], int], stale_before: Callable[[], str]
) -> dict[str, Source]:
    """`live_stats` (counts, which older dashboards show), `system` (load of this machine) and `all` (both). The counts
    of `connections` and `sessions` are those of the process that runs the push. A deployment without news since
    `stale_before` is not counted as running."""
    machine = InThread(machine_figures)

    def counts() -> dict[str, object]:
        devices, positions = database.read(count_devices)
        deployments, running = database.read(lambda c: count_all_deployments(c, stale_before()))
        now = time.time()
        return {
            "devices": devices,
            "dots": positions,
            "sessions": sessions(),
            "connections": connections(),
            "deployments": deployments,
            "deployments_running": running,
            "timestamp": utc_text(now),
            "formatted_time": datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        }

    def said(type: str, stats: Mapping[str, object]) -> dict[str, object]:
        return {"type": type, "content": "Live system update", "stats": stats}

    return {
        "live_stats": lambda: said("live_stats", counts()),
        "system": lambda: said("system_stats", machine()),
        "all": lambda: said("live_stats", {**counts(), **machine()}),
    }


def machine_figures() -> dict[str, object]:
    """The machine's load, in percent and bytes (psutil). The processor's is measured since the last call."""
    memory, disk = psutil.virtual_memory(), psutil.disk_usage("/")
    return {
        "cpu_percent": psutil.cpu_percent(interval=None),
        "load_1m": round(psutil.getloadavg()[0], 2),
        "memory_percent": memory.percent,
        "memory_available_bytes": memory.available,
        "disk_percent": disk.percent,
        "disk_free_bytes": disk.free,
    }


def user_source(path: str) -> Source:
    """The function that `package.module:function` of the settings names. Raises Invalid."""
    module, _, attribute = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:
        raise Invalid(f"SIDECAR_LIVE_SOURCES: {path} can't be imported: {described(error)}") from None
    if not callable(found):
        raise Invalid(f"SIDECAR_LIVE_SOURCES: {path} is no function")
    return InThread(found)


class InThread:
    """A `Source` that may block: it is called in a native thread of its own, one call at a time, and waited for so long
    and no longer; whoever asks meanwhile gets what that call says. It must return a mapping that JSON can hold. Raises
    SourceFailed."""

    def __init__(self, function: Callable[[], Any]):
        self._function = function
        self._thread: ThreadPool | None = None
        self._call: Any = None

    def __call__(self) -> Mapping[str, object]:
        if self._call is None or self._call.ready():
            if self._thread is None:
                self._thread = ThreadPool(1)
            self._call = self._thread.spawn(self._guarded)
        answer = self._call.wait(timeout=SOURCE_SECONDS)
        if answer is None:
            raise SourceFailed(f"its call has not come back within {SOURCE_SECONDS:g} s")
        if isinstance(answer, str):
            raise SourceFailed(answer)
        said: dict[str, object] = answer
        return said

    def _guarded(self) -> dict[str, object] | str:
        """What it said, or what is wrong with it. (gevent prints whatever escapes in a native thread; a SystemExit
        would end the server.)"""
        try:
            said = self._function()
            if not isinstance(said, Mapping):
                return "it returned no mapping"
            return {str(name): value for name, value in said.items()}
        except BaseException as error:
            return described(error)
