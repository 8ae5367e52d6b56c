"""The tables of several processes: what they tell of what was measured, and that their pages have a place for them."""

from __future__ import annotations

import pytest

from benchmarks import costs, report, scale
from benchmarks.clusters import SETUPS


@pytest.mark.parametrize("markers", [scale.SCALE, scale.COSTS])
def test_the_page_has_a_place_for_the_table(markers: tuple[str, str]) -> None:
    page = report.PAGE.read_text()
    assert page.index(markers[0]) < page.index(markers[1])


def test_the_table_has_the_medians_of_each_setup_and_tells_what_was_wrong() -> None:
    results = scale.Results()
    for value in (1.0, 4.0, 3.0):
        results.add("posts", "one", {"posts/s": value}, ())
    results.add("posts", "two", {"posts/s": 200.0}, ("12 posts refused",))
    lines = scale.table(results, [setup for setup in SETUPS if setup.name in {"one", "two", "four"}], 1_000)
    assert f"| posts/s | 3.0 | 200 {report.FLAG} | – |" in lines
    assert "- posts, two: 12 posts refused" in lines


def test_a_setup_that_does_not_start_is_told() -> None:
    results = scale.Results()
    results.add(scale.START, "one", {}, ("PostgreSQL did not start",))
    assert "- start, one: PostgreSQL did not start" in scale.table(results, list(SETUPS), 1_000)


def test_the_table_of_costs_has_the_medians_of_the_rounds() -> None:
    rounds = [[costs.Cost("a commit", {costs.P50: value, costs.POSTGRES: 7.0})] for value in (1.0, 9.0, 2.0)]
    assert costs.table(rounds)[2:] == ["| a commit | 2.0 | – | – | 7.0 | – | – |"]
