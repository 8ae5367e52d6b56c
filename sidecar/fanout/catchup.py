"""Subscribing with a past, and slow readers: brings a subscriber from where it stands to the live path.

The rule that makes it exact: joining a room notes the tail's position H without a switch to another greenlet, and a
subscriber off the live path gets no live frame. What it lacks is then read from the journal in pages, never beyond
the tail's position, and it returns to the live path in the same step in which the last of it is queued.
Nothing is buffered a subscriber but one page. (See docs/design/fanout.md.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import gevent
import structlog
from sqlalchemy import Connection

from sidecar.domain.errors import TooManyRooms, Unavailable
from sidecar.domain.events import Event, Offset
from sidecar.fanout.hub import Guard, Hub, Replay, Room, Subscriber, cut_off
from sidecar.fanout.tail import Tail
from sidecar.store.database import Database
from sidecar.store.journal import Head, Page, count_room_events, mark_of, read_head, room_events

log = structlog.get_logger("sidecar.catchup")

PAGE_EVENTS = 500
LEAST_PAGE_EVENTS = 8
PAGE_BYTES = 256 * 1024
RETRY_SECONDS = 0.5
MAX_REPLAYS = 1_000

Snapshot = Callable[[Connection], object]
Save = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Past:
    """What a subscriber asks for of a room's past: all that came after `since`, an offset of the journal that `epoch`
    names (of any, if it is None)."""

    since: Offset
    epoch: str | None = None


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a subscribe was answered: the seq from which the room is live, how many events are replayed before,
    and whether some that were asked for are no longer (or not) in this journal. Then `snapshot` is what the room is
    about, true at `snapshot_offset`."""

    room: str
    seq: int
    offset: str
    epoch: str
    replayed: int = 0
    truncated: bool = False
    snapshot: object = None
    snapshot_offset: Offset | None = None


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where somebody begins who comes with a past: everything up to `offset` they know, or can't be given any more,
    which is said by `truncated`."""

    offset: Offset
    truncated: bool


class Owed:
    """What a subscriber is owed that is off the live path: `replays`, and how far the first of them has `reached`
    (None before its first page); and whatever came after its position. `page_events`: to look at so many for the next
    page, because all of their bytes are counted, also of those that don't fit."""

    __slots__ = ("page_events", "pauses", "reached", "replays", "running")

    def __init__(self) -> None:
        self.page_events = PAGE_EVENTS
        self.replays: deque[Replay] = deque()
        self.reached: int | None = None
        self.pauses = 0
        self.running = False

    def next_replay(self) -> None:
        self.replays.popleft()
        self.reached = None


class _Truncated(Exception):
    """Retention has overtaken this subscriber: it must come back and be told, never silently get less."""


class _Full(Exception):
    """This subscriber takes no more at the moment; what has been sent is noted."""


