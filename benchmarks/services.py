"""What several sidecars share, as real processes for the benchmarks: PostgreSQL, Redis and nginx of Debian's packages,
on free ports, in folders of their own, ended by their pids."""

from __future__ import annotations

import itertools
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import redis

from benchmarks.servers import ROOT, START_SECONDS, ServerFailed, cpu_seconds, end, free_port

USER = "sidecar"
CHANNEL = "sidecar"
RELOAD_SECONDS = 0.5
NGINX_CONF = """\
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_processes 1;
worker_rlimit_nofile 65536;
events {{ worker_connections 32768; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{site}
}}
"""


@dataclass(frozen=True, slots=True)
class Service:
    """A started one; `folder` lies where its data does."""

    port: int
    pid: int
    folder: Path

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.port)

    def cpu_seconds(self) -> float:
        """Of it and its children."""
        return tree_cpu_seconds(self.pid)


@dataclass(frozen=True, slots=True)
class Postgres(Service):
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of an empty one, gone when the block is left."""
        name = f"bench{next(self._numbers)}"
        with closing(self._connect()) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        try:
            yield f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/{name}"
        finally:
            with closing(self._connect()) as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def settle(self) -> None:
        """Write down what waits, so that it falls into nobody's run."""
        with closing(self._connect()) as connection:
            connection.execute("CHECKPOINT")

    def statements(self, act: Callable[[], object]) -> int:
        """How many the clients of its databases send while `act` works."""
        with closing(self._connect()) as connection:
            connection.execute("ALTER SYSTEM SET log_line_prefix = '%d '")
            connection.execute("ALTER SYSTEM SET log_statement = 'all'")
            connection.execute("SELECT pg_reload_conf()")
            time.sleep(RELOAD_SECONDS)
            begin = (self.folder / "output.log").stat().st_size
            act()
            text = (self.folder / "output.log").read_bytes()[begin:].decode()
            connection.execute("ALTER SYSTEM RESET ALL")
            connection.execute("SELECT pg_reload_conf()")
        return len(re.findall(r"^bench\d+ LOG:  (?:statement|execute)", text, re.MULTILINE))

    @contextmanager
    def listeners(self, count: int) -> Iterator[None]:
        """So many more connections that hear what sidecars announce."""
        with ExitStack() as stack:
            for _ in range(count):
                connection = stack.enter_context(closing(self._connect()))
                connection.execute(f"LISTEN {CHANNEL}")
            yield

    def announce(self, times: int) -> None:
        """As a sidecar does, in transactions that do nothing else."""
        with closing(self._connect()) as connection:
            for number in range(times):
                connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, f"0123456789abcdef {number}"))

    def answers(self) -> bool:
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(host="127.0.0.1", port=self.port, user=USER, dbname="postgres", autocommit=True)


@dataclass(frozen=True, slots=True)
class Redis(Service):
    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def publish(self, message: bytes, times: int, listeners: int) -> None:
        """One after the other, heard by so many connections."""
        with ExitStack() as stack:
            client = stack.enter_context(redis.Redis.from_url(self.url))
            ears = [stack.enter_context(client.pubsub()) for _ in range(listeners)]
            for ear in ears:
                ear.subscribe("bench")
            for _ in range(times):
                client.publish("bench", message)

    def answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


def missing() -> str | None:
    """Which program is not installed, if so."""
    if _postgres_programs() is None:
        return "PostgreSQL is not installed"
    return next((f"{name} is not installed" for name in ("redis-server", "nginx") if shutil.which(name) is None), None)


def versions() -> list[str]:
    """Of these programs."""
    programs = _postgres_programs()
    said = {"PostgreSQL": _said(str(programs / "postgres") if programs else "postgres", "--version")}
    said |= {"Redis": _said("redis-server", "--version"), "nginx": _said("nginx", "-v")}
    found = {name: re.search(r"\d+(\.\d+)+", text) for name, text in said.items()}
    return [f"{name} {match[0] if match else '?'}" for name, match in found.items()]


def _said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def tree_cpu_seconds(pid: int) -> float:
    """Of a process, its children, and those of them that have ended."""
    own = cpu_seconds(pid)
    ended = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[13:15]
    living = 0.0
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            living += cpu_seconds(int(child))
        except OSError:  # it has ended meanwhile
            continue
    return own + sum(map(int, ended)) / os.sysconf("SC_CLK_TCK") + living


