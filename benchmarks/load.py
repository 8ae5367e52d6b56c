"""The load generator: thousands of Socket.IO clients and the posts that reach them, in one thread on one epoll set.

A few clients, spread over all, parse every frame: they check order and completeness and take latencies. Of the others
only events are counted, which is what lets one core of Python take in 400,000 deliveries a second and more.
"""

from __future__ import annotations

import errno
import gc
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from benchmarks.frames import OVERLAP, PONG, STAMP, Frames, Marks, client_text, handshake

READ_BYTES = 256 * 1024
BATCH = 256
"""Descriptors handled between two looks at the clock, so that posts leave in time."""

CLIENTS_AN_ADDRESS = 20_000
CONNECTING = 64
"""Handshakes under way at once."""

SAMPLED = 16
OFFERING = 64
"""Connections on which posts of a given rate leave: enough that a slow answer holds none up."""

CONNECT = client_text(b"40")
SUBSCRIBE = client_text(b'420["subscribe_project","bench"]')


Address = tuple[str, int]


class LoadFailed(Exception):
    """A client was refused, closed, or not answered in time; the text says which and why."""


class Ready(Protocol):
    """What waits for a descriptor."""

    def ready(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run delivered. Rates are in events (or posts) a second, latencies in milliseconds from the moment a post
    was due to the moment its event was read."""

    posts: int
    deliveries: int
    seconds: float
    p50_ms: float
    p99_ms: float
    frame_bytes: int
    problems: tuple[str, ...]
    """Empty if every client has each event once, and the sampled ones all in the same order."""

    @property
    def deliveries_a_second(self) -> float:
        return self.deliveries / self.seconds

    @property
    def posts_a_second(self) -> float:
        return self.posts / self.seconds


class Client:
    """One subscriber: opens a WebSocket, CONNECTs, subscribes, and then counts, or parses if it is sampled."""

    def __init__(self, load: Load, address: Address, source: str, sampled: bool):
        self.marks = Marks()
        self.sampled = sampled
        self.subscribed = False
        self.numbers: list[int] = []
        self.latencies_ns: list[int] = []
        self.text_bytes = 0
        self.socket = socket.socket()
        self._load = load
        self._frames = Frames()
        self._head: bytes | None = b""
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source != address[0]:
            self.socket.bind((source, 0))
        problem = self.socket.connect_ex(address)
        if problem not in (0, errno.EINPROGRESS):
            raise LoadFailed(f"A client can't connect: {os.strerror(problem)}")
        self._request = handshake(f"{address[0]}:{address[1]}")
        load.watch(self.socket, self, select.EPOLLOUT)

    def ready(self) -> None:
        load = self._load
        if self._request:
            self._begin()
            return
        try:
            length = self.socket.recv_into(load.window)
        except BlockingIOError:
            return
        if not length:
            raise LoadFailed("The server closed a connection.")
        if self.subscribed and not self.sampled:
            before = self.marks.count
            if self.marks.take(load.buffer, length):
                self.socket.send(PONG)
            load.deliveries += self.marks.count - before
        else:
            self._parse(bytes(load.window[:length]))

    def _begin(self) -> None:
        problem = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if problem:
            raise LoadFailed(f"A client can't connect: {os.strerror(problem)}")
        self.socket.send(self._request)
        self._request = b""
        self._load.rewatch(self.socket, select.EPOLLIN)

    def _parse(self, data: bytes) -> None:
        if self._head is not None:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101 "):
                raise LoadFailed(f"A handshake was refused: {head.splitlines()[0].decode(errors='replace')}")
            self._head = None
        for text in self._frames.feed(data):
            self._hear(text)

    def _hear(self, text: bytes) -> None:
        if text.startswith(b"42"):
            self._note(text)
        elif text == b"2":
            self.socket.send(PONG)
        elif text.startswith(b"0"):
            self.socket.send(CONNECT)
        elif text.startswith(b"40"):
            self.socket.send(SUBSCRIBE)
        elif text.startswith(b"430"):
            if b'"ok":true' not in text.replace(b" ", b""):
                raise LoadFailed(f"A subscription was refused: {text.decode(errors='replace')}")
            self.subscribed = True
            self._load.subscribed += 1
        elif text.startswith((b"41", b"44")):
            raise LoadFailed(f"The server refused a client: {text.decode(errors='replace')}")

    def _note(self, text: bytes) -> None:
        found = STAMP.findall(text)
        if not found:
            return
        ((number, stamp),) = found
        self.numbers.append(int(number))
        self.latencies_ns.append(time.monotonic_ns() - int(stamp))
        self.text_bytes = len(text)
        self.marks.count += 1
        self._load.deliveries += 1


class Poster:
    """One HTTP keep-alive connection; one request at a time. `place` is its server's in the list of those posted to."""

    def __init__(self, load: Load, address: Address, path: str, place: int):
        self.place = place
        self.busy = False
        self._load = load
        self._answer = b""
        self._head = f"POST {path} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nContent-Type: application/json\r\n"
        with told():
            self.socket = socket.create_connection(address, timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        load.watch(self.socket, self, select.EPOLLIN)

    def post(self, body: bytes) -> None:
        request = f"{self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        with told():
            sent = self.socket.send(request)
        if sent < len(request):
            raise LoadFailed("A post did not fit into the socket's buffer.")
        self.busy = True

    def ready(self) -> None:
        data = self.socket.recv(65_536)
        if not data:
            raise LoadFailed("The server closed a connection that posts.")
        self._answer += data
        head, end, body = self._answer.partition(b"\r\n\r\n")
        if end and len(body) >= content_length(head):
            self._answer = b""
            self.busy = False
            self._load.answered(self, head.startswith(b"HTTP/1.1 200 "))


def content_length(head: bytes) -> int:
    """Of an answer's head. Raises LoadFailed if it has none: the benchmark reads no chunked answers."""
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise LoadFailed("An answer has no Content-Length.")


class Load:
    """`clients` subscribers of one server, and posts to it. `body(number, stamp_ns)` makes a post's body, of which
    each client gets `events_a_post` events. With several addresses (of servers that share a journal) clients are spread
    over them evenly, and posts go to each `posted_to` in turn, or to all. Use it as a context: leaving closes all
    connections."""

    def __init__(
        self,
        addresses: Sequence[Address],
        path: str,
        body: Callable[[int, int], bytes],
        events_a_post: int = 1,
        posted_to: Sequence[Address] = (),
    ):
        self.buffer = bytearray(OVERLAP + READ_BYTES)
        self.window = memoryview(self.buffer)[OVERLAP:]
        self.subscribed = 0
        self.deliveries = 0
        self._addresses = addresses
        self._posted_to = posted_to or addresses
        self._path = path
        self._body = body
        self._events_a_post = events_a_post
        self._epoll = select.epoll()
        self._waiting: dict[int, Ready] = {}
        self._clients: list[Client] = []
        self._posters: list[Poster] = []
        self._free: list[list[Poster]] = [[] for _ in self._posted_to]
        self._posted = 0
        self._answered = 0
        self._refused = 0
        self._overdue: deque[int] = deque()

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.socket.close()
        for poster in self._posters:
            poster.socket.close()
        self._epoll.close()

    def watch(self, sock: socket.socket, waiting: Ready, events: int) -> None:
        self._waiting[sock.fileno()] = waiting
        self._epoll.register(sock.fileno(), events)

    def rewatch(self, sock: socket.socket, events: int) -> None:
        self._epoll.modify(sock.fileno(), events)

    def answered(self, poster: Poster, accepted: bool) -> None:
        self._answered += 1
        self._refused += not accepted
        self._free[poster.place].append(poster)

    def step(self, timeout_seconds: float) -> None:
        """Handle what is ready, waiting at most so long for the first of it. Raises LoadFailed."""
        waiting = self._waiting
        with told():
            for descriptor, _ in self._epoll.poll(timeout_seconds, BATCH):
                waiting[descriptor].ready()

    def connect(self, clients: int, limit_seconds: float) -> float:
        """Add subscribers; how many seconds it took until all were acknowledged. Raises LoadFailed."""
        begin = time.monotonic()
        first = len(self._clients)
        wanted = self.subscribed + clients
        stride = max(1, clients // SAMPLED)
        while self.subscribed < wanted:
            while len(self._clients) < wanted and len(self._clients) - self.subscribed < CONNECTING:
                index = len(self._clients)
                # In blocks, so that the sampled ones are spread over the servers too.
                address = self._addresses[(index - first) * len(self._addresses) // clients]
                source = address[0].rpartition(".")[0] + f".{1 + index // CLIENTS_AN_ADDRESS}"
                self._clients.append(Client(self, address, source, index % stride == 0))
            self.step(0.1)
            if time.monotonic() - begin > limit_seconds:
                raise LoadFailed(f"{self.subscribed} of {wanted} clients subscribed within {limit_seconds:.0f} s")
        return time.monotonic() - begin

    def closed(self, connections: int, seconds: float, drain_seconds: float) -> Outcome:
        """On each connection the next post leaves when the last is answered."""
        return self._run(connections, None, seconds, drain_seconds)

    def offered(self, posts_a_second: float, seconds: float, drain_seconds: float) -> Outcome:
        """Posts are due at this rate whatever happens; one that finds no free connection waits, and its time counts."""
        return self._run(OFFERING, posts_a_second, seconds, drain_seconds)

    def _run(self, connections: int, rate: float | None, seconds: float, drain_seconds: float) -> Outcome:
        while len(self._posters) < connections:
            place = len(self._posters) % len(self._posted_to)
            self._posters.append(Poster(self, self._posted_to[place], self._path, place))
        self._forget()
        self._free = [[] for _ in self._posted_to]
        for poster in [poster for poster in self._posters if not poster.busy][:connections]:
            self._free[poster.place].append(poster)
        with uncollected():  # which itself takes a moment
            begin = time.monotonic_ns()
            end = begin + int(seconds * 1e9)
            if rate is None:
                self._post_without_pause(end)
            else:
                self._post_at_rate(begin, end, rate)
            last = self._drain(time.monotonic_ns() + int(drain_seconds * 1e9))
        return self._outcome((max(last, end) - begin) / 1e9)

    def _forget(self) -> None:
        """What earlier runs left."""
        self._posted = self._answered = self._refused = self.deliveries = 0
        self._overdue.clear()
        for client in self._clients:
            client.marks.count = 0
            client.numbers.clear()
            client.latencies_ns.clear()

    def _post_without_pause(self, end: int) -> None:
        while (now := time.monotonic_ns()) < end:
            while any(self._free):
                self._post_one(now)
            self.step(0.001)

    def _post_at_rate(self, begin: int, end: int, rate: float) -> None:
        """What finds no free connection by `end` is left overdue, for the drain."""
        due = begin
        interval = int(1e9 / rate)
        while due < end:
            now = time.monotonic_ns()
            while due <= now and due < end:
                self._overdue.append(due)
                due += interval
            self._post_overdue()
            ahead = due - time.monotonic_ns()
            # epoll counts in whole milliseconds, rounded up: the last one is spent looking.
            self.step(max(0, ahead // 1_000_000 - 1) / 1e3)

    def _post_overdue(self) -> None:
        while self._overdue and any(self._free):
            self._post_one(self._overdue.popleft())

    def _post_one(self, stamp_ns: int) -> None:
        turn = self._posted % len(self._free)
        free = next(filter(None, self._free[turn:] + self._free[:turn]))
        free.pop().post(self._body(self._posted, stamp_ns))
        self._posted += 1

    def _drain(self, deadline: int) -> int:
        """Until everything is answered and delivered, or the deadline; when the last of it came."""
        last = time.monotonic_ns()
        while True:
            self._post_overdue()
            if not self._overdue and self._answered == self._posted and self._complete():
                return last
            self.step(0.01)
            last = time.monotonic_ns()
            if last > deadline:
                return last

    def _complete(self) -> bool:
        wanted = self._wanted()
        enough = self.deliveries >= wanted * len(self._clients)  # the cheap look first: this is asked at each step
        return enough and all(client.marks.count >= wanted for client in self._clients)

    def _wanted(self) -> int:
        """Events that each client must have by now."""
        return (self._posted - self._refused) * self._events_a_post

    def _outcome(self, seconds: float) -> Outcome:
        latencies = sorted(ns for client in self._clients for ns in client.latencies_ns)
        return Outcome(
            posts=self._answered,
            deliveries=self.deliveries,
            seconds=seconds,
            p50_ms=_percentile(latencies, 0.50) / 1e6,
            p99_ms=_percentile(latencies, 0.99) / 1e6,
            frame_bytes=self._clients[0].text_bytes if self._clients else 0,
            problems=tuple(self._problems()),
        )

    def _problems(self) -> Iterator[str]:
        wanted = self._wanted()
        late = self._posted - self._answered + len(self._overdue)
        if self._refused:
            yield f"{self._refused} posts refused"
        if late:
            yield f"{late} posts not answered"
        short = sum(client.marks.count < wanted for client in self._clients)
        if short:
            yield f"{short} clients lack events"
        if any(client.marks.count > wanted for client in self._clients):
            yield "events came twice"
        orders = {tuple(client.numbers[:wanted]) for client in self._clients if client.sampled}
        shortest = min(map(len, orders), default=0)
        if len({order[:shortest] for order in orders}) > 1:
            yield "clients saw different orders"
        if any(len(set(order)) < len(order) for order in orders):
            yield "an event came twice to one client"


def _percentile(ordered: list[int], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else float("nan")


@contextmanager
def told() -> Iterator[None]:
    """A connection that the server refuses or breaks ends the run as LoadFailed."""
    try:
        yield
    except OSError as error:
        raise LoadFailed(f"The server broke a connection: {error}") from None


@contextmanager
def uncollected() -> Iterator[None]:
    """Without the cyclic garbage collector, whose pauses would count as the server's."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
