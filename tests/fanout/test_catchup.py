"""Catching up. What is checked of every subscriber, whatever happens meanwhile:

1. Exactly once. Of each room it holds it has every event after the start of that hold (`since`, or the join without
   one), and none twice while it left no room. An event that lies in several of its rooms comes once.
2. In order. The events that lie in one of its rooms only come in the order of seq from the subscribe on: first those
   replayed, then those that follow. (An event of two rooms may come earlier, through the room held before.)
3. Live again. Everything later than its last subscribe comes in the order of seq, behind all that was replayed.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gevent
import pytest
from sqlalchemy import Connection
from sqlalchemy import event as sql_event
from sqlalchemy.exc import OperationalError

import sidecar.fanout.catchup as catchup_module
from sidecar.domain.errors import Unavailable
from sidecar.domain.events import Event, Offset
from sidecar.fanout.hub import Subscriber
from sidecar.store.journal import Page, room_events
from sidecar.store.writer import Writer
from tests.fanout.recipients import FakeRecipient
from tests.fanout.stages import Stage, wait_until
from tests.store.stores import open_journal


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catchup_module, "PAGE_EVENTS", 7)


@dataclass
class Held:
    """A hold as the model sees it: everything of the room after `start`, in what came after `begin` frames."""

    start: int
    begin: int


@dataclass
class Client:
    """A subscriber under test, and what it is entitled to."""

    stage: Stage
    subscriber: Subscriber
    recipient: FakeRecipient
    held: dict[str, Held] = field(default_factory=dict)
    ever: set[str] = field(default_factory=set)
    left: bool = False
    last_subscribe: int = 0

    def subscribe(self, room: str, since: int | None) -> None:
        begin = len(self.recipient.received)
        answer = self.stage.subscribe(self.subscriber, room, since)
        assert not answer.truncated
        if room not in self.held:  # asking again without since changes nothing
            self.held[room] = Held(answer.seq if since is None else since, begin)
        self.ever.add(room)
        self.last_subscribe = max(self.last_subscribe, answer.seq)

    def leave(self, room: str) -> None:
        self.stage.hub.leave(self.subscriber, room)
        del self.held[room]
        self.left = True

    def check(self, journal: list[Event]) -> None:
        seqs = self.recipient.seqs
        if not self.left:
            due = [e.seq for e in journal if any(r in self.held and self.held[r].start < e.seq for r in e.rooms)]
            assert sorted(seqs) == due, ("missing or twice", Counter(seqs) - Counter(due), Counter(due) - Counter(seqs))
        for room, held in self.held.items():
            own = [e for e in journal if set(e.rooms) & self.ever == {room}]
            came = [e.seq for e in self.recipient.received[held.begin :] if set(e.rooms) & self.ever == {room}]
            assert came == [e.seq for e in own if e.seq > held.start], room
        later = [e.seq for e in journal if e.seq > self.last_subscribe and set(e.rooms) & set(self.held)]
        at = next((n for n, e in enumerate(self.recipient.received) if e.seq > self.last_subscribe), len(seqs))
        assert [e.seq for e in self.recipient.received[at:] if set(e.rooms) & set(self.held)] == later


def run_stress(stage: Stage, seed: int, leaving: bool) -> list[Client]:
    chooser = random.Random(seed)
    rooms = ["project:a", "project:b", *(f"deployment:{n}" for n in range(4))]

    def post(number: int) -> None:
        """A post as a deployment's: into its own room and its project's, sometimes into one alone."""
        deployment = chooser.randrange(4)
        into = [f"deployment:{deployment}", f"project:{'ab'[deployment % 2]}"]
        into = chooser.choice([into, into, into[:1], into[1:]])
        stage.store.append(*into, n=number)

    def post_on() -> None:
        for number in range(80):
            post(number)
            gevent.sleep(chooser.random() * 0.004)

    def read_on(recipient: FakeRecipient) -> None:
        while True:
            recipient.read(chooser.randint(0, 6))
            gevent.sleep(chooser.random() * 0.006)

    def act(client: Client) -> None:
        for _ in range(8):
            gevent.sleep(chooser.random() * 0.04)
            room = chooser.choice(rooms)
            if leaving and client.held and chooser.random() < 0.4:
                client.leave(chooser.choice(list(client.held)))
            elif not leaving or room not in client.held:
                since = None if chooser.random() < 0.3 else chooser.randint(0, stage.tail.last)
                if room in client.held and since is not None:
                    continue  # a second replay is by design behind the first; tested by itself
                client.subscribe(room, since)

    gevent.joinall([gevent.spawn(post, number) for number in range(30)], raise_error=True)
    clients = [Client(stage, *stage.subscriber(capacity=chooser.randint(2, 12))) for _ in range(6)]
    clients[0].subscribe("project:a", None)
    for number in range(20):  # more than it can hold before it reads at all: it is demoted for certain
        stage.store.append("project:a", n=number)
    readers = [gevent.spawn(read_on, client.recipient) for client in clients]
    actors = [gevent.spawn(act, client) for client in clients]
    gevent.joinall([*(gevent.spawn(post_on) for _ in range(3)), *actors], raise_error=True)
    stage.settle()
    gevent.killall(readers)
    return clients


@pytest.mark.parametrize("seed", range(10))
def test_every_event_once_and_in_order_whoever_joins_whenever(stage: Stage, small_pages, seed: int):
    """Posts go on while slow subscribers ask for the past of overlapping rooms."""
    clients = run_stress(stage, seed, leaving=False)
    journal = stage.store.journal()
    assert len(journal) == 290
    for client in clients:
        client.check(journal)
        assert client.subscriber.live
        assert client.recipient.most_unread <= client.recipient.capacity
    assert stage.catchup.demoted > 0, "the stress must reach the demotion"


@pytest.mark.parametrize("seed", range(100, 110))
def test_every_event_in_order_also_when_rooms_are_left_and_joined_again(stage: Stage, small_pages, seed: int):
    """Leaving a room in the middle of its replay and asking again used to send the rest of the first replay too."""
    clients = run_stress(stage, seed, leaving=True)
    journal = stage.store.journal()
    for client in clients:
        client.check(journal)
    assert any(client.left for client in clients)


def post(stage: Stage, count: int, *rooms: str, **payload: object) -> list[int]:
    return [stage.store.append(*rooms, **payload).seq for _ in range(count)]


def replayed(stage: Stage, subscriber: Subscriber, recipient: FakeRecipient) -> list[int]:
    """All that came until it is live again and all is published, its client reading on."""
    wait_until(
        lambda: recipient.read() or (subscriber.live and stage.tail.last == stage.store.head()), "it is live again"
    )
    return recipient.seqs


def test_without_since_only_what_follows_is_sent(stage: Stage):
    post(stage, 3, "room:a")
    subscriber, recipient = stage.subscriber()
    answer = stage.subscribe(subscriber, "room:a")
    assert (answer.seq, answer.replayed, answer.truncated) == (3, 0, False)
    assert answer.offset == stage.tail.offset.text
    assert subscriber.live
    post(stage, 2, "room:a")
    assert recipient.seqs == [4, 5]


def test_with_since_the_past_comes_first_and_the_answer_before_it(stage: Stage):
    """The acknowledgement is queued by the caller before it yields: the page knows `replayed` before they come."""
    post(stage, 20, "room:a")
    subscriber, recipient = stage.subscriber()
    answer = stage.subscribe(subscriber, "room:a", since=5)
    assert recipient.seqs == [], "nothing overtakes the acknowledgement"
    assert (answer.seq, answer.replayed, answer.truncated) == (20, 15, False)
    post(stage, 1, "room:a")
    assert replayed(stage, subscriber, recipient) == list(range(6, 22))


def test_a_long_replay_comes_in_pages_each_when_the_last_was_read(stage: Stage, small_pages):
    post(stage, 40, "room:a")
    subscriber, recipient = stage.subscriber()
    stage.subscribe(subscriber, "room:a", since=0)
    wait_until(lambda: recipient.unread > 0, "the first page")
    for _ in range(20):
        gevent.sleep(0.001)
    assert recipient.seqs == list(range(1, 8)), "the second page waits for the reader"
    assert replayed(stage, subscriber, recipient) == list(range(1, 41))
    assert recipient.most_unread <= 7


def test_pages_are_bounded_by_bytes_too(tmp_path: Path):
    stage = Stage(tmp_path, page_bytes=3_000)
    post(stage, 10, "room:a", text="x" * 900)
    post(stage, 1, "room:a", text="x" * 50_000)
    post(stage, 2, "room:a")
    subscriber, recipient = stage.subscriber()
    stage.subscribe(subscriber, "room:a", since=0)
    assert replayed(stage, subscriber, recipient) == list(range(1, 14))
    assert recipient.most_unread <= 3, "three of them fill a page; the large one comes alone"
    stage.close()


def test_of_large_events_no_more_are_looked_at_than_a_page_holds_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The bytes of all of them are counted each time: far more than are sent, if a page were always of 500."""
    stage = Stage(tmp_path, page_bytes=3_000)
    looked_at = []

    def spied(connection: Connection, rooms: list[str], after: int, upto: int, limit: int, *more: Any) -> Page:
        looked_at.append(limit)
        return room_events(connection, rooms, after, upto, limit, *more)

    monkeypatch.setattr(catchup_module, "room_events", spied)
    post(stage, 40, "room:a", text="x" * 900)
    post(stage, 600, "room:a")
    subscriber, recipient = stage.subscriber()
    stage.subscribe(subscriber, "room:a", since=0)
    assert replayed(stage, subscriber, recipient) == list(range(1, 641))
    large = 40 // 3
    assert looked_at[:large] == [catchup_module.PAGE_EVENTS, *[catchup_module.LEAST_PAGE_EVENTS] * (large - 1)]
    assert max(looked_at[large:]) > 10 * catchup_module.LEAST_PAGE_EVENTS, "small ones come many at a time again"
    stage.close()


