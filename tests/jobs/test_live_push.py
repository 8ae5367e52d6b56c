"""The runner of live pushes: its beat, its lease, and sources that do their worst."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
import structlog

from sidecar.domain.access import Identity
from sidecar.domain.errors import Unavailable
from sidecar.domain.events import Volatile
from sidecar.jobs import live_push
from sidecar.jobs.live_push import LEASE, LEASE_SECONDS, MARGIN_SECONDS, MAX_BYTES, LivePushing
from sidecar.services import sources as sources_module
from sidecar.services.live_push import LivePushes
from sidecar.services.sources import InThread
from sidecar.store.leases import give_up_lease, take_lease
from sidecar.store.live_pushes import LivePushRow, list_live_pushes
from sidecar.wire.checks import read
from sidecar.wire.messages import StartPushBody, StopPushBody
from tests.fanout.stages import wait_until
from tests.store.stores import Store

WHO = Identity(kind="token", name="shop", scopes=frozenset({"push:manage"}), projects=None, token_id="t1", number=7)


class Process:
    """One process of an installation. `pushed` is what it published; `now` its monotonic clock."""

    def __init__(self, store: Store, node: str, sources: dict[str, Any]):
        self.now = 1_000.0
        self.pushed: list[Volatile] = []
        self.pushes = LivePushes(store.database, store.writer.submit, sources)
        self.job = LivePushing(
            self.pushes, store.writer.submit, node, self.pushed.append, lambda: 1_800_000_000.0, lambda: self.now
        )

    def start(self, room: str, source: str = "counts", interval: float = 0.2, who: Identity = WHO) -> LivePushRow:
        row, _ = self.pushes.start(
            who, None, read(StartPushBody, {"room": room, "source": source, "interval": interval})
        )
        return row

    def stop(self, room: str | None = None, who: Identity = WHO) -> list[str]:
        return self.pushes.stop(who, read(StopPushBody, {"room": room}))

    def rooms_pushed(self) -> set[str]:
        return {news.room for news in self.pushed}

    def look(self) -> None:
        self.job.look()
        gevent.idle()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path)
    yield made
    made.close()


@pytest.fixture
def now(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the writer takes for the present, in a list of one."""
    present = [1_800_000_000.0]
    monkeypatch.setattr(store.writer, "_clock", lambda: present[0])
    return present


@pytest.fixture
def process(store: Store, now: list[float], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Process]]:
    """(Its log is limited otherwise, over the tests.)"""
    monkeypatch.setattr(live_push, "log", structlog.get_logger("sidecar.live_push"))
    made: list[Process] = []

    def start(node: str = "a", **sources: Any) -> Process:
        made.append(Process(store, node, {"counts": lambda: {"type": "live_stats", "n": 1}} | sources))
        return made[-1]

    yield start
    for one in made:
        one.job._stop_all()


def beats(
    monkeypatch: pytest.MonkeyPatch, interval: float, jitter: float = 0.0, costs: tuple[float, ...] = (), count: int = 6
) -> list[float]:
    """The moments of the first `count` pushes of a room whose n-th push takes `costs[n]` seconds."""
    clock, at, left = [500.0], [], list(costs)

    class Enough(BaseException):
        pass

    class Source:
        def now(self, row: LivePushRow) -> dict[str, object]:
            at.append(round(clock[0] - 500.0, 6))
            if len(at) == count:
                raise Enough
            clock[0] += left.pop(0) if left else 0.0
            return {}

    def sleep(seconds: float) -> None:
        assert seconds >= 0
        clock[0] += seconds

    with monkeypatch.context() as patch:
        patch.setattr(live_push.random, "uniform", lambda low, high: low + jitter * (high - low))
        patch.setattr(live_push.gevent, "sleep", sleep)
        job = LivePushing(Source(), None, "a", lambda news: None, lambda: 0.0, lambda: clock[0])  # type: ignore[arg-type]
        job._held_until = 1e9
        with pytest.raises(Enough):
            job._push(LivePushRow("r", interval, "x", None, "s", 1, "", 1))
    return at


class TestBeat:
    def test_it_does_not_drift(self, monkeypatch):
        """What a push takes is part of its period."""
        assert beats(monkeypatch, 5.0, costs=(0.5, 1.0, 4.9, 0.1)) == [0, 5, 10, 15, 20, 25]

    def test_jitter_does_not_add_up(self, monkeypatch):
        assert beats(monkeypatch, 5.0, jitter=1.0) == [0, 5.25, 10.25, 15.25, 20.25, 25.25]
        assert beats(monkeypatch, 0.2, jitter=1.0) == [0, 0.22, 0.42, 0.62, 0.82, 1.02]

    def test_what_is_late_is_left_out(self, monkeypatch):
        assert beats(monkeypatch, 5.0, costs=(12.0,)) == [0, 15, 20, 25, 30, 35]

    def test_after_a_long_sleep_there_is_no_burst(self, monkeypatch):
        assert beats(monkeypatch, 0.2, costs=(3_600.1,), count=4) == [0, 3600.2, 3600.4, 3600.6]


