"""The doorbell over a real Redis: what comes to the others, what is refused, and what happens when Redis goes away."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import gevent.socket
import pytest
import redis.connection
from redis import Redis

import sidecar.fanout.redis_bell as redis_bell_module
from sidecar.domain.events import Event, Volatile
from sidecar.fanout.doorbells import LARGEST_BYTES, Batch, write_volatile
from sidecar.fanout.redis_bell import MAC_BYTES, RedisBell
from sidecar.store.redis import Pace, open_redis
from tests.fanout.ears import Ear
from tests.fanout.stages import wait_until
from tests.redis import RedisServer

KEY = b"k" * 32
EPOCH = "6ed2f221"
NEWS = Volatile("api_message", '{"type":"部署"}', "room:r", "2026-11-21T12:00:00.000Z")


def event(seq: int, payload: str = '{"name":"部署 \\u0000"}') -> Event:
    return Event(seq, 2**32 - 1, "step_started", payload, ("project:p",), "2026-11-21T12:00:00.000Z", "ada")


class Process:
    def __init__(self, url: str, node: str, epoch: str = EPOCH, key: bytes = KEY):
        self.client = open_redis(url)
        self.ear = Ear()
        self.news: list[Volatile] = []
        self.bell = RedisBell(self.client, node, epoch, key)
        self.bell.start(self.ear, self.news.append)

    def ready(self) -> Process:
        wait_until(lambda: self.bell.connected, "it tells and hears")
        assert self.ear.heard_of[:1] == [None], "whoever begins to listen looks once"
        return self

    @property
    def heard(self) -> list[list[Event] | int | None]:
        """Since it began to listen."""
        return self.ear.heard_of[1:]

    def close(self) -> None:
        self.bell.stop()
        self.client.close()


@pytest.fixture(autouse=True)
def cooperative(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server patches the whole of Python; here only what the driver connects with."""
    monkeypatch.setattr(redis.connection, "socket", gevent.socket)


