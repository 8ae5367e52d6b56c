"""One clock for all connections: pings and time-outs come from a timing wheel, not from a greenlet or timer each."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import Any, Protocol

import structlog

log = structlog.get_logger("sidecar.clock")

TICK_SECONDS = 0.25
ITEMS_A_TURN = 200
"""After so many items the event loop gets its turn."""


class Item(Protocol):
    """Something that a moment matters to."""

    def due(self) -> float | None:
        """Its time has come. Gives the seconds until the next time, None for never. Must not block."""


class Wheel:
    """Calls `due` of each item at its time, or up to a quarter of a second later. Nothing is taken out early: an item
    that no longer cares says so when it is asked."""

    def __init__(self, loop: Any):
        self._slots: dict[int, list[Item]] = {}
        self._due: deque[Item] = deque()
        self._ticks = loop.timer(TICK_SECONDS, repeat=TICK_SECONDS)
        self._turns = loop.timer(0)
        self._ticking = self._turning = False

    def add(self, delay_seconds: float, item: Item) -> None:
        """Ask the item in so many seconds."""
        slot = math.ceil((time.monotonic() + delay_seconds) / TICK_SECONDS)
        self._slots.setdefault(slot, []).append(item)
        if not self._ticking:
            self._ticking = True
            self._ticks.start(self._tick)

    def close(self) -> None:
        for timer in (self._ticks, self._turns):
            timer.stop()
            timer.close()
        self._slots.clear()
        self._due.clear()

    def _tick(self) -> None:
        """In the loop's callback."""
        now = time.monotonic() / TICK_SECONDS
        for slot in sorted(slot for slot in self._slots if slot <= now):
            self._due.extend(self._slots.pop(slot))
        if not self._slots:
            self._ticking = False
            self._ticks.stop()
        if self._due and not self._turning:
            self._turn()

    def _turn(self) -> None:
        for _ in range(min(len(self._due), ITEMS_A_TURN)):
            item = self._due.popleft()
            try:
                delay = item.due()
            except Exception as error:
                log.error("clock.item_failed", exc_info=error)
                continue
            if delay is not None:
                self.add(delay, item)
        self._turning = bool(self._due)
        if self._turning:
            self._turns.start(self._turn)
