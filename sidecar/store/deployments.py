"""Rows of projects, deployments, steps and log lines: the read models kept beside the journal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, bindparam, func, insert, not_, or_, select, update

from sidecar.domain.deployments import TERMINAL, Deployment, LogLine, Step
from sidecar.store.tables import deployments, log_lines, projects, steps

_DEPLOYMENT_FIELDS = tuple(field.name for field in fields(Deployment))
_STEP_FIELDS = tuple(field.name for field in fields(Step))

# What each report runs is built once: building a statement takes ten times as long as running it.
_FIND_DEPLOYMENT = select(deployments).where(
    deployments.c.deployment_id == bindparam("of_id"), deployments.c.latest.is_(True)
)
_PROJECT_OF = select(deployments.c.project).where(deployments.c.deployment_id == bindparam("of_id")).limit(1)
_TOUCH_PROJECT = update(projects).where(projects.c.name == bindparam("of_name"))
_ADD_PROJECT = insert(projects)
_ADD_DEPLOYMENT = insert(deployments)
_RETIRE_DEPLOYMENT = update(deployments).where(deployments.c.deployment_id == bindparam("of_id")).values(latest=False)
_CHANGE_DEPLOYMENT = update(deployments).where(
    deployments.c.deployment_id == bindparam("of_id"), deployments.c.attempt == bindparam("of_attempt")
)
_COUNT_LINES = _CHANGE_DEPLOYMENT.values(lines=deployments.c.lines + bindparam("more"))
_THIS_STEP = (
    steps.c.deployment_id == bindparam("of_id"),
    steps.c.attempt == bindparam("of_attempt"),
    steps.c.key == bindparam("of_key"),
)
_FIND_STEP = select(steps).where(*_THIS_STEP)
_ADD_STEP = insert(steps)
_CHANGE_STEP = update(steps).where(*_THIS_STEP)
_COUNT_STEPS = select(func.count()).where(
    steps.c.deployment_id == bindparam("of_id"), steps.c.attempt == bindparam("of_attempt")
)
_ADD_LINES = insert(log_lines)


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
    row = connection.execute(_FIND_DEPLOYMENT, {"of_id": deployment_id}).first()
    return None if row is None else _deployment(row._mapping)


def project_of(connection: Connection, deployment_id: str) -> str | None:
    """The project that owns this deployment id, None for an id not seen yet."""
    return connection.execute(_PROJECT_OF, {"of_id": deployment_id}).scalar()


def save_project(connection: Connection, name: str, now: str) -> bool:
    """Note news of a project; True if it was not known."""
    known = connection.execute(_TOUCH_PROJECT, {"of_name": name, "last_at": now}).rowcount > 0
    if not known:
        connection.execute(_ADD_PROJECT, {"name": name, "first_at": now, "last_at": now})
    return not known


def insert_deployment(connection: Connection, state: Deployment, seq: int) -> None:
    """A new attempt, which becomes the latest; `seq` is that of its first event."""
    connection.execute(_RETIRE_DEPLOYMENT, {"of_id": state.deployment_id})
    connection.execute(_ADD_DEPLOYMENT, _values(state) | {"number": seq, "seq": seq, "latest": True, "lines": 0})


def update_deployment(connection: Connection, state: Deployment, seq: int) -> None:
    _change(connection, state.deployment_id, state.attempt, _values(state) | {"seq": seq})


def save_metrics(connection: Connection, deployment_id: str, attempt: int, metrics: Mapping[str, object]) -> None:
    _change(connection, deployment_id, attempt, {"metrics": json.dumps(metrics, ensure_ascii=False)})


def _change(connection: Connection, deployment_id: str, attempt: int, values: dict[str, Any]) -> None:
    connection.execute(_CHANGE_DEPLOYMENT, values | {"of_id": deployment_id, "of_attempt": attempt})


def find_step(connection: Connection, deployment_id: str, attempt: int, key: str) -> Step | None:
    row = connection.execute(_FIND_STEP, {"of_id": deployment_id, "of_attempt": attempt, "of_key": key}).first()
    return None if row is None else _step(row._mapping)


def list_steps(connection: Connection, deployment_id: str, attempt: int) -> list[Step]:
    rows = connection.execute(
        select(steps)
        .where(steps.c.deployment_id == deployment_id, steps.c.attempt == attempt)
        .order_by(steps.c.position, steps.c.first_at)
    )
    return [_step(row._mapping) for row in rows]


def count_steps(connection: Connection, deployment_id: str, attempt: int) -> int:
    return connection.execute(_COUNT_STEPS, {"of_id": deployment_id, "of_attempt": attempt}).scalar_one()


def save_step(connection: Connection, deployment_id: str, attempt: int, step: Step, new: bool) -> None:
    values = {name: getattr(step, name) for name in _STEP_FIELDS}
    if new:
        connection.execute(_ADD_STEP, values | {"deployment_id": deployment_id, "attempt": attempt})
    else:
        place = {"of_id": deployment_id, "of_attempt": attempt, "of_key": step.key}
        connection.execute(_CHANGE_STEP, values | place)


def insert_lines(connection: Connection, deployment_id: str, attempt: int, seq: int, lines: Sequence[LogLine]) -> None:
    connection.execute(
        _ADD_LINES,
        [
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
        ],
    )
    connection.execute(_COUNT_LINES, {"of_id": deployment_id, "of_attempt": attempt, "more": len(lines)})


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
        select(deployments)
        .where(deployments.c.latest.is_(True), deployments.c.source == source, deployments.c.last_at >= since)
        .order_by(deployments.c.number.desc())
        .limit(limit)
    )
    return [_deployment(row._mapping).state for row in rows]


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
        )
        .select_from(projects)
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
        conditions: list[ColumnElement[bool]] = [deployments.c.latest.is_(True)]
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
    query = select(deployments).where(wanted.clause()).order_by(deployments.c.number.desc()).limit(limit).offset(offset)
    if before is not None:
        query = query.where(deployments.c.number < before)
    return [_deployment(row._mapping) for row in connection.execute(query)]


def count_deployments(connection: Connection, wanted: DeploymentFilter) -> int:
    return connection.execute(select(func.count()).select_from(deployments).where(wanted.clause())).scalar_one()


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


def _values(state: Deployment) -> dict[str, Any]:
    return {name: getattr(state, name) for name in _DEPLOYMENT_FIELDS}


def _deployment(row: RowMapping) -> DeploymentRow:
    return DeploymentRow(
        state=Deployment(**{name: row[name] for name in _DEPLOYMENT_FIELDS}),
        number=row["number"],
        seq=row["seq"],
        lines=row["lines"],
        metrics=None if row["metrics"] is None else json.loads(row["metrics"]),
    )


def _step(row: RowMapping) -> Step:
    return Step(**{name: row[name] for name in _STEP_FIELDS})
