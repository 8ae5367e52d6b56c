"""A Redis list whose items are taken reliably, on a real Redis: whatever is refused or breaks off, none is lost and
none is there twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import redis

from sidecar.store import redis_list
from sidecar.store.redis import open_redis
from sidecar.store.redis_list import MOST_ITEMS, ReliableList
from tests.programs import wait_until
from tests.redis import PASSWORD, RedisServer

NAME = "deployment_notifications"
COMMANDS = ("blmove", "eval", "lindex", "llen", "lmove", "lpush", "lrem", "lset")
"""What docs/hosting.md says an ACL has to allow."""


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """What others push with."""
    with redis.Redis.from_url(redis_server.url) as client:
        yield client


@pytest.fixture
def source(redis_server: RedisServer) -> Iterator[ReliableList]:
    with open_redis(redis_server.url) as client:
        yield ReliableList(client, NAME, item_bytes=1_000)


def bodies(source: ReliableList) -> list[bytes]:
    return [item.body for item in source.take().items]


def drained(source: ReliableList) -> list[bytes]:
    """Take and remove until nothing is left; what came, in order."""
    found: list[bytes] = []
    while items := source.take().items:
        found += [item.body for item in items]
        source.remove(items)
    assert source.waiting() == 0
    return found


def test_the_first_pushed_comes_first_and_equal_items_are_several(source, client):
    client.lpush(NAME, "one", "two", "two")
    client.lpush(NAME, "", b"\xff\n\x00")
    taken = source.take()
    assert [item.body for item in taken.items] == [b"one", b"two", b"two", b"", b"\xff\n\x00"]
    assert taken.waiting == source.waiting() == 5
    assert len({item.id for item in taken.items}) == 5
    assert client.llen(NAME) == 0


def test_what_is_not_removed_comes_again_with_its_id_whoever_took_it(source, client, redis_server):
    client.lpush(NAME, "one", "two", "three")
    died = source.take().items
    client.lpush(NAME, "four")
    source.remove(died[:1])
    with open_redis(redis_server.url) as other:
        again = ReliableList(other, NAME, 1_000).take().items
    assert [item.body for item in again] == [b"two", b"three", b"four"]
    assert again[:2] == died[1:]


def test_what_another_removed_already_is_removed_once(source, client):
    client.lpush(NAME, "same", "same")
    first, second = source.take().items
    source.remove([first])
    source.remove([first])
    assert source.take().items == [second]


def test_there_is_a_bound_for_what_is_taken_at_once(source, client, monkeypatch: pytest.MonkeyPatch):
    client.lpush(NAME, *(str(number) for number in range(2 * MOST_ITEMS + 5)))
    assert len(source.take().items) == MOST_ITEMS
    assert client.llen(source.processing) == MOST_ITEMS
    monkeypatch.setattr(redis_list, "MOST_BYTES", 100)
    assert bodies(source) == [b"0", b"1"]
    monkeypatch.setattr(redis_list, "MOST_BYTES", 1)
    assert bodies(source) == [b"0"]
    assert drained(source) == [str(number).encode() for number in range(2 * MOST_ITEMS + 5)]


def test_too_large_ones_are_laid_aside_whole_and_told_in_their_place(source, client):
    client.lpush(NAME, "before", "x" * 1_001, "y" * 1_000, "z" * 1_001)
    items = source.take().items
    assert [(item.body[:6], item.too_large) for item in items] == [
        (b"before", None),
        (b"", 1_001),
        (b"yyyyyy", None),
        (b"", 1_001),
    ]
    assert client.lrange(source.large, 0, -1) == [b"z" * 1_001, b"x" * 1_001]
    source.remove(items)
    assert source.waiting() == 0


def test_what_looks_like_ours_gets_an_id_of_its_own(source, client):
    """Nobody outside chooses an id: it would make another item pass for a repetition."""
    client.lpush(NAME, "one")
    [item] = source.take().items
    client.lpush(NAME, item.entry)
    _, forged = source.take().items
    assert forged.body == item.entry
    assert forged.id != item.id


def test_what_lies_among_ours_without_a_label_gets_one(source, client):
    client.lpush(source.processing, "by hand", "by hand")
    items = source.take().items
    assert [item.body for item in items] == [b"by hand"] * 2
    assert source.take().items == items


def test_waiting_ends_with_an_item_and_changes_nothing(source, client, redis_server):
    source.wait(0.01)

    def wait() -> None:
        with open_redis(redis_server.url) as waiting:
            ReliableList(waiting, NAME, 1_000).wait(4)

    waits = [threading.Thread(target=wait) for _ in range(2)]
    for thread in waits:
        thread.start()
    wait_until(lambda: client.info("clients")["blocked_clients"] == 2, "both wait")
    client.lpush(NAME, "one", "two", "three")
    for thread in waits:
        thread.join()
    assert client.lrange(NAME, 0, -1) == [b"three", b"two", b"one"]


@pytest.mark.parametrize("key", ["processing", "too_large"])
def test_a_key_of_another_kind_is_told_and_nothing_moves(source, client, key):
    client.lpush(NAME, "x" * 1_001, "one")
    client.set(f"{{{NAME}}}:{key}", "a text")
    for _ in range(2):
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            source.take()
    assert client.llen(NAME) == 2
    client.delete(f"{{{NAME}}}:{key}")
    assert drained(source) == [b"", b"one"]
    assert client.lrange(source.large, 0, -1) == [b"x" * 1_001]


def test_a_list_that_is_none_is_told_and_what_was_taken_waits(source, client):
    client.lpush(NAME, "one")
    source.take()
    client.set(NAME, "a text")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        source.take()
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        source.wait(0.01)
    client.delete(NAME)
    assert drained(source) == [b"one"]


def test_without_memory_nothing_moves(source, client):
    client.lpush(NAME, "one", "two")
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis.OutOfMemoryError):
            source.take()
        assert client.lrange(NAME, 0, -1) == [b"two", b"one"]
        assert client.llen(source.processing) == 0
    finally:
        client.config_set("maxmemory", 0)
    assert drained(source) == [b"one", b"two"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_is_forbidden_loses_nothing_and_repeats_nothing(client, redis_server, command):
    allowed = [f"+{name}" for name in COMMANDS]
    rules = ["on", "+client|setname", f">{PASSWORD}", f"~{NAME}", f"~{{{NAME}}}:*", *allowed]
    client.execute_command("ACL", "SETUSER", "list", "reset", *rules, f"-{command}")
    client.lpush(NAME, "one", "x" * 1_001, "two")
    url = redis_server.url.replace("redis://:", "redis://list:")
    try:
        with open_redis(url) as limited:
            source = ReliableList(limited, NAME, 1_000)
            problems, came = [], []
            for _ in range(3):
                try:
                    items = source.take().items
                    source.remove(items)
                    came += [item.body for item in items]
                    source.wait(0.01)
                except redis.ResponseError as error:
                    problems.append(str(error))
            client.execute_command("ACL", "SETUSER", "list", f"+{command}")
            came += drained(source)
    finally:
        client.execute_command("ACL", "DELUSER", "list")
    assert problems
    assert all("permission" in problem or "can't run" in problem for problem in problems), problems
    assert [body for body in came if body] == [b"one", b"two"]
    assert client.lrange(source.large, 0, -1) == [b"x" * 1_001]


@pytest.mark.parametrize(
    ("name", "processing"),
    [("list", "{list}:processing"), ("{app}list", "{app}list:processing"), ("a:b", "{a:b}:processing")],
)
def test_the_lists_lie_in_one_slot(redis_server: RedisServer, name, processing):
    with open_redis(redis_server.url) as client:
        assert ReliableList(client, name, 1_000).processing == processing