def test_what_is_pushed_is_a_message(process):
    one = process()
    one.start("r")
    one.look()
    (news,) = one.pushed
    assert (news.type, news.room) == ("api_message", "room:r")
    message = json.loads(news.payload)
    assert message == {
        "content": "Live update",
        "sender": "shop",
        "sender_id": 7,
        "type": "live_stats",
        "n": 1,
        "timestamp": news.at,
    }


def test_a_source_can_not_say_who_and_when(process):
    one = process(liar=lambda: {"sender": "root", "sender_id": 0, "timestamp": "never", "x": 1})
    one.start("r", "liar")
    one.look()
    message = json.loads(one.pushed[0].payload)
    assert (message["sender"], message["sender_id"], message["x"]) == ("shop", 7, 1)
    assert message["timestamp"] == one.pushed[0].at


def test_one_greenlet_a_room_whatever_is_started_again(process):
    one = process()
    for interval in (0.2, 1, 5, 5):
        one.start("r", interval=interval)
        one.look()
    one.start("s")
    one.look()
    assert one.job.rooms == ["r", "s"]
    alive = [greenlet for greenlet in one.job._running.values() if not greenlet[1].dead]
    assert len(alive) == 2
    assert [row.interval_seconds for row in one.pushes.all()] == [5.0, 0.2]


def test_a_restart_changes_the_interval_and_keeps_the_beginning(process, now):
    one = process()
    first = one.start("r", interval=5)
    now[0] += 60
    second = one.start("r", interval=1)
    assert (second.interval_seconds, second.started_at) == (1.0, first.started_at)
    assert second.version > first.version
    assert one.pushes.all() == [second]


def test_it_stops_by_room_or_all_of_a_token(process):
    one = process()
    other = Identity(kind="token", name="b", scopes=frozenset({"push:manage"}), projects=None, token_id="t2")
    for room in ("a", "b", "c"):
        one.start(room)
    one.start("d", who=other)
    one.look()
    assert one.stop("never") == []
    assert one.stop("a") == ["a"]
    assert one.stop("a") == []
    assert one.stop() == ["b", "c"]
    one.look()
    assert one.job.rooms == ["d"]
    assert one.stop("d") == ["d"], "by its name anybody with the right"
    one.look()
    assert one.job.rooms == []


def test_a_browser_stops_nothing_outside_its_rooms(process):
    """It goes by the token that issued its own."""
    one = process()
    browser = Identity(
        kind="connection",
        name="ada",
        scopes=frozenset({"push:manage"}),
        projects=None,
        patterns=("room:mine*",),
        token_id="t1",
    )
    for room in ("mine", "theirs"):
        one.start(room)
    assert one.stop(who=browser) == ["mine"]
    assert [row.room for row in one.pushes.all()] == ["theirs"]


def deep() -> dict[str, Any]:
    made: dict[str, Any] = {}
    for _ in range(100_000):
        made = {"a": made}
    return made


def raising() -> dict[str, Any]:
    raise RuntimeError("no figures")


