"""Who is in the free rooms over several processes, by a clock of the test's own: who comes, who leaves and when, and
who was at a process that died. On both databases."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, text

from sidecar.domain.access import Identity
from sidecar.domain.errors import Unavailable
from sidecar.domain.events import Volatile
from sidecar.fanout.hub import Hub, Subscriber
from sidecar.jobs.presence import Presence
from sidecar.services.presences import NAMES_BYTES, TIMES, Presences
from sidecar.services.rooms import Rooms
from sidecar.store.presences import CHUNK, _taken
from sidecar.store.tables import nodes, presences
from sidecar.store.writer import Writer
from tests.fanout.recipients import FakeRecipient
from tests.services.conftest import Clock
from tests.store.stores import Place, migrated_sqlite_in, open_journal

ADMIN = Identity(kind="token", name="test", scopes=frozenset({"admin"}), projects=None, token_id="t")
BEAT = TIMES.beat_seconds
LINGER = TIMES.linger_seconds


class Process:
    """One of several, whose greenlets are the test: `news` is what all have published, `commands` how many rows each of
    its commands had in hand."""

    def __init__(self, name: str, place: Place, clock: Clock, news: list[Volatile], known: bool = True):
        self.name = name
        self.database = open_journal(place)
        self.writer = Writer(self.database, lambda events: None, clock)
        self.away = False
        self.lost = False
        self.commands = 0
        self.deaths: list[str] = []
        self.hub = Hub(lambda subscriber, event: None)
        self.presences = Presences(self.database, self.submit, name, news.append, clock=clock)
        self.hub.on_moved("room:", self.presences.moved)
        self.rooms = Rooms(self.database, name, self.presences)
        self.job = Presence(self.submit, name, self.presences, lambda: self.deaths.append(name))
        if known:
            self.job.say()
            self.deaths.clear()

    def submit(self, command: Callable[..., Any]) -> Any:
        """In a store that may be `away`, or whose answer may be `lost`."""
        if self.away:
            raise Unavailable("It is away.")
        self.commands += 1
        answer = self.writer.run_alone(command)
        if self.lost:
            raise Unavailable("It did not answer.")
        return answer

    def come(self, room: str, user: str | None) -> Subscriber:
        subscriber = Subscriber(FakeRecipient(), None, 0, user=user)
        self.hub.join(subscriber, f"room:{room}", 0)
        return subscriber

    def turn(self) -> None:
        """What the job's greenlet does again and again."""
        self.presences.tell()
        self.presences.sweep()

    def users(self, room: str = "r") -> dict[str, int]:
        return dict(self.rooms.presence(ADMIN, room).users)

    def end(self) -> None:
        self.writer.stop()
        self.database.close()


class Stage:
    def __init__(self, place: Place, clock: Clock):
        self.clock = clock
        self.place = place
        self.news: list[Volatile] = []
        self.made: list[Process] = []

    def process(self, name: str, known: bool = True) -> Process:
        self.made.append(Process(name, self.place, self.clock, self.news, known))
        return self.made[-1]

    def said(self) -> list[tuple[str, str, list[str]]]:
        """What was published since the last question: type, room and users."""
        said, self.news[:] = list(self.news), []
        bodies = [(one, json.loads(one.payload)) for one in said]
        assert all(one.room == f"presence:{body['room']}" for one, body in bodies)
        return [(one.type.removeprefix("presence_"), body["room"], body["users"]) for one, body in bodies]

    def rows(self) -> dict[tuple[str, str, str], int]:
        process = self.made[0]
        found = process.database.read(lambda c: c.execute(select(presences)).all())
        return {(row.node, row.room, row.user_id): row.connections for row in found}

    def beats(self, count: int, *living: Process) -> None:
        for _ in range(count):
            self.clock.now += BEAT
            for process in living:
                process.job.say()
                process.turn()


@pytest.fixture
def stage(place: Place, clock: Clock) -> Iterator[Stage]:
    made = Stage(place, clock)
    yield made
    for process in made.made:
        process.end()


