"""The tail: every event of the journal once, in the order of seq, whoever wrote it."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import gevent
import pytest

import sidecar.fanout.tail as tail_module
from config.settings import Settings
from sidecar.core import open_core
from sidecar.domain.events import Event, Offset
from sidecar.fanout.hub import Subscriber
from sidecar.fanout.tail import Tail
from sidecar.store.writer import Writer
from tests.fanout.recipients import FakeRecipient
from tests.fanout.stages import Stage, wait_until
from tests.servers import ROOT
from tests.store.stores import APPENDER, Store, open_journal


class Follower:
    """A tail over a store of its own whose writer does not offer: a test offers what it likes."""

    def __init__(self, folder: Path):
        self.store = Store(folder)
        self.seen: list[Event] = []
        self.gaps = 0
        self.tail = Tail(self.store.database, self.seen.append, on_gap=self._gap)

    def _gap(self) -> None:
        self.gaps += 1

    @property
    def seqs(self) -> list[int]:
        return [event.seq for event in self.seen]

    def close(self) -> None:
        self.tail.stop()
        self.store.close()


@pytest.fixture
def follower(tmp_path: Path):
    opened = Follower(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def no_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tail looks at the journal only when it is rung, so that a test sees who rang."""
    monkeypatch.setattr(tail_module, "POLL_SECONDS", 3600)


def test_a_batch_that_follows_is_taken_at_once_and_without_the_journal(follower: Follower, no_poll):
    follower.tail.start()
    batch = [follower.store.append("room:a") for _ in range(3)]
    follower.tail.offer(batch)
    assert follower.seqs == [1, 2, 3], "no switch of greenlets was needed"
    assert follower.tail.last == 3
    assert follower.tail.offset == Offset(3, batch[-1].mark)


def test_a_batch_after_a_gap_waits_for_the_journal(follower: Follower, no_poll):
    """Another process wrote 1 and 2: taking 3 first would be out of order, and 1 and 2 would be lost."""
    follower.tail.start()
    events = [follower.store.append("room:a") for _ in range(3)]
    follower.tail.offer(events[2:])
    assert follower.seqs == []
    wait_until(lambda: follower.seqs == [1, 2, 3], "the gap is read")
    follower.tail.offer(events[2:])
    gevent.idle()
    assert follower.seqs == [1, 2, 3], "what was read is not taken again when it is offered late"
    assert follower.seen == follower.store.journal()