@contextmanager
def postgres(cores: set[int]) -> Iterator[Postgres]:
    """As Debian sets it up: fsync is on."""
    programs = _postgres_programs()
    assert programs is not None
    user = pwd.getpwnam("postgres") if os.getuid() == 0 else pwd.getpwuid(os.getuid())  # initdb refuses root
    with _folder("postgres") as folder:
        os.chown(folder, user.pw_uid, user.pw_gid)
        identity = (user.pw_uid, user.pw_gid) if os.getuid() == 0 else None
        made = subprocess.run(
            [str(programs / "initdb"), "-D", str(folder / "data"), "-U", USER, "-A", "trust", "--encoding=UTF8"],
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=lambda: _become(identity),
        )
        if made.returncode:
            raise ServerFailed(f"initdb failed:\n{made.stderr}")
        port = free_port()
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": folder, "max_connections": "200"}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command = [str(programs / "postgres"), "-D", str(folder / "data"), "-p", str(port), *options]
        with _started(command, folder, cores, identity, signal.SIGINT) as process:
            service = Postgres(port, process.pid, folder)
            _wait(service.answers, process, folder)
            yield service


@contextmanager
def redis_server(cores: set[int]) -> Iterator[Redis]:
    """It keeps nothing on the disk: what goes through it is in the journal."""
    program = shutil.which("redis-server")
    assert program is not None
    with _folder("redis") as folder:
        port = free_port()
        options = ("--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", "--appendonly", "no")
        with _started([program, *options], folder, cores) as process:
            service = Redis(port, process.pid, folder)
            _wait(service.answers, process, folder)
            yield service


@contextmanager
def nginx(ports: Sequence[int], cores: set[int]) -> Iterator[Service]:
    """As nginx/sidecar.conf is shipped, before these processes, with one worker and without access logs."""
    program = shutil.which("nginx")
    assert program is not None
    with _folder("nginx") as folder:
        port = free_port()
        site = (ROOT / "nginx" / "sidecar.conf").read_text()
        servers = "\n".join(f"    server 127.0.0.1:{each} max_fails=0;" for each in ports)
        site = site.replace("listen 80;", f"listen 127.0.0.1:{port};").replace("/var/log/nginx", str(folder))
        site, placed = re.subn(r"^ +server 127\.0\.0\.1:8091 .*$", servers, site, count=1, flags=re.MULTILINE)
        site = re.sub(r"^ +access_log .*$", "", site, flags=re.MULTILINE)
        if not placed:
            raise ServerFailed("nginx/sidecar.conf names no process at port 8091.")
        (folder / "nginx.conf").write_text(NGINX_CONF.format(folder=folder, site=site))
        with _started([program, "-p", str(folder), "-c", str(folder / "nginx.conf")], folder, cores) as process:
            service = Service(port, process.pid, folder)
            _wait(lambda: (folder / "nginx.pid").exists(), process, folder)
            yield service


def _postgres_programs() -> Path | None:
    """The folder of the newest initdb and postgres."""
    found = [Path(program).parent for program in (shutil.which("postgres"),) if program]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in found if (folder / "initdb").exists() and (folder / "postgres").exists()), None)


@contextmanager
def _folder(name: str) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=f"sidecar-bench-{name}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _started(
    command: list[str],
    folder: Path,
    cores: set[int],
    identity: tuple[int, int] | None = None,
    stopping: signal.Signals = signal.SIGTERM,
) -> Iterator[subprocess.Popen[bytes]]:
    def prepare() -> None:
        os.sched_setaffinity(0, cores)
        _become(identity)

    with (folder / "output.log").open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=prepare,
        )
    try:
        yield process
    finally:
        end(process, stopping)


def _become(identity: tuple[int, int] | None) -> None:
    if identity is not None:
        os.setgroups([])
        os.setgid(identity[1])
        os.setuid(identity[0])


def _wait(answers: Callable[[], bool], process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not answers():
        if process.poll() is not None or time.monotonic() > deadline:
            log = (folder / "output.log").read_text(errors="replace")
            raise ServerFailed(f"{Path(str(process.args[0])).name} did not start:\n{log}")  # type: ignore[index]
        time.sleep(0.05)
