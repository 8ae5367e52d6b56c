"""A real sidecar process for tests: started on a free port with an installation of its own, ended by its pid. It is the
fork of one that has imported the sidecar already (tests/preloaded.py)."""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Self

import httpx

from tests.contract import answers
from tests.preloaded import Preloaded, Process
from tests.programs import free_port

ROOT = Path(__file__).resolve().parent.parent
PRELOADED = Preloaded()
START_SECONDS = 120
STOP_SECONDS = 60
COMMAND_SECONDS = 120


def run(*command: str, environment: dict[str, str], stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    """Run `python <command>` of the sidecar to its end."""
    with TemporaryFile() as given, TemporaryFile() as output, TemporaryFile() as errors:
        given.write(stdin)
        given.seek(0)
        process = PRELOADED.start(command, environment, (given, output, errors))
        try:
            code = process.wait(COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(command, code, output.read().decode(), errors.read().decode())


class RunningSidecar:
    """`url` is its origin without the prefix; `token` an admin token. `instance` is another process's folder, if it is
    to share its installation; `program` what is run in place of app.py. When it stops, its sockets are closed at once
    and not over the usual two seconds, unless the environment says otherwise."""

    def __init__(
        self,
        folder: Path,
        environment: dict[str, str],
        instance: Path | None = None,
        tls: ssl.SSLContext | bool = True,
        program: Path = ROOT / "app.py",
    ):
        folder.mkdir(parents=True, exist_ok=True)
        self.instance = instance or folder / "instance"
        self._log = folder / "output.log"
        self._program = program
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SIDECAR_", "PORT"))}
        quick = {"SIDECAR_INSTANCE_DIR": str(self.instance), "SIDECAR_PORT": "0", "SIDECAR_DRAIN_SECONDS": "0"}
        self._environment = inherited | quick | environment
        self._process: Process | subprocess.Popen[bytes] | None = None
        self.scheme = "https" if "SIDECAR_TLS_CERT" in environment else "http"
        self.tls = tls
        """What `request` trusts, where the sidecar speaks TLS."""
        self.address = "127.0.0.1"
        """Where clients reach it."""
        self.port = 0
        self.url = ""
        self.token = ""

    def start(self) -> None:
        """Start it (again) and wait until it is ready."""
        begin = self._log.stat().st_size if self._log.exists() else 0
        if "SIDECAR_PUBLIC_URL" in self._environment and self._environment["SIDECAR_PORT"] == "0":
            self._environment["SIDECAR_PORT"] = str(free_port())  # the address it prints will not tell its port
        with self._log.open("ab") as log, open(os.devnull, "rb") as nothing:
            self._process = self._launch(nothing, log)
        try:
            self._wait_ready(begin)
        except BaseException:
            self.kill()
            raise
        self.token = (self.instance / "admin-token").read_text().strip()
        # The same port again after a restart, as a hosted one has.
        self._environment["SIDECAR_PORT"] = str(self.port)

    def _launch(self, nothing: IO[bytes], log: IO[bytes]) -> Process | subprocess.Popen[bytes]:
        return PRELOADED.start([str(self._program)], self._environment, (nothing, log, log))

    def _wait_ready(self, begin: int) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while not self._ready(begin):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"The sidecar did not start:\n{self.output()}")
            time.sleep(0.05)

    @property
    def environment(self) -> dict[str, str]:
        """For other programs of its installation."""
        return dict(self._environment)

    def change(self, **environment: str) -> None:
        """Settings from its next start on."""
        self._environment |= environment

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End it; there is no traceback in its log."""
        self.stop()
        assert "Traceback" not in self.output(), self.output()

    def kill(self) -> None:
        """kill -9, as a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end; its exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(number)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"The sidecar did not stop:\n{self.output()}") from None
        return self._process.returncode

    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def get(self, path: str, token: str | None = None, **options: Any) -> httpx.Response:
        return self.request("GET", path, token, **options)

    def post(self, path: str, json: Any = None, token: str | None = None, **options: Any) -> httpx.Response:
        if json is not None:
            options["json"] = json
        return self.request("POST", path, token, **options)

    def request(self, method: str, path: str, token: str | None = None, **options: Any) -> httpx.Response:
        """With the admin token unless another is given; `token=""` sends none. The answer must be one that the document
        of the API tells."""
        token = self.token if token is None else token
        headers = options.pop("headers", {})
        if token:
            headers = {"Authorization": f"Token {token}", **headers}
        answer = httpx.request(method, self.url + path, headers=headers, timeout=90, verify=self.tls, **options)
        answers.check(answer, self._environment.get("SIDECAR_PREFIX", "/project-dashboard"))
        return answer

    def metrics(self) -> dict[str, float]:
        """Its own figures, by their names and labels as /metrics shows them."""
        lines = self.get("/metrics", token="").text.splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}

    def metric(self, name: str) -> float:
        return self.metrics()[name]

    def new_token(self, *scopes: str, projects: list[str] | None = None, **more: Any) -> str:
        """An API token of these scopes (and projects)."""
        answer = self.post("/api/tokens", {"name": "test", "scopes": scopes, "projects": projects, **more})
        assert answer.status_code == 200, answer.text
        text: str = answer.json()["token"]
        return text

    def connection_token(self, **body: Any) -> str:
        """A browser's connection token, issued by the admin."""
        answer = self.post("/api/tokens/connection", body)
        assert answer.status_code == 200, answer.text
        text: str = answer.json()["token"]
        return text

    def bot_key(self, user: str, token: str | None = None, **more: Any) -> dict[str, Any]:
        """A bot's key, as the API answers it."""
        answer = self.post("/api/maim/keys", {"user": user, **more}, token)
        assert answer.status_code == 200, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def cli(self, *arguments: str, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m sidecar …` on this installation."""
        return run("-m", "sidecar", *arguments, stdin=stdin, environment=self._environment | environment)

    def begin_cli(
        self, *arguments: str, **environment: str
    ) -> tuple[Process | subprocess.Popen[bytes], IO[bytes], IO[bytes]]:
        """`python -m sidecar …` while it runs: its output and errors can be read."""
        output, to_output = os.pipe()
        errors, to_errors = os.pipe()
        with open(os.devnull, "rb") as nothing, open(to_output, "wb") as ours, open(to_errors, "wb") as other:
            command = ["-m", "sidecar", *arguments]
            process = PRELOADED.start(command, self._environment | environment, (nothing, ours, other))
        return process, open(output, "rb"), open(errors, "rb")

    def _ready(self, begin: int) -> bool:
        text = self._log.read_text(errors="replace")[begin:] if self._log.exists() else ""
        if "log in once: " not in text:
            return False
        port = self._environment["SIDECAR_PORT"]
        if port == "0":
            address = text.split("The sidecar serves ", 1)[1].split(" ", 1)[0]
            port = address.split("//", 1)[1].split("/", 1)[0].rpartition(":")[2]
        self.port = int(port)
        self.url = f"{self.scheme}://{self.address}:{self.port}"
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5, verify=self.tls).status_code == 200
        except httpx.HTTPError:
            return False


@contextmanager
def two_processes(
    folder: Path, database_url: str | None, apart: bool, program: Path = ROOT / "app.py", **settings: str
) -> Iterator[list[RunningSidecar]]:
    """Of one installation: on SQLite, or on this PostgreSQL. `apart`: each has a folder of its own, as on two hosts, so
    that they share the database alone (and a Redis, if these further settings name one)."""
    environment = {"SIDECAR_RATE_LIMIT": "off", **settings}
    if database_url is not None:
        environment["SIDECAR_DATABASE_URL"] = database_url
    with RunningSidecar(folder / "one", environment, program=program) as one:
        instance: Path | None = one.instance
        if apart:
            instance = None
            shutil.copytree(one.instance, folder / "two" / "instance", ignore=shutil.ignore_patterns("doorbells"))
        with RunningSidecar(folder / "two", environment, instance, program=program) as two:
            yield [one, two]
