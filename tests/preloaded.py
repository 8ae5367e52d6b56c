"""Processes of the sidecar that needn't import it: the forks of one that has.

To import the sidecar takes far longer than most commands, and than to start on an empty installation, and the tests
start some hundreds of processes. So this program imports it once, patched as app.py does it, and waits. For each
request it forks: the fork takes over the request's files, variables and umask, runs app.py or `python -m sidecar` from
its first line, and ends as any interpreter does, though without freeing its memory piece by piece before. It is a
process of its own for everybody who looks at it.

A variable that an interpreter or a library may read as it starts would come too late; then `start` makes a process in
the ordinary way. What depends on how a process is started (tests/test_operating.py, tests/test_process_managers.py)
has others of its own.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
REQUEST_BYTES = 1 << 17
READ_LATE = re.compile(r"(SIDECAR|PYTEST)_\w+|(HEAD|IDLE|BODY|RESPONSE)_SECONDS|PORT\w*|SSL_CERT_FILE")
"""Variables that nobody reads while the sidecar is imported."""


class Process:
    """A fork, with what subprocess.Popen offers for a child."""

    def __init__(self, command: Sequence[str], pid: int, status: IO[bytes]):
        self.args = command
        self.pid = pid
        self.returncode: int | None = None
        self._status = status
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code; negative is the signal that ended it. Raises subprocess.TimeoutExpired."""
        with self._lock:
            if self.returncode is None:
                ready = select.poll()
                ready.register(self._status, select.POLLIN)
                if not ready.poll(None if timeout is None else timeout * 1000):
                    raise subprocess.TimeoutExpired(self.args, timeout or 0)
                self.returncode = int(self._status.readline())
                self._status.close()
            return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Preloaded:
    """The process that has imported the sidecar; it begins with the first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._environment: dict[str, str] = {}

    def start(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        files: tuple[IO[bytes], IO[bytes], IO[bytes]],
    ) -> Process | subprocess.Popen[bytes]:
        """Run `python <command>` in `environment`, with these as its standard input, output and error. The command is
        a program that runs the sidecar, or -m and a module."""
        with self._lock:
            if self._control is None:
                self._control = self._begin()
        changed = {name for name, _ in self._environment.items() ^ environment.items()}
        if not all(READ_LATE.fullmatch(name) for name in changed):
            stdin, stdout, stderr = files
            return subprocess.Popen(
                [sys.executable, *command], cwd=ROOT, env=environment, stdin=stdin, stdout=stdout, stderr=stderr
            )
        umask = os.umask(0o077)
        os.umask(umask)
        request = {"command": command, "environment": environment, "umask": umask}
        reading, writing = os.pipe()
        with open(writing, "wb") as status:
            descriptors = [*(file.fileno() for file in files), status.fileno()]
            socket.send_fds(self._control, [json.dumps(request).encode()], descriptors)
        answers = open(reading, "rb", buffering=0)  # noqa: SIM115 - closed with the process
        return Process(command, int(answers.readline()), answers)

    def _begin(self) -> socket.socket:
        self._environment = dict(os.environ)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

        def end() -> None:
            ours.close()
            process.wait()

        atexit.register(end)
        return ours


def serve(control: socket.socket) -> dict[str, Any] | None:
    """Fork for each request, and tell its asker how that ended. Returns in a fork, what it is to run; in this process
    None, when nobody asks any more."""
    from gevent import monkey
    from gevent.os import fork_gevent

    # Python's own: gevent's leave work behind for its loop, which doesn't run before a fork runs it
    poll, close, waitpid = (
        monkey.get_original(*name) for name in (("select", "poll"), ("os", "close"), ("os", "waitpid"))
    )
    waiting = poll()
    waiting.register(control, select.POLLIN)
    running: dict[int, tuple[int, int]] = {}
    while True:
        for ready, _ in waiting.poll():
            if ready in running:
                pid, status = running.pop(ready)
                code = os.waitstatus_to_exitcode(waitpid(pid, 0)[1])
                with contextlib.suppress(BrokenPipeError):  # the asker is gone
                    os.write(status, b"%d\n" % code)
                waiting.unregister(ready)
                close(ready)
                close(status)
                continue
            data, files, _, _ = socket.recv_fds(control, REQUEST_BYTES, 4)
            if not data:
                return None
            *standard, status = files
            pid = fork_gevent()
            if pid == 0:
                for number, file in enumerate(standard):
                    os.dup2(file, number)
                for file in [*files, *running, *(other for _, other in running.values())]:
                    close(file)
                control.close()
                request: dict[str, Any] = json.loads(data)
                return request
            for file in standard:
                close(file)
            os.write(status, b"%d\n" % pid)
            end = os.pidfd_open(pid)
            waiting.register(end, select.POLLIN)
            running[end] = pid, status


def become(request: dict[str, Any]) -> None:
    """Run what was asked for, as the interpreter would."""
    os.umask(request["umask"])
    os.environ.clear()
    os.environ.update(request["environment"])
    command = request["command"]
    try:
        if command[0] == "-m":
            sys.argv[1:] = command[2:]
            runpy.run_module(command[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv[1:] = command[1:]
            runpy.run_path(command[0], run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            codes.append(end.code or 0)
        raise
    codes.append(0)


codes: list[int] = []
"""With which this process ends, once that is known."""


def leave() -> None:
    """The interpreter's last act where all is well: what it would take apart now is shared with the process it was
    forked from, and to copy that takes longer than most commands."""
    if codes:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(codes[0])


if __name__ == "__main__":
    import gc

    gc.disable()
    atexit.register(leave)  # the first is the last to run

    from gevent import monkey

    monkey.patch_all()
    sys.path[0] = str(ROOT)

    import httpx

    import sidecar.cli.main  # noqa: F401 - this is what it is for
    from tests.savings import save

    save()
    httpx.Client().close()  # has the certificates read
    gc.freeze()
    gc.enable()
    with monkey.get_original("socket", "socket")(fileno=int(sys.argv[1])) as control:
        request = serve(control)
    if request is not None:
        become(request)
