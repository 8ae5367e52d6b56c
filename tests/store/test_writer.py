"""The writer: one batch at a time, each command whole or not at all, answers only after the commit."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import gevent
import pytest
from gevent.event import AsyncResult
from sqlalchemy import event, insert, select
from sqlalchemy.exc import IntegrityError

from sidecar.domain.errors import NotFound, Unavailable
from sidecar.store.journal import Transaction, events_after, read_head
from sidecar.store.tables import projects
from sidecar.store.writer import Writer
from tests.alarms import alarm
from tests.servers import ROOT
from tests.store.stores import APPENDER, Place, Store, counted, open_journal


class Refused(Exception):
    """A command of these tests that does not want to."""


def add(number: int):
    return lambda transaction: transaction.append("fact", {"n": number}, [f"room:{number}"])


def fail_after_writing(number: int):
    def command(transaction: Transaction) -> None:
        _insert_project(transaction, f"ghost-{number}")
        transaction.append("ghost", {"n": number}, ["room:ghost"])
        transaction.append("ghost", {"n": number}, ["room:ghost"])
        raise Refused(str(number))

    return command


def _insert_project(transaction: Transaction, name: str) -> None:
    transaction.connection.execute(insert(projects).values(name=name, first_at="t", last_at="t"))


def _projects(store: Store) -> list[str]:
    return sorted(store.database.read(lambda c: c.execute(select(projects.c.name)).scalars().all()))


def test_seq_has_no_hole_whatever_commands_fail(store: Store):
    """A refused post between two good ones must leave neither a hole in seq nor a row of its own behind."""
    chooser = random.Random(7)
    fails = [chooser.random() < 0.5 for _ in range(200)]
    outcomes = store.submit_all(fail_after_writing(n) if bad else add(n) for n, bad in enumerate(fails))

    good = [n for n, bad in enumerate(fails) if not bad]
    assert store.seqs() == list(range(1, len(good) + 1))
    assert store.head() == len(good)
    assert [event.type for event in store.journal()] == ["fact"] * len(good)
    assert [str(outcome) for outcome, bad in zip(outcomes, fails, strict=True) if bad] == [
        str(n) for n, bad in enumerate(fails) if bad
    ]
    assert all(isinstance(outcome, Refused) for outcome, bad in zip(outcomes, fails, strict=True) if bad)
    assert _projects(store) == []
    assert store.room_rows() == {(f"room:{n}", seq) for seq, n in enumerate(good, 1)}


def test_an_integrity_error_costs_its_own_command_alone(store: Store):
    """IntegrityError, unlike a lost database, is the fault of one statement: the others of its batch must live."""

    def insert_project(name: str):
        def command(transaction: Transaction) -> int:
            event = transaction.append("project", {}, ["projects"])
            _insert_project(transaction, name)
            return event.seq

        return command

    outcomes = store.submit_all([insert_project("a"), insert_project("a"), insert_project("b"), insert_project("a")])
    assert outcomes[0] == 1
    assert outcomes[2] == 2
    assert isinstance(outcomes[1], IntegrityError)
    assert isinstance(outcomes[3], IntegrityError)
    assert _projects(store) == ["a", "b"]
    assert store.seqs() == [1, 2]


@pytest.mark.parametrize(
    ("type", "payload", "rooms"),
    [
        ("fact", {"text": "\ud800"}, ["room:a"]),
        ("fact\udfff", {}, ["room:a"]),
        ("fact", {}, ["room:\ud800"]),
        ("fact", {"n": float("nan")}, ["room:a"]),
        ("fact", {"n": float("inf")}, ["room:a"]),
    ],
    ids=["surrogate in payload", "surrogate in type", "surrogate in room", "NaN", "Infinity"],
)
def test_what_strict_json_cannot_hold_fails_its_command_and_not_the_batch(store: Store, type, payload, rooms):
    """A lone surrogate used to pass `append` and to break the insert of the whole batch just before its commit."""
    outcomes = store.submit_all([add(1), lambda transaction: transaction.append(type, payload, rooms), add(2)])
    assert isinstance(outcomes[1], ValueError)
    assert store.seqs() == [1, 2]


def test_commands_that_wait_together_are_committed_together(store: Store):
    with counted(store.database.engine, "commit") as commits:
        store.submit_all(add(number) for number in range(300))
    assert store.seqs() == list(range(1, 301))
    assert 1 <= commits[0] <= 10, "300 commands that wait at once are a few batches, not 300 commits"


def test_the_order_of_commands_is_the_order_of_seq_and_of_the_hand_over(store: Store):
    outcomes = store.submit_all(add(number) for number in range(500))
    assert [event.seq for event in outcomes] == list(range(1, 501)), "commands run in the order they came in"
    assert [event.seq for event in store.committed] == list(range(1, 501))
    assert store.journal() == outcomes


def test_an_answer_comes_after_the_commit_and_after_the_hand_over(place: Place):
    """A client that was answered 200 must find its event in any other connection, and the tail must have had it."""
    seen: list[tuple[int, int]] = []
    handed: list[int] = []
    store = Store(place, on_commit=lambda events: handed.extend(event.seq for event in events))
    other = open_journal(place)

    def post(number: int) -> None:
        seq = store.writer.submit(add(number)).seq
        assert seq in handed
        seen.append((seq, other.read(read_head).seq))

    gevent.joinall([gevent.spawn(post, number) for number in range(50)], raise_error=True)
    assert len(seen) == 50
    assert all(head >= seq for seq, head in seen)
    store.close()
    other.close()


def test_commits_get_through_while_the_event_loop_is_busy(store: Store):
    """The writer's thread shares the interpreter with the loop: a fan-out at full load must not starve it."""
    slices = 0

    def burn() -> None:
        nonlocal slices
        while True:
            sum(range(50_000))
            slices += 1
            gevent.sleep(1e-6)

    burning = gevent.spawn(burn)
    try:
        with alarm(60):
            seqs = [store.writer.submit(add(number)).seq for number in range(30)]
            crowd = store.submit_all(add(number) for number in range(30, 100))
    finally:
        burning.kill()
    assert slices
    assert seqs + [event.seq for event in crowd] == store.seqs() == list(range(1, 101))


