"""Connection state recovery: a client that comes back within the window gets its session and exactly what it missed.

The session's row says which rooms are held since when and which replays were promised; the client says up to where
it knows them (its offset). Both together are a subscriber off the live path, and the catch-up does the rest.
(See docs/design/recovery.md.)
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import gevent
import structlog
from gevent.event import Event as Signal
from sqlalchemy import Connection

from sidecar.domain.errors import Unavailable
from sidecar.domain.events import Control, Offset, parse_offset
from sidecar.domain.times import unix_seconds
from sidecar.fanout.catchup import CatchUp
from sidecar.fanout.hub import Codec, Hub, Recipient, Replay, Room, Subscriber, cut_off
from sidecar.observability.logs import RateLimited, described
from sidecar.store.journal import Head, Transaction, mark_of
from sidecar.store.sessions import (
    SessionRow,
    end_sessions,
    find_session,
    forget_sessions,
    insert_session,
    save_session,
    take_session,
)
from sidecar.store.writer import Submit

log = RateLimited(structlog.get_logger("sidecar.recovery"))

TAKEN = Control("control.session_taken")
"""Type of the control event `{"pid", "generation"}`: the session of this (hashed) pid has a new connection, of this
generation; older ones are to be closed."""

BATCH = 500
NEVER_OPENED = 10_000
"""Of ends of sessions that were not opened, so many at most wait for the store."""
RETRY_SECONDS = 1.0
_PID = re.compile(r"[A-Za-z0-9_-]{22}")


class Kept:
    """What identifies a stored session: the hash of its pid, the generation of its connection, the seq `at` which it
    began, and its first replay's number (random, so that an offset of another session names none of this one)."""

    __slots__ = ("at", "first_replay", "generation", "pid_hash")

    def __init__(self, pid_hash: bytes, generation: int, at: int, first_replay: int):
        self.pid_hash = pid_hash
        self.generation = generation
        self.at = at
        self.first_replay = first_replay


@dataclass(frozen=True, slots=True)
class Recovered:
    """A session that its client gets back: everything up to `position` it knows, `replays` it is owed, the first of
    them from `reached` on (None: from its beginning)."""

    kept: Kept
    sid: str
    rooms: dict[str, Room]
    position: int
    replays: tuple[Replay, ...]
    reached: int | None
    next_replay: int

    @property
    def needs(self) -> int:
        """How far the tail must be: the process of its last connection may have been ahead of this one. (What comes
        live is not asked whether it came before its room was joined.)"""
        joined = (hold.joined for hold in self.rooms.values())
        return max([self.position, *joined, *(replay.begin.seq for replay in self.replays)])

    def subscriber(self, recipient: Recipient, codec: Codec, user: str | None = None) -> Subscriber:
        """For its new connection, of this user; in no room of the hub yet."""
        made = Subscriber(recipient, codec, self.position, self.next_replay, user)
        made.rooms.update(self.rooms)
        made.replays = self.replays
        return made

    @contextmanager
    def resumed(self, hub: Hub, catchup: CatchUp, subscriber: Subscriber) -> Iterator[None]:
        """Put the subscriber into its rooms, owed what its client lacks; nothing is sent within."""
        with catchup.paused(subscriber, self.position) as owed:
            owed.replays.extend(self.replays)
            owed.reached = self.reached
            for room, hold in self.rooms.items():
                hub.join(subscriber, room, hold.joined)
            yield


