"""What one connection has to write: every message until the server has acknowledged it, so that one that could not be
written, or whose acknowledgement got lost with the connection, is written again under the same msg_id."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

MAX_BYTES = 256 * 2**20
MAX_TRIES = 3
"""So often a connection may end over a message before it is given up."""


@dataclass(eq=False)
class Entry:
    """One message. `written` is about the present connection; `done` says that it is no longer in the outbox."""

    msg_id: str
    text: str
    expires: float
    written: bool = False
    acked: bool = False
    done: bool = False
    tries: int = 0


class Outbox:
    """For threads: senders add and wait, one writer takes, a reader acknowledges. At most `messages` are kept, for
    `seconds`, the oldest go first; with `keep` False none outlives its connection. `lost` is told of each that was
    never written or never acknowledged."""

    def __init__(
        self,
        messages: int,
        seconds: float,
        keep: bool,
        lost: Callable[[Entry, str], object],
        clock: Callable[[], float] = time.monotonic,
    ):
        self._limit, self._seconds, self._keep, self._clock = max(messages, 1), seconds, keep, clock
        self._lost = lost
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._to_write: deque[Entry] = deque()
        self._bytes = 0
        self._open = False
        self._news = threading.Condition()

    def __len__(self) -> int:
        with self._news:
            return len(self._entries)

    def add(self, msg_id: str, text: str) -> Entry:
        entry = Entry(msg_id, text, self._clock() + self._seconds)
        with self._news:
            self._expire()
            if not self._open and not self._keep:
                entry.done = True
                self._lost(entry, "there is no connection")
                return entry
            self._entries[msg_id] = entry
            self._to_write.append(entry)
            self._bytes += len(text)
            while len(self._entries) > self._limit or (self._bytes > MAX_BYTES and len(self._entries) > 1):
                oldest = next(iter(self._entries.values()))
                self._remove(oldest, None if oldest.written else "too many messages wait")
            self._news.notify_all()
        return entry

    def wait_written(self, entry: Entry) -> bool:
        """False if there is no connection, or it ended before."""
        with self._news:
            self._news.wait_for(lambda: entry.written or entry.acked or entry.done or not self._open)
            return entry.written or entry.acked

    def wait_acked(self, entry: Entry, seconds: float) -> bool:
        with self._news:
            self._news.wait_for(lambda: entry.acked or entry.done, seconds)
            return entry.acked

    def open(self) -> None:
        """A connection is there: all that is left is to be written again, the oldest first."""
        with self._news:
            self._open = True
            self._expire()
            for entry in self._entries.values():
                entry.written = False
            self._to_write = deque(self._entries.values())

    def next(self) -> Entry | None:
        """For the writer: the oldest that is not written yet, as soon as there is one; None once the connection has
        ended."""
        with self._news:
            while self._open:
                while self._to_write:
                    entry = self._to_write.popleft()
                    if not entry.done:
                        return entry
                self._news.wait()
            return None

    def written(self, entry: Entry) -> None:
        with self._news:
            entry.written = True
            self._news.notify_all()

    def acknowledge(self, msg_id: object) -> bool:
        """True if that was a message from here that waited for it."""
        with self._news:
            entry = self._entries.get(msg_id) if isinstance(msg_id, str) else None
            if entry is None:
                return False
            entry.acked = True
            self._remove(entry, None)
            return True

    def close(self, too_big: bool = False) -> None:
        """The connection has ended; `too_big`: because the server would not take a message of that size. A message
        over which connections end again and again is given up, or they would for ever."""
        with self._news:
            self._open = False
            waiting = [entry for entry in self._entries.values() if entry.written]
            if too_big and waiting:
                self._remove(max(waiting, key=lambda entry: len(entry.text)), "it is larger than the server takes")
            elif waiting:
                first = waiting[0]  # those before it were acknowledged: it is what the server stopped at
                first.tries += 1
                if first.tries >= MAX_TRIES:
                    self._remove(first, f"{MAX_TRIES} connections ended before the server had acknowledged it")
            if not self._keep:
                for entry in list(self._entries.values()):
                    self._remove(entry, "the connection ended")
            self._news.notify_all()

    def _expire(self) -> None:
        now = self._clock()
        while self._entries and (oldest := next(iter(self._entries.values()))).expires <= now:
            self._remove(oldest, None if oldest.written else "it could not be written in time")

    def _remove(self, entry: Entry, reason: str | None) -> None:
        """Senders who wait are told; with a reason it counts as lost."""
        del self._entries[entry.msg_id]
        self._bytes -= len(entry.text)
        entry.done = True
        self._news.notify_all()
        if reason is not None:
            self._lost(entry, reason)