@pytest.mark.parametrize("past", [True, False])
def test_a_page_that_is_larger_than_the_room_comes_as_there_is_room(stage: Stage, past: bool):
    """Whether it was asked for, or is what a slow reader lacks."""
    subscriber, recipient = stage.subscriber(capacity=3)
    if past:
        post(stage, 50, "room:a")
        stage.subscribe(subscriber, "room:a", since=0)
    else:
        stage.subscribe(subscriber, "room:a")
        post(stage, 50, "room:a")
        wait_until(lambda: not subscriber.live, "it is behind")
    assert replayed(stage, subscriber, recipient) == list(range(1, 51))
    assert recipient.most_unread == 3
    assert not recipient.closed


def test_an_event_that_went_out_through_another_room_is_not_replayed(stage: Stage):
    subscriber, recipient = stage.subscriber()
    stage.subscribe(subscriber, "project:a")
    post(stage, 3, "project:a", "deployment:1")
    post(stage, 2, "deployment:1")
    assert recipient.seqs == [1, 2, 3]
    answer = stage.subscribe(subscriber, "deployment:1", since=0)
    assert answer.replayed == 2
    assert replayed(stage, subscriber, recipient) == [1, 2, 3, 4, 5]


def test_two_rooms_asked_for_at_once_overlap_once(stage: Stage, small_pages):
    post(stage, 10, "project:a")
    post(stage, 10, "project:a", "deployment:1")
    post(stage, 5, "deployment:1")
    subscriber, recipient = stage.subscriber()
    assert stage.subscribe(subscriber, "project:a", since=0).replayed == 20
    assert stage.subscribe(subscriber, "deployment:1", since=0).replayed == 5
    assert replayed(stage, subscriber, recipient) == list(range(1, 26))


