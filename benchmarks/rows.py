"""What is measured: each row starts a server of its own, loads it for a few seconds, and gives figures by name."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import statistics
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks import history
from benchmarks.load import Load, LoadFailed, Outcome, content_length
from benchmarks.servers import KINDS, OURS, Kind, Running, blaster, log_batch, serving

CONNECT_SECONDS = 90
DRAIN_SECONDS = 15
"""So long after its last post a run waits for what is still under way; after that the server has fallen behind."""

WARM_SECONDS = 0.5
WARM_CLIENTS = 100
CROWD = 5_000
MANY = 8_000
FLOOD_CONNECTIONS = 16
LOG_CONNECTIONS = 4
LOG_LINES = 500
MENU_ITEMS = 200
POLL_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class Options:
    """`clients` subscribers for the fan-out rows, `seconds` of posting a run; the cores may be the same one."""

    clients: int
    seconds: float
    server_core: int
    load_core: int


@dataclass(frozen=True, slots=True)
class Measured:
    """Figures by their title, and what did not go as it should."""

    figures: dict[str, float]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """`title` may contain `{clients}`. `usual` rows are measured unless others are asked for."""

    name: str
    title: str
    measure: Callable[[Kind, Options], Measured]
    kinds: tuple[Kind, ...] = KINDS
    usual: bool = True


@dataclass(frozen=True, slots=True)
class Loaded:
    """A server with its subscribers, warmed up by a few posts."""

    server: Running
    load: Load

    def closed(self, connections: int, seconds: float) -> tuple[Outcome, float]:
        """What came of posting in a closed loop, and the seconds of its core that the server used for it."""
        before = self.server.cpu_seconds()
        outcome = self.load.closed(connections, seconds, DRAIN_SECONDS)
        return outcome, self.server.cpu_seconds() - before


@contextmanager
def loaded(kind: Kind, options: Options, clients: int) -> Iterator[Loaded]:
    with serving(kind, options.server_core) as server, _load(server) as load:
        load.connect(clients, CONNECT_SECONDS)
        load.closed(1, WARM_SECONDS, DRAIN_SECONDS)
        yield Loaded(server, load)


def _load(server: Running) -> Load:
    return Load([server.address], server.kind.path, server.kind.body, server.kind.events_a_post)


def closed_loop(connections: int) -> Callable[[Kind, Options], Measured]:
    def measure(kind: Kind, options: Options) -> Measured:
        with loaded(kind, options, options.clients) as it:
            outcome, cpu_seconds = it.closed(connections, options.seconds)
        return Measured(
            {
                "deliveries/s": outcome.deliveries_a_second,
                "deliveries a CPU second": outcome.deliveries / max(cpu_seconds, 0.01),
            },
            outcome.problems,
        )

    return measure


def offered(posts_a_second: float, clients: int | None = None) -> Callable[[Kind, Options], Measured]:
    def measure(kind: Kind, options: Options) -> Measured:
        with loaded(kind, options, clients or options.clients) as it:
            outcome = it.load.offered(posts_a_second, options.seconds, DRAIN_SECONDS)
        return Measured(
            {"deliveries/s kept": outcome.deliveries_a_second, "p50 ms": outcome.p50_ms, "p99 ms": outcome.p99_ms},
            outcome.problems,
        )

    return measure


def posts(connections: int) -> Callable[[Kind, Options], Measured]:
    def measure(kind: Kind, options: Options) -> Measured:
        with loaded(kind, options, 0) as it:
            outcome, cpu_seconds = it.closed(connections, options.seconds)
        return Measured(
            {"posts/s": outcome.posts_a_second, "posts a CPU second": outcome.posts / max(cpu_seconds, 0.01)},
            outcome.problems,
        )

    return measure


def generator(kind: Kind, options: Options) -> Measured:
    with loaded(kind, options, options.clients) as it:
        outcome, _ = it.closed(1, options.seconds)
    return Measured({"deliveries/s": outcome.deliveries_a_second}, outcome.problems)


def log_lines(kind: Kind, options: Options) -> Measured:
    with serving(kind, options.server_core) as server:
        fsync_ms = fsync_seconds(server.folder) * 1e3
        with Load([server.address], kind.path, log_batch(LOG_LINES)) as load:
            load.closed(1, WARM_SECONDS, DRAIN_SECONDS)
            outcome = load.closed(LOG_CONNECTIONS, options.seconds, DRAIN_SECONDS)
    return Measured(
        {"lines/s": outcome.posts_a_second * LOG_LINES, "fsync of 4 KiB there, ms": fsync_ms}, outcome.problems
    )


def fsync_seconds(folder: Path) -> float:
    """How long the disk takes to keep 4 KiB: the median of fifty times."""
    taken = []
    with (folder / "fsync").open("wb", buffering=0) as file:
        for _ in range(50):
            file.write(bytes(4096))
            begin = time.monotonic()
            os.fsync(file.fileno())
            taken.append(time.monotonic() - begin)
    return statistics.median(taken)


def come_back(kind: Kind, options: Options) -> Measured:
    return Measured(history.measure(options.server_core))


def crowd(kind: Kind, options: Options) -> Measured:
    """A crowd comes, sits there, and is gone in one instant, as when a proxy before the server dies: its process is
    killed, so that the load generator has no part in closing."""
    context = multiprocessing.get_context("fork")
    with serving(kind, options.server_core) as server:
        here, there = context.Pipe()
        process = context.Process(target=_hold, args=(server, there, os.getpid()), daemon=True)
        process.start()
        try:
            _hear(here, "warm")
            before = server.memory_bytes()
            here.send("go")
            seconds = float(_hear(here, "seconds"))
            time.sleep(1)
            memory = (server.memory_bytes() - before) / CROWD
            with Polling(server.address) as polling:
                quiet = polling.longest_gap(1)
                process.kill()
                gap = polling.longest_gap(3)
        finally:
            process.kill()
            process.join()
    return Measured(
        {
            "connects/s": CROWD / seconds,
            "memory a client, kB": memory / 1e3,
            "all gone at once: longest gap, ms": gap * 1e3,
            "before that: longest gap, ms": quiet * 1e3,
        }
    )


def _hold(server: Running, pipe: Connection, parent: int) -> None:
    """The crowd's process: a few clients first, so that what the server makes once is not counted as theirs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # its parent gets it too, and kills it
    try:
        load = _load(server)
        load.connect(WARM_CLIENTS, CONNECT_SECONDS)
        pipe.send(("warm", 0.0))
        while not pipe.poll():
            load.step(0.05)
        pipe.send(("seconds", load.connect(CROWD, CONNECT_SECONDS)))
        while os.getppid() == parent:
            load.step(0.5)
    except (LoadFailed, OSError) as error:
        with contextlib.suppress(BrokenPipeError):
            pipe.send(("failed", str(error)))


