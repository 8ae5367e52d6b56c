"""Connection state recovery below the sockets: sessions that are cut off at any frame and taken up again, by this
process or another, get each event once and in order, as if nothing had happened."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import gevent
import pytest
from gevent.event import Event as Signal

import sidecar.fanout.catchup as catchup_module
from sidecar.domain.errors import TooManyRooms, Unavailable
from sidecar.domain.events import Event, parse_offset
from sidecar.fanout.catchup import Past
from sidecar.fanout.hub import Subscriber
from sidecar.fanout.recovery import TAKEN, Recovered, Recovery
from sidecar.store.database import Database
from tests.fanout.recipients import FakeRecipient
from tests.fanout.stages import Stage, wait_until

NAMESPACE, HOLDER = "/", "user u"


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Process:
    """A process as recovery sees it."""

    def __init__(self, folder: Path, node: str, clock: Clock):
        self.stage = Stage(folder)
        self.recovery = Recovery(self.stage.store.writer.submit, node, 600, clock)

    def close(self) -> None:
        self.recovery.stop()
        self.stage.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def processes(tmp_path: Path, clock: Clock) -> Iterator[list[Process]]:
    """Two that share a journal."""
    made = [Process(tmp_path, node, clock) for node in ("a", "b")]
    yield made
    for process in made:
        process.close()


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catchup_module, "PAGE_EVENTS", 7)


class Browser:
    """socket.io-client: keeps its pid, and the place behind the last event that it has handled."""

    def __init__(self, process: Process, capacity: int = 1_000_000):
        self.events: list[Event] = []
        self.place: str | None = None
        self.recoveries = 0
        self._capacity = capacity
        self.process = process
        self.recipient = FakeRecipient(capacity=capacity)
        kept, self.pid = process.recovery.prepare(process.stage.tail.last)
        self.kept = kept
        self.subscriber = Subscriber(
            self.recipient, self.recipient.codec, process.stage.tail.last, next_replay=kept.first_replay
        )
        process.recovery.open(kept, "sid", NAMESPACE, HOLDER, self.subscriber)

    def subscribe(self, room: str, since: int | str | None = None):
        offset = None if since is None else parse_offset(since)
        return self.process.stage.catchup.subscribe(
            self.process.stage.hub,
            self.subscriber,
            room,
            None if offset is None else Past(offset),
            save=partial(self.process.recovery.save, self.kept, HOLDER, self.subscriber),
        )

    def leave(self, room: str) -> None:
        self.process.recovery.save(self.kept, HOLDER, self.subscriber, without=room)
        self.process.stage.hub.leave(self.subscriber, room)

    @property
    def sent(self) -> list[int]:
        """Everything that was handled, and what is on its way by the present connection."""
        return [event.seq for event in (*self.events, *self.recipient.received)]

    def cut(self, handled: int | None = None) -> None:
        """The connection ends; of what was queued for it so many frames were handled (all of them)."""
        recipient = self.recipient
        count = len(recipient.frames) if handled is None else handled
        self.events += recipient.received[:count]
        if count:
            self.place = recipient.codec.places[recipient.frames[count - 1]]
        recipient.closed = True
        recipient.received = []
        self.process.stage.hub.drop(self.subscriber)

    def take(self, process: Process) -> Recovered | None:
        return process.recovery.take(self.pid, self.place, NAMESPACE, HOLDER)

    def come_back(self, process: Process) -> None:
        recovered = self.take(process)
        assert recovered is not None
        assert recovered.sid == "sid"
        if recovered.needs > process.stage.tail.last:
            process.stage.tail.reach(recovered.needs)
        self.recoveries += 1
        self.process, self.kept = process, recovered.kept
        self.recipient = FakeRecipient(capacity=self._capacity)
        self.subscriber = recovered.subscriber(self.recipient, self.recipient.codec)
        with recovered.resumed(process.stage.hub, process.stage.catchup, self.subscriber):
            pass

    def settled(self) -> list[int]:
        """What it has got, once its process knows all that was committed, by whatever process."""
        stage = self.process.stage
        wait_until(lambda: stage.tail.last == stage.store.head(), "its tail is at the journal's end")
        wait_until(lambda: self.recipient.read() or self.subscriber.live, "it is live again")
        return self.sent


def post(process: Process, count: int, *rooms: str) -> list[int]:
    """Their seqs, once this process has published them: while its tail reads the journal that may be a moment later."""
    seqs = [process.stage.store.append(*rooms).seq for _ in range(count)]
    wait_until(lambda: process.stage.tail.last >= seqs[-1], "they are published")
    return seqs


@contextmanager
def running(*greenlets: gevent.Greenlet) -> Iterator[None]:
    try:
        yield
    finally:
        gevent.killall(greenlets)


@pytest.mark.parametrize("seed", range(16))
def test_cut_anywhere_it_gets_each_event_once_and_in_order(processes: list[Process], small_pages, seed: int):
    """Slow readers in overlapping rooms ask for the past, are cut after any frame (also in the middle of a replay, and
    with several replays waiting), and come back to one process or the other while both take posts."""
    chooser = random.Random(seed)
    rooms = ["project:a", "project:b", *(f"deployment:{n}" for n in range(4))]

    def post_one() -> None:
        deployment = chooser.randrange(4)
        into = [f"deployment:{deployment}", f"project:{'ab'[deployment % 2]}"]
        chooser.choice(processes).stage.store.append(*chooser.choice([into, into, into[:1], into[1:]]))

    def post_on() -> None:
        for _ in range(60):
            post_one()
            gevent.sleep(chooser.random() * 0.006)

    def read_on(browser: Browser) -> None:
        while True:
            browser.recipient.read(chooser.randint(0, 6))
            gevent.sleep(chooser.random() * 0.006)

    def live_through(browser: Browser, starts: dict[str, int]) -> None:
        for _ in range(10):
            gevent.sleep(chooser.random() * 0.03)
            if chooser.random() < 0.5:
                recipient = browser.recipient
                frames = len(recipient.frames)
                browser.cut(chooser.randint(frames - recipient.unread, frames))
                gevent.sleep(chooser.random() * 0.02)
                browser.come_back(chooser.choice(processes))
            else:
                for room in chooser.sample(rooms, chooser.randint(1, 3)):
                    last = browser.process.stage.tail.last
                    since = chooser.choice([None, chooser.randint(0, last), chooser.randint(0, last)])
                    answer = browser.subscribe(room, since)
                    assert not answer.truncated
                    begin = answer.seq if since is None else since
                    starts[room] = min(starts.get(room, begin), begin) if since is not None else starts.get(room, begin)

    for _ in range(30):
        post_one()
    browsers = [Browser(processes[n % 2], chooser.randint(2, 12)) for n in range(6)]
    starts: list[dict[str, int]] = [{} for _ in browsers]
    with running(*(gevent.spawn(read_on, browser) for browser in browsers)):
        actors = [gevent.spawn(live_through, browser, begins) for browser, begins in zip(browsers, starts, strict=True)]
        gevent.joinall([gevent.spawn(post_on), gevent.spawn(post_on), *actors], raise_error=True)
        for process in processes:
            process.stage.settle()
    journal = processes[0].stage.store.journal()
    for browser, begins in zip(browsers, starts, strict=True):
        due = [e.seq for e in journal if any(r in begins and begins[r] < e.seq for r in e.rooms)]
        got = browser.sent
        assert sorted(got) == due, (Counter(due) - Counter(got), Counter(got) - Counter(due))
    assert sum(browser.recoveries for browser in browsers) >= 10, "it must be tried"


def test_in_the_middle_of_a_replay(processes: list[Process], small_pages):
    """Events that came live before the replay are not repeated, those after its last frame are not skipped."""
    here, there = processes
    post(here, 30, "room:a")
    browser = Browser(here)
    browser.subscribe("room:b")
    post(here, 3, "room:b")
    assert browser.sent == [31, 32, 33]
    browser.recipient.read()
    browser.subscribe("room:a", since=0)
    wait_until(lambda: len(browser.recipient.frames) >= 10, "the first page")
    browser.cut(5)
    assert browser.events[-1].seq == 2
    assert "~" in str(browser.place)
    post(here, 2, "room:a", "room:b")
    browser.come_back(there)
    assert browser.settled() == [31, 32, 33, *range(1, 31), 34, 35]


def test_several_replays_one_begun_and_one_not(processes: list[Process], small_pages):
    here, _ = processes
    post(here, 20, "room:a")
    post(here, 20, "room:b")
    browser = Browser(here)
    browser.subscribe("room:a", since=0)
    browser.subscribe("room:b", since=0)
    wait_until(lambda: len(browser.recipient.frames) >= 7, "the first page")
    browser.cut(7)
    browser.come_back(here)
    post(here, 1, "room:b")
    assert browser.settled() == list(range(1, 42))


def test_a_replay_that_has_ended_is_not_sent_again_though_nothing_came_behind_it(processes: list[Process]):
    here, _ = processes
    post(here, 5, "room:a")
    browser = Browser(here)
    browser.subscribe("room:a", since=2)
    assert browser.settled() == [3, 4, 5]
    browser.cut()
    browser.come_back(here)
    assert browser.settled() == [3, 4, 5]


def test_asking_again_in_the_connect_handler_before_the_missed_events_come(processes: list[Process]):
    """Pages subscribe in their connect handler, with what they have; it fires before the recovered events."""
    here, there = processes
    browser = Browser(here)
    browser.subscribe("room:a")
    post(here, 3, "room:a")
    browser.cut(1)
    post(here, 2, "room:a")
    browser.come_back(there)
    assert browser.recipient.frames == []
    assert browser.subscribe("room:a", since=1).replayed == 0
    assert browser.subscribe("room:a", since=str(browser.place)).replayed == 0
    assert browser.settled() == [1, 2, 3, 4, 5]


def test_before_its_first_event_it_has_no_offset_and_gets_all_since_it_joined(processes: list[Process]):
    here, there = processes
    post(here, 2, "room:a")
    browser = Browser(here)
    browser.subscribe("room:a")
    browser.cut()
    post(here, 3, "room:a")
    browser.come_back(there)
    assert browser.settled() == [3, 4, 5]


@pytest.mark.parametrize("offset", [None, 7, {"x": 1}, "", "nonsense", "1", "5~1.2", "3.00000000~9.9x"])
def test_a_bad_or_stale_offset_of_an_earlier_session_counts_as_none(processes: list[Process], offset: object):
    """The client keeps its last offset when it begins a new session."""
    here, _ = processes
    post(here, 6, "room:a")
    browser = Browser(here)
    browser.subscribe("room:a", since=2)
    browser.cut(0)
    recovered = here.recovery.take(browser.pid, offset if offset != 7 else 5, NAMESPACE, HOLDER)
    assert recovered is not None
    assert (recovered.position, [replay.since for replay in recovered.replays], recovered.reached) == (6, [2], None)


@pytest.mark.parametrize("pid", [None, 5, "", "x" * 22, "ä" * 22, "a" * 1_000_000, ["x"]])
def test_an_unknown_pid_recovers_nothing(processes: list[Process], pid: object):
    assert processes[0].recovery.take(pid, "1", NAMESPACE, HOLDER) is None


def test_only_its_holder_in_its_namespace_gets_a_session(processes: list[Process]):
    here, _ = processes
    browser = Browser(here)
    browser.cut()
    assert here.recovery.take(browser.pid, None, NAMESPACE, "user v") is None
    assert here.recovery.take(browser.pid, None, "/other", HOLDER) is None
    assert here.recovery.take(browser.pid, None, NAMESPACE, HOLDER) is not None


def test_a_place_of_another_journal_recovers_nothing(processes: list[Process]):
    """A restored backup counts on from an old seq."""
    here, _ = processes
    browser = Browser(here)
    browser.subscribe("room:a")
    post(here, 3, "room:a")
    browser.cut()
    seq, mark = str(browser.place).split(".")
    assert here.recovery.take(browser.pid, f"{seq}.{int(mark, 16) ^ 1:08x}", NAMESPACE, HOLDER) is None
    assert here.recovery.take(browser.pid, "9.00000001", NAMESPACE, HOLDER) is None
    assert here.recovery.take(browser.pid, browser.place, NAMESPACE, HOLDER) is not None


def test_what_retention_has_taken_recovers_nothing(processes: list[Process]):
    """It would silently get less: it begins anew, and is told so."""
    here, _ = processes
    browser = Browser(here)
    browser.subscribe("room:a")
    post(here, 6, "room:a")
    browser.cut(2)
    here.stage.retire(2)
    assert browser.take(here) is not None, "all that it lacks is kept"
    here.stage.retire(3)
    assert browser.take(here) is None


def test_the_window_is_counted_from_the_end_of_the_connection(processes: list[Process], clock: Clock, monkeypatch):
    here, _ = processes
    monkeypatch.setattr(here.stage.store.writer, "_clock", clock)
    browser = Browser(here)
    clock.now += 5_000
    browser.cut()
    here.recovery.ended(browser.kept, for_good=False)
    here.recovery.stop()
    clock.now += 599
    assert browser.take(here) is not None
    kept = browser.kept
    kept.generation += 1
    here.recovery.ended(kept, for_good=False)
    here.recovery.stop()
    clock.now += 601
    assert browser.take(here) is None


def test_who_said_goodbye_has_no_session(processes: list[Process]):
    here, _ = processes
    browser = Browser(here)
    browser.cut()
    here.recovery.ended(browser.kept, for_good=True)
    here.recovery.stop()
    assert browser.take(here) is None


def test_the_end_of_a_former_connection_changes_nothing(processes: list[Process]):
    """It may be noticed long after its client has come back elsewhere."""
    here, there = processes
    browser = Browser(here)
    former = browser.kept
    browser.cut()
    browser.come_back(there)
    here.recovery.ended(former, for_good=True)
    here.recovery.stop()
    browser.cut()
    browser.come_back(here)


def test_the_process_of_a_former_connection_is_told_and_its_requests_are_refused(processes: list[Process]):
    here, there = processes
    browser = Browser(here)
    former, subscriber = browser.kept, browser.subscriber
    recovered = browser.take(there)
    assert recovered is not None
    assert recovered.kept.generation == former.generation + 1
    wait_until(lambda: bool(here.stage.published), "the news of it")
    event = here.stage.published[-1]
    assert (event.type, event.rooms) == (TAKEN, ())
    with pytest.raises(Unavailable, match="replaced"):
        here.recovery.save(former, HOLDER, subscriber)
    assert subscriber.closed, "if it is the one that its client reads, that one comes back"


def test_a_subscribe_that_can_not_be_stored_is_not_promised(processes: list[Process]):
    here, _ = processes
    post(here, 5, "room:a")
    browser = Browser(here)
    browser.subscribe("room:a", since=3)

    def fail() -> None:
        raise Unavailable("away", retry_after_seconds=1)

    for room, since in (("room:a", 0), ("room:b", 0), ("room:b", None)):
        past = None if since is None else Past(parse_offset(since))
        with pytest.raises(Unavailable):
            here.stage.catchup.subscribe(here.stage.hub, browser.subscriber, room, past, save=fail)
    assert set(browser.subscriber.rooms) == {"room:a"}
    assert browser.settled() == [4, 5]
    browser.subscribe("room:a", since=0)
    assert browser.settled() == [4, 5, 1, 2, 3]


def test_a_session_may_not_promise_without_end(processes: list[Process], monkeypatch: pytest.MonkeyPatch):
    here, _ = processes
    monkeypatch.setattr(catchup_module, "MAX_REPLAYS", 3)
    post(here, 9, "room:a")
    browser = Browser(here)
    for since in (7, 6, 5):
        browser.subscribe("room:a", since=since)
    with pytest.raises(TooManyRooms):
        browser.subscribe("room:a", since=4)
    assert browser.settled() == [8, 9, 7, 6]


@pytest.mark.parametrize("begun", [True, False], ids=["while it reads", "before it joins"])
def test_a_subscribe_under_way_when_the_connection_ends_forgets_no_room(processes: list[Process], begun: bool):
    """A request that outlives its connection finds a subscriber that was taken out of its rooms. Stored as it is then,
    the session would come back without them, and give anew what its client has of this one."""
    process = processes[0]
    browser = Browser(process)
    browser.subscribe("a")
    seqs = post(process, 3, "a", "b")
    process.stage.settle()
    if begun:
        asking = gevent.spawn(browser.subscribe, "b", 0)
        gevent.sleep(0)
        assert not asking.ready()
        browser.cut()
    else:
        browser.cut()
        asking = gevent.spawn(browser.subscribe, "b", 0)
    with pytest.raises(Unavailable):
        asking.get()
    browser.come_back(processes[1])
    seqs += post(process, 2, "a", "b")
    wait_until(lambda: len(browser.settled()) >= len(seqs), "the room's events come")
    assert browser.settled() == seqs
    assert set(browser.subscriber.rooms) == {"a"}


def test_a_room_that_was_lost_while_its_past_was_read_does_not_spoil_the_session(processes: list[Process]):
    """The first event of a deployment takes its room from who has no right to it, also in the middle of a subscribe."""
    here, there = processes
    post(here, 3, "room:a")
    browser = Browser(here)
    browser.subscribe("room:b")
    asking = gevent.spawn(browser.subscribe, "room:a", 0)
    gevent.sleep(0)
    assert not asking.ready()
    here.stage.hub.leave(browser.subscriber, "room:a")
    asking.join()
    post(here, 2, "room:b")
    browser.cut(0)
    browser.come_back(there)
    assert browser.settled() == [4, 5]
    assert set(browser.subscriber.rooms) == {"room:b"}


class Held:
    """A database whose reads wait for `gate`; of each that has begun `asked` knows."""

    def __init__(self, database: Database):
        self._database = database
        self.gate = Signal()
        self.asked = 0

    def read(self, query):
        self.asked += 1
        self.gate.wait()
        return self._database.read(query)


def test_a_room_whose_past_is_not_promised_yet_is_not_stored_with_another(processes: list[Process], monkeypatch):
    """Two subscribes at once, cut off between their commits: what came after would be sent before the past."""
    here, there = processes
    post(here, 3, "room:a")
    browser = Browser(here)
    held = Held(here.stage.store.database)
    monkeypatch.setattr(here.stage.catchup, "_database", held)
    with running(gevent.spawn(browser.subscribe, "room:a", 0)):
        wait_until(lambda: held.asked == 1, "its past is looked for")
        browser.subscribe("room:b")
        browser.cut()
    post(there, 2, "room:a")
    browser.come_back(there)
    browser.subscribe("room:a", 0)
    assert browser.settled() == [1, 2, 3, 4, 5]


def test_a_promise_that_can_not_be_stored_takes_no_other_along(processes: list[Process], monkeypatch):
    """Two subscribes at once, of which one fails: the other's past is owed all the same, also after a cut."""
    here, there = processes
    post(here, 3, "room:a")
    browser = Browser(here)
    held = Held(here.stage.store.database)
    monkeypatch.setattr(here.stage.catchup, "_database", held)
    failing = gevent.spawn(_fails, browser, "room:b")
    other = gevent.spawn(browser.subscribe, "room:a", 0)
    with running(failing, other):
        wait_until(lambda: held.asked == 2, "both pasts are looked for")
        held.gate.set()
        gevent.joinall([failing, other], raise_error=True)
        here.recovery.save(browser.kept, HOLDER, browser.subscriber)
        browser.cut(0)
    browser.come_back(there)
    assert browser.settled() == [1, 2, 3]


