"""What this process tells the others of who is in its free rooms, and what all are told of who comes and leaves.

The hub tells of each change, which costs a number in memory. What has changed is written down a little later, in small
chunks; who goes stays for a while, so that a page that is loaded anew neither leaves nor comes. (See
docs/design/presence.md.)
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import gevent
import structlog
from gevent.event import Event as Signal

from sidecar.domain import rooms
from sidecar.domain.errors import Unavailable
from sidecar.domain.events import Volatile
from sidecar.domain.times import unix_seconds, utc_text
from sidecar.fanout.hub import Subscriber
from sidecar.store.database import Database
from sidecar.store.journal import Transaction
from sidecar.store.presences import (
    CHUNK,
    Place,
    first_gone,
    put_presences,
    retire_presences,
    strangers,
    sweep_presences,
)
from sidecar.store.writer import Submit
from sidecar.wire.news import PRESENCE_JOINED, PRESENCE_LEFT
from sidecar.wire.spoken import EventType

log = structlog.get_logger("sidecar.presences")

NAMES_BYTES = 16 * 1024
"""So much of names goes into one event."""
PACE_EVENTS = 8
PACE_SECONDS = 0.001
"""After so many events the others get a moment to read them."""
UNKNOWN = -1
"""In place of a number of connections that may be stored or not."""


@dataclass(frozen=True, slots=True)
class Times:
    """How long things take, for all that has to do with presence."""

    gather_seconds: float = 0.25
    """What changes within so long is written down together."""
    linger_seconds: float = 15.0
    """So long whose last connection has gone stays."""
    sweep_seconds: float = 2.0
    beat_seconds: float = 5.0
    """Between two words of a process that it lives."""
    silent_beats: int = 4
    """Who has said nothing while we said so often that we live is dead."""


TIMES = Times()


class Presences:
    """`submit` runs a command in the writer; `node` is this process; `publish` hands news to the subscribers of every
    process and must not block. One greenlet calls `tell` and `sweep` (jobs/presence.py)."""

    def __init__(
        self,
        database: Database,
        submit: Submit,
        node: str,
        publish: Callable[[Volatile], None],
        times: Times = TIMES,
        clock: Callable[[], float] = time.time,
    ):
        self._database = database
        self._submit = submit
        self._node = node
        self._publish = publish
        self._times = times
        self._clock = clock
        self._here: dict[str, dict[str, int]] = {}
        self._told: dict[Place, int] = {}
        """What is stored of this process, but for who has gone."""
        self._changed: dict[Place, None] = {}
        self._numbers = itertools.count(1)
        self._deaths = 0
        self.wake = Signal()
        """Set when there is something to tell or to sweep."""
        self.lingering = True
        """Is there perhaps something to sweep?"""

    def moved(self, room: str, subscriber: Subscriber, step: int) -> None:
        """For `Hub.on_moved`."""
        name, user = room.removeprefix(rooms.FREE), subscriber.user or ""
        users = self._here.setdefault(name, {})
        count = users.get(user, 0) + step
        if count > 0:
            users[user] = count
        else:
            users.pop(user, None)
            if not users:
                del self._here[name]
        self._changed[name, user] = None
        self.wake.set()

    def here(self) -> Mapping[str, Mapping[str, int]]:
        """By free room: how many connections each user has there at this process, "" for those without one."""
        return self._here

    def tell(self) -> bool:
        """Write down what has changed, and publish who has come. False if this process is not known (any more): then
        `all_again` is to be called once it is. Raises Unavailable; what is not written down then stays to be told."""
        self.wake.clear()
        changed, self._changed = self._changed, {}
        places = list(changed)
        for start in range(0, len(places), CHUNK):
            try:
                known = self._tell_some(places[start : start + CHUNK])
            except BaseException:
                self._again(places[start:])
                raise
            if not known:
                self._again(places[start:])
                return False
        return True

    def sweep(self) -> None:
        """Delete who has been gone for long, and publish who has left by that. Raises Unavailable."""
        first = self._database.read(lambda connection: first_gone(connection, self._node))
        self.lingering = first is not None
        if first is None or first > utc_text(self._clock() - self._times.linger_seconds):
            return
        while True:
            swept, left, at = self._submit(self._sweep_some)
            self._say(PRESENCE_LEFT, left, at)
            if swept < CHUNK:
                return

    def look_after_others(self, silent: Mapping[str, float]) -> None:
        """Whoever was at processes that are not there any more is gone: of those that were `silent` for so many seconds
        since then, of the others from now on. Raises Unavailable."""
        for node in self._database.read(strangers):
            self._retire(node, silent.get(node, 0.0))
            self.lingering = True
            self.wake.set()

    def all_again(self) -> None:
        """The others have taken this process for dead, and whoever was here for gone. Does not block."""
        self._deaths += 1
        self._changed |= dict.fromkeys(self._told)
        self._changed |= {(room, user): None for room, users in self._here.items() for user in users}
        self._told = dict.fromkeys(self._told, UNKNOWN)
        self.wake.set()

    def end(self) -> None:
        """The process has ended: whoever was here is gone from now on. Raises Unavailable."""
        self._retire(self._node, 0.0)

    def _tell_some(self, places: list[Place]) -> bool:
        """False if this process is not known (any more)."""
        deaths = self._deaths
        here = {place: count for place in places if (count := self._count(place)) != self._told.get(place, 0)}
        if not here:
            return True

        def command(transaction: Transaction) -> tuple[list[Place] | None, str]:
            return put_presences(transaction.connection, self._node, here, transaction.now), transaction.now

        try:
            come, at = self._submit(command)
        except Unavailable:  # it may be stored all the same
            self._told |= dict.fromkeys(here, UNKNOWN)
            raise
        if come is None:
            return False
        if deaths == self._deaths:
            self._told |= here
            for place in [place for place, count in here.items() if not count]:
                del self._told[place]
                self.lingering = True
        self._say(PRESENCE_JOINED, come, at)
        return True

    def _again(self, places: list[Place]) -> None:
        self._changed = dict.fromkeys(places) | self._changed
        self.wake.set()

    def _count(self, place: Place) -> int:
        room, user = place
        return self._here.get(room, {}).get(user, 0)

    def _sweep_some(self, transaction: Transaction) -> tuple[int, list[Place], str]:
        before = utc_text(unix_seconds(transaction.now) - self._times.linger_seconds)
        swept, left = sweep_presences(transaction.connection, self._node, before)
        return swept, left, transaction.now

    def _retire(self, node: str, silent_seconds: float) -> None:
        def command(transaction: Transaction) -> int:
            gone_at = utc_text(unix_seconds(transaction.now) - silent_seconds)
            return retire_presences(transaction.connection, node, gone_at)

        while self._submit(command) == CHUNK:
            pass

    def _say(self, type: EventType, places: list[Place], at: str) -> None:
        """An event a room, and of a crowd several."""
        by_room: dict[str, list[str]] = {}
        for room, user in places:
            by_room.setdefault(room, []).append(user)
        said = 0
        for room, users in by_room.items():
            for some in _parts(users):
                payload = json.dumps({"room": room, "users": some}, ensure_ascii=False, separators=(",", ":"))
                mark = f"{self._node}-{next(self._numbers)}"
                self._publish(Volatile(str(type), payload, rooms.presence(room), at, mark))
                said += 1
                if said % PACE_EVENTS == 0:
                    gevent.sleep(PACE_SECONDS)


def _parts(users: list[str]) -> Iterator[list[str]]:
    """As many as one event holds."""
    some: list[str] = []
    size = 0
    for user in users:
        size += len(user.encode())
        if some and size > NAMES_BYTES:
            yield some
            some, size = [], len(user.encode())
        some.append(user)
    if some:
        yield some