def _hear(pipe: Connection, wanted: str) -> float:
    if not pipe.poll(CONNECT_SECONDS + 10):
        raise LoadFailed("The crowd did not answer.")
    word, value = pipe.recv()
    if word != wanted:
        raise LoadFailed(str(value))
    return float(value)


def menu_version(kind: Kind, options: Options) -> Measured:
    """The question that every browser asks every few minutes, one after the other on one connection."""
    with serving(kind, options.server_core) as server:
        if kind is OURS:
            fill_menu(server, MENU_ITEMS)
        with Polling(server.address, "/api/menu/version") as polling:
            polling.seconds_each(WARM_SECONDS)
            each = sorted(polling.seconds_each(options.seconds))
    return Measured(
        {
            "answers/s": len(each) / sum(each),
            "p50 ms": each[len(each) // 2] * 1e3,
            "p99 ms": each[int(len(each) * 0.99)] * 1e3,
        }
    )


def fill_menu(server: Running, count: int) -> None:
    """Make a menu of so many items. Raises LoadFailed."""
    token = (server.folder / "instance" / "admin-token").read_text().strip()
    items = [{"key": f"item-{number}", "name": f"Item {number}", "url": f"/{number}"} for number in range(count)]
    request = urllib.request.Request(
        f"http://{server.address[0]}:{server.address[1]}/api/menu/sync",
        json.dumps({"items": items}).encode(),
        {"Authorization": f"Token {token}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30):
            return
    except OSError as error:
        raise LoadFailed(f"The menu can't be made: {error}") from None


class Polling:
    """Asks one address again and again on one connection."""

    def __init__(self, address: tuple[str, int], path: str = "/healthz"):
        self._request = f"GET {path} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\n\r\n".encode()
        self._socket = socket.create_connection(address, timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._last = time.monotonic()
        self._ask()

    def __enter__(self) -> Polling:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def longest_gap(self, seconds: float) -> float:
        """Between two answers, in seconds; asks every five milliseconds for so long."""
        end = time.monotonic() + seconds
        longest = 0.0
        while self._last < end:
            time.sleep(max(0.0, self._last + POLL_SECONDS - time.monotonic()))
            last = self._last
            self._ask()
            longest = max(longest, self._last - last)
        return longest

    def seconds_each(self, seconds: float) -> list[float]:
        """How long each answer took of those that fit into so long, asked without a pause."""
        end = time.monotonic() + seconds
        taken = []
        while (begin := time.monotonic()) < end:
            self._ask()
            taken.append(self._last - begin)
        return taken

    def _ask(self) -> None:
        self._socket.sendall(self._request)
        answer = b""
        while True:
            head, end, body = answer.partition(b"\r\n\r\n")
            if end and len(body) >= content_length(head):
                break
            data = self._socket.recv(65_536)
            if not data:
                raise LoadFailed("The server closed the connection that asks.")
            answer += data
        if not head.startswith(b"HTTP/1.1 200 "):
            raise LoadFailed(f"The server answered {head.splitlines()[0].decode(errors='replace')}")
        self._last = time.monotonic()


ROWS = (
    Row("closed", "{clients} clients, next post when the last is answered", closed_loop(1)),
    Row("50", "{clients} clients, 50 posts/s", offered(50)),
    Row("100", "{clients} clients, 100 posts/s", offered(100)),
    Row("400", "{clients} clients, 400 posts/s", offered(400)),
    Row(
        "flood",
        f"{{clients}} clients, {FLOOD_CONNECTIONS} connections post without a pause",
        closed_loop(FLOOD_CONNECTIONS),
    ),
    Row("many", f"{MANY:,} clients, 50 posts/s", offered(50, MANY), usual=False),
    Row("crowd", f"{CROWD:,} clients", crowd),
    Row("post", "POST, 1 keep-alive connection, no clients", posts(1)),
    Row("posts", "POST, 16 keep-alive connections, no clients", posts(16)),
    Row("menu", f"GET /api/menu/version of {MENU_ITEMS} items, 1 keep-alive connection", menu_version),
    Row("history", f"a journal of {history.ROWS:,} events", come_back, kinds=(OURS,)),
    Row("logs", f"`log_batch` of {LOG_LINES} lines, {LOG_CONNECTIONS} connections", log_lines, kinds=(OURS,)),
)
GENERATOR = tuple(
    Row(f"generator-{events}", f"{{clients}} clients, {events} events a send", generator, kinds=(blaster(events),))
    for events in (1, 8, 32)
)
"""No server's figures: what the load generator itself can take in."""