class CatchUp:
    """Owns every subscriber that is off the live path; one greenlet each, ended when it is live again. No outbox is
    filled by more than a page at once, so that an answer or a ping finds room as well."""

    def __init__(self, database: Database, tail: Tail, page_bytes: int = PAGE_BYTES):
        self._database = database
        self._tail = tail
        self._page_bytes = page_bytes
        self._behind: dict[Subscriber, Owed] = {}
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

    @contextmanager
    def paused(self, subscriber: Subscriber, position: int) -> Iterator[Owed]:
        """Nothing is sent to the subscriber within, but for a page that is on its way. If it was live it stands at
        `position` meanwhile. What it lacks is sent when the caller's greenlet next yields after that, so what the
        caller queues first precedes it."""
        owed = self._take_off(subscriber, position)
        owed.pauses += 1
        try:
            yield owed
        finally:
            owed.pauses -= 1
            self._start(subscriber, owed)

    def subscribe(
        self,
        hub: Hub,
        subscriber: Subscriber,
        room: str,
        past: Past | None,
        save: Save | None = None,
        snapshot: Snapshot | None = None,
        guard: Guard | None = None,
    ) -> Subscription:
        """Join the room now; with a `past`, what the room had after it comes first, as far as it was not sent to
        this subscriber already. `save` stores that the room is held and what is promised; nothing of it is sent before
        that, nor before an answer that the caller queues without yielding. Raises what `save` raises, TooManyRooms,
        or Unavailable; then nothing is promised, and a room not held before is left again. `guard` as for `Hub.guard`.

        A `since` beyond the tail may have been read from the journal, where events stand an instant before they
        are published; joining before the tail is there would send them once more."""
        if past is not None and past.since.seq > self._tail.last:
            self._tail.reach(past.since.seq)
        last, offset = self._tail.last, self._tail.offset
        fresh = room not in subscriber.rooms
        hold = hub.join(subscriber, room, last)
        if guard is not None:
            hub.guard(subscriber, room, guard)
        answer = Subscription(room, last, offset.text, self._tail.epoch)
        if past is None and not (save is not None and fresh):
            return answer
        covered, made = hold.covers, None
        with self.paused(subscriber, last) as owed:
            try:
                if past is not None:
                    if fresh:
                        subscriber.joining.add(room)
                    held = {name: other.covers for name, other in subscriber.rooms.items() if name != room}
                    user = subscriber.user
                    plan = self._database.read(lambda c: _plan(c, room, past, hold.covers, held, snapshot, user))
                    answer = replace(
                        answer,
                        replayed=plan.count,
                        truncated=plan.truncated,
                        snapshot=plan.snapshot,
                        snapshot_offset=plan.offset,
                    )
                    made = _promise(subscriber, room, hold, plan.after, offset)
                    subscriber.joining.discard(room)
                    if made is not None:
                        owed.replays.append(made)
                        if save is not None:
                            subscriber.replays += (made,)
                if save is not None:
                    save()
            except Exception:
                hold.covers = covered
                subscriber.joining.discard(room)
                if made is not None:
                    owed.replays.remove(made)
                    subscriber.replays = tuple(replay for replay in subscriber.replays if replay is not made)
                if fresh:
                    hub.leave(subscriber, room)
                raise
        return answer

    def beginning(self, past: Past) -> Beginning:
        """From where on a subscriber of this past can be given everything. Raises Unavailable."""
        if past.since.seq > self._tail.last:
            self._tail.reach(past.since.seq)
        last = self._tail.last

        def query(connection: Connection) -> Beginning:
            place = _place(connection, past, last)
            return Beginning(Offset(place.after, mark_of(connection, place.after)), place.truncated)

        return self._database.read(query)

    def resume(self, hub: Hub, subscriber: Subscriber, rooms: Iterable[str]) -> None:
        """Put a new subscriber into these rooms as if it had been in them since its position: what they had after that
        comes from all of them together in its order, each event with its own place. So a client that has several rooms
        but one offset can be cut off anywhere and lacks nothing. Never yields."""
        with self.paused(subscriber, subscriber.position):
            for room in rooms:
                hub.join(subscriber, room, subscriber.position)

    def _take_off(self, subscriber: Subscriber, position: int) -> Owed:
        owed = self._behind.get(subscriber)
        if owed is None:
            owed = self._behind[subscriber] = Owed()
            subscriber.live = False
            subscriber.position = position
        return owed

    def _start(self, subscriber: Subscriber, owed: Owed) -> None:
        if not owed.running and not owed.pauses:
            owed.running = True
            gevent.spawn(self._run, subscriber, owed).name = "catch-up"

    def _run(self, subscriber: Subscriber, owed: Owed) -> None:
        full = False
        try:
            while not subscriber.closed and subscriber.recipient.wait_drained(entirely=full):
                if owed.pauses:
                    return
                try:
                    if self._step(subscriber, owed):
                        break
                    full = False
                except _Full:
                    full = True
                except Unavailable:
                    gevent.sleep(RETRY_SECONDS)
                except _Truncated:
                    cut_off(subscriber)
        except Exception as error:
            log.error("catchup.failed", exc_info=error)
            cut_off(subscriber)
        finally:
            owed.running = False
        self._behind.pop(subscriber, None)
        subscriber.live = not subscriber.closed

    def _step(self, subscriber: Subscriber, owed: Owed) -> bool:
        """Send one page of what it lacks, or as much of it as there is room for: then raises _Full. True once nothing
        is lacking."""
        if not owed.replays:
            if self._finish_from_ring(subscriber):
                return True
            self._advance(subscriber, owed, self._tail.last)
        elif subscriber.position < owed.replays[0].begin.seq:
            self._advance(subscriber, owed, owed.replays[0].begin.seq)
        else:
            self._replay(subscriber, owed)
        return False

    def _finish_from_ring(self, subscriber: Subscriber) -> bool:
        """If the rest lies in memory and is small, send it and be done, in one step."""
        events = self._tail.since(subscriber.position, PAGE_EVENTS)
        if events is None:
            return False
        wanted = [event for event in events if subscriber.wants(event)]
        if sum(len(event.payload) for event in wanted) > self._page_bytes:
            return False
        self._send(subscriber, wanted, self._tail.last)
        return True

    def _advance(self, subscriber: Subscriber, owed: Owed, target: int) -> None:
        """The next page of all its rooms together, up to `target`."""
        page = self._page(owed, list(subscriber.rooms), subscriber.position, target, subscriber.user)
        self._send(subscriber, (event for event in page.events if subscriber.wants(event)), page.upto)

    def _replay(self, subscriber: Subscriber, owed: Owed) -> None:
        """The next page of the first replay, without what went out through another room already."""
        replay = owed.replays[0]
        after = replay.since if owed.reached is None else owed.reached
        page = self._page(owed, [replay.room], after, replay.upto, subscriber.user)
        if subscriber.rooms.get(replay.room) is not replay.hold:  # left meanwhile
            owed.next_replay()
            return
        lacking = [event for event in page.events if not _sent(subscriber, event, replay.room)]
        for event in lacking:
            if not _queued(subscriber, event, place_in(replay, event.seq)):
                owed.reached = event.seq - 1
                raise _Full
        if page.upto < replay.upto:
            owed.reached = page.upto
        else:
            owed.next_replay()
            replay.hold.sent = min(replay.hold.sent, replay.since)

    def _send(self, subscriber: Subscriber, events: Iterable[Event], upto: int) -> None:
        """What its rooms have up to there, at its position."""
        for event in events:
            if not _queued(subscriber, event):
                subscriber.position = event.seq - 1
                raise _Full
        subscriber.position = upto

    def _page(self, owed: Owed, rooms: list[str], after: int, upto: int, user: str | None) -> Page:
        """Raises _Truncated when the journal no longer holds all of it."""
        limit = min(owed.page_events, PAGE_EVENTS)

        def query(connection: Connection) -> Page:
            if after < read_head(connection).floor:
                raise _Truncated
            return room_events(connection, rooms, after, upto, limit, self._page_bytes, user)

        page = self._database.read(query)
        owed.page_events = max(LEAST_PAGE_EVENTS, 2 * len(page.events))
        return page


