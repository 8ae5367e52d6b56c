"""A real Redis for tests: Debian's redis-server on a free port, in a folder of its own, ended by its pid."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from tests.programs import free_port

START_SECONDS = 120
STOP_SECONDS = 60
PASSWORD = "hunter2-of-redis"


def program() -> str | None:
    return shutil.which("redis-server")


class RedisServer:
    """With a password, as a host's should have. `persistent`: what it holds outlives its process (appendfsync always);
    else it comes back empty. It listens on `address` alone."""

    def __init__(self, persistent: bool = False, address: str = "127.0.0.1"):
        self._address = address
        self._folder = Path(tempfile.mkdtemp(prefix="sidecar-redis-", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")))
        self._log = self._folder / "output.log"
        self._persistent = persistent
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@{self._address}:{self.port}/0"

    @property
    def running(self) -> bool:
        return self._process is not None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def client(self) -> redis.Redis:
        """Answers are texts."""
        return redis.Redis.from_url(self.url, decode_responses=True)

    def start(self) -> None:
        """Start it (again) on its port and wait until it answers."""
        found = program()
        assert found is not None
        kept = ("--appendonly", "yes", "--appendfsync", "always") if self._persistent else ("--appendonly", "no")
        options = ("--port", str(self.port), "--bind", self._address, "--dir", str(self._folder), "--save", "")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [found, *options, *kept, "--requirepass", PASSWORD], stdout=log, stderr=log, cwd=self._folder
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"Redis did not start:\n{self._log.read_text()}")
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """In order; SIGKILL is a crash."""
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    @contextmanager
    def away(self, how: signal.Signals = signal.SIGTERM) -> Iterator[None]:
        """Meanwhile nobody listens at its port."""
        self.stop(how)
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It stands still: connections stay, and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def remove(self) -> None:
        self.stop(signal.SIGKILL)
        shutil.rmtree(self._folder)

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False
