"""The load: a crowd of Socket.IO clients on raw sockets, and posts to one room, in one loop on one core.

All clients count deliveries by a mark in each event, which is cheap enough for several hundred thousand a second;
a few parse the mark, so they know order and latency. It is a program of its own: `python -m benchmarks.load JOB`
with a job in JSON prints the result in JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import socket
import struct
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

MARK = b"mark:"
NUMBER_BYTES = 8
NANOSECONDS_BYTES = 20
MARKED_BYTES = len(MARK) + NUMBER_BYTES + 1 + NANOSECONDS_BYTES
SAMPLE = 16
HANDSHAKES_AT_ONCE = 64
POSTERS = 64
IDLE_SECONDS = 15.0
"""Without a delivery for so long what is missing is given up."""
READ_BYTES = 256 * 1024
PROJECT = "bench"


@dataclass
class Target:
    """Where a server listens, and what it is asked for."""

    port: int
    socket_path: str
    post_path: str
    alive_path: str


@dataclass
class Client:
    sock: socket.socket
    stage: int = 0
    buffer: bytes = b""
    count: int = 0
    """Deliveries seen."""
    sampled: bool = False
    numbers: list[int] = field(default_factory=list)
    """Of a sampled one: the posts in the order in which they came."""


def message(number: int, padding: int = 0) -> bytes:
    """The body of a post: about 250 bytes, with the mark, its number and the moment of sending."""
    text = f"mark:{number:08d}:{time.monotonic_ns():020d} Uploading chunk to the object store, all is well here"
    body = {
        "type": "log_entry",
        "project": PROJECT,
        "deployment_id": "4711",
        "level": "info",
        "message": text + "." * padding,
        "timestamp": "2026-11-21T12:00:00.000Z",
    }
    return json.dumps(body, separators=(",", ":")).encode()


def batch(number: int, lines: int) -> bytes:
    entry = {"level": "info", "timestamp": "2026-11-21T12:00:00.000Z"}
    logs = [entry | {"message": f"line {place} of batch {number}: compiling module {place}"} for place in range(lines)]
    body = {"type": "log_batch", "project": PROJECT, "deployment_id": f"b{number // 300}", "logs": logs}
    return json.dumps(body, separators=(",", ":")).encode()


def masked(text: str) -> bytes:
    """A client's text frame; the mask is zero, so that the payload stands in it as it is."""
    payload = text.encode()
    size = len(payload)
    head = bytes([0x81, 0x80 | size]) if size < 126 else b"\x81\xfe" + struct.pack("!H", size)
    return head + bytes(4) + payload


def split_frames(data: bytes) -> tuple[list[bytes], bytes]:
    """The payloads of the whole frames of a server, and the rest."""
    found, at = [], 0
    while len(data) - at >= 2:
        size, head = data[at + 1], 2
        if size == 126:
            size, head = int.from_bytes(data[at + 2 : at + 4], "big"), 4
        elif size == 127:
            size, head = int.from_bytes(data[at + 2 : at + 10], "big"), 10
        if len(data) - at < head + size:
            break
        found.append(data[at + head : at + head + size])
        at += head + size
    return found, data[at:]


@dataclass
class Poster:
    sock: socket.socket
    buffer: bytes = b""
    busy: bool = False