def test_who_comes_is_seen_by_all_and_told_once(stage: Stage):
    here, there = stage.process("a"), stage.process("b")
    for user in ("ada", "ada", "bob", None):
        here.come("r", user)
    here.come("s", "ada")
    assert here.users() == {"ada": 2, "bob": 1, "": 1}, "before it is written down"
    assert there.users() == {}
    here.turn()
    assert stage.said() == [("joined", "r", ["ada", "bob"]), ("joined", "s", ["ada"])]
    there.come("r", "ada")
    assert there.users() == {"ada": 3, "bob": 1, "": 1}
    there.turn()
    assert here.users() == there.users() == {"ada": 3, "bob": 1, "": 1}
    assert stage.said() == [], "ada was there"
    assert [one.room for one in there.rooms.list(ADMIN)] == ["r", "s"]


def test_who_leaves_stays_for_a_while_and_is_told_once(stage: Stage, clock: Clock):
    here, there = stage.process("a"), stage.process("b")
    ada, nobody = here.come("r", "ada"), here.come("r", None)
    here.turn()
    here.hub.drop(ada)
    here.hub.drop(nobody)
    assert here.users() == {"ada": 0, "": 0}
    here.turn()
    assert here.users() == there.users() == {"ada": 0}
    clock.now += LINGER - 0.01
    for process in (here, there):
        process.turn()
    assert [one.room for one in there.rooms.list(ADMIN)] == ["r"]
    assert stage.said() == [("joined", "r", ["ada"])]
    clock.now += 0.01
    for process in (there, here, there):
        process.turn()
    assert stage.said() == [("left", "r", ["ada"])]
    assert here.users() == there.users() == stage.rows() == {}
    assert there.rooms.list(ADMIN) == []


@pytest.mark.parametrize("elsewhere", [False, True])
def test_who_comes_back_in_time_has_not_left(stage: Stage, clock: Clock, elsewhere: bool):
    """A page is loaded anew, by the same process or by another one."""
    here, there = stage.process("a"), stage.process("b")
    here.hub.drop(here.come("r", "eve"))
    ada = here.come("r", "ada")
    here.turn()
    assert stage.said() == [("joined", "r", ["ada"])], "eve was gone before anything was told"
    here.hub.drop(ada)
    here.turn()
    clock.now += LINGER - 1
    (there if elsewhere else here).come("r", "ada")
    for _ in range(3):
        for process in (here, there):
            process.turn()
        clock.now += LINGER
    assert stage.said() == []
    assert stage.rows() == {("b" if elsewhere else "a", "r", "ada"): 1}


def test_who_is_at_two_processes_and_leaves_one_has_not_left(stage: Stage, clock: Clock):
    here, there = stage.process("a"), stage.process("b")
    one, other = here.come("r", "ada"), there.come("r", "ada")
    for process in (here, there):
        process.turn()
    stage.said()
    here.hub.drop(one)
    here.turn()
    clock.now += LINGER
    here.turn()
    assert stage.said() == []
    assert stage.rows() == {("b", "r", "ada"): 1}
    there.hub.drop(other)
    there.turn()
    clock.now += LINGER
    there.turn()
    assert stage.said() == [("left", "r", ["ada"])]


def test_what_changes_and_changes_back_costs_nothing(stage: Stage):
    here = stage.process("a")
    here.come("r", "ada")
    here.turn()
    before = here.commands
    for _ in range(100):
        here.hub.drop(here.come("r", "ada"))
        here.hub.drop(here.come("r", "bob"))
    here.turn()
    assert here.commands == before


def test_a_storm_is_written_down_in_small_chunks(stage: Stage, clock: Clock):
    """Whoever posts meanwhile waits for one chunk, not for all; and nothing is told of one at a time."""
    here, there = stage.process("a"), stage.process("b")
    count, leaving = (2_000 if stage.place.is_postgres else 20_000), 1_000
    crowd = [here.come(f"r{number % 7}", f"user-{number}") for number in range(count)]
    before = here.commands
    here.presences.tell()
    assert here.commands - before == count / CHUNK
    said = stage.said()
    assert len(said) == 7 * count / CHUNK
    assert sum(len(users) for _, _, users in said) == count
    assert sum(there.users("r3").values()) == len(range(3, count, 7))
    for subscriber in crowd[:leaving]:
        here.hub.drop(subscriber)
    before = here.commands
    here.presences.tell()
    assert here.commands - before == leaving / CHUNK
    clock.now += LINGER
    before = here.commands
    here.presences.sweep()
    assert here.commands - before == leaving / CHUNK + 1
    assert sum(len(users) for _, _, users in stage.said()) == leaving
    assert len(stage.rows()) == count - leaving


