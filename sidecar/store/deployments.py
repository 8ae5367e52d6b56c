"""Rows of projects, deployments, steps and log lines: the read models kept beside the journal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, case, func, insert, not_, or_, select, update

from sidecar.domain.deployments import TERMINAL, Deployment, LogLine, Step
from sidecar.store.statements import Statement
from sidecar.store.tables import deployments, log_lines, projects, steps

_DEPLOYMENT_FIELDS = tuple(field.name for field in fields(Deployment))
_STEP_FIELDS = tuple(field.name for field in fields(Step))

# What names a row stays out of its updates: SQLite writes an index anew if its columns are set, also to the same value.
_DEPLOYMENT_CHANGES = tuple(
    name for name in _DEPLOYMENT_FIELDS if name not in ("deployment_id", "attempt", "project", "first_at")
)
_STEP_CHANGES = tuple(name for name in _STEP_FIELDS if name != "key")

_DEPLOYMENT_COLUMNS = (
    *(deployments.c[name] for name in _DEPLOYMENT_FIELDS),
    deployments.c.number,
    deployments.c.seq,
    deployments.c.lines,
    deployments.c.metrics,
)
_STEP_COLUMNS = tuple(steps.c[name] for name in _STEP_FIELDS)

# The new value of a column goes by the column's name, so the row that is changed is named by `of_…`.
_THIS_ATTEMPT = and_(
    deployments.c.deployment_id == bindparam("of_deployment"), deployments.c.attempt == bindparam("of_attempt")
)
_THIS_STEPS = and_(steps.c.deployment_id == bindparam("of_deployment"), steps.c.attempt == bindparam("of_attempt"))

_FIND_DEPLOYMENT = Statement(
    select(*_DEPLOYMENT_COLUMNS).where(
        deployments.c.deployment_id == bindparam("deployment_id"), deployments.c.latest.is_(True)
    )
)
_PROJECT_OF = Statement(
    select(deployments.c.project).where(deployments.c.deployment_id == bindparam("deployment_id")).limit(1)
)
_TOUCH_PROJECT = Statement(
    update(projects).where(projects.c.name == bindparam("of_name"), projects.c.erase_upto.is_(None)), ["last_at"]
)
_INSERT_PROJECT = Statement(insert(projects), ["name", "first_at", "last_at"])
_NO_LONGER_LATEST = Statement(
    update(deployments).where(deployments.c.deployment_id == bindparam("of_deployment")), ["latest"]
)
_INSERT_DEPLOYMENT = Statement(insert(deployments), [*_DEPLOYMENT_FIELDS, "number", "seq", "latest", "lines"])
_UPDATE_DEPLOYMENT = Statement(update(deployments).where(_THIS_ATTEMPT), [*_DEPLOYMENT_CHANGES, "seq"])
_SAVE_METRICS = Statement(update(deployments).where(_THIS_ATTEMPT), ["metrics"])
_ADD_LINES = Statement(update(deployments).where(_THIS_ATTEMPT).values(lines=deployments.c.lines + bindparam("more")))
_FIND_STEP = Statement(select(*_STEP_COLUMNS).where(_THIS_STEPS, steps.c.key == bindparam("of_key")))
_COUNT_STEPS = Statement(select(func.count()).select_from(steps).where(_THIS_STEPS))
_INSERT_STEP = Statement(insert(steps))
_UPDATE_STEP = Statement(update(steps).where(_THIS_STEPS, steps.c.key == bindparam("of_key")), _STEP_CHANGES)
_INSERT_LINES = Statement(
    insert(log_lines), ["deployment_id", "attempt", "seq", "at", "level", "source", "step", "message"]
)


@dataclass(frozen=True, slots=True)
class DeploymentRow:
    """A stored deployment (its newest attempt unless said otherwise) with what only the store knows of it."""

    state: Deployment
    number: int
    seq: int
    lines: int
    metrics: Mapping[str, object] | None


@dataclass(frozen=True, slots=True)
class LineRow:
    number: int
    seq: int
    line: LogLine


def find_deployment(connection: Connection, deployment_id: str) -> DeploymentRow | None:
    """The newest attempt."""
    row = _FIND_DEPLOYMENT.first(connection, {"deployment_id": deployment_id})
    return None if row is None else _deployment(row)


def project_of(connection: Connection, deployment_id: str) -> str | None:
    """The project that owns this deployment id, None for an id not seen yet."""
    row = _PROJECT_OF.first(connection, {"deployment_id": deployment_id})
    return None if row is None else row[0]


def touch_project(connection: Connection, name: str, now: str) -> bool:
    """Note news of a project; False if it is not known, or is being deleted."""
    return _TOUCH_PROJECT.run(connection, {"of_name": name, "last_at": now}) > 0


def insert_project(connection: Connection, name: str, now: str) -> None:
    _INSERT_PROJECT.run(connection, {"name": name, "first_at": now, "last_at": now})


def insert_deployment(connection: Connection, state: Deployment, seq: int) -> None:
    """A new attempt, which becomes the latest; `seq` is that of its first event."""
    _NO_LONGER_LATEST.run(connection, {"of_deployment": state.deployment_id, "latest": False})
    more = {"number": seq, "seq": seq, "latest": True, "lines": 0}
    _INSERT_DEPLOYMENT.run(connection, _values(state, _DEPLOYMENT_FIELDS) | more)


def update_deployment(connection: Connection, state: Deployment, seq: int) -> None:
    place = _attempt_of(state.deployment_id, state.attempt)
    _UPDATE_DEPLOYMENT.run(connection, _values(state, _DEPLOYMENT_CHANGES) | place | {"seq": seq})


def save_metrics(connection: Connection, deployment_id: str, attempt: int, metrics: Mapping[str, object]) -> None:
    text = json.dumps(metrics, ensure_ascii=False)
    _SAVE_METRICS.run(connection, _attempt_of(deployment_id, attempt) | {"metrics": text})


def find_step(connection: Connection, deployment_id: str, attempt: int, key: str) -> Step | None:
    row = _FIND_STEP.first(connection, _attempt_of(deployment_id, attempt) | {"of_key": key})
    return None if row is None else Step(*row)


def list_steps(connection: Connection, deployment_id: str, attempt: int) -> list[Step]:
    rows = connection.execute(
        select(*_STEP_COLUMNS)
        .where(steps.c.deployment_id == deployment_id, steps.c.attempt == attempt)
        .order_by(steps.c.position, steps.c.first_at)
    )
    return [Step(*row) for row in rows]


def count_steps(connection: Connection, deployment_id: str, attempt: int) -> int:
    row = _COUNT_STEPS.first(connection, _attempt_of(deployment_id, attempt))
    return 0 if row is None else row[0]


def save_step(connection: Connection, deployment_id: str, attempt: int, step: Step, new: bool) -> None:
    if new:
        place: dict[str, Any] = {"deployment_id": deployment_id, "attempt": attempt}
        _INSERT_STEP.run(connection, place | _values(step, _STEP_FIELDS))
    else:
        place = _attempt_of(deployment_id, attempt) | {"of_key": step.key}
        _UPDATE_STEP.run(connection, place | _values(step, _STEP_CHANGES))


def insert_lines(connection: Connection, deployment_id: str, attempt: int, seq: int, lines: Sequence[LogLine]) -> None:
    _INSERT_LINES.run_many(
        connection,
        (
            {
                "deployment_id": deployment_id,
                "attempt": attempt,
                "seq": seq,
                "at": line.at,
                "level": line.level,
                "source": line.source,
                "step": line.step,
                "message": line.message,
            }
            for line in lines
        ),
    )
    _ADD_LINES.run(connection, _attempt_of(deployment_id, attempt) | {"more": len(lines)})


def newest_open(connection: Connection, project: str, since: str) -> str | None:
    """The id of the project's newest deployment that has not ended and had news after `since`."""
    return connection.execute(
        select(deployments.c.deployment_id)
        .where(
            deployments.c.project == project,
            deployments.c.latest.is_(True),
            deployments.c.status.not_in(sorted(TERMINAL)),
            deployments.c.last_at >= since,
        )
        .order_by(deployments.c.number.desc())
        .limit(1)
    ).scalar()