@dataclass
class Crowd:
    """`clients` of one server in one room, and connections that post."""

    target: Target
    epoll: select.epoll = field(default_factory=select.epoll)
    clients: dict[int, Client] = field(default_factory=dict)
    posters: dict[int, Poster] = field(default_factory=dict)
    free: deque[Poster] = field(default_factory=deque)
    latencies: list[int] = field(default_factory=list)
    delivered: int = 0
    last_delivery: float = 0.0
    posted: int = 0
    answered: int = 0
    refused: int = 0
    lost: int = 0
    problems: set[str] = field(default_factory=set)
    space: bytearray = field(default_factory=lambda: bytearray(READ_BYTES))

    # ---- connecting

    def connect(self, count: int) -> float:
        """Open `count` clients and subscribe them; the seconds it took."""
        begun = time.monotonic()
        opened = ready = 0
        opening: dict[int, Client] = {}
        while ready < count:
            while opened < count and len(opening) < HANDSHAKES_AT_ONCE:
                client = self._open(opened)
                opening[client.sock.fileno()] = client
                opened += 1
            for descriptor, _ in self.epoll.poll(IDLE_SECONDS):
                client = opening[descriptor]
                if self._advance(client):
                    del opening[descriptor]
                    self.clients[descriptor] = client
                    ready += 1
            if time.monotonic() - begun > 120:
                raise TimeoutError(f"only {ready} of {count} clients are connected")
        took = time.monotonic() - begun
        for client in list(self.clients.values())[:: max(1, count // SAMPLE)]:
            client.sampled = True
        return took

    def _open(self, place: int) -> Client:
        sock = socket.socket()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
        sock.bind((f"127.0.0.{2 + place % 8}", 0))
        sock.connect(("127.0.0.1", self.target.port))
        sock.sendall(
            f"GET {self.target.socket_path}?EIO=4&transport=websocket HTTP/1.1\r\n"
            f"Host: 127.0.0.1:{self.target.port}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        sock.setblocking(False)
        self.epoll.register(sock.fileno(), select.EPOLLIN)
        return Client(sock)

    def _advance(self, client: Client) -> bool:
        """The next step of a handshake; True when the subscription is acknowledged."""
        data = client.sock.recv(READ_BYTES)
        if not data:
            raise ConnectionError(f"the server ended a handshake in stage {client.stage}")
        client.buffer += data
        if client.stage == 0:
            head, found, rest = client.buffer.partition(b"\r\n\r\n")
            if not found:
                return False
            if b" 101 " not in head.split(b"\r\n")[0]:
                raise ConnectionError(head.split(b"\r\n")[0].decode())
            client.buffer, client.stage = rest, 1
        frames, client.buffer = split_frames(client.buffer)
        for packet in frames:
            if client.stage == 1 and packet.startswith(b"0"):
                client.sock.sendall(masked("40"))
                client.stage = 2
            elif client.stage == 2 and packet.startswith(b"40"):
                client.sock.sendall(masked(f'420["subscribe_project","{PROJECT}"]'))
                client.stage = 3
            elif client.stage == 3 and packet.startswith(b"430"):
                client.stage = 4
        return client.stage == 4

    def leave(self) -> None:
        """All at once."""
        for client in self.clients.values():
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sock.close()
        self.clients.clear()

    # ---- posting

    def open_posters(self, count: int) -> None:
        for _ in range(count):
            sock = socket.create_connection(("127.0.0.1", self.target.port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            self.epoll.register(sock.fileno(), select.EPOLLIN)
            poster = self.posters[sock.fileno()] = Poster(sock)
            self.free.append(poster)

    def post(self, body: bytes) -> None:
        poster = self.free.popleft()
        head = (
            f"POST {self.target.post_path} HTTP/1.1\r\nHost: 127.0.0.1:{self.target.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        poster.sock.setblocking(True)
        poster.sock.sendall(head.encode() + body)
        poster.sock.setblocking(False)
        poster.busy = True
        self.posted += 1

    def _answer(self, poster: Poster) -> None:
        data = poster.sock.recv(READ_BYTES)
        if not data:
            raise ConnectionError("the server ended a connection that posts")
        poster.buffer += data
        head, found, body = poster.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:])
        if b"content-length" in fields:
            if len(body) < int(fields[b"content-length"]):
                return
        elif not body.endswith(b"0\r\n\r\n"):  # chunked
            return
        if b" 200 " not in head.split(b"\r\n")[0]:
            self.refused += 1
            self.problems.add(body[:200].decode(errors="replace"))
        poster.buffer = b""
        poster.busy = False
        self.answered += 1
        self.free.append(poster)

    # ---- receiving

    def turn(self, timeout_seconds: float) -> None:
        """Whatever came."""
        clients, space = self.clients, self.space
        for descriptor, _ in self.epoll.poll(max(0.0, timeout_seconds), 4_096):
            client = clients.get(descriptor)
            if client is None:
                self._answer(self.posters[descriptor])
                continue
            try:
                size = client.sock.recv_into(space)
            except ConnectionError:
                size = 0
            if not size:
                self.lost += 1
                del clients[descriptor]
                client.sock.close()
                continue
            self._count(client, client.buffer + space[:size])

    def _count(self, client: Client, data: bytes) -> None:
        count = data.count(MARK)
        if client.sampled:
            client.buffer = self._sample(client, data)
        else:
            client.buffer = data[-(len(MARK) - 1) :]
        if count:
            if client.sampled and data.rfind(MARK) + MARKED_BYTES > len(data):
                count -= 1  # the last one is not whole yet and will be seen again
            client.count += count
            self.delivered += count
            self.last_delivery = time.monotonic()
        elif b"\x81\x012" in data:
            with contextlib.suppress(BlockingIOError):
                client.sock.send(masked("3"))

    def _sample(self, client: Client, data: bytes) -> bytes:
        """Read number and moment of each mark; gives what has to be read again with the next bytes."""
        now = time.monotonic_ns()
        at = data.find(MARK)
        while at >= 0:
            if at + MARKED_BYTES > len(data):
                return data[at:]
            start = at + len(MARK)
            client.numbers.append(int(data[start : start + NUMBER_BYTES]))
            start += NUMBER_BYTES + 1
            self.latencies.append(now - int(data[start : start + NANOSECONDS_BYTES]))
            at = data.find(MARK, start)
        return data[-(len(MARK) - 1) :]


def fan_out(crowd: Crowd, job: dict[str, Any]) -> dict[str, Any]:
    """Post for so many seconds and wait until all has arrived. `rate` posts a second, or, without one, as soon as one
    of `posters` connections has its answer."""
    rate, seconds = job.get("rate"), job["seconds"]
    crowd.open_posters(POSTERS if rate else job["posters"])
    begun = time.monotonic()
    number = 0
    while (now := time.monotonic()) < begun + seconds:
        due = int((now - begun) * rate) + 1 if rate else number + len(crowd.free)
        while number < due and crowd.free:
            crowd.post(message(number))
            number += 1
        pause = begun + number / rate - time.monotonic() if rate and crowd.free else IDLE_SECONDS
        crowd.turn(min(pause, begun + seconds - now))
    expected = number * len(crowd.clients)
    crowd.last_delivery = max(crowd.last_delivery, time.monotonic())
    while crowd.delivered < expected and time.monotonic() - crowd.last_delivery < IDLE_SECONDS:
        crowd.turn(0.5)
    took = crowd.last_delivery - begun
    orders = [client.numbers for client in crowd.clients.values() if client.sampled]
    if any(order != orders[0] for order in orders):
        crowd.problems.add("clients saw different orders")
    if any(len(set(order)) < len(order) for order in orders):
        crowd.problems.add("a client saw an event twice")
    waiting = sorted(crowd.latencies)
    return {
        "posts": number,
        "posts_per_second": number / seconds,
        "wanted_rate": rate,
        "deliveries_per_second": crowd.delivered / took,
        "missing": expected - crowd.delivered,
        "p50_ms": waiting[len(waiting) // 2] / 1e6 if waiting else None,
        "p99_ms": waiting[len(waiting) * 99 // 100] / 1e6 if waiting else None,
    }


def posts(crowd: Crowd, job: dict[str, Any]) -> dict[str, Any]:
    """How many posts a second are answered over `posters` connections, each waiting for its answer."""
    crowd.open_posters(job["posters"])
    lines = job.get("lines", 0)
    bodies = [batch(number, lines) for number in range(20)] if lines else []
    begun, number = time.monotonic(), 0
    while time.monotonic() < begun + job["seconds"]:
        while crowd.free:
            crowd.post(bodies[number % 20] if lines else message(number))
            number += 1
        crowd.turn(IDLE_SECONDS)
    took = time.monotonic() - begun
    return {"posts_per_second": crowd.answered / took, "lines_per_second": lines * crowd.answered / took}


def vanish(crowd: Crowd, job: dict[str, Any]) -> dict[str, Any]:
    """All clients go at once: the longest time in which a request every 5 ms got no answer."""
    sock = socket.create_connection(("127.0.0.1", crowd.target.port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    request = f"GET {crowd.target.alive_path} HTTP/1.1\r\nHost: 127.0.0.1:{crowd.target.port}\r\n\r\n".encode()

    def longest(seconds: float) -> float:
        worst, until = 0.0, time.monotonic() + seconds
        while time.monotonic() < until:
            asked = time.monotonic()
            sock.sendall(request)
            sock.recv(READ_BYTES)
            worst = max(worst, time.monotonic() - asked)
            time.sleep(0.005)
        return worst * 1e3

    before = longest(1.0)
    crowd.leave()
    return {"pause_before_ms": before, "pause_ms": longest(job["seconds"])}


def run(job: dict[str, Any]) -> dict[str, Any]:
    """One measurement: a dict of figures, `problems` among them when something was not as it should."""
    if "core" in job:
        os.sched_setaffinity(0, {job["core"]})
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    crowd = Crowd(Target(**job["target"]))
    result: dict[str, Any] = {}
    before = memory_bytes(job["pid"])
    if job["clients"]:
        took = crowd.connect(job["clients"])
        result["connects_per_second"] = job["clients"] / took
        time.sleep(1.0)
        result["bytes_per_client"] = (memory_bytes(job["pid"]) - before) / job["clients"]
    kinds = {"fan_out": fan_out, "posts": posts, "vanish": vanish}
    if job["kind"] in kinds:
        result |= kinds[job["kind"]](crowd, job)
    if crowd.refused:
        crowd.problems.add(f"{crowd.refused} posts were refused")
    if crowd.lost:
        crowd.problems.add(f"{crowd.lost} clients lost their connection")
    return result | {"problems": sorted(crowd.problems)[:5]}


def memory_bytes(pid: int) -> int:
    """The resident memory of a process."""
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
