"""Hosts on one machine: network namespaces of our own on a bridge of our own, where a cable can be pulled.

The machine's side of the bridge has an address, at which PostgreSQL and Redis listen. All of it is named by this
process' id, is removed on leaving, and leaves the machine's own network as it was.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.servers import ROOT, RunningSidecar

NETWORK = "198.18"
"""Of the addresses that are kept for trials (RFC 2544): no network of the machine has them."""
SECONDS = 30
LOSS = "20%"
NARROW = ("rate", "2mbit", "burst", "4kb", "limit", "6kb")
"""A line on which a burst loses packets, for kernels that can't lose them by chance."""
CLONE_NEWNET = 0x40000000


def missing() -> str | None:
    """Why there can be no such hosts here; None if there can."""
    if os.geteuid() != 0:
        return "only root can make network namespaces"
    if shutil.which("ip", path=_PATH) is None:
        return "ip is not installed (make services)"
    try:
        with network(1):
            return None
    except AssertionError as error:
        return str(error)


@dataclass(frozen=True, slots=True)
class Node:
    """A host: its namespace, its address, and its cable's end on our side."""

    name: str
    address: str
    cable: str

    def enter(self) -> None:
        """From now on the calling thread opens its sockets there."""
        with open(f"/run/netns/{self.name}") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")

    @contextlib.contextmanager
    def unplugged(self) -> Iterator[None]:
        """Its programs run on, and no packet reaches it or leaves it; nobody is told so."""
        _ip("link", "set", self.cable, "down")
        try:
            yield
        finally:
            _ip("link", "set", self.cable, "up")

    @contextlib.contextmanager
    def lossy(self) -> Iterator[str]:
        """Packets to it are lost. Gives how."""
        how = "netem"
        try:
            _tc("add", "dev", self.cable, "root", "netem", "loss", LOSS)
        except AssertionError:  # not every kernel has it
            how = "a narrow line"
            _tc("add", "dev", self.cable, "root", "tbf", *NARROW)
        try:
            yield how
        finally:
            _tc("del", "dev", self.cable, "root")


@dataclass(frozen=True, slots=True)
class Network:
    """`address` is ours."""

    address: str
    nodes: list[Node]


@contextlib.contextmanager
def network(count: int) -> Iterator[Network]:
    """So many hosts, and we, on one network. Raises AssertionError where that can't be."""
    number = os.getpid()
    bridge, prefix = f"sc{number}", f"{NETWORK}.{number % 250}"
    ours = f"{prefix}.1"
    nodes = [Node(f"sidecar-{number}-{n}", f"{prefix}.{n + 2}", f"sc{number}-{n}") for n in range(count)]
    cards = [f"02:00:00:00:00:{n:02x}" for n in range(1, count + 2)]
    with contextlib.ExitStack() as ends:
        _ip("link", "add", bridge, "address", cards[0], "type", "bridge")
        ends.callback(_ip, "link", "del", bridge)
        _ip("address", "add", f"{ours}/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        for node, card in zip(nodes, cards[1:], strict=True):
            _ip("netns", "add", node.name)
            ends.callback(_ip, "netns", "del", node.name)
            peer = ("peer", "name", "eth0", "address", card, "netns", node.name)
            _ip("link", "add", node.cable, "type", "veth", *peer)
            ends.callback(_ip, "link", "del", node.cable)
            _ip("link", "set", node.cable, "master", bridge, "up")
            _ip("-n", node.name, "address", "add", f"{node.address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", node.name, "link", "set", device, "up")
            # Known for ever: else a packet for a host without a cable is answered that nobody has its address.
            _ip("neighbour", "replace", node.address, "lladdr", card, "dev", bridge, "nud", "permanent")
            _ip("-n", node.name, "neighbour", "replace", ours, "lladdr", cards[0], "dev", "eth0", "nud", "permanent")
        yield Network(ours, nodes)


class NodeSidecar(RunningSidecar):
    """One that runs on such a host, and is reached at its address."""

    def __init__(self, node: Node, folder: Path, environment: dict[str, str]):
        super().__init__(folder, {**environment, "SIDECAR_HOST": "0.0.0.0"})
        self.node = node
        self.address = node.address

    def _launch(self, nothing: IO[bytes], log: IO[bytes]) -> subprocess.Popen[bytes]:
        command = [_program("ip"), "netns", "exec", self.node.name, sys.executable, str(self._program)]
        return subprocess.Popen(command, cwd=ROOT, env=self._environment, stdin=nothing, stdout=log, stderr=log)


_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def _program(name: str) -> str:
    found = shutil.which(name, path=_PATH)
    assert found is not None, f"{name} is not installed (make services)"
    return found


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _tc(*arguments: str) -> None:
    _run("tc", "qdisc", *arguments)


def _run(program: str, *arguments: str) -> None:
    done = subprocess.run([_program(program), *arguments], capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == 0, f"{program} {' '.join(arguments)}: {done.stderr.strip()}"
