"""Doorbells: how a process tells the others of what it has committed, and hears of what they have.

There are several roads (datagrams.py on one host, notices.py over PostgreSQL, redis_bell.py over Redis). Each carries
the batch itself, or only says that there is more; what is lost on its way is read from the journal (tail.py). Volatile
news goes the same way, and is lost with its message.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from typing import Protocol

from sidecar.domain.events import Event, Volatile

LARGEST_BYTES = 256 * 1024
"""Of a larger batch the others are told only that it is there."""

HeardVolatile = Callable[[Volatile], None]


class Ear(Protocol):
    """Who listens: the tail. Neither method blocks or raises."""

    last: int
    """Up to where it knows the journal."""

    def heard(self, events: list[Event]) -> None:
        """Another process has committed this batch."""

    def look(self, seq: int | None = None) -> None:
        """There is more in the journal: up to this seq, if that is known."""


class Batch:
    """Events that were committed together, on their way to other processes; written out once for all roads."""

    def __init__(self, events: list[Event]):
        self.events = events

    @property
    def last(self) -> int:
        return self.events[-1].seq

    @cached_property
    def rows(self) -> str | None:
        """As JSON; None if it is too large to be carried."""
        if sum(len(event.payload) for event in self.events) > LARGEST_BYTES:
            return None
        rows = [(e.seq, e.mark, e.type, e.payload, e.rooms, e.at, e.target) for e in self.events]
        text = _json(rows)
        return text if len(text) <= LARGEST_BYTES else None


class Doorbell(Protocol):
    """A road to other processes. Nothing of it blocks or raises but `start`, which may raise OSError."""

    dropped: int
    """Volatile news that it had no room for, or nobody to carry it."""

    @property
    def carries(self) -> bool:
        """Do the batches of all other processes come by it at present?"""

    def start(self, ear: Ear, heard_volatile: HeardVolatile) -> None: ...

    def ring(self, batch: Batch) -> None:
        """Tell the others of this committed batch."""

    def tell(self, news: Volatile) -> bool:
        """Hand it on to the others; False if another road has to."""

    def stop(self) -> None: ...


def read_rows(rows: object) -> list[Event]:
    """The events of `Batch.rows`, parsed. Raises ValueError or TypeError for anything else."""
    if not isinstance(rows, list):
        raise TypeError("no rows")
    events = [
        Event(int(seq), int(mark), str(type), str(payload), tuple(map(str, rooms)), str(at), target)
        for seq, mark, type, payload, rooms, at, target in rows
    ]
    if not events or [event.seq for event in events] != list(range(events[0].seq, events[0].seq + len(events))):
        raise ValueError("no batch")
    return events


def write_volatile(news: Volatile) -> str:
    """As JSON."""
    return _json(asdict(news))


def read_volatile(fields: dict[str, object]) -> Volatile:
    """What `write_volatile` wrote, parsed. Raises TypeError for other fields."""
    return Volatile(**{name: str(value) for name, value in fields.items()})


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
