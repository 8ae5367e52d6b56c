"""The timing wheel: each item at its time or later, again if it asks, and nobody waits for somebody's fault."""

from __future__ import annotations

import time
from collections.abc import Iterator

import gevent
import pytest

from sidecar.fanout import clock as clock_module
from sidecar.fanout.clock import Wheel
from tests.fanout.stages import wait_until


@pytest.fixture
def wheel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wheel]:
    monkeypatch.setattr(clock_module, "TICK_SECONDS", 0.01)
    made = Wheel(gevent.get_hub().loop)
    yield made
    made.close()


class Item:
    def __init__(self, wheel: Wheel, delay: float, log: list[str], name: str, again: list[float] | None = None):
        self.expected = time.monotonic() + delay
        self.log, self.name, self.again = log, name, again or []
        self.early = False
        wheel.add(delay, self)

    def due(self) -> float | None:
        self.early |= time.monotonic() < self.expected
        self.log.append(self.name)
        if not self.again:
            return None
        delay = self.again.pop(0)
        self.expected = time.monotonic() + delay
        return delay


def test_items_come_in_the_order_of_their_times_and_never_early(wheel: Wheel):
    log: list[str] = []
    items = [Item(wheel, delay, log, name) for name, delay in (("c", 0.09), ("a", 0.0), ("b", 0.045))]
    wait_until(lambda: len(log) == 3, "all were asked")
    assert log == ["a", "b", "c"]
    assert not any(item.early for item in items)


def test_an_item_comes_again_as_often_as_it_says(wheel: Wheel):
    log: list[str] = []
    item = Item(wheel, 0.01, log, "x", again=[0.02, 0.0, 0.03])
    wait_until(lambda: len(log) == 4, "it came four times")
    wait_until(lambda: not wheel._ticking, "the wheel stands still with nothing to wait for")
    assert log == ["x"] * 4
    assert not item.early


def test_an_idle_wheel_starts_again(wheel: Wheel):
    log: list[str] = []
    Item(wheel, 0.0, log, "first")
    wait_until(lambda: log == ["first"] and not wheel._ticking, "it stands still")
    Item(wheel, 0.0, log, "second")
    wait_until(lambda: log == ["first", "second"], "it turns again")


def test_a_fault_of_one_costs_the_others_nothing(wheel: Wheel, capsys):
    class Faulty:
        def due(self) -> None:
            raise RuntimeError("x")

    log: list[str] = []
    wheel.add(0.0, Faulty())
    Item(wheel, 0.0, log, "sound")
    wait_until(lambda: log == ["sound"], "the other was asked")
    assert "clock.item_failed" in capsys.readouterr().out


def test_a_crowd_leaves_turns_to_the_loop(wheel: Wheel):
    """Thousands of pings of one moment: other work gets in between."""
    log: list[str] = []
    for number in range(5 * clock_module.ITEMS_A_TURN):
        Item(wheel, 0.0, log, str(number))
    seen: list[int] = []

    def look() -> None:
        while len(log) < 5 * clock_module.ITEMS_A_TURN:
            seen.append(len(log))
            gevent.sleep(0.000001)

    gevent.spawn(look).join(timeout=20)
    assert log == [str(number) for number in range(5 * clock_module.ITEMS_A_TURN)]
    assert any(0 < count < len(log) for count in seen)
