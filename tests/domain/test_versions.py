"""Numbers of versions, and writes that hold only for one."""

from __future__ import annotations

import pytest

from sidecar.domain.errors import PreconditionFailed
from sidecar.domain.versions import UNCONDITIONAL, Condition, next_version

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed (tests/requirements.txt)")
st = hypothesis.strategies

CLOCKS = st.lists(st.floats(0, 2**40) | st.sampled_from([0.0, 1.7e9, 1.7e9 + 0.9]))


@hypothesis.given(st.integers(0, 2**40), CLOCKS)
def test_versions_strictly_increase_whatever_the_clock_says(first: int, clocks: list[float]):
    last = first
    for now in clocks:
        version = next_version(last, now)
        assert version > last
        assert version >= int(now)
        assert version in (last + 1, int(now)), "no more than needed"
        last = version


@pytest.mark.parametrize(
    ("condition", "own", "holds"),
    [
        (UNCONDITIONAL, 7, True),
        (UNCONDITIONAL, None, True),
        (Condition(frozenset([10])), 7, True),
        (Condition(frozenset([7])), 7, True),
        (Condition(frozenset([3, 7])), 7, True),
        (Condition(frozenset([9])), 7, False),
        (Condition(frozenset()), 7, False),
        (Condition(frozenset([10])), None, True),
        (Condition(frozenset([7])), None, False),
        (Condition(exists=True), 7, True),
        (Condition(exists=True), None, False),
        (Condition(exists=False), None, True),
        (Condition(exists=False), 7, False),
        (Condition(frozenset([10]), exists=False), 7, False),
    ],
)
def test_conditions(condition: Condition, own: int | None, holds: bool):
    """Of a menu at version 10."""
    if holds:
        condition.check(10, own)
    else:
        with pytest.raises(PreconditionFailed):
            condition.check(10, own)
