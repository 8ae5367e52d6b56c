"""The servers that are measured, each a process pinned to one core: started on a free loopback port with a folder of
its own, and ended by its pid. All deliver an event of the same bytes to the room of one project.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.frames import event_text

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "benchmarks" / "peers"
START_SECONDS = 30
STOP_SECONDS = 12
Body = Callable[[int, int], bytes]
"""Makes the body of a post from its number and its stamp in nanoseconds."""

TIME = "2026-11-21T06:00:17.000Z"


def webhook(number: int, stamp_ns: int) -> bytes:
    """A log line as a workflow posts it to the sidecar."""
    return _json({"type": "log_entry", **_payload(number, stamp_ns)})


def event(number: int, stamp_ns: int) -> bytes:
    """What the sidecar makes of `webhook`: the peers are posted this, and emit it as it is."""
    return _json(
        {
            "type": "log_entry",
            "payload": _payload(number, stamp_ns),
            "timestamp": TIME,
            "seq": number,
            "epoch": "6ed2f221",
            "offset": f"{number}.cb759497",
        }
    )


def log_batch(lines: int) -> Body:
    """That many log lines in one webhook; only the first line differs from post to post."""
    entries = [{"level": "info", "message": f"line {line} of a build", "timestamp": TIME} for line in range(lines)]
    entries[0]["message"] = "NUMBER"
    body = _json({"type": "log_batch", "project": "bench", "deployment_id": "bench-1", "logs": entries})
    return lambda number, stamp_ns: body.replace(b"NUMBER", b"%d" % number, 1)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _payload(number: int, stamp_ns: int) -> dict[str, str]:
    return {
        "project": "bench",
        "deployment_id": "bench-1",
        "timestamp": TIME,
        "level": "info",
        "message": event_text(number, stamp_ns),
    }


class ServerFailed(Exception):
    """It did not start, or has ended; the text says which and shows what it printed."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A server that can be started. `command` is given the port; `missing` says why it
    can't be, if so."""

    name: str
    title: str
    path: str
    body: Body
    command: Callable[[int], list[str]]
    ready_path: str = "/healthz"
    settings: Callable[[int, Path], dict[str, str]] = lambda port, folder: {}
    missing: Callable[[], str | None] = lambda: None
    events_a_post: int = 1


def _sidecar_settings(port: int, folder: Path) -> dict[str, str]:
    settings = {
        "SIDECAR_PORT": str(port),
        "SIDECAR_INSTANCE_DIR": str(folder),
        "SIDECAR_OPEN": "true",
        "SIDECAR_RATE_LIMIT": "off",
        "SIDECAR_MAX_CONNECTIONS": "20000",
        "SIDECAR_LOG_LEVEL": "warning",
    }
    return settings | ({"SIDECAR_HANDSHAKE_RATE": "off"} if "`SIDECAR_HANDSHAKE_RATE`" in _known_settings() else {})


@cache
def _known_settings() -> str:
    return subprocess.run(
        [sys.executable, "-m", "sidecar", "settings"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    ).stdout


def _node_missing() -> str | None:
    if shutil.which("node") is None:
        return "node is not installed"
    if not (PEERS / "node_modules" / "socket.io").is_dir():
        return "its packages are not installed (npm ci --prefix benchmarks/peers)"
    return None


OURS = Kind(
    name="ours",
    title="this sidecar",
    path="/api/webhooks/deployment",
    body=webhook,
    command=lambda port: [sys.executable, str(ROOT / "app.py")],
    ready_path="/readyz",
    settings=_sidecar_settings,
)
STOCK = Kind(
    name="stock",
    title="Flask-SocketIO",
    path="/post",
    body=event,
    command=lambda port: [sys.executable, str(PEERS / "stock.py"), str(port)],
)
NODE = Kind(
    name="node",
    title="Socket.IO on Node",
    path="/post",
    body=event,
    command=lambda port: ["node", str(PEERS / "node.js"), str(port)],
    missing=_node_missing,
)
KINDS = (OURS, STOCK, NODE)


def blaster(events_a_post: int) -> Kind:
    """No server, but the fastest thing to read from: it shows what the load generator itself can take in."""
    return Kind(
        name=f"blaster{events_a_post}",
        title=f"{events_a_post} events a send",
        path="/post",
        body=event,
        command=lambda port: [sys.executable, "-m", "benchmarks.peers.blaster", str(port), str(events_a_post)],
        events_a_post=events_a_post,
    )


def cpu_seconds(pid: int) -> float:
    """What a process has used of the cores so far, in itself and in the kernel, by its own clock (proc(5) counts in
    hundredths of a second)."""
    return time.clock_gettime((~pid << 3) | 2)  # as clock_getcpuclockid(3) makes it


class Running:
    """A started server."""

    def __init__(self, kind: Kind, port: int, pid: int, folder: Path):
        self.kind = kind
        self.address = ("127.0.0.1", port)
        self.folder = folder
        self.pid = pid

    def memory_bytes(self) -> int:
        """What of its memory lies in RAM now (VmRSS)."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise ServerFailed("The server has ended.")

    def cpu_seconds(self) -> float:
        """What it has used of its core so far."""
        return cpu_seconds(self.pid)


@contextmanager
def serving(
    kind: Kind, cores: int | set[int], prepare: Callable[[Path], None] = lambda instance: None
) -> Iterator[Running]:
    """The server on this core, or these, until the block is left by whatever way; `prepare` fills its folder first."""
    folder = Path(tempfile.mkdtemp(prefix="sidecar-bench-"))
    try:
        prepare(folder / "instance")
        port = free_port()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SIDECAR_", "PORT"))}
        with (folder / "output.log").open("wb") as output:
            process = subprocess.Popen(
                kind.command(port),
                cwd=ROOT,
                env=inherited | kind.settings(port, folder / "instance"),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for the benchmark, which then ends its server
                preexec_fn=lambda: os.sched_setaffinity(0, {cores} if isinstance(cores, int) else cores),
            )
        try:
            _wait_ready(kind, process, port, folder / "output.log")
            yield Running(kind, port, process.pid, folder)
        finally:
            end(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_ready(kind: Kind, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{kind.ready_path}", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            if process.poll() is not None or time.monotonic() > deadline:
                raise ServerFailed(f"{kind.title} did not start:\n{log.read_text(errors='replace')}") from None
        time.sleep(0.05)


def end(process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGTERM) -> None:
    """In order if it can, and in any case, also when Ctrl-C comes again meanwhile."""
    try:
        process.send_signal(how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    finally:
        process.kill()
        process.wait()