def test_an_event_holds_no_more_names_than_a_doorbell_carries(stage: Stage):
    here = stage.process("a")
    users = [f"{number:03}" + "漢" * 197 for number in range(100)]
    for user in users:
        here.come("r", user)
    here.turn()
    parts = stage.said()
    sizes = [sum(len(user.encode()) for user in said) for _, _, said in parts]
    assert max(sizes) <= NAMES_BYTES < sum(sizes)
    assert [user for _, _, said in parts for user in said] == users


def test_who_was_at_a_process_that_died_is_gone_within_half_a_minute(stage: Stage, clock: Clock):
    here, dies = stage.process("a"), stage.process("b")
    for user in ("ada", "bob", None):
        dies.come("r", user)
    here.come("r", "bob")
    for process in (here, dies):
        process.turn()
    stage.said()
    died_at = clock.now
    stage.beats(TIMES.silent_beats, here)
    assert here.users() == {"ada": 1, "bob": 2, "": 1}
    stage.beats(1, here)
    assert clock.now - died_at + TIMES.sweep_seconds + TIMES.gather_seconds < 30
    assert here.users() == {"bob": 1}
    assert stage.said() == [("left", "r", ["ada"])]
    assert stage.rows() == {("a", "r", "bob"): 1}


def test_one_that_is_known_to_be_gone_leaves_its_users_a_while_to_come_back(stage: Stage, clock: Clock):
    """It has stopped in order, or another process has found its socket dead."""
    here, ends = stage.process("a"), stage.process("b")
    for user in ("ada", "bob"):
        ends.come("r", user)
    ends.turn()
    stage.said()
    here.writer.run_alone(lambda transaction: transaction.connection.execute(delete(nodes).where(nodes.c.id == "b")))
    assert here.users() == {"ada": 0, "bob": 0}, "at once"
    stage.beats(1, here)
    here.come("r", "bob")
    stage.beats(2, here)
    assert (here.users(), stage.said()) == ({"ada": 0, "bob": 1}, [])
    clock.now += LINGER
    here.turn()
    assert (here.users(), stage.said()) == ({"bob": 1}, [("left", "r", ["ada"])])


def test_a_stop_in_order_needs_nobody_to_find_out(stage: Stage, clock: Clock):
    here, ends = stage.process("a"), stage.process("b", known=False)
    ends.job.start()
    ends.come("r", "ada")
    ends.turn()
    ends.job.stop()
    assert stage.rows() == {("b", "r", "ada"): 0}
    clock.now += LINGER
    stage.said()
    here.job.say()
    here.turn()
    assert stage.said() == [("left", "r", ["ada"])]


def test_one_that_was_taken_for_dead_tells_all_again(stage: Stage, clock: Clock):
    here, frozen = stage.process("a"), stage.process("b")
    frozen.come("r", "ada")
    left = frozen.come("r", "bob")
    frozen.turn()
    stage.said()
    stage.beats(TIMES.silent_beats + 1, here)
    assert stage.said() == [("left", "r", ["ada", "bob"])]
    frozen.hub.drop(left)
    frozen.come("s", "eve")
    assert not frozen.presences.tell(), "it is not known any more"
    assert stage.rows() == {}
    frozen.job.say()
    assert frozen.deaths == ["b"]
    assert frozen.presences.tell()
    assert sorted(stage.said()) == [("joined", "r", ["ada"]), ("joined", "s", ["eve"])]
    assert here.users() == {"ada": 1}
    stage.beats(TIMES.silent_beats + 1, here, frozen)
    assert (here.users(), stage.said()) == ({"ada": 1}, [])


