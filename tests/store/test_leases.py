"""One runner for each periodic job: leases with fencing, and the processes that are known."""

from __future__ import annotations

import pytest
from sqlalchemy import insert, select

from sidecar.domain.times import unix_seconds, utc_text
from sidecar.store.leases import keep_lease, take_lease
from sidecar.store.nodes import add_node, forget_nodes, other_nodes, remove_node, touch_node
from sidecar.store.sessions import end_orphans, retire_sessions
from sidecar.store.tables import nodes, sessions

SECONDS = 100


@pytest.fixture
def now(store, monkeypatch) -> list[float]:
    """What the writer takes for the present, in a list of one."""
    present = [1_800_000_000.0]
    monkeypatch.setattr(store.writer, "_clock", lambda: present[0])
    return present


def take(store, owner: str) -> int | None:
    return store.writer.submit(lambda transaction: take_lease(transaction, "upkeep", owner, SECONDS))


def keep(store, fence: int) -> bool:
    return store.writer.submit(lambda transaction: keep_lease(transaction, "upkeep", fence, SECONDS))


def test_one_holds_it_and_goes_on_holding_it(store, now):
    assert take(store, "a") == 1
    assert take(store, "b") is None
    now[0] += 60
    assert take(store, "a") == 1
    now[0] += 60
    assert take(store, "b") is None, "it was held for a while longer"
    assert keep(store, 1)


def test_another_takes_over_when_it_has_run_out_and_the_former_changes_nothing_more(store, now):
    assert take(store, "a") == 1
    now[0] += SECONDS
    assert not keep(store, 1), "nobody has taken it, but it could have been"
    assert take(store, "b") == 2
    assert not keep(store, 1)
    assert keep(store, 2)
    assert take(store, "a") is None


def test_who_let_it_run_out_gets_another_fence(store, now):
    """Whatever it began under the old one may lie behind what others did meanwhile."""
    assert take(store, "a") == 1
    now[0] += SECONDS + 1
    assert take(store, "a") == 2


def test_names_have_leases_of_their_own(store, now):
    assert take(store, "a") == 1
    assert store.writer.submit(lambda transaction: take_lease(transaction, "other", "b", SECONDS)) == 1


def test_a_process_that_is_silent_is_forgotten_and_learns_of_it(store, now):
    def command(function, *arguments):
        return store.writer.submit(lambda transaction: function(transaction.connection, *arguments))

    command(add_node, "a", utc_text(now[0]))
    command(add_node, "b", utc_text(now[0]))
    others = store.database.read(lambda c: other_nodes(c, "c"))
    assert others == {"a": utc_text(now[0]), "b": utc_text(now[0])}
    assert store.database.read(lambda c: other_nodes(c, "a")).keys() == {"b"}
    assert command(touch_node, "b", utc_text(now[0] + 50))
    assert command(forget_nodes, others) == ["a"], "who has said something since stays"
    assert command(forget_nodes, {}) == []
    assert not command(touch_node, "a", utc_text(now[0] + 60))
    assert command(touch_node, "b", utc_text(now[0] + 60))
    command(remove_node, "b")
    assert store.database.read(lambda c: c.execute(select(nodes.c.id)).scalars().all()) == []


def test_sessions_without_a_process_end_and_are_deleted_when_their_time_is_over(store, now):
    def add(connection, pid: bytes, owner: str, ended_at: str | None) -> None:
        values = {"sid": "s", "namespace": "/", "holder": "h", "state": "{}", "generation": 1}
        connection.execute(insert(sessions).values(pid_hash=pid, owner=owner, ended_at=ended_at, **values))

    def fill(transaction) -> None:
        add_node(transaction.connection, "lives", transaction.now)
        add(transaction.connection, b"live", "lives", None)
        add(transaction.connection, b"away", "lives", utc_text(now[0] - 5))
        add(transaction.connection, b"old", "lives", utc_text(now[0] - 50))
        for number in range(3):
            add(transaction.connection, b"orphan%d" % number, "died", None)

    store.writer.submit(fill)
    at = utc_text(now[0])
    assert store.writer.submit(lambda transaction: end_orphans(transaction.connection, at, 2)) == 2
    assert store.writer.submit(lambda transaction: end_orphans(transaction.connection, at, 2)) == 1
    before = utc_text(now[0] - 10)
    assert store.writer.submit(lambda transaction: retire_sessions(transaction.connection, before, 10)) == 1
    rows = store.database.read(lambda c: c.execute(select(sessions.c.pid_hash, sessions.c.ended_at)).all())
    assert {bytes(row.pid_hash): row.ended_at and unix_seconds(row.ended_at) for row in rows} == {
        b"live": None,
        b"away": now[0] - 5,
        b"orphan0": now[0],
        b"orphan1": now[0],
        b"orphan2": now[0],
    }