def _fails(browser: Browser, room: str) -> None:
    """Subscribe while the store doesn't answer, until the other subscribe was promised its past."""

    def save() -> None:
        wait_until(lambda: any(made.room != room for made in browser.subscriber.replays), "the other is promised")
        raise Unavailable("The store is away.")

    stage = browser.process.stage
    with pytest.raises(Unavailable):
        stage.catchup.subscribe(stage.hub, browser.subscriber, room, Past(parse_offset(0)), save=save)


def test_a_process_that_is_behind_waits_until_each_room_was_joined(processes: list[Process]):
    """What was published there before the room was joined here is not the client's."""
    here, there = processes
    browser = Browser(here)
    there.stage.tail.stop()
    post(here, 3, "room:a")
    browser.subscribe("room:a")
    browser.cut()
    recovered = browser.take(there)
    assert recovered is not None
    assert recovered.needs == 3


def test_sessions_that_were_never_stored_fill_no_memory(processes: list[Process], monkeypatch: pytest.MonkeyPatch):
    """While the store is away clients come again and again."""
    here, _ = processes
    monkeypatch.setattr("sidecar.fanout.recovery.NEVER_OPENED", 10)
    for _ in range(20):
        kept, _ = here.recovery.prepare(0)
        here.recovery.never_opened(kept)
    assert len(here.recovery._ended) == 10
    browser = Browser(here)
    browser.cut()
    here.recovery.ended(browser.kept, for_good=True)
    here.recovery.stop()
    assert browser.take(here) is None
