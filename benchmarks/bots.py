"""Bots that write to each other, through this sidecar and through the original server of maim_message 0.6.8 (make
bots): `python -m benchmarks.bots`. Each pair is a sender and a receiver on plain WebSockets, both acknowledging what
they get; `window` messages of a pair are under way at any time."""

from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import statistics
import struct
import subprocess
import sys
import time
import uuid
from base64 import b64encode
from dataclasses import dataclass, field

from benchmarks.frames import Frames
from benchmarks.host import OtherLoad
from benchmarks.load import LoadFailed
from benchmarks.servers import OURS, ROOT, Kind, Running, event, serving

CORES = (0, 1)
SETTLE_SECONDS = 2.0
SHAPES = ((1, 1), (1, 16), (16, 16))
"""Pairs and windows."""
BOTS = ROOT / "tests" / "bots"
PYTHON = BOTS / ".venv-0.6.8" / "bin" / "python"
MOST_PAIRS = max(pairs for pairs, _ in SHAPES)
USERS = {f"bench-key-{number}": f"user-{number}" for number in range(2 * MOST_PAIRS)}

ORIGINAL = Kind(
    name="original",
    title="maim_message 0.6.8",
    path="/ws",
    body=event,
    command=lambda port: [str(PYTHON), str(BOTS / "server.py"), str(port), json.dumps(USERS)],
    ready_path="/openapi.json",
)


@dataclass(slots=True)
class Pair:
    """`sent` are the times at which its messages left, by name; `taken` is how long each took."""

    number: int
    sender: socket.socket
    receiver: socket.socket
    sent: dict[str, float] = field(default_factory=dict)
    taken: list[float] = field(default_factory=list)

    def send(self) -> None:
        name = str(uuid.uuid4())
        message = {
            "message_info": {"platform": "a", "message_id": name, "time": time.time()},
            "message_segment": {"type": "text", "data": "x" * 100},
            "message_dim": {"api_key": f"bench-key-{2 * self.number + 1}", "platform": "b"},
        }
        self.sent[name] = time.monotonic()
        _send(self.sender, {"ver": 1, "msg_id": name, "type": "sys_std", "meta": {}, "payload": message})

    def came(self, text: bytes) -> bool:
        """At the receiver; was it a message of this pair? (It may be a late one of the pair before.)"""
        frame = json.loads(text)
        sent = self.sent.pop(frame["payload"]["message_info"]["message_id"], None) if "msg_id" in frame else None
        if sent is None:
            return False
        self.taken.append(time.monotonic() - sent)
        _send(self.receiver, {"type": "sys_ack", "meta": {"acked_msg_id": frame["msg_id"]}})
        return True


def measured(server: Running, pairs: int, window: int, seconds: float) -> tuple[float, float, float]:
    """Messages a second, and how long they took: median and 99th percentile, in seconds."""
    made = [
        Pair(n, _connect(server, f"bench-key-{2 * n}", "a"), _connect(server, f"bench-key-{2 * n + 1}", "b"))
        for n in range(pairs)
    ]
    time.sleep(SETTLE_SECONDS)  # the original server takes half a second to know who is there
    with selectors.DefaultSelector() as waiting:
        for pair in made:
            for sock, at_receiver in ((pair.sender, False), (pair.receiver, True)):
                waiting.register(sock, selectors.EVENT_READ, (pair, at_receiver, Frames()))
        begin = time.monotonic()
        for pair in made:
            for _ in range(window):
                pair.send()
        while time.monotonic() < begin + seconds:
            for key, _ in waiting.select(1):
                pair, at_receiver, frames = key.data
                data = key.fileobj.recv(65_536)  # type: ignore[union-attr]
                if not data:
                    raise LoadFailed("The server closed a connection.")
                for text in frames.feed(data):
                    if at_receiver and pair.came(text):
                        pair.send()
        lasted = time.monotonic() - begin
    for pair in made:
        pair.sender.close()
        pair.receiver.close()
    taken = sorted(each for pair in made for each in pair.taken)
    if not taken:
        raise LoadFailed("No message has come.")
    return len(taken) / lasted, taken[len(taken) // 2], taken[int(len(taken) * 0.99)]


def _connect(server: Running, key: str, platform: str) -> socket.socket:
    sock = socket.create_connection(server.address, timeout=30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    nonce = b64encode(os.urandom(16)).decode()
    sock.sendall(
        "GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {nonce}\r\n"
        f"x-apikey: {key}\r\nx-platform: {platform}\r\n\r\n".encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        if not byte:
            raise LoadFailed("The server closed the connection.")
        head += byte
    if b" 101 " not in head.splitlines()[0]:
        raise LoadFailed(head.splitlines()[0].decode(errors="replace"))
    return sock


def _send(sock: socket.socket, frame: dict[str, object]) -> None:
    """Masked with zero, as in benchmarks.frames."""
    text = json.dumps(frame, separators=(",", ":")).encode()
    short = bytes((0x81, 0x80 | len(text))) if len(text) < 126 else struct.pack("!BBH", 0x81, 0x80 | 126, len(text))
    sock.sendall(short + bytes(4) + text)


def _fill(server: Running) -> None:
    """The sidecar's table of keys."""
    environment = os.environ | {"SIDECAR_INSTANCE_DIR": str(server.folder / "instance")}
    for key, user in USERS.items():
        command = [sys.executable, "-m", "sidecar", "maim", "key", "create", "--user", user, "--key-stdin"]
        subprocess.run(command, cwd=ROOT, env=environment, input=key, text=True, capture_output=True, check=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bots", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    arguments = parser.parse_args()
    if not PYTHON.exists():
        sys.exit("maim_message 0.6.8 is not installed: make bots")
    figures: dict[tuple[str, int, int], list[tuple[float, float, float]]] = {}
    others = OtherLoad(set(CORES))
    os.sched_setaffinity(0, {CORES[1]})
    for _ in range(arguments.rounds):
        for kind in (OURS, ORIGINAL):
            with serving(kind, CORES[0]) as server:
                if kind is OURS:
                    _fill(server)
                for pairs, window in SHAPES:
                    figures.setdefault((kind.name, pairs, window), []).append(
                        measured(server, pairs, window, arguments.seconds)
                    )
    print("| pairs x under way | sidecar: messages/s, p50, p99 ms | original | ratio |\n|---|---|---|---|")
    for pairs, window in SHAPES:
        ours, original = (_medians(figures[name, pairs, window]) for name in ("ours", "original"))
        print(f"| {pairs} x {window} | {_told(ours)} | {_told(original)} | {ours[0] / original[0]:.2f} |")
    print(f"other load {others.share():.0%}")
    return 0


def _medians(rounds: list[tuple[float, float, float]]) -> tuple[float, ...]:
    return tuple(statistics.median(column) for column in zip(*rounds, strict=True))


def _told(found: tuple[float, ...]) -> str:
    return f"{found[0]:,.0f}, {found[1] * 1e3:.1f}, {found[2] * 1e3:.1f}"


if __name__ == "__main__":
    sys.exit(main())