WORST: dict[str, Callable[[], Any]] = {
    "raises": raising,
    "exits": lambda: exit(3),
    "no mapping": lambda: [1],
    "nothing": lambda: None,
    "a set": lambda: {"x": {1}},
    "not a number": lambda: {"x": float("nan")},
    "infinity": lambda: {"x": float("inf")},
    "surrogate": lambda: {"x": "\ud800"},
    "too large": lambda: {"x": "x" * MAX_BYTES},
    "too large in bytes": lambda: {"x": "ü" * (MAX_BYTES // 2)},
    "too deep": deep,
    "bytes": lambda: {"x": b"x"},
}


@pytest.mark.parametrize("what", WORST)
def test_a_bad_source_is_logged_and_costs_nobody_anything(process, capsys, what: str):
    one = process(bad=InThread(WORST[what]))
    for room in ("a", "z"):
        one.start(room)
    one.start("m", "bad")
    one.job.look()
    wait_until(lambda: "live_push." in capsys.readouterr().out, "it is logged")
    assert one.rooms_pushed() == {"room:a", "room:z"}
    assert all(not greenlet.dead for _, greenlet in one.job._running.values())


def test_a_source_that_hangs_costs_nobody_anything(process, monkeypatch, capsys):
    monkeypatch.setattr(sources_module, "SOURCE_SECONDS", 0.02)
    gate = threading.Event()
    one = process(
        **{f"hangs-{number}": InThread(lambda: {"x": gate.wait(60)}) for number in range(8)}, good=InThread(dict)
    )
    for number in range(8):
        one.start(f"h{number}", f"hangs-{number}")
    one.start("good", "good")
    one.job.look()
    try:
        wait_until(lambda: one.rooms_pushed() == {"room:good"}, "the good one")
        wait_until(lambda: "live_push.source_failed" in capsys.readouterr().out, "it is logged")
        assert all(not greenlet.dead for _, greenlet in one.job._running.values())
    finally:
        gate.set()


def test_a_source_that_is_gone_is_logged(process, store, capsys):
    """It was a function of settings that have changed."""
    process(old=dict).start("r", "old")
    one = process("b")
    one.look()
    assert one.pushed == []
    assert "live_push.no_source" in capsys.readouterr().out


class TestLease:
    def test_one_process_alone_runs_them(self, process):
        one, two = process("a"), process("b")
        one.start("r")
        for each in (one, two, one, two):
            each.look()
        assert (one.job.rooms, two.job.rooms) == (["r"], [])
        assert (len(one.pushed), two.pushed) == (1, [])

    def test_another_takes_over_at_once_from_one_that_stops(self, process):
        one, two = process("a"), process("b")
        one.start("r")
        one.job.start()
        wait_until(lambda: one.job.rooms == ["r"], "it runs")
        one.job.stop()
        two.look()
        assert (one.job.rooms, two.job.rooms) == ([], ["r"])

    def test_another_takes_over_from_one_that_died(self, process, now):
        one, two = process("a"), process("b")
        one.start("r")
        one.look()
        two.look()
        assert two.job.rooms == []
        now[0] += LEASE_SECONDS + 1
        two.look()
        assert two.job.rooms == ["r"]

    def test_a_frozen_holder_pushes_nothing_when_it_wakes(self, process, now):
        """It has not looked yet, and another has taken over long ago."""
        one, two = process("a"), process("b")
        one.start("r")
        one.look()
        one.pushed.clear()
        one.now += LEASE_SECONDS
        now[0] += LEASE_SECONDS + 1
        two.look()
        late = gevent.spawn(one.job._push, one.job._running["r"][0])
        gevent.idle()
        assert one.pushed == []
        one.look()
        assert (one.job.rooms, two.job.rooms) == ([], ["r"])
        assert one.pushed == []
        late.kill()

    @pytest.mark.parametrize(
        ("held", "pushes"), [(LEASE_SECONDS - MARGIN_SECONDS - 0.1, 1), (LEASE_SECONDS - MARGIN_SECONDS, 0)]
    )
    def test_it_stops_before_its_lease_ends(self, process, held: float, pushes: int):
        one = process()
        row = one.start("r")
        one.look()
        one.pushed.clear()
        one.now += held
        beat = gevent.spawn(one.job._push, row)
        gevent.idle()
        beat.kill()
        assert len(one.pushed) == pushes

    def test_it_is_renewed_in_time(self, process, store, now):
        one, two = process("a"), process("b")
        one.start("r")
        for _ in range(10):
            one.look()
            two.look()
            one.now += live_push.KEEP_SECONDS
            two.now += live_push.KEEP_SECONDS
            now[0] += live_push.KEEP_SECONDS
        assert (one.job.rooms, two.job.rooms) == (["r"], [])

    def test_a_holder_without_a_database_goes_on_until_the_margin(self, process, monkeypatch):
        one = process()
        one.start("r")
        one.look()

        def away(command: object) -> None:
            raise Unavailable("away")

        monkeypatch.setattr(one.job, "_submit", away)
        one.now += live_push.KEEP_SECONDS
        with pytest.raises(Unavailable):
            one.job.look()
        assert one.job.rooms == ["r"]

    def test_a_lease_given_away_meanwhile_is_noticed(self, process, store):
        one = process()
        one.start("r")
        one.look()
        fence = one.job._fence
        store.writer.submit(lambda t: give_up_lease(t, LEASE, fence))
        assert store.writer.submit(lambda t: take_lease(t, LEASE, "other", 60)) == fence + 1
        one.now += live_push.KEEP_SECONDS
        one.look()
        assert one.job.rooms == []


def test_it_outlives_the_process(process, store):
    process().start("r", interval=3)
    assert [row.room for row in store.database.read(list_live_pushes)] == ["r"]
    two = process("b")
    two.look()
    assert two.job.rooms == ["r"]