def ended_so(connection: Connection, project: str, status: str, at: str) -> str | None:
    """The id of the project's newest deployment, if it ended with this status by a message of this time."""
    row = connection.execute(
        select(deployments.c.deployment_id, deployments.c.status, deployments.c.status_at)
        .where(deployments.c.project == project, deployments.c.latest.is_(True))
        .order_by(deployments.c.number.desc())
        .limit(1)
    ).first()
    return row.deployment_id if row is not None and (row.status, row.status_at) == (status, at) else None


def recent_deployments(connection: Connection, since: str, source: str, limit: int) -> list[Deployment]:
    """Deployments of one kind of sender with news after `since`, newest first."""
    rows = connection.execute(
        select(*_DEPLOYMENT_COLUMNS)
        .where(deployments.c.latest.is_(True), deployments.c.source == source, deployments.c.last_at >= since)
        .order_by(deployments.c.number.desc())
        .limit(limit)
    )
    return [_deployment(row).state for row in rows]


def list_projects(connection: Connection, only: Sequence[str] | None) -> list[dict[str, Any]]:
    """Projects with their newest deployment and the number of deployments, those with the latest news first."""
    newest = (
        select(deployments.c.project, func.max(deployments.c.number).label("number"), func.count().label("count"))
        .where(deployments.c.latest.is_(True))
        .group_by(deployments.c.project)
        .subquery()
    )
    query = (
        select(
            projects.c.name,
            projects.c.first_at,
            projects.c.last_at,
            func.coalesce(newest.c.count, 0).label("deployments"),
            deployments.c.deployment_id,
            deployments.c.status,
            deployments.c.last_at.label("deployment_last_at"),
        )
        .select_from(projects)
        .where(projects.c.erase_upto.is_(None))
        .outerjoin(newest, newest.c.project == projects.c.name)
        .outerjoin(deployments, deployments.c.number == newest.c.number)
        .order_by(projects.c.last_at.desc(), projects.c.name)
    )
    if only is not None:
        query = query.where(projects.c.name.in_(only))
    return [dict(row) for row in connection.execute(query).mappings()]


