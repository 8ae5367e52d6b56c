"""The tail: follows the journal by seq and hands its events to this process's hub, in order and once.

Events reach the hub this way alone, also those that this process wrote itself. What the writer hands over, and what
other processes tell by a doorbell, is taken if it starts at last + 1. What comes too early is kept until what is before
it has come, or was read from the journal: at once, or after PATIENCE_SECONDS where a doorbell brings all batches, which
then are on their way. A poll looks at the journal as well, because a doorbell may be missed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice

import gevent
import structlog
from gevent.event import Event as Signal

from sidecar.domain.errors import Unavailable
from sidecar.domain.events import Event, Offset
from sidecar.store.database import Database
from sidecar.store.journal import Head, events_after, read_head

log = structlog.get_logger("sidecar.tail")

POLL_SECONDS = 0.25
RING_BYTES = 16 * 1024 * 1024
EVENT_BYTES = 600
"""What an event takes in memory beside its payload."""
READ_EVENTS = 500
REACH_SECONDS = 1.0
PATIENCE_SECONDS = 0.02
PARKED_BYTES = 4 * 1024 * 1024
"""What is kept of batches that came too early; beyond it they are read from the journal."""
OFFERED, HEARD, READ = "offered", "heard", "read"
"""By which road events came: from our own writer, by a doorbell, from the journal."""


class Tail:
    """`publish` is called with each event once `last` has moved to it; it must not yield to the event loop.
    `on_gap` is called when events are gone from the journal before they could be published. `carried` says whether a
    doorbell brings all that other processes commit. `taken` counts the events by the road on which they came."""

    def __init__(
        self,
        database: Database,
        publish: Callable[[Event], None],
        on_gap: Callable[[], None],
        carried: Callable[[], bool] = lambda: False,
    ):
        self._database = database
        self._publish = publish
        self._on_gap = on_gap
        self._carried = carried
        self._parked: dict[int, tuple[list[Event], str]] = {}
        self._parked_bytes = 0
        self._expected = 0
        self._patience: gevent.Greenlet | None = None
        self.taken = dict.fromkeys((OFFERED, HEARD, READ), 0)
        self._signal = Signal()
        self._read_once = Signal()
        self._reading = False
        self._greenlet: gevent.Greenlet | None = None
        self._ring_bytes = 0
        self.ring: deque[Event] = deque()
        self.last = 0
        self.last_mark: int | None = None
        self.epoch = ""
        self.lag = 0
        """How many events the journal was ahead when it was last looked at."""

    @property
    def offset(self) -> Offset:
        """The place up to which everything has been published."""
        return Offset(self.last, self.last_mark)

    def start(self) -> None:
        """Begin after the journal's present end; before any client is accepted."""
        head = self._database.read(read_head)
        self.last, self.last_mark, self.epoch = head.seq, head.mark, head.epoch
        self._greenlet = gevent.spawn(self._run)
        self._greenlet.name = "tail"

    def stop(self) -> None:
        for greenlet in (self._greenlet, self._patience):
            if greenlet is not None:
                greenlet.kill()

    def heard(self, events: list[Event]) -> None:
        """A batch that another process has committed."""
        self._take(events, HEARD)

    def offer(self, events: list[Event]) -> None:
        """A batch that this process has committed."""
        self._take(events, OFFERED)

    def look(self, seq: int | None = None) -> None:
        """There is more in the journal: up to this seq, if that is known."""
        if seq is None:
            self._signal.set()
        elif seq > self.last:
            self._expect(seq)

    def since(self, seq: int, limit: int) -> list[Event] | None:
        """The events after `seq` up to `last`, if they are no more than `limit` and the ring of recent events still
        holds them all; else None."""
        count = self.last - seq
        if count <= 0:
            return []
        if count > min(limit, len(self.ring)):
            return None
        return list(islice(reversed(self.ring), count))[::-1]

    def forget_recent(self) -> None:
        """Keep no event in memory that has passed: whoever lacks one gets it from the journal, if that still has it."""
        self.ring.clear()
        self._ring_bytes = 0

    def reach(self, seq: int) -> None:
        """Wait until `last` is at `seq`, if the journal is: somebody has read there what is not published yet."""
        seq = min(seq, self._database.read(read_head).seq)
        with gevent.Timeout(REACH_SECONDS, False):
            while self.last < seq:
                self._read_once.clear()
                self._signal.set()
                self._read_once.wait()

    def _take(self, events: list[Event], road: str) -> None:
        if events[-1].seq <= self.last:
            return
        if self._reading or events[0].seq > self.last + 1:
            self._park(events, road)
        else:
            self._apply_all(events, road)
            self._unpark()

    def _park(self, events: list[Event], road: str) -> None:
        if events[0].seq not in self._parked:
            self._parked[events[0].seq] = (events, road)
            self._parked_bytes += sum(len(event.payload) + EVENT_BYTES for event in events)
        if self._parked_bytes > PARKED_BYTES:
            self._clear_parked()
            self._signal.set()
        elif not self._reading:
            self._expect(events[-1].seq)

    def _unpark(self) -> None:
        """Apply what has come too early and is next now."""
        if not self._parked:
            return
        for first in sorted(self._parked):
            events, road = self._parked[first]
            if first > self.last + 1:
                self._expect(events[-1].seq)
                return
            del self._parked[first]
            if events[-1].seq > self.last:
                self._apply_all(events, road)
        self._parked_bytes = 0

    def _clear_parked(self) -> None:
        self._parked.clear()
        self._parked_bytes = 0

    def _expect(self, seq: int) -> None:
        """Look into the journal for this seq; a little later, if it is likely to come by itself."""
        if not self._carried():
            self._signal.set()
            return
        self._expected = max(self._expected, seq)
        if self._patience is None:
            self._patience = gevent.spawn_later(PATIENCE_SECONDS, self._patience_is_over)

    def _patience_is_over(self) -> None:
        self._patience = None
        if self.last < self._expected:
            self._signal.set()
        self._expected = 0

    def _run(self) -> None:
        while True:
            self._signal.wait(timeout=POLL_SECONDS)
            self._signal.clear()
            try:
                self._read()
            except Unavailable as error:
                log.warning("tail.unreadable", problem=str(error.__cause__))
            self._read_once.set()

    def _read(self) -> None:
        self._reading = True
        before = set(self._parked)
        try:
            head: Head = self._database.read(read_head)
            self.lag = max(0, head.seq - self.last)
            if head.seq < self.last or (head.seq == self.last and self.last_mark not in (None, head.mark)):
                self._go_back(head)
            while self.last < head.seq:
                events = self._database.read(lambda c: events_after(c, self.last, READ_EVENTS))
                if not events or events[0].seq != self.last + 1:
                    self._skip_to(events[0].seq - 1 if events else head.seq)
                self._apply_all(events, READ)
            for first in before:  # it was said to be committed, and is not to be seen
                if first > self.last + 1:
                    self._parked.pop(first, None)
        finally:
            self._reading = False
            self._unpark()

    def _go_back(self, head: Head) -> None:
        """The journal has lost what was already published (a standby took over that had not heard of it): what comes
        now takes its numbers again, and whoever got the old ones must be told."""
        log.error("tail.journal_went_back", last=self.last, head=head.seq)
        self.forget_recent()
        self._clear_parked()
        self.last, self.last_mark = head.seq, head.mark
        self._on_gap()

    def _skip_to(self, seq: int) -> None:
        """The journal no longer holds what comes next (retention overtook us): say so and go on behind it."""
        log.error("tail.truncated", after=self.last, next=seq + 1)
        self.forget_recent()
        self.last, self.last_mark = seq, None
        self._on_gap()

    def _apply_all(self, events: list[Event], road: str) -> None:
        """Those of them that are not known yet; the first of those must be next."""
        new = events[self.last + 1 - events[0].seq :] if events else events
        self.taken[road] += len(new)
        for event in new:
            self._apply(event)

    def _apply(self, event: Event) -> None:
        self.last, self.last_mark = event.seq, event.mark
        self.ring.append(event)
        self._ring_bytes += len(event.payload) + EVENT_BYTES
        while self._ring_bytes > RING_BYTES and len(self.ring) > 1:
            self._ring_bytes -= len(self.ring.popleft().payload) + EVENT_BYTES
        try:
            self._publish(event)
        except Exception as error:  # it must stop neither the events behind it nor the writer, which offers them
            log.error("tail.publish_failed", seq=event.seq, type=event.type, exc_info=error)