def test_a_command_sees_what_those_before_it_did_in_the_same_batch(store: Store):
    """Merge rules decide inside the transaction, so that two posts of one batch can't both be the first."""

    def first_or_not(transaction: Transaction) -> str:
        if transaction.connection.execute(select(projects.c.name).where(projects.c.name == "p")).first():
            return "known"
        _insert_project(transaction, "p")
        return "first"

    assert store.submit_all([first_or_not] * 5) == ["first", *["known"] * 4]


class FailingDisk:
    """Connections opened while `statement` is set run it first: how a database is told to act like a bad disk."""

    def __init__(self, store: Store, statement: str):
        self._engine = store.database.engine
        self._statement = statement
        event.listen(self._engine, "connect", self._prepare)
        self._engine.dispose()
        store.writer._drop_connection()

    def repair(self) -> None:
        """New connections are well again; the writer has to come to one by itself."""
        event.remove(self._engine, "connect", self._prepare)
        self._engine.dispose()

    def _prepare(self, connection, _record) -> None:
        connection.execute(self._statement)
        connection.commit()


def test_a_full_disk_refuses_the_batch_whole_and_the_next_one_is_stored(tmp_path: Path):
    """503 and nothing half written; when there is room again the same process goes on without a restart. (A full
    PostgreSQL says so by an OperationalError too.)"""
    store = Store(tmp_path)
    store.append("room:a")
    before = (store.journal(), store.room_rows(), _projects(store))
    disk = FailingDisk(store, "PRAGMA max_page_count=1")

    def big(transaction: Transaction) -> None:
        _insert_project(transaction, f"big-{transaction.seq}")
        transaction.append("big", {"text": "x" * 200_000}, ["room:a", "room:b"])

    outcomes = store.submit_all([big, add(1), big])
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 3
    assert all(outcome.retry_after_seconds for outcome in outcomes)
    assert not store.writer.healthy
    assert (store.journal(), store.room_rows(), _projects(store)) == before
    assert len(store.committed) == 1, "nothing of a failed batch reaches the tail"

    disk.repair()
    store.writer.submit(big)
    assert store.writer.healthy
    assert store.seqs() == [1, 2]
    assert _projects(store) == ["big-1"]
    store.close()


def test_a_database_that_turned_read_only_is_unavailable_until_it_can_be_written_again(store: Store):
    read_only = "SET default_transaction_read_only = on" if store.place.is_postgres else "PRAGMA query_only=ON"
    disk = FailingDisk(store, read_only)
    for _ in range(3):
        with pytest.raises(Unavailable):
            store.append("room:a")
    assert store.seqs() == []
    disk.repair()
    assert store.append("room:a").seq == 1


