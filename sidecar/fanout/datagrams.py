"""The doorbell of processes on one host: a Unix datagram socket each, in a folder that only its owner can enter.

A process that has committed sends the batch to the others, so that they need not read it; a batch that is too large, or
does not follow what they have, only tells them to look. A datagram that is lost costs a poll's time (fanout/tail.py).
Volatile news goes the same way, and is lost with its datagram.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import gevent
import structlog

from sidecar.domain.events import Event, Volatile
from sidecar.fanout.doorbells import Batch, Ear, HeardVolatile, read_rows, read_volatile, write_volatile
from sidecar.observability.logs import RateLimited, described

log = RateLimited(structlog.get_logger("sidecar.datagrams"))

FOLDER = "doorbells"
BATCH_BYTES = 64 * 1024
RECEIVE_BYTES = 1024 * 1024
"""What may lie in our socket unread; beyond it senders are refused, and the poll is the net."""
MESSAGES_A_TURN = 32
LOOK_SECONDS = 1.0
"""How old the list of the others may be."""
AGAIN_SECONDS = 0.02
"""After so long one whose queue was full is told to look: the kernel keeps as few as ten datagrams for it."""
READ = 1
"""libev's EV_READ."""


class Datagrams:
    """A `Doorbell` for the processes that share this instance folder and the journal of this `epoch`. One that was not
    started rings all the same. `died` is told of a node that is found dead; it must not block."""

    def __init__(
        self,
        instance: Path,
        node: str,
        epoch: str,
        died: Callable[[str], None] = lambda _node: None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._name = node
        self._epoch = epoch
        self._died = died
        self._clock = clock
        self._path = instance / FOLDER
        self._folder: int | None = None
        self._sending: socket.socket | None = None
        self._listening: socket.socket | None = None
        self._watcher: Any = None
        self._ear: Ear | None = None
        self._heard_volatile: HeardVolatile | None = None
        self._others: list[str] = []
        self._late: dict[str, int] = {}
        self._looked_at: float | None = None
        self.dropped = 0

    @property
    def carries(self) -> bool:
        """Whether there are processes on other hosts is not known here."""
        return False

    def start(self, ear: Ear, heard_volatile: HeardVolatile) -> None:
        self._ear, self._heard_volatile = ear, heard_volatile
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._listening = _socket()
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        self._listening.bind(self._address(self._name))
        self._watcher = gevent.get_hub().loop.io(self._listening.fileno(), READ)
        self._watcher.start(self._readable)

    def ring(self, batch: Batch) -> None:
        others = self._list()
        if not others:
            return
        message = encode(batch, self._epoch)
        for name in others:
            if not self._send(name, message):
                self._again(name, batch.last)

    def tell(self, news: Volatile) -> bool:
        others = self._list()
        if others:
            message = f'["{self._epoch}",{write_volatile(news)}]'.encode()
            small = len(message) <= BATCH_BYTES
            self.dropped += sum(1 for name in others if not (small and self._send(name, message)))
        return True

    def stop(self) -> None:
        if self._listening is not None:
            self._watcher.stop()
            self._watcher.close()
            self._listening.close()
            self._listening = None
            self._remove(self._name)
        if self._sending is not None:
            self._sending.close()
        if self._folder is not None:
            os.close(self._folder)

    def _address(self, name: str) -> str:
        """An address has 107 bytes at most; an instance folder's name may have more."""
        if self._folder is None:
            self._folder = os.open(self._path, os.O_PATH | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._folder}/{name}"

    def _list(self) -> list[str]:
        now = self._clock()
        if self._looked_at is None or now - self._looked_at > LOOK_SECONDS:
            self._looked_at = now
            try:
                self._others = [name for name in os.listdir(self._path) if name != self._name]
            except FileNotFoundError:  # nobody listens yet
                pass
            except OSError as error:
                self._looked_at = None
                log.warning("datagrams.not_listed", problem=str(error))
        return self._others

    def _send(self, name: str, message: bytes) -> bool:
        """False if it reads too slowly to take the message."""
        try:
            if self._sending is None:
                self._sending = _socket()
            self._sending.sendto(message, self._address(name))
        except BlockingIOError:
            return False
        except ConnectionRefusedError:  # its process died
            self._remove(name)
            self._looked_at = None
            self._died(name)
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                log.warning("datagrams.not_rung", problem=str(error))
            self._looked_at = None
        return True

    def _again(self, name: str, seq: int) -> None:
        """Once it may have read, it is told how far the journal has come. Only who runs a loop can."""
        waiting = name in self._late
        self._late[name] = seq
        if self._listening is not None and not waiting:
            gevent.spawn_later(AGAIN_SECONDS, self._tell_late, name)

    def _tell_late(self, name: str) -> None:
        seq = self._late.pop(name)
        if self._listening is not None and not self._send(name, _there_is(seq, self._epoch)):
            self._again(name, seq)

    def _remove(self, name: str) -> None:
        with suppress(OSError):
            os.unlink(self._path / name)

    def _readable(self) -> None:
        """In the loop's callback, where nothing may be raised."""
        assert self._listening is not None
        assert self._ear is not None
        assert self._heard_volatile is not None
        for _ in range(MESSAGES_A_TURN):
            try:
                message = decode(self._listening.recv(2 * BATCH_BYTES), self._epoch)
                if isinstance(message, Volatile):
                    self._heard_volatile(message)
                elif isinstance(message, int):
                    self._ear.look(message)
                else:
                    self._ear.heard(message)
            except BlockingIOError:
                return
            except Exception as error:
                log.warning("datagrams.not_understood", problem=described(error))


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    made.setblocking(False)
    return made


def encode(batch: Batch, epoch: str) -> bytes:
    """The batch as one datagram; of one that is too large only its last seq."""
    if batch.rows is not None:
        message = f'["{epoch}",{batch.rows}]'.encode()
        if len(message) <= BATCH_BYTES:
            return message
    return _there_is(batch.last, epoch)


def _there_is(seq: int, epoch: str) -> bytes:
    return f'["{epoch}",{seq}]'.encode()


def decode(message: bytes, epoch: str) -> list[Event] | Volatile | int:
    """Raises ValueError, TypeError or KeyError for what was not encoded here, or for another journal."""
    journal, said = json.loads(message)
    if journal != epoch:
        raise ValueError("another journal's: two databases on one instance folder")
    if isinstance(said, dict):
        return read_volatile(said)
    return said if isinstance(said, int) else read_rows(said)
