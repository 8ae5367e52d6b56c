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
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import gevent
import structlog

from sidecar.domain.events import Event, Volatile
from sidecar.observability.logs import RateLimited, described

log = RateLimited(structlog.get_logger("sidecar.doorbells"))

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

Heard = Callable[[list[Event] | None], None]
HeardVolatile = Callable[[Volatile], None]


class Doorbell(Protocol):
    """How a process hears of what others have committed, and tells them."""

    def start(self, heard: Heard, heard_volatile: HeardVolatile) -> None:
        """`heard` is called with a batch that another process has committed, or None: there is more."""

    def ring(self, events: list[Event]) -> None:
        """Tell the others of this committed batch. Never blocks or raises."""

    def tell(self, news: Volatile) -> None:
        """Hand it on to the others, as far as they hear it. Never blocks or raises."""

    def stop(self) -> None: ...


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
        self._heard: Heard | None = None
        self._heard_volatile: HeardVolatile | None = None
        self._others: list[str] = []
        self._late: set[str] = set()
        self._looked_at: float | None = None

    def start(self, heard: Heard, heard_volatile: HeardVolatile) -> None:
        self._heard, self._heard_volatile = heard, heard_volatile
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._listening = _socket()
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        self._listening.bind(self._address(self._name))
        self._watcher = gevent.get_hub().loop.io(self._listening.fileno(), READ)
        self._watcher.start(self._readable)

    def ring(self, events: list[Event]) -> None:
        others = self._list()
        if not others:
            return
        message = encode(events, self._epoch)
        for name in others:
            if not self._send(name, message):
                self._again(name)

    def tell(self, news: Volatile) -> None:
        message = encode_volatile(news, self._epoch)
        if len(message) <= BATCH_BYTES:
            for name in self._list():
                self._send(name, message)

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
                log.warning("doorbells.not_listed", problem=str(error))
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
                log.warning("doorbells.not_rung", problem=str(error))
            self._looked_at = None
        return True

    def _again(self, name: str) -> None:
        """Once it may have read, it is told that there is more. Only who runs a loop can."""
        if self._listening is not None and name not in self._late:
            self._late.add(name)
            gevent.spawn_later(AGAIN_SECONDS, self._tell_late, name)

    def _tell_late(self, name: str) -> None:
        self._late.discard(name)
        if self._listening is not None and not self._send(name, encode(None, self._epoch)):
            self._again(name)

    def _remove(self, name: str) -> None:
        with suppress(OSError):
            os.unlink(self._path / name)

    def _readable(self) -> None:
        """In the loop's callback, where nothing may be raised."""
        assert self._listening is not None
        assert self._heard is not None
        assert self._heard_volatile is not None
        for _ in range(MESSAGES_A_TURN):
            try:
                message = decode(self._listening.recv(2 * BATCH_BYTES), self._epoch)
                if isinstance(message, Volatile):
                    self._heard_volatile(message)
                else:
                    self._heard(message)
            except BlockingIOError:
                return
            except Exception as error:
                log.warning("doorbells.not_understood", problem=described(error))


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    made.setblocking(False)
    return made


def encode(events: list[Event] | None, epoch: str) -> bytes:
    """The batch as one datagram; None, or one that is too large, only says that there is more."""
    if events is not None and sum(len(event.payload) for event in events) <= BATCH_BYTES:
        rows = [(e.seq, e.mark, e.type, e.payload, e.rooms, e.at, e.target) for e in events]
        message = json.dumps([epoch, rows], ensure_ascii=False, separators=(",", ":")).encode()
        if len(message) <= BATCH_BYTES:
            return message
    return json.dumps([epoch, None]).encode()


def encode_volatile(news: Volatile, epoch: str) -> bytes:
    return json.dumps([epoch, asdict(news)], ensure_ascii=False, separators=(",", ":")).encode()


def decode(message: bytes, epoch: str) -> list[Event] | Volatile | None:
    """Raises ValueError, TypeError or KeyError for what was not encoded here, or for another journal."""
    journal, rows = json.loads(message)
    if journal != epoch:
        raise ValueError("another journal's: two databases on one instance folder")
    if rows is None:
        return None
    if isinstance(rows, dict):
        return Volatile(**{name: str(value) for name, value in rows.items()})
    events = [
        Event(int(seq), int(mark), str(type), str(payload), tuple(map(str, rooms)), str(at), target)
        for seq, mark, type, payload, rooms, at, target in rows
    ]
    if not events or [event.seq for event in events] != list(range(events[0].seq, events[0].seq + len(events))):
        raise ValueError("no batch")
    return events
