"""A project's figures, counted by the database: whatever their number, few rows come from there. Of each deployment the
latest attempt counts, at the time when we first heard of it.

A percentile is by nearest rank: of n durations in order the one at place ceil(p/100 * n).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Float, Select, Subquery, and_, case, func, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import FunctionElement

from sidecar.domain.deployments import TERMINAL
from sidecar.domain.projects import FAILURES, Period
from sidecar.store.tables import deployments, steps

STEP_NAMES = 100
"""How many are told, those that are most frequent; senders may put a number into a step's name."""
_ENDED = sorted(TERMINAL)


class _SecondsBetween(FunctionElement[float]):
    """From one time to the other, both text as `utc_text` writes it, to the millisecond."""

    type = Float()
    inherit_cache = True


@compiles(_SecondsBetween, "sqlite")
def _in_sqlite(element: Any, compiler: SQLCompiler, **options: Any) -> str:
    begin, end = (compiler.process(clause, **options) for clause in element.clauses)
    return f"round((julianday({end}) - julianday({begin})) * 86400, 3)"


@compiles(_SecondsBetween, "postgresql")
def _in_postgresql(element: Any, compiler: SQLCompiler, **options: Any) -> str:
    begin, end = (compiler.process(clause, **options) for clause in element.clauses)
    seconds = f"extract(epoch from (({end})::timestamptz - ({begin})::timestamptz))"
    return f"CAST(round(CAST({seconds} AS numeric), 3) AS double precision)"


@dataclass(frozen=True, slots=True)
class Durations:
    """In seconds; None where there are none."""

    count: int
    p50: float | None
    p95: float | None


@dataclass(frozen=True, slots=True)
class StepFigures:
    name: str
    count: int
    succeeded: int
    failed: int
    p50: float | None
    p95: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """`counts` are by day and status; `medians` by day, where there is one; the most frequent steps come first."""

    counts: Sequence[tuple[str, str, int]]
    durations: Durations
    medians: dict[str, float]
    steps: Sequence[StepFigures]


def count_statuses(connection: Connection, project: str, period: Period, stale_before: str) -> dict[str, int]:
    """How many deployments there are of each status, as it is shown."""
    these = _these(project, period, stale_before)
    return {row[0]: row[1] for row in connection.execute(_counted(these.c.status))}


def project_figures(connection: Connection, project: str, period: Period, stale_before: str) -> Figures:
    these = _these(project, period, stale_before)
    counts = connection.execute(_counted(these.c.day, these.c.status))
    return Figures(
        [(day, status, count) for day, status, count in counts],
        _durations(connection, these),
        _medians(connection, these),
        _steps(connection, project, period),
    )


def _these(project: str, period: Period, stale_before: str) -> Subquery:
    """The deployments that count, each with its day, the status that is shown, and how long it took."""
    row = deployments.c
    stale = and_(row.status.not_in(_ENDED), row.last_at < stale_before)
    return (
        select(
            func.substr(row.first_at, 1, 10).label("day"),
            case((stale, "unknown"), else_=row.status).label("status"),
            _seconds(row).label("seconds"),
        )
        .where(_within(project, period))
        .subquery()
    )


def _within(project: str, period: Period) -> ColumnElement[bool]:
    row = deployments.c
    return and_(row.project == project, row.first_at >= period.since, row.first_at < period.until, row.latest.is_(True))


def _seconds(row: Any) -> ColumnElement[float]:
    """As `duration_of` finds it, of what has ended; else NULL."""
    span = case((row.completed_at >= row.started_at, _SecondsBetween(row.started_at, row.completed_at)))
    seconds = func.coalesce(func.nullif(row.duration_seconds, 0.0), span, row.duration_seconds)
    return case((row.status.in_(_ENDED), seconds))


def _counted(*columns: ColumnElement[Any]) -> Select[Any]:
    return select(*columns, func.count()).group_by(*columns)


def _ranked(seconds: ColumnElement[float], within: Sequence[ColumnElement[Any]] = ()) -> tuple[Any, Any]:
    """The place of each duration among those of its part, in order, and how many there are; not where it is NULL."""
    part = (*within, seconds.is_(None))
    place = func.row_number().over(partition_by=part, order_by=seconds)
    return place.label("place"), func.count(seconds).over(partition_by=part).label("among")


def _percentile(ranked: Subquery, percent: int) -> ColumnElement[float]:
    """By nearest rank."""
    nearest = (ranked.c.among * percent + 99) // 100
    return func.max(case((ranked.c.place == nearest, ranked.c.seconds)))


def _durations(connection: Connection, these: Subquery) -> Durations:
    ranked = select(these.c.seconds, *_ranked(these.c.seconds)).where(these.c.seconds.is_not(None)).subquery()
    row = connection.execute(select(func.count(), _percentile(ranked, 50), _percentile(ranked, 95)).select_from(ranked))
    return Durations(*row.one())


def _medians(connection: Connection, these: Subquery) -> dict[str, float]:
    ranked = (
        select(these.c.day, these.c.seconds, *_ranked(these.c.seconds, [these.c.day]))
        .where(these.c.seconds.is_not(None))
        .subquery()
    )
    query = select(ranked.c.day, _percentile(ranked, 50)).group_by(ranked.c.day)
    return {row[0]: row[1] for row in connection.execute(query)}


def _steps(connection: Connection, project: str, period: Period) -> list[StepFigures]:
    row = steps.c
    found = (
        select(row.name, row.status, row.position, _seconds(row).label("seconds"))
        .join(
            deployments,
            and_(row.deployment_id == deployments.c.deployment_id, row.attempt == deployments.c.attempt),
        )
        .where(_within(project, period))
        .subquery()
    )
    ranked = select(
        found.c.name, found.c.status, found.c.position, found.c.seconds, *_ranked(found.c.seconds, [found.c.name])
    ).subquery()
    count = func.count()
    query = (
        select(
            ranked.c.name,
            count,
            func.sum(case((ranked.c.status == "success", 1), else_=0)),
            func.sum(case((ranked.c.status.in_(FAILURES), 1), else_=0)),
            _percentile(ranked, 50),
            _percentile(ranked, 95),
        )
        .group_by(ranked.c.name)
        .order_by(count.desc(), func.min(ranked.c.position), ranked.c.name)
        .limit(STEP_NAMES)
    )
    return [StepFigures(*row) for row in connection.execute(query)]