class Hearing(Follower):
    """As long as `carried`, a doorbell brings what other processes commit."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.carried = True
        self.reads = 0
        self.tail = Tail(self.store.database, self.seen.append, on_gap=self._gap, carried=lambda: self.carried)
        self.tail.start()
        read = self.store.database.read

        def counted(query):
            self.reads += 1
            return read(query)

        self.store.database.read = counted


@pytest.fixture
def hearing(tmp_path: Path, no_poll, monkeypatch: pytest.MonkeyPatch):
    """Its patience ends when a test says so."""
    monkeypatch.setattr(tail_module, "PATIENCE_SECONDS", 3_600)
    opened = Hearing(tmp_path)
    yield opened
    opened.close()


def test_what_is_heard_in_order_needs_no_journal(hearing: Hearing):
    for _ in range(3):
        hearing.tail.heard([hearing.store.append("room:a") for _ in range(2)])
    assert hearing.seqs == [1, 2, 3, 4, 5, 6]
    assert hearing.reads == 0
    assert hearing.tail.taken == {"offered": 0, "heard": 6, "read": 0}


@pytest.mark.parametrize("seed", range(8))
def test_batches_that_come_in_any_order_and_twice_need_no_journal(hearing: Hearing, seed: int):
    """Our own commit comes at once, that of another host before it a moment later."""
    chooser = random.Random(seed)
    batches = [[hearing.store.append("room:a") for _ in range(chooser.randint(1, 4))] for _ in range(20)]
    told = [batch for batch in batches for _ in range(chooser.randint(1, 2))]
    for place in range(len(told)):  # a little out of order, as roads of different lengths make it
        other = min(len(told) - 1, place + chooser.randint(0, 4))
        told[place], told[other] = told[other], told[place]
    for batch in told:
        (hearing.tail.offer if chooser.random() < 0.5 else hearing.tail.heard)(batch)
    assert hearing.reads == 0
    assert hearing.seen == hearing.store.journal()


def test_a_batch_of_which_a_part_is_known_gives_the_rest(hearing: Hearing):
    events = [hearing.store.append("room:a") for _ in range(4)]
    hearing.tail.heard(events[:2])
    hearing.tail.heard(events[1:])
    hearing.tail.heard(events[:3])
    assert hearing.seqs == [1, 2, 3, 4]


def test_what_does_not_come_is_read_once_patience_is_over(hearing: Hearing, monkeypatch):
    monkeypatch.setattr(tail_module, "PATIENCE_SECONDS", 0.001)
    events = [hearing.store.append("room:a") for _ in range(3)]
    hearing.tail.heard(events[2:])
    assert hearing.seqs == []
    wait_until(lambda: hearing.seqs == [1, 2, 3], "the gap is read")
    assert hearing.tail.taken["read"] == 3


def test_without_a_road_for_all_it_looks_at_once(hearing: Hearing):
    hearing.carried = False
    hearing.store.append("room:a")
    hearing.tail.heard([hearing.store.append("room:a")])
    wait_until(lambda: hearing.seqs == [1, 2], "the gap is read")
    hearing.store.append("room:a")
    hearing.tail.look(3)
    wait_until(lambda: hearing.seqs == [1, 2, 3], "the word is enough")


def test_a_word_of_what_is_known_costs_nothing(hearing: Hearing):
    hearing.carried = False
    hearing.tail.heard([hearing.store.append("room:a")])
    hearing.tail.look(1)
    gevent.sleep(0)
    gevent.idle()
    assert hearing.reads == 0


def test_a_word_is_waited_for_while_batches_come(hearing: Hearing, monkeypatch):
    """A notice of PostgreSQL overtakes the batch that Redis brings."""
    event = hearing.store.append("room:a")
    monkeypatch.setattr(tail_module, "PATIENCE_SECONDS", 0.001)
    hearing.tail.look(1)
    hearing.tail.heard([event])
    wait_until(lambda: hearing.tail._patience is None, "patience is over")
    gevent.idle()
    assert (hearing.seqs, hearing.reads) == ([1], 0)


def test_too_much_that_came_too_early_is_read_instead(hearing: Hearing, monkeypatch):
    monkeypatch.setattr(tail_module, "PARKED_BYTES", 3 * tail_module.EVENT_BYTES)
    events = [hearing.store.append("room:a") for _ in range(9)]
    for event in events[1:]:
        hearing.tail.heard([event])
    wait_until(lambda: hearing.seqs == [*range(1, 10)], "all are read")


def test_a_batch_that_the_journal_does_not_know_is_not_waited_for(hearing: Hearing, monkeypatch):
    """What was committed is to be seen by whoever reads after that: this one is forged, or was lost since."""
    monkeypatch.setattr(tail_module, "PATIENCE_SECONDS", 0.001)
    event = hearing.store.append("room:a")
    hearing.tail.heard([Event(9, 1, "t", "{}", ("room:a",), event.at)])
    wait_until(lambda: hearing.seqs == [1], "the journal is read")
    wait_until(lambda: not hearing.tail._parked and hearing.tail._patience is None, "nothing is kept of it")
    reads = hearing.reads
    for _ in range(20):
        gevent.sleep(0.001)
    assert hearing.reads == reads, "and it is not looked for again and again"


def test_a_journal_that_went_back_is_told(follower: Follower):
    """A standby took over that had not heard of the last commits: their numbers are given out again."""
    follower.tail.start()
    for _ in range(4):
        follower.tail.offer([follower.store.append("room:a")])
    follower.store.lose(after=2)
    wait_until(lambda: follower.gaps == 1, "everybody is told")
    assert follower.tail.last == 2
    assert follower.tail.since(1, 9) is None, "what was lost is in no memory"
    follower.tail.offer([follower.store.append("room:a")])
    assert follower.seqs == [1, 2, 3, 4, 3]
    follower.store.lose(after=2)
    follower.store.append("room:a")
    wait_until(lambda: follower.gaps == 2, "another event under the same number")


def test_what_is_forgotten_comes_from_the_journal_from_then_on(follower: Follower):
    """What was said in a project that is deleted must not stay in memory for who asks for the past."""
    follower.tail.start()
    for _ in range(3):
        follower.tail.offer([follower.store.append("room:a")])
    assert [event.seq for event in follower.tail.since(1, 10)] == [2, 3]
    follower.tail.forget_recent()
    assert follower.tail.since(2, 10) is None, "whoever lacks it looks into the journal"
    assert follower.tail.since(3, 10) == []
    follower.tail.offer([follower.store.append("room:a")])
    assert [event.seq for event in follower.tail.since(3, 10)] == [4]
    assert follower.tail.since(2, 10) is None


def test_it_begins_after_the_present_end(follower: Follower):
    last = [follower.store.append("room:a") for _ in range(5)][-1]
    follower.tail.start()
    assert follower.tail.offset == Offset(5, last.mark)
    follower.tail.offer([follower.store.append("room:a")])
    assert follower.seqs == [6]


def test_events_of_another_process_arrive_by_the_poll(follower: Follower):
    follower.tail.start()
    place = follower.store.place
    appending = [sys.executable, "-c", APPENDER, place.url, str(place.folder), "x"]
    subprocess.run(appending, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    wait_until(lambda: len(follower.seen) == 60, "all are seen")
    assert follower.seen == follower.store.journal()


@pytest.mark.parametrize("seed", range(6))
def test_whoever_writes_each_event_is_seen_once_and_in_order(stage: Stage, seed: int):
    """Our own batches are offered while those of two other writers on the same file must be read."""
    others = [open_journal(stage.store.folder) for _ in range(2)]
    writers = [Writer(database, lambda events: None) for database in others]
    for writer in writers:
        writer.start()
    chooser = random.Random(seed)

    def post(number: int) -> None:
        gevent.sleep(chooser.random() * 0.2)
        writer = chooser.choice([stage.store.writer, stage.store.writer, *writers])
        writer.submit(lambda t: [t.append("fact", {"n": number}, ["room:a"]) for _ in range(chooser.randint(1, 4))])

    gevent.joinall([gevent.spawn(post, number) for number in range(120)], raise_error=True)
    stage.settle()
    assert [event.seq for event in stage.published] == list(range(1, stage.store.head() + 1))
    assert stage.published == stage.store.journal()
    for writer, database in zip(writers, others, strict=True):
        writer.stop()
        database.close()


def test_reading_pages_a_long_gap(follower: Follower, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tail_module, "READ_EVENTS", 7)
    follower.tail.start()
    follower.store.submit_all([lambda t: t.append("fact", {}, ["room:a"])] * 40)
    wait_until(lambda: len(follower.seen) == 40, "all are seen")
    assert follower.seqs == list(range(1, 41))


def test_an_event_that_fails_to_be_published_stops_neither_the_next_ones_nor_the_writer(tmp_path: Path, capsys):
    """The writer offers its batches: an exception that came back through it would have ended its greenlet, and
    every later post would have waited for ever."""
    seen: list[int] = []

    def publish(event: Event) -> None:
        seen.append(event.seq)
        if event.seq == 2:
            raise RuntimeError("broken handler")

    store = Store(tmp_path, on_commit=lambda events: tail.offer(events))
    tail = Tail(store.database, publish, on_gap=lambda: None)
    tail.start()
    store.submit_all([lambda t: t.append("fact", {}, ["room:a"])] * 4)
    assert store.append("room:a").seq == 5
    wait_until(lambda: len(seen) == 5, "all are seen")
    assert seen == [1, 2, 3, 4, 5]
    assert "tail.publish_failed" in capsys.readouterr().out
    tail.stop()
    store.close()


def test_events_that_retention_took_before_they_were_read_are_reported(stage: Stage):
    """Live subscribers can't be given them any more: they are cut off, come back, and are told `truncated`, instead
    of silently getting less."""
    subscriber, recipient = stage.subscriber()
    stage.subscribe(subscriber, "room:a")
    stage.store.append("room:a")
    assert recipient.seqs == [1]
    stage.tail.stop()  # the process stood still, say, while another went on
    other = open_journal(stage.store.folder)
    writer = Writer(other, lambda events: None)
    for _ in range(4):
        writer.run_alone(lambda t: t.append("fact", {}, ["room:a"]))
    stage.retire(4)
    stage.tail._greenlet = gevent.spawn(stage.tail._run)
    wait_until(lambda: stage.tail.last == 5, "the tail goes on behind the gap")
    assert recipient.closed
    assert recipient.seqs == [1], "nothing after the gap went to it"
    assert stage.tail.since(0, 100) is None
    writer.stop()
    other.close()


def test_the_ring_gives_back_recent_events_or_says_that_it_can_not(follower: Follower, monkeypatch):
    monkeypatch.setattr(tail_module, "RING_BYTES", 20 * tail_module.EVENT_BYTES)
    follower.tail.start()
    for _ in range(50):
        follower.tail.offer([follower.store.append("room:a")])
    since = lambda seq, limit=1000: [e.seq for e in follower.tail.since(seq, limit)]  # noqa: E731
    assert since(50) == []
    assert since(60) == []
    assert since(49) == [50]
    assert since(40) == list(range(41, 51))
    kept = len(follower.tail.ring)
    assert 10 <= kept <= 20, "small events cost memory, too"
    assert since(50 - kept) == list(range(51 - kept, 51))
    assert follower.tail.since(49 - kept, 1000) is None
    assert follower.tail.since(0, 1000) is None
    assert follower.tail.since(40, 9) is None, "more than asked for"


def test_reach_waits_for_what_the_journal_has_and_not_for_more(follower: Follower, no_poll):
    follower.tail.start()
    follower.store.append("room:a")
    follower.store.append("room:a")
    follower.tail.reach(2)
    assert follower.seqs == [1, 2]
    follower.tail.reach(1_000_000)
    assert follower.seqs == [1, 2]


def test_control_events_act_and_are_not_published(tmp_path: Path):
    """Revocations travel through the journal, but are nobody's business outside."""
    core = open_core(Settings(instance_dir=tmp_path), running=True)
    received: list[dict[str, str]] = []
    core.on_control("control.test", received.append)

    core.writer.start()
    core.tail.start()
    recipient = FakeRecipient()
    core.hub.join(Subscriber(recipient, recipient.codec, 0), "room:a", 0)
    core.writer.submit(lambda t: t.append("control.test", {"id": "x"}, ["room:a"]))
    core.writer.submit(lambda t: t.append("control.unknown", {}, ["room:a"]))
    core.writer.submit(lambda t: t.append("fact", {}, ["room:a"]))
    assert received == [{"id": "x"}]
    assert [event.type for event in recipient.received] == ["fact"]
    core.close()
