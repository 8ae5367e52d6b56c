"""Real programs for the tests: found or skipped with a reason, started on free ports, ended by pid."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
NODE = ROOT / "tests" / "node"
DEADLINE_SECONDS = 60.0
"""How long a test waits for what usually takes milliseconds; generous, because CI machines and their disks stall."""
FIRST_PAUSE_SECONDS = 0.01
MOST_PAUSE_SECONDS = 0.1

Line = dict[str, Any]


def require(program: str) -> str:
    """The program's path; skips the test when it is missing. Looks where Debian keeps servers, too."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{program} is not installed (make services)")
    return found


def require_node_program(name: str) -> Path:
    """`node_modules/.bin/<name>` of tests/node; skips when node or the package is missing."""
    require("node")
    path = NODE / "node_modules" / ".bin" / name
    if not path.exists():
        pytest.skip(f"{name} is not installed (npm ci --prefix tests/node)")
    return path


def free_port() -> int:
    """A TCP port of loopback that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def free_pair() -> int:
    """A port that is free together with the next one; below those that the kernel gives out by itself, so that no
    other test is given the second meanwhile."""
    while True:
        port = random.randint(20_000, 31_000)
        with socket.socket() as one, socket.socket() as two, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            two.bind(("127.0.0.1", port + 1))
            return port


def wait_until(condition: Callable[[], bool], what: str, instead: Callable[[], object] | None = None) -> None:
    """Returns once the condition holds; fails the test naming `what`, and what there is `instead`, otherwise. It asks
    at first often, then ever less: many a question costs both sides a request, and what it waits for needs the CPU."""
    end = time.monotonic() + DEADLINE_SECONDS
    pause = FIRST_PAUSE_SECONDS
    while not condition():
        if time.monotonic() > end:
            pytest.fail(
                f"after {DEADLINE_SECONDS:g} s still not: {what}" + (f"; instead: {instead()}" if instead else "")
            )
        time.sleep(pause)
        pause = min(1.5 * pause, MOST_PAUSE_SECONDS)


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def stop(process: subprocess.Popen[Any], seconds: float = DEADLINE_SECONDS) -> int:
    """Ask the process to end (TERM), insist after `seconds` (KILL), give its exit code."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait(DEADLINE_SECONDS)


@contextlib.contextmanager
def running(
    arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours whose output goes to `log`; ended on leaving."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(arguments), stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, cwd=cwd
        )
    try:
        yield process
    finally:
        stop(process)


@dataclass(frozen=True, slots=True)
class Nginx:
    """A running nginx: where it answers, and what it wrote down."""

    url: str
    port: int
    folder: Path

    def logged(self) -> str:
        """All of its logs, access and error."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.log")))


NGINX_CONF = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/temp/body;
    proxy_temp_path {folder}/temp/proxy;
    fastcgi_temp_path {folder}/temp/fastcgi;
    uwsgi_temp_path {folder}/temp/uwsgi;
    scgi_temp_path {folder}/temp/scgi;
{site}
}}
"""


def write_nginx_conf(folder: Path, site: str, port: int, upstream_port: int) -> Path:
    """A whole nginx.conf around the text of a site file, its addresses and paths turned to this test's."""
    (folder / "temp").mkdir(parents=True, exist_ok=True)
    for shipped, ours in {
        "listen 80;": f"listen 127.0.0.1:{port};",
        "127.0.0.1:8091": f"127.0.0.1:{upstream_port}",
        "/var/log/nginx": str(folder),
        "/var/www": str(folder / "www"),
    }.items():
        site = site.replace(shipped, ours)
    conf = folder / "nginx.conf"
    conf.write_text(NGINX_CONF.format(folder=folder, site=site))
    return conf


def check_nginx_conf(conf: Path) -> subprocess.CompletedProcess[str]:
    """`nginx -t` of it."""
    return subprocess.run(
        [require("nginx"), "-t", "-p", str(conf.parent), "-c", str(conf)],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_SECONDS,
    )


@contextlib.contextmanager
def running_nginx(folder: Path, site: str, upstream_port: int, port: int | None = None) -> Iterator[Nginx]:
    """A real nginx in one process of its own, with its prefix, logs and temporary files under `folder`."""
    program = require("nginx")
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    conf = write_nginx_conf(folder, site, port, upstream_port)
    output = folder / "nginx.output"
    with running([program, "-p", str(folder), "-c", str(conf)], output) as process:
        wait_until(lambda: process.poll() is not None or listening(port), "nginx listens")
        if process.poll() is not None:
            pytest.fail(f"nginx ended at once: {output.read_text()}")
        yield Nginx(f"http://127.0.0.1:{port}", port, folder)


class JsClient:
    """The official socket.io-client in a node process (tests/node/client.mjs); its sockets have names.

    `next` walks forward through what happened: lines that don't match are passed over and stay in `lines`.
    """

    def __init__(self) -> None:
        node = require("node")
        if not (NODE / "node_modules" / "socket.io-client").exists():
            pytest.skip("socket.io-client is not installed (npm ci --prefix tests/node)")
        self.lines: list[Line] = []
        self._seen = 0
        self._acks = 0
        self._news = threading.Condition()
        self._process = subprocess.Popen(
            [node, str(NODE / "client.mjs")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin: IO[str] = self._process.stdin
        self._stdout: IO[str] = self._process.stdout
        self._reader = threading.Thread(target=self._read, name="js-client", daemon=True)
        self._reader.start()
        self.next("ready")

    def __enter__(self) -> JsClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, op: str, **fields: Any) -> None:
        """One command, as client.mjs lists them."""
        self._stdin.write(json.dumps({"op": op, **fields}) + "\n")
        self._stdin.flush()

    def connect(self, url: str, socket: str = "main", **options: Any) -> None:
        """`io(url, options)`; returns at once: wait for "connect" or "connect_error"."""
        self.send("connect", socket=socket, url=url, options=options)

    def call(self, event: str, *args: Any, socket: str = "main") -> Any:
        """Emit and give the acknowledgement's first value."""
        self._acks += 1
        number = self._acks
        self.send("emit", socket=socket, event=event, args=args, id=number)
        answer = self.next("ack", lambda line: line["id"] == number, socket=socket)
        assert "error" not in answer, f"{event}: {answer['error']}"
        return answer["args"][0]

    def next(
        self,
        what: str,
        where: Callable[[Line], bool] = lambda line: True,
        *,
        socket: str | None = None,
        seconds: float = DEADLINE_SECONDS,
    ) -> Line:
        """The next line of this kind that `where` accepts; fails the test, showing what came instead."""
        end = time.monotonic() + seconds
        start = self._seen
        with self._news:
            while True:
                while self._seen < len(self.lines):
                    line = self.lines[self._seen]
                    self._seen += 1
                    if line["what"] == what and socket in (None, line["socket"]) and where(line):
                        return line
                if not self._news.wait(end - time.monotonic()) and time.monotonic() >= end:
                    pytest.fail(f"no {what} within {seconds:g} s; instead: {self.lines[start:]}")

    def forget(self) -> None:
        """End all sockets, and what is known of them."""
        self.send("forget")
        self.next("forgotten")

    def close(self) -> None:
        """Say goodbye on every socket and end the process."""
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        try:
            self._process.wait(DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(DEADLINE_SECONDS)
        self._stdout.close()

    def _read(self) -> None:
        for text in self._stdout:
            line = json.loads(text)
            with self._news:
                self.lines.append(line)
                self._news.notify_all()
