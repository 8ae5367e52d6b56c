"""How many connections an event is for, over the processes of one installation; several of them in this one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from config.settings import load_settings
from sidecar.core import open_core
from sidecar.fanout.hub import Subscriber
from sidecar.services import counting
from sidecar.services.counting import ASKED, COUNTED, Count, Counting
from sidecar.store.journal import Transaction, events_after
from sidecar.store.nodes import add_node, touch_node
from tests.fanout.recipients import CountingCodec, FakeRecipient

ROOM = "room:general"


class Process:
    def __init__(self, instance: Path):
        self.core = open_core(load_settings(instance_dir=instance), running=True)
        self.core.start()
        self.counting = Counting(self.core.database, self.core.writer.submit, self.core.node, self.core.hub)
        self.core.on_control(ASKED, self.counting.asked)
        self.core.on_control(COUNTED, self.counting.counted)
        self.node(self.core.node)

    def node(self, id: str) -> None:
        """A process that lives by its row."""
        self.core.writer.submit(lambda transaction: add_node(transaction.connection, id, transaction.now))

    def alive(self, id: str) -> None:
        """It says so."""

        def command(transaction: Transaction) -> None:
            assert touch_node(transaction.connection, id, f"{transaction.now} later")

        self.core.writer.submit(command)

    def joined(self, *users: str | None, room: str = ROOM) -> None:
        for user in users:
            self.core.hub.join(Subscriber(FakeRecipient(), CountingCodec(), 0, user=user), room, 0)

    def told(self) -> list[str]:
        """The types of the events in the journal."""
        return [event.type for event in self.core.database.read(lambda c: events_after(c, 0, 1_000))]


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Callable[[], Process]]:
    made: list[Process] = []

    def make() -> Process:
        made.append(Process(tmp_path))
        return made[-1]

    yield make
    for one in made:
        one.core.close()


@pytest.fixture(autouse=True)
def _in_time() -> Iterator[None]:
    with gevent.Timeout(30, AssertionError("it waits for who will never answer")):
        yield


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for nobody's answer does it for longer than the test."""
    monkeypatch.setattr(counting, "DEADLINE_SECONDS", 60)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "DEADLINE_SECONDS", 0.2)


def test_each_process_counts_its_own(process, patient):
    one, two, three = process(), process(), process()
    one.joined("ada", "bob")
    two.joined("ada", None)
    three.joined("ada", room="room:other")
    assert one.counting.here([ROOM]) == 2
    assert two.counting.everywhere([ROOM]) == Count(4, 3, 3)
    assert two.counting.everywhere([ROOM, "room:other"], "ada") == Count(3, 3, 3)
    assert three.counting.everywhere([]) == Count(0, 3, 3)


def test_who_is_alone_asks_nobody(process, patient):
    one = process()
    one.joined("ada")
    assert one.counting.everywhere([ROOM]) == Count(1, 1, 1)
    assert one.told() == []


def test_many_questions_are_answered_together(process, patient):
    processes = [process() for _ in range(3)]
    for one in processes:
        one.joined("ada")
    asking = [gevent.spawn(one.counting.everywhere, [ROOM]) for one in processes for _ in range(30)]
    gevent.joinall(asking)
    assert {greenlet.value for greenlet in asking} == {Count(3, 3, 3)}
    told = processes[0].told()
    assert told.count(ASKED) == len(asking)
    assert told.count(COUNTED) < len(asking) * 2


@pytest.mark.parametrize("sign", ["a sign of life", "a late answer"])
def test_who_died_costs_the_deadline_once(process, monkeypatch, sign: str):
    """Its row stays for a while. It is waited for again when it has said anything."""
    monkeypatch.setattr(counting, "DEADLINE_SECONDS", 3)  # enough for the answer of the one that lives
    one, two = process(), process()
    one.node("dead")
    two.joined("ada")
    assert one.counting.everywhere([ROOM]) == Count(1, 3, 2)
    monkeypatch.setattr(counting, "DEADLINE_SECONDS", 60)
    assert one.counting.everywhere([ROOM]) == Count(1, 3, 2)
    said: dict[str, Any] = {"node": "dead", "counts": {}}
    if sign == "a late answer":
        late = one.core.writer.submit(lambda transaction: transaction.append(COUNTED, dict(said), ()))
        one.core.tail.reach(late.seq)
    else:
        one.alive("dead")
    waiting = gevent.spawn(one.counting.everywhere, [ROOM])
    while not said["counts"]:
        gevent.sleep(0.01)
        said["counts"] = dict.fromkeys(one.counting._questions, 5)
    assert not waiting.ready()
    two.core.writer.submit(lambda transaction: transaction.append(COUNTED, said, ()))
    assert waiting.get() == Count(6, 3, 3)


def test_beyond_a_bound_nobody_else_is_asked(process, hasty, monkeypatch):
    one = process()
    one.node("dead")
    one.joined("ada")
    monkeypatch.setattr(counting, "MAX_QUESTIONS", 2)
    asking = [gevent.spawn(one.counting.everywhere, [ROOM]) for _ in range(4)]
    gevent.joinall(asking)
    assert [greenlet.value for greenlet in asking] == [Count(1, 2, 1)] * 2 + [Count(1, None, 1)] * 2
    assert one.told().count(ASKED) == 2
    assert one.counting.everywhere([ROOM]) == Count(1, 2, 1), "those have come to their end"


def test_what_can_not_be_asked_is_no_error(process, patient):
    one, two = process(), process()
    one.joined("ada")
    two.joined("ada")
    one.core.writer.stop()
    assert one.counting.everywhere([ROOM]) == Count(1, 2, 1)


def test_who_can_not_answer_is_waited_for_in_vain(process, hasty):
    one, two = process(), process()
    one.joined("ada")
    two.joined("ada")
    two.core.writer.stop()
    assert one.counting.everywhere([ROOM]) == Count(1, 2, 1)
