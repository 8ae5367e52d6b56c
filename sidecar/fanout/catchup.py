"""Subscribing with a past, and slow readers: brings a subscriber from where it stands to the live path.

The rule that makes it exact: joining a room notes the tail's position H without a switch to another greenlet, and a
subscriber off the live path gets no live frame. What it lacks is then read from the journal in pages, never beyond
the tail's position, and it returns to the live path in the same step in which the last of it is queued.
Nothing is buffered a subscriber but one page. (See docs/design/fanout.md.)
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import gevent
import structlog
from sqlalchemy import Connection

from sidecar.domain.errors import Unavailable
from sidecar.domain.events import Event, Offset
from sidecar.fanout.hub import Hub, Room, Subscriber, cut_off
from sidecar.fanout.tail import Tail
from sidecar.store.database import Database
from sidecar.store.journal import Page, count_room_events, mark_of, read_head, room_events

log = structlog.get_logger("sidecar.catchup")

PAGE_EVENTS = 500
PAGE_BYTES = 256 * 1024
RETRY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a subscribe was answered: the seq from which the room is live, how many events are replayed before,
    and whether some that were asked for are no longer (or not) in this journal."""

    room: str
    seq: int
    offset: str
    epoch: str
    replayed: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class _Backfill:
    """The room's events with after < seq <= upto are still to be replayed; at first `after` was `since`. It ends
    with the `hold` it was asked for: who leaves the room and joins it again starts anew."""

    room: str
    hold: Room
    since: int
    after: int
    upto: int


class _Behind:
    """The state of a subscriber that is off the live path."""

    __slots__ = ("backfills", "planning", "running")

    def __init__(self) -> None:
        self.backfills: deque[_Backfill] = deque()
        self.planning = 0
        self.running = False


class _Truncated(Exception):
    """Retention has overtaken this subscriber: it must come back and be told, never silently get less."""


