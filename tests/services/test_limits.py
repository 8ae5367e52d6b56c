"""The token bucket, on a clock of the test's own."""

from __future__ import annotations

import pytest

from sidecar.domain.errors import RateLimited
from sidecar.services.limits import MAX_CALLERS, RateLimit


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def taken(limit: RateLimit, caller: str, times: int) -> int:
    """How many of so many requests at once are let through."""
    through = 0
    for _ in range(times):
        try:
            limit.take(caller)
        except RateLimited:
            continue
        through += 1
    return through


def test_a_burst_is_let_through_and_then_the_rate(clock):
    limit = RateLimit(2, 5, clock)
    assert taken(limit, "a", 20) == 5
    clock.now += 1
    assert taken(limit, "a", 20) == 2
    clock.now += 0.5
    assert taken(limit, "a", 20) == 1
    clock.now += 3_600
    assert taken(limit, "a", 20) == 5, "a bucket never holds more than its burst"


def test_being_refused_costs_nothing(clock):
    """Somebody who keeps knocking gets his share all the same."""
    limit = RateLimit(1, 1, clock)
    limit.take("a")
    for _ in range(10):
        clock.now += 0.125
        taken(limit, "a", 3)
    assert taken(limit, "a", 1) == 0
    clock.now += 0.75
    assert taken(limit, "a", 1) == 1


def test_callers_do_not_share(clock):
    limit = RateLimit(1, 3, clock)
    assert taken(limit, "a", 9) == 3
    assert taken(limit, "b", 9) == 3


@pytest.mark.parametrize(("rate", "seconds"), [(0.1, 10), (0.4, 3), (1, 1), (200, 1)])
def test_it_says_when_to_come_back(clock, rate, seconds):
    limit = RateLimit(rate, 1, clock)
    limit.take("a")
    with pytest.raises(RateLimited) as caught:
        limit.take("a")
    assert caught.value.retry_after_seconds == seconds
    clock.now += seconds
    limit.take("a")


def test_the_table_is_bounded_and_forgets_whom_it_saw_longest_ago(clock):
    """A flood of addresses must not take memory, nor hand a busy caller a fresh bucket."""
    limit = RateLimit(1, 2, clock)
    assert taken(limit, "busy", 2) == 2
    for number in range(MAX_CALLERS * 2):
        limit.take(f"address {number}")
        if number % 1_000 == 0:
            assert taken(limit, "busy", 1) == 0
    assert len(limit._buckets) == MAX_CALLERS
    assert taken(limit, "address 0", 3) == 2, "forgotten, so it begins anew"
