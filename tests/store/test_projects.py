"""A project's figures as the databases count them, against a naive calculation over the same deployments."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.domain.deployments import STATUSES, TERMINAL, Deployment, Step, duration_of
from sidecar.domain.projects import FAILURES, Period
from sidecar.store.deployments import insert_deployment, insert_project, save_step, touch_project
from sidecar.store.projects import STEP_NAMES, Durations, StepFigures, count_statuses, project_figures

PERIOD = Period("2026-11-01T12:00:00.000Z", "2026-11-04T06:00:00.000Z")
STALE_BEFORE = "2026-11-02T00:00:00.000Z"
_numbers = itertools.count(1)

moments = st.sampled_from([PERIOD.since, PERIOD.until, STALE_BEFORE]) | st.integers(0, 4 * 86_400_000).map(
    lambda milliseconds: _time(milliseconds)
)
durations = st.sampled_from([None, 0.0]) | st.integers(0, 10**7).map(lambda milliseconds: milliseconds / 1000)
statuses = st.sampled_from(STATUSES)


def _time(milliseconds: int) -> str:
    days, rest = divmod(milliseconds, 86_400_000)
    seconds, rest = divmod(rest, 1_000)
    return f"2026-11-{days + 1:02}T{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{rest:03}Z"


@st.composite
def deployments(draw: st.DrawFn) -> tuple[Deployment, list[Step]]:
    at = draw(moments)
    state = Deployment(
        deployment_id="",
        attempt=1,
        project="",
        source=None,
        status=draw(statuses),
        reported_status=None,
        status_at=at,
        first_at=at,
        last_at=max(at, draw(moments)),
        started_at=draw(st.none() | moments),
        completed_at=draw(st.none() | moments),
        duration_seconds=draw(durations),
    )
    steps = [
        Step(
            key=str(position),
            name=draw(st.sampled_from(["build", "test", "部署"])),
            position=position,
            status=draw(statuses),
            reported_status=None,
            status_at=at,
            first_at=at,
            last_at=at,
            started_at=draw(st.none() | moments),
            completed_at=draw(st.none() | moments),
            duration_seconds=draw(durations),
        )
        for position in range(draw(st.integers(0, 3)))
    ]
    return state, steps


def nearest_rank(values: list[float], percent: int) -> float | None:
    ordered = sorted(values)
    return ordered[math.ceil(percent / 100 * len(ordered)) - 1] if ordered else None


def ended(states: list[Any]) -> list[float]:
    return [seconds for s in states if s.status in TERMINAL and (seconds := duration_of(s)) is not None]


def figures_of(name: str, steps: list[Step]) -> StepFigures:
    seconds = ended(steps)
    succeeded = sum(step.status == "success" for step in steps)
    failed = sum(step.status in FAILURES for step in steps)
    return StepFigures(name, len(steps), succeeded, failed, nearest_rank(seconds, 50), nearest_rank(seconds, 95))


def stored(store, made: list[tuple[Deployment, list[Step]]]) -> tuple[str, list[tuple[Deployment, list[Step]]]]:
    """Under a new project, every third one after an attempt that no longer counts; its name, and what counts."""
    project, kept = f"p{next(_numbers)}", []

    def fill(transaction):
        connection = transaction.connection
        insert_project(connection, project, "t")
        for number, (state, steps) in enumerate(made):
            state = replace(state, project=project, deployment_id=f"{project}/{number}")
            if number % 3 == 0:
                insert_deployment(connection, state, next(_numbers))
                for step in steps:
                    save_step(connection, state.deployment_id, 1, replace(step, status="failed"), new=True)
                state = replace(state, attempt=2)
            insert_deployment(connection, state, next(_numbers))
            for step in steps:
                save_step(connection, state.deployment_id, state.attempt, step, new=True)
            kept.append((state, steps))

    store.writer.submit(fill)
    return project, kept


@settings(max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=st.lists(deployments(), max_size=12))
def test_figures_are_what_a_naive_calculation_gives(store, made):
    project, kept = stored(store, made)
    within = [(state, steps) for state, steps in kept if PERIOD.since <= state.first_at < PERIOD.until]
    states = [state for state, _ in within]
    found = store.database.read(lambda c: project_figures(c, project, PERIOD, STALE_BEFORE))

    def shown(state: Deployment) -> str:
        return "unknown" if state.status not in TERMINAL and state.last_at < STALE_BEFORE else state.status

    counts = Counter((state.first_at[:10], shown(state)) for state in states)
    assert {(day, status): count for day, status, count in found.counts} == counts
    by_status = Counter(map(shown, states))
    assert store.database.read(lambda c: count_statuses(c, project, PERIOD, STALE_BEFORE)) == by_status
    seconds = ended(states)
    assert found.durations == Durations(len(seconds), nearest_rank(seconds, 50), nearest_rank(seconds, 95))
    days = {state.first_at[:10] for state in states}
    medians = {day: nearest_rank(ended([s for s in states if s.first_at[:10] == day]), 50) for day in days}
    assert found.medians == {day: median for day, median in medians.items() if median is not None}
    steps = [step for _, steps in within for step in steps]
    naive = [figures_of(name, [s for s in steps if s.name == name]) for name in {step.name for step in steps}]
    assert sorted(found.steps, key=lambda step: step.name) == sorted(naive, key=lambda step: step.name)
    assert [step.count for step in found.steps] == sorted((step.count for step in naive), reverse=True)


def test_percentiles_are_by_nearest_rank_for_any_number_of_durations(store):
    """Between 1 and 45 every way is met in which p/100 * n can be rounded."""
    state = Deployment("", 1, "", None, "success", None, "t", "2026-11-02T00:00:00.000Z", "t")
    for count in range(1, 46):
        seconds = [float(number * 29 % 47) for number in range(1, count + 1)]
        step = Step("a", "a", 1, "success", None, "t", "t", "t")
        made = [(replace(state, duration_seconds=s), [replace(step, duration_seconds=s)]) for s in seconds]
        project, _ = stored(store, made)
        found = store.database.read(lambda c, name=project: project_figures(c, name, PERIOD, STALE_BEFORE))
        p50, p95 = nearest_rank(seconds, 50), nearest_rank(seconds, 95)
        assert found.durations == Durations(count, p50, p95)
        assert found.medians == {"2026-11-02": p50}
        assert found.steps == [StepFigures("a", count, count, 0, p50, p95)]


def test_steps_that_are_never_called_the_same_are_told_up_to_a_bound(store):
    state = Deployment("", 1, "", None, "success", None, "t", "2026-11-02T00:00:00.000Z", "t")
    steps = [
        Step(str(n), f"step {n}", n, "success", None, "t", "t", "t", duration_seconds=1.0)
        for n in range(STEP_NAMES + 20)
    ]
    often = replace(steps[-1], key="again")
    project, _ = stored(store, [(state, [*steps, often])])
    found = store.database.read(lambda c: project_figures(c, project, PERIOD, STALE_BEFORE)).steps
    assert len(found) == STEP_NAMES
    assert (found[0].name, found[0].count) == (often.name, 2)
    assert [step.name for step in found[1:4]] == ["step 0", "step 1", "step 2"], "else in the order of the workflow"


def test_news_of_a_project_is_noted_only_if_it_is_known(store):
    assert not store.writer.submit(lambda t: touch_project(t.connection, "new", "t"))
    store.writer.submit(lambda t: insert_project(t.connection, "new", "t"))
    assert store.writer.submit(lambda t: touch_project(t.connection, "new", "u"))
