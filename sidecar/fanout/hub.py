"""The hub: which subscriber of this process is in which room, and one publish to all of them.

It knows neither Socket.IO nor the database. A frame is made once an event and codec; an event that lies in several
of a subscriber's rooms reaches it once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

import structlog

from sidecar.domain.events import Event, Offset, Volatile

log = structlog.get_logger("sidecar.hub")

T = TypeVar("T")

Guard = Callable[[Event], bool]
Moved = Callable[[str, "Subscriber", int], None]


class Codec(Protocol):
    """Turns an event into the frame that its kind of connection sends; two equal codecs share frames. `place` is up
    to where the client knows its rooms once it has it, if that is not the event's own place. An empty frame is not
    sent: this kind of connection does not want it."""

    def frame(self, event: Event, place: str | None = None) -> bytes: ...

    def volatile_frame(self, news: Volatile) -> bytes: ...


class Recipient(Protocol):
    """The sending side of a connection, as the hub sees it (fanout/outbox.py)."""

    def offer(self, frame: bytes) -> bool:
        """Queue a frame; False if there is no room for it. Never blocks."""

    def offer_latest(self, kind: str, frame: bytes) -> bool:
        """As `offer`; of the frames of a kind that wait only the newest stays."""

    def cut_off(self) -> None:
        """Close the connection, so that the client comes back and is told what it missed. Never blocks."""

    def wait_drained(self, entirely: bool = False) -> bool:
        """Block until nearly nothing is unsent, or nothing at all: then there is room for any one frame. False when the
        connection is gone."""


class Room:
    """A subscriber's hold on a room. Live events come after `joined`; everything after `covers` was sent or is
    promised by a replay; everything after `sent` was sent (as far as the subscriber's position)."""

    __slots__ = ("covers", "joined", "sent")

    def __init__(self, joined: int):
        self.joined = joined
        self.covers = joined
        self.sent = joined


@dataclass(frozen=True, slots=True)
class Replay:
    """A promise: of the `room`, as held by `hold`, the events with since < seq <= upto, as soon as everything up to
    `begin` was sent. The replays of a subscriber come one after the other, by their numbers."""

    number: int
    room: str
    hold: Room
    since: int
    upto: int
    begin: Offset


class Subscriber:
    """One namespace of one connection. `position`: everything up to this seq has been sent. Live while
    `live`; otherwise the catch-up (fanout/catchup.py) owns it and no live frame goes to it. `replays` are those of
    the rooms that it holds whose end its client may not have seen; `joining` are rooms whose past is asked for and not
    promised yet. `user` is whose targeted events it may see."""

    __slots__ = (
        "closed",
        "codec",
        "joining",
        "live",
        "next_replay",
        "position",
        "recipient",
        "replays",
        "rooms",
        "user",
    )

    def __init__(
        self, recipient: Recipient, codec: Codec, position: int, next_replay: int = 0, user: str | None = None
    ):
        self.recipient = recipient
        self.codec = codec
        self.user = user
        self.position = position
        self.next_replay = next_replay
        self.rooms: dict[str, Room] = {}
        self.joining: set[str] = set()
        self.replays: tuple[Replay, ...] = ()
        self.live = True
        self.closed = False

    def wants(self, event: Event) -> bool:
        """Is the event in one of its rooms, later than the joining of that room, and not for another user alone?"""
        if event.target is not None and event.target != self.user:
            return False
        held = self.rooms
        return any(room in held and held[room].joined < event.seq for room in event.rooms)


class Hub:
    """`on_congested` is told of a live subscriber that can't take an event; it must take it off the live path."""

    def __init__(self, on_congested: Callable[[Subscriber, Event], None]):
        self._rooms: dict[str, dict[Subscriber, None]] = {}
        self._guards: dict[str, dict[Subscriber, Guard]] = {}
        self._on_congested = on_congested
        self._watched = ""
        self._on_moved: Moved | None = None

    def on_moved(self, prefix: str, moved: Moved) -> None:
        """From now on `moved(room, subscriber, step)` is called for each subscriber that comes into a room that begins
        so (step 1) or leaves it (-1). It must not block, raise, or take long."""
        self._watched, self._on_moved = prefix, moved

    def join(self, subscriber: Subscriber, room: str, at: int) -> Room:
        """Put the subscriber into the room from `at` on; a hold it already has stays as it is. One whose connection
        ended while its request was on its way gets a hold that the hub does not know."""
        if not subscriber.closed:
            members = self._rooms.setdefault(room, {})
            if subscriber not in members:
                members[subscriber] = None
                self._tell_moved(room, subscriber, 1)
        return subscriber.rooms.setdefault(room, Room(at))

    def leave(self, subscriber: Subscriber, room: str) -> None:
        if subscriber.rooms.pop(room, None) is None:
            return
        if subscriber.replays:
            subscriber.replays = tuple(replay for replay in subscriber.replays if replay.room != room)
        if _discard(self._rooms, room, subscriber):
            self._tell_moved(room, subscriber, -1)
        self.unguard(subscriber, room)

    def drop(self, subscriber: Subscriber) -> None:
        """The connection ended. Costs the rooms that it was in."""
        subscriber.closed = True
        for room in list(subscriber.rooms):
            self.leave(subscriber, room)

    def guard(self, subscriber: Subscriber, room: str, check: Guard) -> None:
        """Ask `check` when the room's first event comes: False takes the subscriber out before it sees it."""
        if room in subscriber.rooms and not subscriber.closed:
            self._guards.setdefault(room, {})[subscriber] = check

    def unguard(self, subscriber: Subscriber, room: str) -> None:
        if room in self._guards:
            _discard(self._guards, room, subscriber)

    def publish(self, event: Event) -> None:
        """Hand the event to every live subscriber of its rooms. Never yields to the event loop. A recipient that
        breaks is cut off, and costs the others nothing."""
        if self._guards:
            self.ask_guards(event)
        frames: dict[Codec, bytes] = {}
        codec, frame, target = None, b"", event.target
        for subscriber in self.audience(event.rooms):
            if not subscriber.live or (target is not None and subscriber.user != target):
                continue
            try:
                if subscriber.codec is not codec:
                    codec = subscriber.codec
                    frame = frames.get(codec) or frames.setdefault(codec, codec.frame(event))
                if frame and not subscriber.recipient.offer(frame):
                    self._on_congested(subscriber, event)
            except Exception as error:
                log.error("hub.recipient_failed", seq=event.seq, exc_info=error)
                cut_off(subscriber)

    def publish_volatile(self, news: Volatile) -> None:
        """Hand it to every live subscriber of its room that has space for it; the others go without. What has a mark
        of its own goes to those off the live path, too: it has no place in the order of events that it could break, and
        is not said again. Never yields."""
        frames: dict[Codec, bytes] = {}
        for subscriber in self.audience([news.room]):
            if subscriber.closed or not (subscriber.live or news.mark):
                continue
            try:
                frame = frames.get(subscriber.codec)
                if frame is None:
                    frame = frames[subscriber.codec] = subscriber.codec.volatile_frame(news)
                if frame:
                    subscriber.recipient.offer_latest(news.mark or f"{news.type} {news.room}", frame)
            except Exception as error:
                log.error("hub.recipient_failed", room=news.room, exc_info=error)
                cut_off(subscriber)

    def ask_guards(self, event: Event) -> None:
        """`publish` does it first of all; to be called again when a guard was set that may have come too late for it.
        Never yields."""
        for room in event.rooms:
            for subscriber, check in self._guards.pop(room, {}).items():
                try:
                    allowed = check(event)
                except Exception as error:
                    log.error("hub.guard_failed", room=room, exc_info=error)
                    allowed = False
                if not allowed:
                    self.leave(subscriber, room)

    def cut_off_all(self) -> None:
        """Events are missing that nobody can be given any more: all must come back and be told so."""
        for subscriber in self.audience(list(self._rooms)):
            cut_off(subscriber)

    def audience(self, rooms: Iterable[str]) -> Iterator[Subscriber]:
        """The subscribers of any of the rooms, each once."""
        members = [self._rooms[room] for room in rooms if room in self._rooms]
        if len(members) == 1:
            return iter(list(members[0]))
        return iter({subscriber: None for group in members for subscriber in group})

    def count(self, rooms: Iterable[str], target: str | None = None) -> int:
        """How many subscribers an event for these rooms, and this user alone, would reach."""
        return sum(1 for subscriber in self.audience(rooms) if target is None or subscriber.user == target)

    @property
    def room_count(self) -> int:
        return len(self._rooms)

    def _tell_moved(self, room: str, subscriber: Subscriber, step: int) -> None:
        if self._on_moved is not None and room.startswith(self._watched):
            self._on_moved(room, subscriber, step)


def cut_off(subscriber: Subscriber) -> None:
    """Close its connection; until that has happened nothing more goes to it, so that its last offset stays true."""
    subscriber.closed = True
    subscriber.live = False
    subscriber.recipient.cut_off()


def _discard(index: dict[str, dict[Subscriber, T]], room: str, subscriber: Subscriber) -> bool:
    """False if it was not there."""
    members = index.get(room)
    if members is None or subscriber not in members:
        return False
    del members[subscriber]
    if not members:
        del index[room]
    return True
