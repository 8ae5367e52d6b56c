"""A listener that keeps what doorbells tell it."""

from __future__ import annotations

from sidecar.domain.events import Event


class Ear:
    """`heard_of`: batches, and for a bare word its seq or None, in the order in which they came."""

    def __init__(self) -> None:
        self.last = 0
        self.heard_of: list[list[Event] | int | None] = []

    def heard(self, events: list[Event]) -> None:
        self.heard_of.append(events)

    def look(self, seq: int | None = None) -> None:
        self.heard_of.append(seq)