def test_one_that_was_taken_for_dead_while_it_told_tells_that_again_too(stage: Stage):
    """What it has told was stored, and struck out before it had the answer."""
    here = stage.process("a")
    here.come("r", "ada")
    real = here.submit

    def die_meanwhile(command: Callable[..., Any]) -> Any:
        answer = real(command)
        here.writer.run_alone(lambda transaction: transaction.connection.execute(delete(presences)))
        here.presences.all_again()
        return answer

    here.presences._submit = die_meanwhile
    here.presences.tell()
    here.presences._submit = real
    assert stage.rows() == {}
    here.turn()
    assert stage.rows() == {("a", "r", "ada"): 1}


def test_who_was_taken_for_dead_hears_of_it_though_the_store_does_not_answer(stage: Stage):
    """Its coming back was stored, and the answer lost: the next time it finds itself among the living."""
    here = stage.process("a")
    here.writer.run_alone(lambda transaction: transaction.connection.execute(delete(nodes)))
    real = here.job._submit

    def lose_the_second(command: Callable[..., Any]) -> Any:
        here.lost, here.job._submit = True, real
        return None

    here.job._submit = lose_the_second
    with pytest.raises(Unavailable):
        here.job.say()
    assert here.deaths == ["a"]
    here.lost = False
    here.job.say()
    assert here.deaths == ["a"], "it goes on"


def test_nobody_is_silent_while_the_database_is_away(stage: Stage, clock: Clock):
    """Not by one that looks right after that: then everybody has been silent for long."""
    here, there = stage.process("a"), stage.process("b")
    stage.beats(TIMES.silent_beats - 1, here)
    clock.now += 300
    here.away = there.away = True
    for process in (here, there):
        with pytest.raises(Unavailable):
            process.job.say()
    here.away = there.away = False
    here.job.say()
    there.job.say()
    assert there.deaths == []
    stage.beats(3, here, there)
    assert there.deaths == here.deaths == []


def test_what_could_not_be_written_down_is_later(stage: Stage, clock: Clock):
    here = stage.process("a")
    one = here.come("r", "ada")
    here.turn()
    here.away = True
    here.hub.drop(one)
    here.come("r", "bob")
    with pytest.raises(Unavailable):
        here.turn()
    here.come("r", "eve")
    here.away = False
    here.turn()
    assert stage.rows() == {("a", "r", "ada"): 0, ("a", "r", "bob"): 1, ("a", "r", "eve"): 1}


def test_what_may_be_written_down_or_not_is_written_again(stage: Stage, clock: Clock):
    """The store did not answer; and what it was told has changed back before the next try."""
    here = stage.process("a")
    one, other = here.come("r", "ada"), here.come("s", None)
    here.turn()
    here.lost = True
    here.hub.drop(one)
    here.hub.drop(other)
    with pytest.raises(Unavailable):
        here.presences.tell()
    here.lost = False
    assert stage.rows() == {("a", "r", "ada"): 0}
    here.come("r", "ada")
    here.come("s", None)
    here.turn()
    assert stage.rows() == {("a", "r", "ada"): 1, ("a", "s", ""): 1}


def test_each_sweeps_after_itself_and_after_the_dead(stage: Stage, clock: Clock):
    """So that the clocks of two processes that live are never compared."""
    here, there = stage.process("a"), stage.process("b")
    there.hub.drop(there.come("r", "eve"))
    ada = there.come("r", "ada")
    there.turn()
    there.hub.drop(ada)
    there.turn()
    clock.now += 10 * LINGER
    here.turn()
    assert stage.rows() == {("b", "r", "ada"): 0}
    there.turn()
    assert stage.rows() == {}


def test_a_look_for_who_was_there_reads_their_rows_alone(tmp_path: Path, clock: Clock):
    """It is done within each command, while everybody else who writes waits. (PostgreSQL's planner counts rows.)"""
    stage = Stage(migrated_sqlite_in(tmp_path), clock)
    here = stage.process("a")
    query = text(f"EXPLAIN QUERY PLAN {_taken(2)._clause}").bindparams(r0="r", u0="ada", r1="s", u1="bob")
    plan = here.database.read(lambda c: str(c.execute(query).fetchall()))
    assert "SEARCH presences USING COVERING INDEX presences_room (room=? AND user_id=?)" in plan
    here.end()