class Recovery:
    """`submit` runs a command in the writer; `node` is this process; `window_seconds` is how long a session waits for
    its client."""

    def __init__(self, submit: Submit, node: str, window_seconds: float, clock: Callable[[], float] = time.time):
        self._submit = submit
        self._node = node
        self._clock = clock
        self._ended: list[tuple[Kept, bool]] = []
        self._signal = Signal()
        self._greenlet: gevent.Greenlet | None = None
        self.window_seconds = window_seconds
        self.recovered = 0
        """How many sessions this process has given back."""

    def start(self) -> None:
        self._greenlet = gevent.spawn(self._run)
        self._greenlet.name = "session-ends"

    def stop(self) -> None:
        """Store which sessions have ended; before the writer stops."""
        if self._greenlet is not None:
            self._greenlet.kill()
        try:
            self._store_ends()
        except Unavailable as error:
            log.warning("recovery.ends_not_stored", problem=error.detail)

    def prepare(self, at: int) -> tuple[Kept, str]:
        """A new session and its pid, not stored yet."""
        pid = secrets.token_urlsafe(16)
        return Kept(_hash(pid), 1, at, secrets.randbits(48) << 12), pid

    def open(self, kept: Kept, sid: str, namespace: str, holder: str, subscriber: Subscriber) -> None:
        """Store a prepared session. Raises Unavailable."""
        state = _encode(kept, subscriber)
        self._submit(
            lambda transaction: insert_session(
                transaction.connection, kept.pid_hash, sid, namespace, holder, state, self._node
            )
        )

    def take(self, pid: object, offset: object, namespace: str, holder: str) -> Recovered | None:
        """The session of this pid, if it is this holder's and the client can be given exactly what it lacks; from
        then on it belongs to the caller's connection. Raises Unavailable."""
        if not isinstance(pid, str) or not _PID.fullmatch(pid):
            return None
        pid_hash, place = _hash(pid), parse_offset(offset)

        def command(transaction: Transaction) -> Recovered | None:
            row = find_session(transaction.connection, pid_hash)
            if row is None or (row.namespace, row.holder) != (namespace, holder) or self._expired(row):
                return None
            recovered = _restore(transaction.connection, transaction.head, pid_hash, row, place)
            if recovered is not None:
                take_session(transaction.connection, pid_hash, row.generation, self._node)
                if row.ended_at is None and row.owner != self._node:
                    transaction.append(TAKEN, {"pid": pid_hash.hex(), "generation": row.generation + 1}, ())
            return recovered

        recovered = self._submit(command)
        if recovered is not None:
            self.recovered += 1
        return recovered

    def save(self, kept: Kept, holder: str, subscriber: Subscriber, without: str | None = None) -> None:
        """Store which rooms are held (but for one that is about to be left) and what is promised. Raises Unavailable,
        also when the client has come back by another connection, or this one has ended: then its subscriber holds
        nothing any more, and what its session held was stored before."""
        if subscriber.closed:
            raise Unavailable("This connection has ended.")
        state = _encode(kept, subscriber, without)
        stored = self._submit(
            lambda transaction: save_session(transaction.connection, kept.pid_hash, kept.generation, holder, state)
        )
        if not stored:
            cut_off(subscriber)  # it may be the one that its client reads, all the same
            raise Unavailable("This connection has been replaced by another.", retry_after_seconds=1)

    def ended(self, kept: Kept, for_good: bool) -> None:
        """Its connection has ended; `for_good` if the client won't come back. Stored soon, by a greenlet: who dies
        before that has said when it last lived."""
        self._ended.append((kept, for_good))
        self._signal.set()

    def never_opened(self, kept: Kept) -> None:
        """Storing it failed, but it may be there all the same. While the store is away many such come, and few are; one
        that is not noted stays until this process has ended."""
        if len(self._ended) < NEVER_OPENED:
            self.ended(kept, for_good=True)

    def _expired(self, row: SessionRow) -> bool:
        last = row.ended_at or row.seen_at
        return last is not None and unix_seconds(last) < self._clock() - self.window_seconds

    def _run(self) -> None:
        while True:
            self._signal.wait()
            self._signal.clear()
            try:
                self._store_ends()
            except Unavailable as error:
                log.warning("recovery.ends_not_stored", problem=error.detail)
                gevent.sleep(RETRY_SECONDS)
                self._signal.set()
            except Exception as error:
                log.warning("recovery.ends_failed", problem=described(error))

    def _store_ends(self) -> None:
        """Raises Unavailable; what was not stored then stays noted."""
        while self._ended:
            batch = self._ended[:BATCH]
            ended = [(kept.pid_hash, kept.generation) for kept, for_good in batch if not for_good]
            over = [(kept.pid_hash, kept.generation) for kept, for_good in batch if for_good]

            def command(transaction: Transaction, ended: list[_Key] = ended, over: list[_Key] = over) -> None:
                end_sessions(transaction.connection, ended, transaction.now)
                forget_sessions(transaction.connection, over)

            self._submit(command)
            del self._ended[: len(batch)]


_Key = tuple[bytes, int]


def _hash(pid: str) -> bytes:
    """A plain hash suffices: a pid is 128 random bits."""
    return hashlib.sha256(pid.encode()).digest()


def _encode(kept: Kept, subscriber: Subscriber, without: str | None = None) -> str:
    """(A replay whose room was left while it was being promised is none. A room whose past is not promised yet is not
    stored with another one: a client that comes back then would be sent what is new there, and the past after it.)"""
    left_out = subscriber.joining | {without}
    rooms = {name: (hold.joined, hold.covers) for name, hold in subscriber.rooms.items() if name not in left_out}
    replays = [
        (replay.number, replay.room, replay.since, replay.upto, replay.begin.text)
        for replay in subscriber.replays
        if replay.room not in left_out and subscriber.rooms.get(replay.room) is replay.hold
    ]
    state = {
        "at": kept.at,
        "first": kept.first_replay,
        "next": subscriber.next_replay,
        "rooms": rooms,
        "replays": replays,
    }
    return json.dumps(state, ensure_ascii=False, separators=(",", ":"))


def _restore(
    connection: Connection, head: Head, pid_hash: bytes, row: SessionRow, place: Offset | None
) -> Recovered | None:
    """The stored session as its client knows it. None if the journal is not the one that it was begun on, or no
    longer holds all that is owed."""
    state = json.loads(row.state)
    first, following = state["first"], state["next"]
    if place is not None and (place.seq > head.seq or not _holds(connection, head, place)):
        return None
    if place is not None and (
        place.seq < state["at"] or (place.replay is not None and not first <= place.replay < following)
    ):
        place = None  # what it got in an earlier session; it has seen no event of this one
    position = state["at"] if place is None else place.seq
    rooms = {}
    for name, (joined, covers) in state["rooms"].items():
        hold = rooms[name] = Room(joined)
        hold.covers = hold.sent = covers
    replays, reached = [], None
    for number, room, since, upto, begin_text in state["replays"]:
        begin = parse_offset(begin_text)
        if begin is None or _whole(place, number, begin.seq):
            continue
        if place is not None and number == place.replay:
            reached = place.reached
        hold = rooms[room]
        hold.sent = max(hold.sent, upto)
        replays.append(Replay(number, room, hold, since, upto, begin))
    owed_after = [position, *(replay.since for replay in replays[1:])]
    if replays:
        owed_after.append(replays[0].since if reached is None else reached)
    if min(owed_after) < head.floor:
        return None
    kept = Kept(pid_hash, row.generation + 1, state["at"], first)
    return Recovered(kept, row.sid, rooms, position, tuple(replays), reached, following)


def _holds(connection: Connection, head: Head, place: Offset) -> bool:
    """Is the place one of this journal?"""
    return place.mark is None or place.seq <= head.floor or mark_of(connection, place.seq) == place.mark


def _whole(place: Offset | None, number: int, begin: int) -> bool:
    """Has a client at this place seen the replay's end? It began when everything up to `begin` had been sent, and
    until its end nothing behind that was."""
    if place is None:
        return False
    return begin < place.seq if place.replay is None else number < place.replay