def test_asking_again_for_a_room_that_is_held_sends_nothing_twice(stage: Stage):
    """Pages subscribe again in their connect handler with the offset they have."""
    post(stage, 5, "room:a")
    subscriber, recipient = stage.subscriber()
    stage.subscribe(subscriber, "room:a", since=3)
    assert replayed(stage, subscriber, recipient) == [4, 5]
    post(stage, 2, "room:a")
    assert stage.subscribe(subscriber, "room:a", since=6).replayed == 0
    assert stage.subscribe(subscriber, "room:a").replayed == 0
    assert replayed(stage, subscriber, recipient) == [4, 5, 6, 7]
    assert stage.subscribe(subscriber, "room:a", since=1).replayed == 2, "what lies before was not sent yet"
    assert replayed(stage, subscriber, recipient) == [4, 5, 6, 7, 2, 3]


def test_leaving_in_the_middle_of_a_replay_ends_it(stage: Stage, small_pages):
    post(stage, 40, "room:a")
    subscriber, recipient = stage.subscriber()
    stage.subscribe(subscriber, "room:a", since=0)
    wait_until(lambda: recipient.unread > 0, "the first page")
    stage.hub.leave(subscriber, "room:a")
    assert replayed(stage, subscriber, recipient) == list(range(1, 8))


def test_coming_back_in_the_middle_of_a_replay_starts_it_anew(stage: Stage, small_pages):
    post(stage, 40, "room:a")
    subscriber, recipient = stage.subscriber()
    stage.subscribe(subscriber, "room:a", since=0)
    wait_until(lambda: recipient.unread > 0, "the first page")
    stage.hub.leave(subscriber, "room:a")
    stage.subscribe(subscriber, "room:a", since=30)
    assert replayed(stage, subscriber, recipient) == [*range(1, 8), *range(31, 41)]


