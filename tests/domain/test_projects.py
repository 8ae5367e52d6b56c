"""Over which time a project's figures are taken, and what counts as success."""

from __future__ import annotations

import pytest

from sidecar.domain.errors import Invalid
from sidecar.domain.projects import MAX_DAYS, Period, period, success_rate

NOW = "2026-11-22T02:30:00.000Z"


def test_without_a_time_it_is_thirty_days_of_which_the_last_is_today():
    asked = period(None, None, NOW)
    assert asked == Period("2026-10-24T00:00:00.000Z", NOW)
    assert (len(asked.days), asked.days[0], asked.days[-1]) == (30, "2026-10-24", "2026-11-22")


@pytest.mark.parametrize(
    ("since", "until", "first", "last", "count"),
    [
        (None, "2026-11-01T00:00:00.000Z", "2026-10-02", "2026-10-31", 30),
        ("2026-11-20T23:59:59.999Z", None, "2026-11-20", "2026-11-22", 3),
        ("2026-11-20T00:00:00.000Z", "2026-11-21T00:00:00.000Z", "2026-11-20", "2026-11-20", 1),
        ("2026-11-20T12:00:00.000Z", "2026-11-20T12:00:00.001Z", "2026-11-20", "2026-11-20", 1),
        ("2024-02-28T00:00:00.000Z", "2024-03-01T00:00:00.001Z", "2024-02-28", "2024-03-01", 3),
        (None, "1970-01-02T00:00:00.000Z", "1970-01-01", "1970-01-01", 1),
        ("2026-11-23T00:00:00.000Z", "2026-11-24T00:00:00.000Z", "2026-11-23", "2026-11-23", 1),
    ],
)
def test_every_day_of_which_it_has_a_part_is_told(since, until, first, last, count):
    days = period(since, until, NOW).days
    assert (days[0], days[-1], len(days)) == (first, last, count)


@pytest.mark.parametrize(
    ("since", "until"),
    [
        (NOW, NOW),
        ("2026-11-23T00:00:00.000Z", None),
        ("2026-11-22T00:00:00.001Z", "2026-11-22T00:00:00.000Z"),
        ("2025-11-21T00:00:00.000Z", "2026-11-22T00:00:00.001Z"),
        ("1970-01-01T00:00:00.000Z", "9999-12-31T23:59:59.999Z"),
    ],
)
def test_a_time_without_length_or_with_too_much_is_refused_by_its_field(since, until):
    with pytest.raises(Invalid) as refused:
        period(since, until, NOW)
    assert [field.path for field in refused.value.fields] == ["since"]


def test_the_longest_time_is_taken():
    assert len(period("2025-11-21T00:00:00.000Z", "2026-11-22T00:00:00.000Z", NOW).days) == MAX_DAYS


@pytest.mark.parametrize(
    ("succeeded", "failed", "rate"), [(0, 0, None), (0, 3, 0.0), (3, 0, 1.0), (2, 1, 0.6667), (1, 0, 1.0)]
)
def test_the_rate_is_of_those_that_ended_well_or_badly(succeeded, failed, rate):
    assert success_rate(succeeded, failed) == rate
