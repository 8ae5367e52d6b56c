"""Statuses, times, and the rules by which reports merge: unordered, repeated delivery gives one and the same state."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import pytest

from sidecar.domain.deployments import (
    STATUSES,
    TERMINAL,
    Deployment,
    Facts,
    Report,
    Step,
    StepReport,
    blank,
    duration_of,
    merge_deployment,
    merge_step,
    missing_identity,
    normalise_status,
    parse_time,
    seconds_between,
)

pytest.importorskip("hypothesis", reason="hypothesis is not installed (tests/requirements.txt)")

from hypothesis import given
from hypothesis import strategies as st

NOW = "2026-11-21T12:00:00.000Z"


def clock(second: int) -> str:
    return f"2026-11-21T10:{second // 60:02}:{second % 60:02}.000Z"


def report(status: str | None = None, second: int = 0, attempt: int = 1, word: str | None = None, **facts) -> Report:
    return Report(
        type="deployment_started",
        project="shop",
        deployment_id="1",
        at=clock(second),
        payload={},
        attempt=attempt,
        status=status,
        reported_status=word or status,
        facts=Facts(**facts),
    )


def merged(*reports: Report) -> Deployment:
    state = None
    for item in reports:
        state = merge_deployment(state, item, NOW)
    assert state is not None
    return state


def step(status: str, **facts) -> StepReport:
    return StepReport(key="build", name="build", status=status, reported_status=status, **facts)


def merged_steps(*reports: tuple[StepReport, int]) -> Step:
    state = None
    for item, second in reports:
        state = merge_step(state, item, clock(second), NOW)
    assert state is not None
    return state


WORDS = {
    "queued": "queued requested pending created waiting_for_resource preparing scheduled",
    "waiting": "waiting action_required manual",
    "running": "in_progress running canceling started retrying Running Terminating executing 运行中",
    "success": "success neutral completed Succeeded ✅ 成功 ✅成功 ✔️",
    "failed": "failure startup_failure error failed Failed Error ❌ 失败 ❌失败",
    "cancelled": "cancelled stale inactive canceled cancel cancellation 已取消",
    "skipped": "skipped skip ⏭️",
    "timed_out": "timed_out timeout",
    "unknown": "deployed 42 ? - ⚠️ null None undefined ...",
}


@pytest.mark.parametrize(
    ("word", "status"), [(word, status) for status, words in WORDS.items() for word in words.split()]
)
def test_every_product_s_word_has_one_of_our_statuses(word, status):
    assert normalise_status(word) == status


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("✅ 成功", "success"),
        ("❌ 失败", "failed"),
        ("  ❌  失败\n", "failed"),
        ("🎉 done", "success"),
        ("In Progress", "running"),
        ("IN-PROGRESS", "running"),
        ("timed out", "timed_out"),
        ("Success!", "success"),
        ("action required", "waiting"),
        ("", "unknown"),
        ("   ", "unknown"),
        (None, "unknown"),
        ("x" * 100_000, "unknown"),
    ],
)
def test_emoji_spaces_and_capitals_around_a_word_don_t_matter(word, status):
    assert normalise_status(word) == status


@given(st.text())
def test_any_word_has_a_status(word):
    assert normalise_status(word) in STATUSES


@pytest.mark.parametrize("value", [None, "", " ", "null", "NULL", "None", "undefined", "nil", "..."])
def test_what_scripts_write_for_nothing_is_nothing(value):
    assert blank(value)
    assert parse_time(value) is None


@pytest.mark.parametrize("value", ["0", 0, False, "no", [], "null null"])
def test_what_says_something_is_not_blank(value):
    assert not blank(value)


@pytest.mark.parametrize(
    ("value", "time"),
    [
        ("2024-01-01T12:00:00.000Z", "2024-01-01T12:00:00.000Z"),
        ("2024-01-01T12:00:00Z", "2024-01-01T12:00:00.000Z"),
        ("2024-01-01t12:00:00z", "2024-01-01T12:00:00.000Z"),
        ("2024-01-01T12:00:00.123456789Z", "2024-01-01T12:00:00.123Z"),
        ("2024-01-01T20:00:00+08:00", "2024-01-01T12:00:00.000Z"),
        ("2024-01-01T20:00:00+0800", "2024-01-01T12:00:00.000Z"),
        ("2024-01-01 12:00:00", "2024-01-01T12:00:00.000Z"),
        ("2024-01-01T12:00:00", "2024-01-01T12:00:00.000Z"),
        ("2024-01-01", "2024-01-01T00:00:00.000Z"),
        (" 2024-01-01T12:00:00Z ", "2024-01-01T12:00:00.000Z"),
        ("2016-08-12 15:23:28 UTC", "2016-08-12T15:23:28.000Z"),
        ("2016-08-12 15:23:28 +0200", "2016-08-12T13:23:28.000Z"),
        (1704110400, "2024-01-01T12:00:00.000Z"),
        ("1704110400", "2024-01-01T12:00:00.000Z"),
        (1704110400.5, "2024-01-01T12:00:00.500Z"),
        (1704110400123, "2024-01-01T12:00:00.123Z"),
        ("1704110400123", "2024-01-01T12:00:00.123Z"),
        ("0001-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00+08:00", None),
        ("1969-12-31T23:59:59Z", None),
    ],
)
def test_times_of_every_form(value, time):
    assert parse_time(value) == time


@pytest.mark.parametrize(
    "value",
    [
        "yesterday",
        "12:00",
        "2024-13-01T00:00:00Z",
        "2024-02-30",
        "9999-12-31T23:59:59-12:00",
        "1e400",
        "nan",
        "-5",
        5,
        -1704110400,
        10**17,
        "9" * 16,
        True,
        False,
        [],
        {},
        "2" * 65,
        "2024-01-01T12:00:00Z" + " " * 60,
    ],
)
def test_what_is_no_time_is_refused(value):
    with pytest.raises(ValueError, match="is not a time"):
        parse_time(value)


@given(st.one_of(st.text(), st.floats(), st.integers(), st.booleans()))
def test_anything_is_a_time_a_blank_or_refused(value):
    try:
        time = parse_time(value)
    except ValueError:
        return
    assert time is None or (len(time) == 24 and time.endswith("Z") and parse_time(time) == time)


@pytest.mark.parametrize(
    ("started_at", "completed_at", "seconds"),
    [(clock(0), clock(90), 90), (clock(5), clock(5), 0), (clock(9), clock(5), None), (None, clock(5), None)],
)
def test_a_span_needs_both_times_the_right_way_round(started_at, completed_at, seconds):
    assert seconds_between(started_at, completed_at) == seconds


def test_a_report_without_project_and_id_says_what_it_lacks():
    bare = replace(report(), project="", deployment_id="")
    assert [problem.path for problem in missing_identity(bare)] == ["project", "deployment_id"]
    assert [problem.path for problem in missing_identity(replace(bare, type="test"))] == ["project"]


class TestDeployment:
    def test_a_report_without_status_opens_it_as_running(self):
        state = merged(report(None, 1))
        assert (state.status, state.started_at, state.reported_status) == ("running", None, None)

    @pytest.mark.parametrize("end", sorted(TERMINAL))
    @pytest.mark.parametrize("late", [status for status in STATUSES if status not in TERMINAL] + [None])
    @pytest.mark.parametrize("second", [1, 5, 9])
    def test_an_end_never_goes_back(self, end, late, second):
        state = merged(report("running", 0), report(end, 5), report(late, second))
        assert (state.status, state.reported_status, state.completed_at) == (end, end, clock(5))

    def test_a_later_end_replaces_an_earlier_one(self):
        states = [merged(report("failed", 5), report("success", 9)), merged(report("success", 9), report("failed", 5))]
        assert [(state.status, state.completed_at) for state in states] == [("success", clock(9))] * 2

    def test_a_late_report_fills_only_what_is_missing(self):
        end = report("success", 9, url="https://ci/end")
        late = report("running", 3, url="https://ci/start", actor="mona", completed_at=clock(1))
        state = merged(end, late)
        assert (state.url, state.actor, state.completed_at) == ("https://ci/end", "mona", clock(9))

    def test_an_older_end_does_not_overwrite_the_facts_of_a_newer_one(self):
        """Protects a repaired deployment from showing the error of the try before."""
        state = merged(report("success", 9, logs="all fine"), report("failed", 5, logs="broken", error_message="boom"))
        assert (state.status, state.logs) == ("success", "all fine")

    def test_at_the_same_time_the_end_wins(self):
        for reports in ((report("success", 5), report("running", 5)), (report("running", 5), report("success", 5))):
            assert merged(*reports).status == "success"

    @pytest.mark.parametrize("path", [("queued", "waiting", "queued"), ("running", "waiting", "running")])
    def test_among_open_statuses_the_sender_s_time_decides(self, path):
        reports = [report(status, second) for second, status in enumerate(path)]
        assert merged(*reports).status == path[-1]
        assert merged(*reversed(reports)).status == path[-1]

    def test_unknown_never_replaces_what_a_sender_told(self):
        assert merged(report("queued", 1), report("unknown", 5, word="weird")).reported_status == "queued"
        assert merged(report("failed", 1), report("unknown", 5)).status == "failed"
        assert merged(report("unknown", 5), report("queued", 1)).status == "queued"

    def test_unknown_replaces_a_running_that_nobody_told(self):
        for reports in ((report(None, 1), report("unknown", 5)), (report("unknown", 5), report(None, 1))):
            assert merged(*reports).status == "unknown"

    def test_a_lower_attempt_never_edits(self):
        state = merged(report("running", 5, attempt=2, actor="mona"))
        assert merge_deployment(state, report("failed", 9, attempt=1, logs="old", ref="main"), NOW + "x") is state

    def test_a_higher_attempt_starts_afresh(self):
        first = merged(report("failed", 5, duration_seconds=4, error_message="boom", actor="mona", started_at=clock(1)))
        state = merge_deployment(replace(first, source="curl"), report("running", 2, attempt=2), NOW)
        assert (state.attempt, state.status, state.started_at) == (2, "running", clock(2))
        assert (state.error_message, state.actor, state.completed_at, duration_of(state)) == (None, None, None, None)
        assert state.source == "curl"

    def test_the_sender_s_own_word_is_kept_beside_ours(self):
        state = merged(report("failed", 1, word="❌ 失败"))
        assert (state.status, state.reported_status) == ("failed", "❌ 失败")

    @pytest.mark.parametrize(
        ("facts", "seconds"),
        [
            ({"duration_seconds": 45}, 45),
            ({"duration_seconds": 45, "started_at": clock(0), "completed_at": clock(90)}, 45),
            ({"duration_seconds": 0, "started_at": clock(0), "completed_at": clock(90)}, 90),
            ({"started_at": clock(0), "completed_at": clock(90)}, 90),
            ({"started_at": clock(0)}, 100),
            ({"duration_seconds": 0}, 0),
            ({"duration_seconds": 0, "started_at": clock(99), "completed_at": clock(9)}, 0),
            ({}, None),
        ],
    )
    def test_the_duration_is_the_reported_one_else_the_span(self, facts, seconds):
        assert duration_of(merged(report("success", 100, **facts))) == seconds

    def test_a_deployment_that_is_open_has_no_span_yet(self):
        assert duration_of(merged(report("running", 1, completed_at=clock(9)))) is None

    def test_a_duration_counts_only_from_the_end(self):
        """Protects the total from a step-like report that comes late: it used to overwrite it."""
        end, middle = report("success", 9, duration_seconds=8), report("running", 5, duration_seconds=3)
        assert duration_of(merged(end, middle)) == duration_of(merged(middle, end)) == 8

    def test_a_zero_does_not_erase_a_duration(self):
        assert (
            duration_of(merged(report("success", 5, duration_seconds=4), report("success", 9, duration_seconds=0))) == 4
        )

    def test_a_start_that_turns_up_late_lengthens_the_span(self):
        assert duration_of(merged(report("running", 5), report("success", 9), report("running", 2))) == 7

    def test_a_repetition_changes_nothing(self):
        once = merged(report("running", 1, actor="mona"), report("success", 9, duration_seconds=8))
        assert merge_deployment(once, report("success", 9, duration_seconds=8), NOW) == once


class TestStep:
    def test_it_runs_and_ends(self):
        state = merged_steps((step("running"), 1), (step("success"), 5))
        assert (state.status, state.started_at, state.completed_at) == ("success", clock(1), clock(5))
        assert duration_of(state) == 4

    def test_its_end_comes_first(self):
        state = merged_steps((step("success", duration_seconds=0), 5), (step("running"), 1))
        assert (state.status, state.started_at, duration_of(state)) == ("success", clock(1), 4)

    def test_a_retry_while_open_is_running_again(self):
        assert merged_steps((step("running"), 1), (step("running"), 3)).started_at == clock(1)

    def test_logs_of_the_winner_are_shown(self):
        state = merged_steps((step("success", logs="built"), 5), (step("running", logs="building"), 1))
        assert state.logs == "built"


OPEN = [status for status in STATUSES if status not in TERMINAL]
optional_second = st.none() | st.integers(0, 600)


@st.composite
def report_sets(draw: st.DrawFn) -> list[tuple[int, str | None, dict[str, object]]]:
    """Reports of distinct times, of which exactly one is an end."""
    seconds = draw(st.lists(st.integers(0, 600), min_size=1, max_size=6, unique=True))
    end = draw(st.integers(0, len(seconds) - 1))
    found: list[tuple[int, str | None, dict[str, object]]] = []
    for index, second in enumerate(seconds):
        status = draw(st.sampled_from(sorted(TERMINAL)) if index == end else st.sampled_from([*OPEN, None]))
        facts: dict[str, object] = {
            "started_at": None if (start := draw(optional_second)) is None else clock(start),
            "completed_at": None if (stop := draw(optional_second)) is None else clock(stop),
            "duration_seconds": draw(st.none() | st.integers(0, 600)),
        }
        found.append((second, status, facts))
    return found


@st.composite
def deliveries(draw: st.DrawFn, reports: list) -> list:
    """All of them in any order, some of them again."""
    order = draw(st.permutations(range(len(reports))))
    again = draw(st.lists(st.sampled_from(range(len(reports))), max_size=4))
    places = draw(st.permutations([*order, *again]))
    return [reports[index] for index in places]


def outcome(state: Deployment | Step) -> tuple[object, ...]:
    return (
        state.status,
        state.reported_status,
        state.status_at,
        state.started_at,
        state.completed_at,
        state.duration_seconds,
        duration_of(state),
    )


@given(st.data())
def test_any_order_and_repetition_of_reports_gives_one_deployment(data):
    reports = data.draw(report_sets())

    def play(order: list) -> Deployment:
        return merged(*(report(status, second, **facts) for second, status, facts in order))

    assert outcome(play(data.draw(deliveries(reports)))) == outcome(play(sorted(reports, key=lambda item: item[0])))


@given(st.data())
def test_any_order_and_repetition_of_reports_gives_one_step(data):
    reports = [(second, status or "unknown", facts) for second, status, facts in data.draw(report_sets())]

    def play(order: list) -> Step:
        return merged_steps(*((step(status, **facts), second) for second, status, facts in order))

    assert outcome(play(data.draw(deliveries(reports)))) == outcome(play(sorted(reports, key=lambda item: item[0])))


@given(st.lists(st.tuples(st.integers(1, 3), st.sampled_from([*STATUSES, None]), st.integers(0, 60)), min_size=1))
def test_the_highest_attempt_is_shown_and_an_end_of_it_stays(items):
    ended = False
    state: Deployment | None = None
    for attempt, status, second in items:
        before = state
        state = merge_deployment(state, report(status, second, attempt=attempt), NOW)
        ended = (ended and before is not None and state.attempt == before.attempt) or state.status in TERMINAL
        assert (state.status in TERMINAL) == ended
    assert (
        reduce(max, (attempt for attempt, _, _ in items))
        == merged(*(report(status, second, attempt=attempt) for attempt, status, second in items)).attempt
    )