@dataclass(frozen=True, slots=True)
class DeploymentFilter:
    """`projects` None is all; `since` and `until` compare with the first sight of a deployment. One that is not over
    and has had no news after `stale_before` counts as `unknown`, as it is shown."""

    projects: tuple[str, ...] | None = None
    statuses: tuple[str, ...] = ()
    since: str | None = None
    until: str | None = None
    stale_before: str = ""

    def clause(self) -> ColumnElement[bool]:
        erased = select(projects.c.name).where(projects.c.erase_upto.is_not(None))
        conditions: list[ColumnElement[bool]] = [deployments.c.latest.is_(True), deployments.c.project.not_in(erased)]
        if self.projects is not None:
            conditions.append(deployments.c.project.in_(self.projects))
        if self.statuses:
            stale = and_(deployments.c.status.not_in(sorted(TERMINAL)), deployments.c.last_at < self.stale_before)
            fits = and_(deployments.c.status.in_(self.statuses), not_(stale))
            conditions.append(or_(fits, stale) if "unknown" in self.statuses else fits)
        if self.since is not None:
            conditions.append(deployments.c.first_at >= self.since)
        if self.until is not None:
            conditions.append(deployments.c.first_at < self.until)
        return and_(*conditions)


def list_deployments(
    connection: Connection, wanted: DeploymentFilter, before: int | None, offset: int, limit: int
) -> list[DeploymentRow]:
    """Newest first; `before` is the number of the last one already seen."""
    query = (
        select(*_DEPLOYMENT_COLUMNS)
        .where(wanted.clause())
        .order_by(deployments.c.number.desc())
        .limit(limit)
        .offset(offset)
    )
    if before is not None:
        query = query.where(deployments.c.number < before)
    return [_deployment(row) for row in connection.execute(query)]


def count_deployments(connection: Connection, wanted: DeploymentFilter) -> int:
    return connection.execute(select(func.count()).select_from(deployments).where(wanted.clause())).scalar_one()


def count_all_deployments(connection: Connection, stale_before: str) -> tuple[int, int]:
    """How many deployments there are, and how many of them run now (those without news since `stale_before` don't);
    each counts with its latest attempt."""
    columns = deployments.c
    runs = and_(columns.status == "running", columns.last_at >= stale_before)
    running = func.coalesce(func.sum(case((runs, 1), else_=0)), 0)
    row = connection.execute(select(func.count(), running).where(columns.latest)).one()
    return int(row[0]), int(row[1])


def list_lines(
    connection: Connection,
    deployment_id: str,
    after: int,
    limit: int,
    levels: Sequence[str] = (),
    text: str | None = None,
) -> list[LineRow]:
    """Log lines in the order of their arrival; `text` is searched without regard to ASCII case."""
    query = (
        select(log_lines)
        .where(log_lines.c.deployment_id == deployment_id, log_lines.c.number > after)
        .order_by(log_lines.c.number)
        .limit(limit)
    )
    if levels:
        query = query.where(log_lines.c.level.in_(levels))
    if text:
        query = query.where(log_lines.c.message.icontains(text, autoescape=True))
    return [
        LineRow(
            row.number,
            row.seq,
            LogLine(at=row.at, level=row.level, source=row.source, step=row.step, message=row.message),
        )
        for row in connection.execute(query)
    ]


def last_messages(connection: Connection, deployment_id: str, limit: int) -> list[str]:
    """What the newest log lines say, the oldest of them first."""
    query = (
        select(log_lines.c.message)
        .where(log_lines.c.deployment_id == deployment_id)
        .order_by(log_lines.c.number.desc())
        .limit(limit)
    )
    return list(connection.execute(query).scalars())[::-1]


def _values(state: Deployment | Step, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(state, name) for name in names}


def _attempt_of(deployment_id: str, attempt: int) -> dict[str, Any]:
    return {"of_deployment": deployment_id, "of_attempt": attempt}


def _deployment(row: Iterable[Any]) -> DeploymentRow:
    """A row of `_DEPLOYMENT_COLUMNS`."""
    *state, number, seq, lines, metrics = row
    return DeploymentRow(Deployment(*state), number, seq, lines, None if metrics is None else json.loads(metrics))
