"""The tail: follows the journal by seq and hands its events to this process's hub, in order and once.

Events reach the hub this way alone, also those that this process wrote itself. What the writer hands over is taken
only if it starts at last + 1, and so is what other processes tell by a doorbell; whatever is missing is read from the
journal, which a poll also looks at, because a doorbell may be missed.
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


class Tail:
    """`publish` is called with each event once `last` has moved to it; it must not yield to the event loop.
    `on_gap` is called when events are gone from the journal before they could be published."""

    def __init__(self, database: Database, publish: Callable[[Event], None], on_gap: Callable[[], None]):
        self._database = database
        self._publish = publish
        self._on_gap = on_gap
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
        if self._greenlet is not None:
            self._greenlet.kill()

    def heard(self, events: list[Event] | None) -> None:
        """What a doorbell tells: a batch that another process has committed, or None: look."""
        if events is None:
            self._signal.set()
        elif events[-1].seq > self.last:
            self.offer(events)

    def offer(self, events: list[Event]) -> None:
        """A batch that has just been committed. One that is not what comes next only says that there is more."""
        if not self._reading and events[0].seq == self.last + 1:
            for event in events:
                self._apply(event)
        else:
            self._signal.set()

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
        try:
            head: Head = self._database.read(read_head)
            self.lag = max(0, head.seq - self.last)
            while self.last < head.seq:
                events = self._database.read(lambda c: events_after(c, self.last, READ_EVENTS))
                if not events or events[0].seq != self.last + 1:
                    self._skip_to(events[0].seq - 1 if events else head.seq)
                for event in events:
                    self._apply(event)
        finally:
            self._reading = False

    def _skip_to(self, seq: int) -> None:
        """The journal no longer holds what comes next (retention overtook us): say so and go on behind it."""
        log.error("tail.truncated", after=self.last, next=seq + 1)
        self.forget_recent()
        self.last, self.last_mark = seq, None
        self._on_gap()

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
