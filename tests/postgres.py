"""A real PostgreSQL for tests: of Debian's packages, on a free port, in a folder of its own, ended by its pid."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import gevent.select
import gevent.selectors
import psycopg
import psycopg.waiting

from tests.programs import free_port

STOP_SECONDS = 60
"""An orderly stop writes everything down; a disk that others use may take its time."""
START_SECONDS = 120
USER = "sidecar"

# In a server psycopg finds that gevent has patched `select` and waits by it. Tests patch nothing: they tell it.
psycopg.waiting.wait = psycopg.waiting.wait_poll
psycopg.waiting.select = gevent.select
psycopg.waiting.DefaultSelector = gevent.selectors.DefaultSelector


def programs() -> Path | None:
    """The folder of the newest initdb and postgres, None where they are missing."""
    found = [Path(p).parent for p in (shutil.which("postgres"),) if p]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in found if (folder / "initdb").exists() and (folder / "postgres").exists()), None)


class Postgres:
    """Its language orders text otherwise than code points do, as a host's may."""

    def __init__(self, folder: Path, address: str = "127.0.0.1"):
        """`address` is where others reach it; it always listens on loopback, too."""
        self._programs = folder
        self._address = address
        # initdb refuses root; what pytest makes for root nobody else may enter, so the data lies beside it
        place = os.environ.get("PYTEST_DEBUG_TEMPROOT", "/tmp")
        self._data = Path(tempfile.mkdtemp(prefix="sidecar-postgres-", dir=place))
        self._user = pwd.getpwnam("postgres") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
        os.chown(self._data, self._user.pw_uid, self._user.pw_gid)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        self._log = self._data / "output.log"
        language = ("--locale-provider=icu", "--icu-locale=en", "--locale=C.UTF-8", "--encoding=UTF8")
        self._run("initdb", "-D", str(self._data / "data"), "-U", USER, "-A", "trust", "--no-sync", *language)
        if address != "127.0.0.1":
            with (self._data / "data" / "pg_hba.conf").open("a") as known:
                known.write(f"host all all {address}/24 trust\n")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it (again) on its port and wait until it answers."""
        options = {
            "listen_addresses": ",".join({"127.0.0.1", self._address}),
            "unix_socket_directories": str(self._data),
            "max_connections": "200",
            "shared_buffers": "32MB",
            "max_wal_size": "64MB",
            "min_wal_size": "32MB",
            # Tests end processes, never the machine: its own memory of the files is enough, and a slow disk holds up
            # no shutdown's checkpoint and no CREATE DATABASE.
            "fsync": "off",
            "full_page_writes": "off",
        }
        settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._programs / "postgres"), "-D", str(self._data / "data"), "-p", str(self.port), *settings],
                stdout=log,
                stderr=log,
                cwd="/",
                **self._as_user(),
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"PostgreSQL did not start:\n{self._log.read_text()}")
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Its fast shutdown: every session is ended. SIGQUIT is the immediate one, as a crash would be, and what
        follows where the disk is so slow that the fast one doesn't end."""
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(STOP_SECONDS)
        self._process = None

    def remove(self) -> None:
        """Nobody needs its data any more."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._data)

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """Outside of any pool, each statement its own transaction."""
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user=USER, dbname=database, autocommit=True, connect_timeout=60
        )

    def new_database(self, template: str = "template0") -> str:
        """The name of a database that is empty, or like `template`."""
        name = f"db{next(self._numbers)}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def url(self, database: str, port: int | None = None) -> str:
        return f"postgresql+psycopg://{USER}@{self._address}:{port or self.port}/{database}"

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._programs / program), *arguments], cwd="/", capture_output=True, text=True, **self._as_user()
        )
        assert done.returncode == 0, done.stderr

    def _as_user(self) -> dict[str, Any]:
        if os.getuid() != 0:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}


class Copies:
    """Databases like `template`, each for one test after the other: to empty one takes less than to make one, and
    leaves nothing on the disk."""

    def __init__(self, server: Postgres, template: str):
        self._server = server
        self._template = template
        self._free: list[str] = []
        with server.connect(template) as connection:
            tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
            sequences = connection.execute("SELECT sequencename, start_value, last_value FROM pg_sequences").fetchall()
            cursor = connection.cursor()
            self._rows: dict[str, bytes] = {}
            for (table,) in tables:
                with cursor.copy(f'COPY "{table}" TO STDOUT') as copy:
                    self._rows[table] = b"".join(copy)
        # As a replica it asks no foreign key for the right order.
        emptying = ["SET session_replication_role = replica", *(f'DELETE FROM "{table}"' for table in self._rows)]
        for name, start, last in sequences:
            emptying.append(f"SELECT setval('\"{name}\"', {last or start}, {last is not None})")
        self._emptying = "; ".join(emptying)

    def take(self) -> str:
        """The name of one that nobody else uses."""
        while self._free:
            name = self._free.pop()
            with contextlib.suppress(psycopg.Error):  # what a test left there may be anything
                self._empty(name)
                return name
        return self._server.new_database(self._template)

    def give_back(self, name: str) -> None:
        self._free.append(name)

    def _empty(self, name: str) -> None:
        others = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        with self._server.connect(name) as connection:
            connection.execute(f"SELECT pg_terminate_backend(pid, 10000) FROM ({others}) AS other")
            connection.execute(f"ALTER DATABASE {name} RESET ALL; {self._emptying}")
            for table, rows in self._rows.items():
                if rows:
                    with connection.cursor().copy(f'COPY "{table}" FROM STDIN') as copy:
                        copy.write(rows)