def _promise(subscriber: Subscriber, room: str, hold: Room, since: int, begin: Offset) -> Replay | None:
    """The replay of what the room had after `since` and before what is covered already; None if that is nothing."""
    if since >= hold.covers:
        return None
    if len(subscriber.replays) >= MAX_REPLAYS:
        raise TooManyRooms(f"One socket may ask for the past {MAX_REPLAYS} times.")
    made = Replay(subscriber.next_replay, room, hold, since, hold.covers, begin)
    subscriber.next_replay += 1
    hold.covers = since
    return made


def _queued(subscriber: Subscriber, event: Event, place: str | None = None) -> bool:
    """Is it on its way, or nothing for this subscriber? False: there is no room."""
    frame = subscriber.codec.frame(event, place)
    return not frame or subscriber.recipient.offer(frame)


def place_in(replay: Replay, seq: int) -> str:
    """Up to where a client knows its rooms that has got this event of the replay."""
    return replace(replay.begin, replay=replay.number, reached=seq).text


def _sent(subscriber: Subscriber, event: Event, room: str) -> bool:
    held = subscriber.rooms
    return any(name != room and name in held and held[name].sent < event.seq for name in event.rooms)


@dataclass(frozen=True, slots=True)
class _Plan:
    after: int
    truncated: bool
    count: int
    snapshot: object = None
    offset: Offset | None = None


@dataclass(frozen=True, slots=True)
class _Place:
    head: Head
    after: int
    truncated: bool


def _place(connection: Connection, past: Past, upto: int) -> _Place:
    """After which event, at most `upto`, this past can be told. An offset whose mark is not the journal's own points
    into another journal: nothing can be told from there."""
    head, since = read_head(connection), past.since
    foreign = (
        since.seq > head.seq
        or past.epoch not in (None, head.epoch)
        or (since.mark is not None and since.seq > head.floor and mark_of(connection, since.seq) != since.mark)
    )
    after = upto if foreign else min(max(since.known, head.floor), upto)
    return _Place(head, after, foreign or since.known < head.floor)


def _plan(
    connection: Connection,
    room: str,
    past: Past,
    upto: int,
    held: dict[str, int],
    snapshot: Snapshot | None,
    user: str | None,
) -> _Plan:
    """Where a replay can begin, decided with its count in one read transaction."""
    place = _place(connection, past, upto)
    after = place.after
    count = count_room_events(connection, room, after, upto, held, user) if after < upto else 0
    if not place.truncated:
        return _Plan(after, False, count)
    return _Plan(after, True, count, snapshot(connection) if snapshot is not None else None, place.head.offset)