class TestOffsets:
    """What a `since` must be to be believed."""

    def test_our_own_offset_is_believed(self, stage: Stage):
        events = [stage.store.append("room:a") for _ in range(5)]
        subscriber, recipient = stage.subscriber()
        since = Offset(events[2].seq, events[2].mark)
        assert stage.subscribe(subscriber, "room:a", since=since).replayed == 2
        assert replayed(stage, subscriber, recipient) == [4, 5]

    def test_an_offset_of_another_journal_is_found_out(self, stage: Stage):
        """A restored backup counts on from an old seq: the same number is another event there."""
        events = [stage.store.append("room:a") for _ in range(5)]
        subscriber, recipient = stage.subscriber()
        answer = stage.subscribe(subscriber, "room:a", since=Offset(3, events[2].mark ^ 1))
        assert (answer.truncated, answer.replayed, answer.seq) == (True, 0, 5)
        post(stage, 1, "room:a")
        assert replayed(stage, subscriber, recipient) == [6], "live all the same"

    @pytest.mark.parametrize("mark", [None, 1])
    def test_an_offset_beyond_the_journal_is_found_out(self, stage: Stage, mark: int | None):
        post(stage, 2, "room:a")
        subscriber, recipient = stage.subscriber()
        answer = stage.subscribe(subscriber, "room:a", since=Offset(1_000, mark))
        assert (answer.truncated, answer.replayed, answer.seq) == (True, 0, 2)
        post(stage, 1, "room:a")
        assert replayed(stage, subscriber, recipient) == [3]

    def test_below_the_floor_what_is_kept_is_replayed_and_the_rest_told(self, stage: Stage):
        post(stage, 10, "room:a")
        stage.retire(6)
        subscriber, recipient = stage.subscriber()
        answer = stage.subscribe(subscriber, "room:a", since=2)
        assert (answer.truncated, answer.replayed) == (True, 4)
        assert replayed(stage, subscriber, recipient) == [7, 8, 9, 10]

    def test_at_the_floor_nothing_is_missing(self, stage: Stage):
        events = [stage.store.append("room:a") for _ in range(10)]
        stage.retire(6)
        subscriber, recipient = stage.subscriber()
        answer = stage.subscribe(subscriber, "room:a", since=Offset(6, events[5].mark))
        assert (answer.truncated, answer.replayed) == (False, 4)
        assert replayed(stage, subscriber, recipient) == [7, 8, 9, 10]

    def test_all_retired_and_nothing_new(self, stage: Stage):
        post(stage, 4, "room:a")
        stage.retire(4)
        subscriber, _ = stage.subscriber()
        assert stage.subscribe(subscriber, "room:a", since=2).truncated
        other, _ = stage.subscriber()
        assert not stage.subscribe(other, "room:a", since=4).truncated

    def test_what_was_read_from_the_journal_before_it_was_published_is_not_sent_again(self, stage: Stage):
        """The read API answers what is committed, an instant before the tail has published it (with another
        process's event up to a poll later). A page that reads seq 1 there and subscribes from 1 must not get 1."""
        other = open_journal(stage.store.folder)
        writer = Writer(other, lambda events: None)
        writer.run_alone(lambda t: t.append("fact", {}, ["room:a"]))
        assert stage.tail.last == 0
        subscriber, recipient = stage.subscriber()
        answer = stage.subscribe(subscriber, "room:a", since=1)
        assert (answer.seq, answer.replayed, answer.truncated) == (1, 0, False)
        writer.run_alone(lambda t: t.append("fact", {}, ["room:a"]))
        wait_until(lambda: stage.tail.last == 2, "the poll")
        assert replayed(stage, subscriber, recipient) == [2]
        writer.stop()
        other.close()


