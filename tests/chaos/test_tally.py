"""The reckoning finds what is wrong: a chaos run that can't fail would show nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.tally import Events, faults, verdict

DUE: Events = [(3, "a"), (5, "b"), (8, "c"), (9, "d")]


def reports(events: Events, start: int | None = 3) -> dict[str, Any]:
    return {"page": {"faults": [], "rooms": {"project:axi": {"start": start, "events": events}}}}


@pytest.mark.parametrize(
    ("events", "start", "told", "found"),
    [
        (DUE[1:], 3, "lost 0, repeated 0, out of order 0 of 3 due", None),
        (DUE, 0, "lost 0, repeated 0, out of order 0 of 4 due", None),
        ([], None, "lost 4, repeated 0, out of order 0 of 4 due", "never subscribed"),
        ([DUE[1], DUE[3]], 3, "lost 1, repeated 0, out of order 0 of 3 due", "1 missing behind 3"),
        ([DUE[1], DUE[2], DUE[2], DUE[3]], 3, "lost 0, repeated 1, out of order 0 of 3 due", "1 more than once: [8]"),
        ([DUE[2], DUE[1], DUE[3]], 3, "lost 0, repeated 0, out of order 1 of 3 due", "out of order: … [8, 5, 9] …"),
        ([*DUE[1:], (10, "e")], 3, "lost 0, repeated 0, out of order 0 of 3 due", "1 that are not stored so"),
    ],
)
def test_what_is_lost_repeated_or_out_of_order_is_counted_and_told(
    events: Events, start: int | None, told: str, found: str | None
):
    due = {"project:axi": DUE}
    assert verdict(due, reports(events, start)) == told
    wrong = faults(due, reports(events, start))
    assert bool(wrong) is (found is not None)
    assert found is None or found in wrong[0]
