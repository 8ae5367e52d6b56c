"""Rows of bots, on both databases."""

from __future__ import annotations

from functools import partial
from typing import Any

import gevent
import pytest
from sqlalchemy import select

from sidecar.domain.maim import DUPLICATE_SECONDS, Place
from sidecar.domain.times import utc_text
from sidecar.store.journal import Transaction
from sidecar.store.maim import (
    PAGE,
    PAGE_CHARACTERS,
    ConnectionRow,
    KeyRow,
    anything_queued,
    connections_of_others,
    count_queued,
    enqueue,
    find_key,
    find_key_by_id,
    first_seen,
    holder_of,
    insert_key,
    list_keys,
    mark_key_revoked,
    put_connection,
    queued_after,
    remove_connections,
    remove_queued,
    retire_queued,
    retire_seen,
)
from sidecar.store.nodes import add_node, forget_nodes, remove_node, touch_node
from sidecar.store.tables import maim_connections, maim_keys, maim_queue, maim_seen
from tests.store.stores import Store

NOW = 1_800_000_000.0
HERE = Place("t", "bob", "qq")


def at(seconds: float) -> str:
    return utc_text(NOW + seconds)


def do(store: Store, act: Any, *args: Any) -> Any:
    return store.writer.submit(lambda transaction: act(transaction.connection, *args))


def seen(store: Store, message: bytes, seconds: float = 0) -> bool:
    """Does it come for the first time, so many seconds from now?"""
    return bool(do(store, first_seen, message, at(seconds), at(seconds - DUPLICATE_SECONDS)))


def new(message: bytes, transaction: Transaction) -> bool:
    return first_seen(transaction.connection, message, at(0), at(-1))


def test_a_message_is_new_once_in_an_hour(store):
    assert seen(store, b"a")
    assert not seen(store, b"a")
    assert seen(store, b"b")
    assert not seen(store, b"a", DUPLICATE_SECONDS)
    assert seen(store, b"a", DUPLICATE_SECONDS + 0.001)
    assert not seen(store, b"a", DUPLICATE_SECONDS + 1)


def test_a_command_that_fails_has_not_seen_it(store):
    def fail(transaction: Transaction) -> None:
        assert first_seen(transaction.connection, b"a", at(0), at(-1))
        raise ValueError

    def well(transaction: Transaction) -> bool:
        return first_seen(transaction.connection, b"b", at(0), at(-1))

    assert [type(one) for one in store.submit_all([fail, well])] == [ValueError, bool]
    assert seen(store, b"a")
    assert not seen(store, b"b")