class CatchUp:
    """Owns every subscriber that is off the live path; one greenlet each, ended when it is live again."""

    def __init__(self, database: Database, tail: Tail):
        self._database = database
        self._tail = tail
        self._behind: dict[Subscriber, _Behind] = {}
        self.demoted = 0
        """How many times a slow subscriber was taken off the live path."""

    @property
    def last(self) -> int:
        """The seq at which a room that is joined now becomes live."""
        return self._tail.last

    @property
    def behind(self) -> int:
        return len(self._behind)

    def congested(self, subscriber: Subscriber, event: Event) -> None:
        """The hub's `on_congested`: this live subscriber can't take `event`; it goes on from the journal."""
        self.demoted += 1
        self._start(subscriber, self._take_off(subscriber, event.seq - 1))

    def subscribe(self, hub: Hub, subscriber: Subscriber, room: str, since: Offset | None) -> Subscription:
        """Join the room now; with `since`, what the room had after it comes first, as far as it was not sent to
        this subscriber already. The replay starts when the caller's greenlet next yields, so an answer that it
        queues before that precedes it. Raises Unavailable; a room not held before is then left again.

        A `since` beyond the tail may have been read from the journal, where events stand an instant before they
        are published; joining before the tail is there would send them once more."""
        if since is not None and since.seq > self._tail.last:
            self._tail.reach(since.seq)
        last, offset = self._tail.last, self._tail.offset
        fresh = room not in subscriber.rooms
        hold = hub.join(subscriber, room, last)
        if since is None:
            return Subscription(room, last, offset.text, self._tail.epoch, 0, False)
        behind = self._take_off(subscriber, last)
        behind.planning += 1
        held = {name: other.covers for name, other in subscriber.rooms.items() if name != room}
        try:
            plan = self._database.read(lambda c: _plan(c, room, since, hold.covers, held))
        except Unavailable:
            if fresh:
                hub.leave(subscriber, room)
            raise
        else:
            if plan.after < hold.covers:
                behind.backfills.append(_Backfill(room, hold, plan.after, plan.after, hold.covers))
                hold.covers = plan.after
        finally:
            behind.planning -= 1
            self._start(subscriber, behind)
        return Subscription(room, last, offset.text, self._tail.epoch, plan.count, plan.truncated)

    def _take_off(self, subscriber: Subscriber, position: int) -> _Behind:
        behind = self._behind.get(subscriber)
        if behind is None:
            behind = self._behind[subscriber] = _Behind()
            subscriber.live = False
            subscriber.position = position
        return behind

    def _start(self, subscriber: Subscriber, behind: _Behind) -> None:
        if not behind.running and not behind.planning:
            behind.running = True
            gevent.spawn(self._run, subscriber, behind).name = "catch-up"

    def _run(self, subscriber: Subscriber, behind: _Behind) -> None:
        try:
            while not subscriber.closed and subscriber.recipient.wait_drained():
                if behind.planning:
                    return
                try:
                    if self._step(subscriber, behind.backfills):
                        break
                except Unavailable:
                    gevent.sleep(RETRY_SECONDS)
                except _Truncated:
                    cut_off(subscriber)
        except Exception as error:
            log.error("catchup.failed", exc_info=error)
            cut_off(subscriber)
        finally:
            behind.running = False
        self._behind.pop(subscriber, None)
        subscriber.live = not subscriber.closed

    def _step(self, subscriber: Subscriber, backfills: deque[_Backfill]) -> bool:
        """Send one page of what it lacks. True once nothing is lacking."""
        if not backfills:
            if self._finish_from_ring(subscriber):
                return True
            self._advance(subscriber, self._tail.last)
        elif subscriber.position < backfills[0].upto:
            self._advance(subscriber, backfills[0].upto)
        else:
            self._replay(subscriber, backfills)
        return False

    def _finish_from_ring(self, subscriber: Subscriber) -> bool:
        """If the rest lies in memory and is small, send it and be done, in one step."""
        events = self._tail.since(subscriber.position, PAGE_EVENTS)
        if events is None:
            return False
        wanted = [event for event in events if subscriber.wants(event)]
        if sum(len(event.payload) for event in wanted) > PAGE_BYTES:
            return False
        _send(subscriber, wanted)
        subscriber.position = self._tail.last
        return True

    def _advance(self, subscriber: Subscriber, target: int) -> None:
        """The next page of all its rooms together, up to `target`."""
        page = self._page(list(subscriber.rooms), subscriber.position, target)
        _send(subscriber, [event for event in page.events if subscriber.wants(event)])
        subscriber.position = page.upto

    def _replay(self, subscriber: Subscriber, backfills: deque[_Backfill]) -> None:
        """The next page of the first backfill, without what went out through another room already."""
        backfill = backfills[0]
        page = self._page([backfill.room], backfill.after, backfill.upto)
        if subscriber.rooms.get(backfill.room) is not backfill.hold:  # left meanwhile
            backfills.popleft()
            return
        _send(subscriber, [event for event in page.events if not _sent(subscriber, event, backfill.room)])
        if page.upto < backfill.upto:
            backfills[0] = replace(backfill, after=page.upto)
        else:
            backfills.popleft()
            backfill.hold.sent = min(backfill.hold.sent, backfill.since)

    def _page(self, rooms: list[str], after: int, upto: int) -> Page:
        """Raises _Truncated when the journal no longer holds all of it."""

        def query(connection: Connection) -> Page:
            if after < read_head(connection).floor:
                raise _Truncated
            return room_events(connection, rooms, after, upto, PAGE_EVENTS, PAGE_BYTES)

        return self._database.read(query)


def _send(subscriber: Subscriber, events: list[Event]) -> None:
    for event in events:
        subscriber.recipient.put(subscriber.codec.frame(event))


def _sent(subscriber: Subscriber, event: Event, room: str) -> bool:
    held = subscriber.rooms
    return any(name != room and name in held and held[name].sent < event.seq for name in event.rooms)


@dataclass(frozen=True, slots=True)
class _Plan:
    after: int
    truncated: bool
    count: int


def _plan(connection: Connection, room: str, since: Offset, upto: int, held: dict[str, int]) -> _Plan:
    """Where a replay can begin, decided with its count in one read transaction. An offset whose mark is not the
    journal's own points into another journal: nothing can be replayed from there."""
    head = read_head(connection)
    foreign = since.mark is not None and since.seq > head.floor and mark_of(connection, since.seq) != since.mark
    if foreign or since.seq > head.seq:
        return _Plan(upto, True, 0)
    after = max(since.seq, head.floor)
    if after >= upto:
        return _Plan(upto, since.seq < head.floor, 0)
    return _Plan(after, since.seq < head.floor, count_room_events(connection, room, after, upto, held))