class TestCongestion:
    """A slow reader is taken off the live path and served from the journal; nobody else notices."""

    def test_it_gets_everything_afterwards(self, stage: Stage, small_pages):
        subscriber, recipient = stage.subscriber(capacity=3)
        _, quick = fast = stage.subscriber()
        for one in (subscriber, fast[0]):
            stage.subscribe(one, "room:a")
        post(stage, 30, "room:a")
        assert recipient.seqs == [1, 2, 3]
        assert not subscriber.live
        assert stage.catchup.demoted == 1
        assert quick.seqs == list(range(1, 31))
        assert replayed(stage, subscriber, recipient) == list(range(1, 31))
        post(stage, 1, "room:a")
        assert recipient.seqs[-1] == 31
        assert not recipient.closed

    def test_a_closed_connection_ends_its_catching_up(self, stage: Stage):
        subscriber, recipient = stage.subscriber(capacity=1)
        stage.subscribe(subscriber, "room:a")
        post(stage, 5, "room:a")
        assert stage.catchup.behind == 1
        recipient.cut_off()
        stage.hub.drop(subscriber)
        wait_until(lambda: stage.catchup.behind == 0, "nothing is left of it")

    def test_retention_that_overtakes_it_closes_it(self, stage: Stage, small_pages):
        """It must come back and be told `truncated`; sending on behind the hole would hide it for ever."""
        subscriber, recipient = stage.subscriber(capacity=3)
        stage.subscribe(subscriber, "room:a")
        post(stage, 30, "room:a")
        stage.retire(20)
        recipient.read()
        wait_until(lambda: recipient.closed, "it is closed")
        post(stage, 3, "room:a")
        wait_until(lambda: stage.catchup.behind == 0, "nothing is left of it")
        assert recipient.seqs == [1, 2, 3], "nothing from behind the hole"
        assert not subscriber.live


class BrokenReads:
    """While `broken`, reading the database fails as a lost one does."""

    def __init__(self, stage: Stage):
        self.broken = False
        self.failed = 0
        sql_event.listen(stage.store.database.engine, "before_cursor_execute", self._fail)

    def _fail(self, connection, cursor, statement, parameters, context, executemany) -> None:
        if self.broken:
            self.failed += 1
            raise OperationalError(statement, {}, Exception("disk I/O error"))


def test_a_subscribe_that_can_not_be_read_leaves_its_room_again(stage: Stage):
    post(stage, 3, "room:a")
    reads = BrokenReads(stage)
    subscriber, recipient = stage.subscriber()
    stage.subscribe(subscriber, "room:kept")
    reads.broken = True
    with pytest.raises(Unavailable):
        stage.subscribe(subscriber, "room:a", since=0)
    with pytest.raises(Unavailable):
        stage.subscribe(subscriber, "room:kept", since=0)
    reads.broken = False
    assert list(subscriber.rooms) == ["room:kept"]
    post(stage, 1, "room:a")
    post(stage, 1, "room:kept")
    assert replayed(stage, subscriber, recipient) == [5]


def test_a_replay_goes_on_when_the_database_is_back(stage: Stage, small_pages, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(catchup_module, "RETRY_SECONDS", 0.005)
    post(stage, 30, "room:a")
    reads = BrokenReads(stage)
    subscriber, recipient = stage.subscriber()
    stage.subscribe(subscriber, "room:a", since=0)
    wait_until(lambda: recipient.unread > 0, "the first page")
    reads.broken = True
    recipient.read()
    wait_until(lambda: reads.failed > 2, "some tries")
    reads.broken = False
    assert replayed(stage, subscriber, recipient) == list(range(1, 31))


def test_a_connection_that_ends_while_its_subscribe_reads_leaves_nothing_behind(stage: Stage):
    post(stage, 3, "room:a")
    subscriber, recipient = stage.subscriber()
    stage.subscribe(subscriber, "room:b", since=0)
    asking = gevent.spawn(stage.subscribe, subscriber, "room:a", 0)
    gevent.sleep(0)
    recipient.cut_off()
    stage.hub.drop(subscriber)
    asking.get(timeout=10)
    wait_until(lambda: stage.catchup.behind == 0, "nothing is left of it")
    assert stage.hub.room_count == 0
    assert recipient.seqs == []


def test_a_codec_that_breaks_in_a_replay_closes_the_connection_instead_of_leaving_it_deaf(stage: Stage, capsys):
    post(stage, 3, "room:a")
    subscriber, recipient = stage.subscriber()
    recipient.broken = RuntimeError("no frame")
    stage.subscribe(subscriber, "room:a", since=0)
    wait_until(lambda: stage.catchup.behind == 0, "it is given up")
    assert recipient.closed
    assert "catchup.failed" in capsys.readouterr().out


def test_who_holds_more_rooms_than_one_query_joins(stage, small_pages):
    """SQLite joins 500 at most, and refuses the query for good."""
    subscriber, recipient = stage.subscriber(capacity=2)
    for number in range(600):
        stage.subscribe(subscriber, f"room:{number}")
    old = [stage.store.append("room:old", f"room:{number}").seq for number in range(0, 600, 40)]
    assert stage.subscribe(subscriber, "room:old", since=0).replayed == 0
    seqs = old + [stage.store.append(f"room:{number}", f"room:{599 - number}").seq for number in range(0, 600, 40)]
    wait_until(lambda: recipient.read() or recipient.seqs == seqs, "all has come, once")