def test_a_database_that_fails_in_mid_batch_fails_the_whole_batch(store: Store):
    """Some commands had run well before: they must not be answered as stored when the commit never came."""

    end = "SELECT pg_terminate_backend(pg_backend_pid())" if store.place.is_postgres else "PRAGMA query_only=ON"

    def fail(transaction: Transaction) -> None:
        transaction.connection.exec_driver_sql(end)
        _insert_project(transaction, "never")

    outcomes = store.submit_all([add(1), fail, add(2)])
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 3
    assert store.seqs() == []
    assert store.append("room:a").seq == 1


def test_an_expected_refusal_reaches_its_sender_as_it_was_raised(store: Store):
    def command(transaction: Transaction) -> None:
        raise NotFound("There is no such thing.")

    with pytest.raises(NotFound):
        store.writer.submit(command)


def test_a_full_queue_refuses_at_once(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sidecar.store.writer.QUEUE_COMMANDS", 3)
    store = Store(place, started=False)
    waiting = [gevent.spawn(store.writer.submit, add(number)) for number in range(3)]
    gevent.idle()
    assert store.writer.waiting == 3
    with pytest.raises(Unavailable):
        store.writer.submit(add(4))
    store.writer.start()
    gevent.joinall(waiting, raise_error=True)
    assert store.seqs() == [1, 2, 3]
    store.close()


def test_a_command_that_was_given_up_while_it_waited_does_not_happen_afterwards(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    """The sender was answered 503 and posts again: the first must not be stored as well."""
    monkeypatch.setattr("sidecar.store.writer.ANSWER_SECONDS", 0.01)
    store = Store(place, started=False)
    with pytest.raises(Unavailable):
        store.writer.submit(add(1))
    monkeypatch.undo()
    store.writer.start()
    assert store.append("room:second").rooms == ("room:second",)
    assert store.seqs() == [1]
    store.close()


def test_stopping_commits_what_waits_and_takes_nothing_more(place: Place):
    store = Store(place)
    posted = [gevent.spawn(store.writer.submit, add(number)) for number in range(20)]
    gevent.idle()
    store.writer.stop()
    assert [greenlet.get(timeout=5).seq for greenlet in posted] == list(range(1, 21))
    with pytest.raises(Unavailable):
        store.writer.submit(add(21))
    assert store.seqs() == list(range(1, 21))
    store.database.close()


def test_two_writers_of_one_process_share_the_journal(place: Place):
    one, two = Store(place), Store(place)
    posts = [gevent.spawn(store.append, "room:a", who=who) for _ in range(100) for who, store in ((1, one), (2, two))]
    gevent.joinall(posts, raise_error=True)
    assert sorted(post.value.seq for post in posts) == list(range(1, 201))
    assert one.seqs() == list(range(1, 201))
    assert {event.seq for event in one.committed} | {event.seq for event in two.committed} == set(range(1, 201))
    one.close()
    two.close()


def test_writers_of_several_processes_interleave_without_losing_or_repeating_a_seq(place: Place):
    """The command line and the server write to one database; both also migrate it at their start."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", APPENDER, place.url, str(place.folder), str(number)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    given = [[int(word) for word in output.split()] for output in outputs]
    assert all(seqs == sorted(seqs) for seqs in given)
    assert sorted(seq for seqs in given for seq in seqs) == list(range(1, 181))
    database = open_journal(place)
    assert [e.seq for e in database.read(lambda c: events_after(c, 0, 1000))] == list(range(1, 181))
    database.close()


def test_run_alone_commits_before_it_returns(place: Place):
    database = open_journal(place)
    writer = Writer(database, lambda events: None)
    assert writer.run_alone(add(1)).seq == 1
    with pytest.raises(Refused):
        writer.run_alone(fail_after_writing(2))
    assert writer.run_alone(add(3)).seq == 2
    assert database.read(read_head).seq == 2
    writer.stop()
    database.close()


def test_a_crowd_of_readers_queues_instead_of_running_the_pool_dry(store: Store):
    """After a restart thousands of sockets read at once; more readers than connections used to wait for the pool
    until it timed out and were told that the database is away."""
    store.append("room:a")
    answers = [AsyncResult() for _ in range(200)]
    readers = [gevent.spawn(lambda a: a.set(store.database.read(read_head).seq), answer) for answer in answers]
    gevent.joinall(readers, raise_error=True)
    assert [answer.get(block=False) for answer in answers] == [1] * 200