def test_of_many_at_once_one_is_the_first(store):
    """In one process and in two."""
    found = store.submit_all([partial(new, b"a")] * 20)
    assert sorted(found) == [False] * 19 + [True]
    other = Store(store.place)
    try:
        commands = [partial(new, b"%d" % (number // 4)) for number in range(40)]
        both = [gevent.spawn(one.submit_all, commands[begin::2]) for begin, one in enumerate((store, other))]
        gevent.joinall(both, raise_error=True)
        assert sum(both[0].value + both[1].value) == 10
    finally:
        other.close()


def test_what_came_long_ago_is_forgotten(store):
    for seconds in range(5):
        seen(store, b"%d" % seconds, seconds)
    retire = lambda transaction: retire_seen(transaction, at(3), 2)  # noqa: E731
    assert [store.writer.submit(retire) for _ in range(3)] == [2, 1, 0]
    left = store.database.read(lambda connection: connection.execute(select(maim_seen.c.message)).scalars().all())
    assert sorted(map(bytes, left)) == [b"3", b"4"]


def key(id: str, **more: Any) -> KeyRow:
    return KeyRow(
        **{"id": id, "tenant": "t", "user": "u", "platforms": None, "name": "n", "created_at": at(0)} | more,
        revoked_at=None,
    )


def test_keys_come_back_as_they_went_in(store):
    rows = [
        key("a", platforms=("微信", 'q"q'), user="ü '\"; --", name="\U0001f916"),
        key("b", platforms=()),
        key("c", created_at=at(-1)),
    ]
    assert [do(store, insert_key, row, row.id.encode()) for row in rows] == [True] * 3
    assert not do(store, insert_key, key("d"), b"a"), "there is this key"
    assert store.database.read(list_keys) == [rows[2], rows[0], rows[1]]
    assert store.database.read(lambda c: find_key(c, b"b")) == rows[1]
    assert store.database.read(lambda c: find_key_by_id(c, "b")) == rows[1]
    assert store.database.read(lambda c: find_key(c, b"B")) is None
    do(store, mark_key_revoked, "a", at(9))
    assert store.database.read(lambda c: find_key(c, b"a")).revoked_at == at(9)
    assert not do(store, insert_key, key("e"), b"a"), "nor is one that was revoked taken again"
    assert store.database.read(lambda c: len(c.execute(select(maim_keys)).all())) == 3


def row(uuid: str, node: str, **more: Any) -> ConnectionRow:
    fields = {"key_id": "k", "tenant": "t", "user": "u", "platform": "qq", "line": "websocket", "opened_at": at(0)}
    return ConnectionRow(uuid, node, **fields | more)


def test_connections_count_while_their_process_lives(store):
    for node, seconds in (("one", 0), ("two", 0), ("old", -60)):
        do(store, add_node, node, at(seconds))
    rows = [row("a", "one"), row("b", "two", key_id=None), row("c", "old"), row("d", "never there")]
    for one in rows:
        do(store, put_connection, one)

    def others(node: str, since: float = -30) -> list[ConnectionRow]:
        return store.database.read(lambda c: connections_of_others(c, node, at(since)))

    assert others("one") == [rows[1]]
    assert others("three") == rows[:2]
    assert others("three", -60) == rows[:3]
    assert store.database.read(lambda c: holder_of(c, "a", at(0))) == rows[0]
    assert store.database.read(lambda c: holder_of(c, "c", at(0))) is None
    do(store, touch_node, "old", at(0))
    assert store.database.read(lambda c: holder_of(c, "c", at(0))) == rows[2]
    do(store, remove_node, "two")
    left = store.database.read(lambda c: sorted(c.execute(select(maim_connections.c.uuid)).scalars()))
    assert left == ["a", "c"], "of nodes that are gone nothing is left"
    assert do(store, forget_nodes, {"one": at(-1), "old": at(0)}) == ["old"]
    assert others("x", -100) == [rows[0]]


def test_a_name_is_one_connection_and_struck_out_by_its_holder_alone(store):
    for node in ("one", "two"):
        do(store, add_node, node, at(0))
    do(store, put_connection, row("u", "one"))
    do(store, put_connection, row("u", "two", platform="wechat"))
    do(store, remove_connections, "one", ["u", "another"])
    assert store.database.read(lambda c: holder_of(c, "u", at(0))) == row("u", "two", platform="wechat")
    do(store, remove_connections, "two", ["u"])
    assert store.database.read(lambda c: holder_of(c, "u", at(0))) is None


def queue(store: Store, *seqs: int, place: Place = HERE, sealed: str = "x", seconds: float = 10) -> None:
    for seq in seqs:
        do(store, enqueue, seq, f"m{seq}", place, sealed, at(seconds))


def page(store: Store, after: int = 0, seconds: float = 0, place: Place = HERE) -> list[int]:
    return [one.seq for one in store.database.read(lambda c: queued_after(c, place, after, at(seconds)))]


def test_what_waits_is_read_in_order_for_its_place_until_its_time_is_over(store):
    queue(store, 3, 1, 2)
    queue(store, 4, seconds=5)
    for number, other in enumerate([Place("T", "bob", "qq"), Place("t", "Bob", "qq"), Place("t", "bob", "QQ")]):
        queue(store, 10 + number, place=other)
        assert page(store, place=other) == [10 + number]
    assert page(store) == [1, 2, 3, 4]
    assert page(store, after=2) == [3, 4]
    assert page(store, seconds=5) == [1, 2, 3]
    assert do(store, count_queued, HERE, at(5)) == 4, "of the user, on whatever platform"
    assert [do(store, anything_queued, HERE, at(seconds)) for seconds in (9, 10)] == [True, False]
    do(store, remove_queued, [2, 99])
    assert page(store) == [1, 3, 4]
    do(store, remove_queued, [])


def test_it_is_read_by_the_page(store):
    queue(store, *range(1, PAGE + 3))
    assert page(store) == list(range(1, PAGE + 1))
    assert page(store, after=PAGE) == [PAGE + 1, PAGE + 2]


def test_a_page_is_bounded_in_size_and_never_empty(store):
    """Fifty messages of a hundred MiB would not fit into the memory."""
    third = "x" * (PAGE_CHARACTERS // 3 + 1)
    queue(store, 1, 2, 3, 4, sealed=third)
    queue(store, 5, sealed="x" * (PAGE_CHARACTERS + 1))
    queue(store, 6)
    assert page(store) == [1, 2, 3]
    assert page(store, after=4) == [5]
    assert page(store, after=5) == [6]


def test_what_is_over_is_forgotten_in_chunks(store):
    clock = lambda: NOW + 5  # noqa: E731
    store.writer._clock = clock
    queue(store, 1, 2, 3, seconds=5)
    queue(store, 4, seconds=5.001)
    retire = lambda transaction: retire_queued(transaction, 2)  # noqa: E731
    assert [store.writer.submit(retire) for _ in range(3)] == [2, 1, 0]
    assert store.database.read(lambda c: c.execute(select(maim_queue.c.seq)).scalars().all()) == [4]


@pytest.mark.parametrize("name", ["x" * 200, "\U0001f916" * 200, "微" * 200])
def test_the_longest_names_fit(store, name: str):
    """PostgreSQL's indexes hold some 2,700 bytes a row."""
    place = Place(name, name, name)
    queue(store, 1, place=place)
    assert page(store, place=place) == [1]
    assert do(store, insert_key, key("a", tenant=name, user=name, platforms=(name,) * 100, name=name), b"a")