@pytest.fixture
def process(redis_server: RedisServer) -> Iterator[Callable[..., Process]]:
    made: list[Process] = []

    def make(node: str, **options: object) -> Process:
        made.append(Process(redis_server.url, node, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def stranger(redis_server: RedisServer) -> Iterator[Redis]:
    """Somebody who knows Redis' password, and not our key."""
    with Redis.from_url(redis_server.url) as client:
        yield client


def test_the_others_hear_the_batch_as_it_is(process):
    one, two, three = (process(name).ready() for name in "abc")
    batch = [event(7), replace(event(8), target=None)]
    two.bell.ring(Batch(batch))
    wait_until(lambda: bool(one.heard and three.heard), "both have heard")
    assert one.heard == three.heard == [batch]
    assert two.heard == [], "its own is nothing new"


@pytest.mark.parametrize("size", [LARGEST_BYTES - 10, 4 * LARGEST_BYTES])
def test_of_a_large_batch_only_its_place_is_told(process, size: int):
    one, two = process("a").ready(), process("b").ready()
    two.bell.ring(Batch([event(7, json.dumps("x" * size))]))
    wait_until(lambda: bool(one.heard), "it is heard")
    assert one.heard == [7]


def test_what_is_known_already_is_not_even_read(process):
    """Processes of one host have heard it by their own doorbell."""
    one, two = process("a").ready(), process("b").ready()
    one.ear.last = 7
    two.bell.ring(Batch([event(6), event(7)]))
    two.bell.ring(Batch([event(8)]))
    wait_until(lambda: bool(one.heard), "what comes behind it")
    assert one.heard == [[event(8)]]
    assert (one.bell.heard, one.bell.refused) == (1, 0)


def test_volatile_news_comes_to_the_others_once(process):
    one, two = process("a").ready(), process("b").ready()
    assert one.bell.tell(NEWS)
    wait_until(lambda: two.news == [NEWS], "the other hears it")
    one.bell.ring(Batch([event(1)]))
    wait_until(lambda: two.heard == [[event(1)]], "what comes behind it")
    assert (one.news, two.news) == ([], [NEWS])


def test_volatile_news_is_dropped_first_and_counted(process, monkeypatch):
    monkeypatch.setattr(redis_bell_module, "WAITING_NEWS", 10)
    one, two = process("a").ready(), process("b").ready()
    for number in range(25):
        assert one.bell.tell(replace(NEWS, payload=f'"{number}"'))
    for seq in range(1, 31):
        one.bell.ring(Batch([event(seq)]))
    wait_until(lambda: len(two.heard) == 30 and len(two.news) == 10, "all batches, and the newest of the rest")
    assert two.heard == [[event(seq)] for seq in range(1, 31)]
    assert [news.payload for news in two.news] == [f'"{number}"' for number in range(15, 25)]
    assert one.bell.dropped == 15


@pytest.mark.parametrize("bound", ["WAITING_BATCHES", "WAITING_BATCH_BYTES"])
def test_when_too_many_batches_wait_their_place_is_told(process, monkeypatch, bound: str):
    monkeypatch.setattr(redis_bell_module, bound, 3)
    one, two = process("a").ready(), process("b").ready()
    for seq in range(1, 10):
        one.bell.ring(Batch([event(seq)]))
    wait_until(lambda: two.heard[-1:] == [9], "it is told how far the journal has come")


def test_who_was_not_started_rings_nobody(redis_server: RedisServer):
    """A command of the command line: the database tells the others."""
    bell = RedisBell(open_redis(redis_server.url), "cli", EPOCH, KEY)
    bell.ring(Batch([event(1)]))
    assert not bell.tell(NEWS)
    assert (bell.dropped, bell.connected, bell.carries) == (0, False, False)
    bell.stop()


def forged(kind: str, body: str, first: int = 1, last: int = 1, node: str = "x", epoch: str = EPOCH, key=KEY) -> bytes:
    """As a process with this key would publish it."""
    bell = RedisBell(Redis(), node, epoch, key)
    bell._number = 2**62
    return bell._message(kind, first, last, body)


ROWS = Batch([event(1)]).rows
assert ROWS is not None
GOOD = forged("batch", ROWS)
RUBBISH = {
    "empty": b"",
    "short": b"x" * 10,
    "no text": b"\xff" * 100,
    "no fields": b"x" * MAC_BYTES + b"batch\n[]",
    "no number": b"x" * MAC_BYTES + b"batch 6ed2f221 x one 1 1\n[]",
    "not signed": b"\0" * MAC_BYTES + GOOD[MAC_BYTES:],
    "another key": forged("batch", ROWS, key=b"j" * 32),
    "changed": GOOD[:-3] + b"x" + GOOD[-2:],
    "another journal": forged("batch", ROWS, epoch="11111111"),
    "signed, no JSON": forged("batch", "{"),
    "signed, no rows": forged("batch", "7"),
    "signed, no batch": forged("batch", f"[{ROWS[1:-1]},{ROWS[1:-1]}]"),
    "signed, no news": forged("news", '{"type":"t"}', 0, 0),
    "news of a stranger": forged("news", write_volatile(NEWS), key=b"j" * 32),
}


@pytest.mark.parametrize("name", RUBBISH)
def test_what_others_publish_is_refused_and_counted(process, stranger: Redis, name: str, monkeypatch):
    told = []
    monkeypatch.setattr(redis_bell_module.log, "warning", lambda *args, **facts: told.append(facts))
    one, two = process("a").ready(), process("b").ready()
    stranger.publish(f"sidecar:{EPOCH}", RUBBISH[name])
    two.bell.ring(Batch([event(1)]))
    wait_until(lambda: bool(one.heard), "what comes behind it")
    assert one.heard == [[event(1)]]
    assert (one.news, one.bell.refused, two.bell.refused, len(told)) == ([], 1, 1, 2)


def test_a_recorded_message_is_taken_once(process, stranger: Redis):
    """A replayed gauge would lie; a replayed batch has nothing new (test_tail)."""
    recorded: list[bytes] = []

    def record() -> bool:
        message = recorder.get_message(ignore_subscribe_messages=True)
        if message is not None:
            recorded.append(message["data"])
        return len(recorded) == 2

    with stranger.pubsub() as recorder:
        recorder.subscribe(f"sidecar:{EPOCH}")
        one, two = process("a").ready(), process("b").ready()
        two.bell.tell(NEWS)
        two.bell.tell(replace(NEWS, payload="2"))
        wait_until(lambda: len(one.news) == 2, "they are heard")
        wait_until(record, "they are recorded")
    for message in recorded:
        stranger.publish(f"sidecar:{EPOCH}", message)
    two.bell.tell(replace(NEWS, payload="3"))
    wait_until(lambda: len(one.news) == 3, "what comes behind them")
    assert [news.payload for news in one.news] == [NEWS.payload, "2", "3"]
    assert one.bell.refused == 2


def test_a_recorded_message_tells_nothing_to_a_process_that_began_later(process, stranger: Redis):
    one, two = process("a").ready(), process("b").ready()
    with stranger.pubsub(ignore_subscribe_messages=True) as recorder:
        recorder.subscribe(f"sidecar:{EPOCH}")
        recorder.get_message(timeout=60)
        two.bell.tell(NEWS)
        wait_until(lambda: one.news == [NEWS], "it came")
        recorded = recorder.get_message(timeout=60)
    three = process("c").ready()
    stranger.publish(f"sidecar:{EPOCH}", recorded["data"])
    two.bell.tell(replace(NEWS, payload="2"))
    wait_until(lambda: bool(three.news), "what comes behind it")
    assert [news.payload for news in three.news] == ["2"]


def test_news_of_a_host_whose_clock_is_late_comes_in_time(process):
    """Until its clock has come to where ours began, it can't be told from recorded news; batches are taken at once."""
    one, late = process("a").ready(), process("b").ready()
    late.bell._clock = lambda: 1.0
    late.bell.tell(NEWS)
    late.bell.ring(Batch([event(1)]))
    wait_until(lambda: one.heard == [[event(1)]], "the batch")
    assert one.news == []
    late.bell._clock = time.time
    late.bell.tell(NEWS)
    wait_until(lambda: one.news == [NEWS], "it is taken")


def test_another_journal_on_the_same_redis_is_not_heard(process):
    one, two, other = process("a").ready(), process("b").ready(), process("c", epoch="11111111").ready()
    other.bell.ring(Batch([event(1)]))
    two.bell.ring(Batch([event(2)]))
    wait_until(lambda: bool(one.heard), "its own journal's")
    assert one.heard == [[event(2)]]
    assert one.bell.refused == 0


def test_redis_goes_and_comes(process, redis_server: RedisServer):
    """Meanwhile ringing costs nothing; afterwards everybody looks, because nothing was kept."""
    one, two = process("a").ready(), process("b").ready()
    redis_server.stop()
    wait_until(lambda: not (one.bell.carries or two.bell.carries), "they notice")
    one.bell.ring(Batch([event(1)]))
    wait_until(lambda: not one.bell.connected, "it notices")
    one.bell.ring(Batch([event(2)]))
    dropped = one.bell.dropped
    assert not one.bell.tell(NEWS)
    assert one.bell.dropped == dropped + 1
    redis_server.start()
    wait_until(lambda: one.bell.connected and two.bell.connected, "they are back")
    before = len(two.heard)
    one.bell.ring(Batch([event(3)]))
    wait_until(lambda: two.heard[-1:] == [[event(3)]], "it is heard")
    assert None in two.heard[:before]
    assert two.news == []


def test_redis_that_says_nothing_any_more_is_left(process, redis_server: RedisServer, monkeypatch):
    monkeypatch.setattr(redis_bell_module, "QUIET_SECONDS", 0.05)
    one = process("a").ready()
    with redis_server.frozen():
        wait_until(lambda: not one.bell.carries, "it is given up")
    wait_until(lambda: one.bell.connected, "it is back")


@pytest.mark.parametrize("number", range(20))
def test_the_pace_of_tries(monkeypatch, number: int):
    waited = []
    monkeypatch.setattr(gevent, "sleep", waited.append)
    pace = Pace()
    for _ in range(10):
        pace.wait()
    assert max(waited) < 2
    assert waited[0] < 0.2 < waited[-1]
    pace.reset()
    pace.wait()
    assert waited[-1] < 0.2


def test_a_wrong_password_is_told_without_it(redis_server: RedisServer, monkeypatch):
    told = []
    monkeypatch.setattr(redis_bell_module.log, "warning", lambda *args, **facts: told.append(f"{args} {facts}"))
    one = Process(redis_server.url.replace("hunter2", "hunter3"), "a")
    wait_until(lambda: len(told) >= 2, "both sides say so")
    assert not one.bell.connected
    assert "hunter" not in " ".join(told)
    one.close()
