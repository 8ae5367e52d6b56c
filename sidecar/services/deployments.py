"""Deployments: recording what a report says, inside the writer's transaction, and reading it back with the rights
of whoever asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from sidecar.domain import access, rooms
from sidecar.domain.access import Identity
from sidecar.domain.deployments import (
    Deployment,
    Report,
    Step,
    merge_deployment,
    merge_step,
    missing_identity,
)
from sidecar.domain.errors import Conflict, Invalid, NotAllowed, NotFound, Unavailable
from sidecar.domain.events import Event
from sidecar.domain.times import unix_seconds, utc_text
from sidecar.store import deployments as store
from sidecar.store.database import Database
from sidecar.store.deployments import DeploymentFilter, DeploymentRow, LineRow
from sidecar.store.erasing import being_erased
from sidecar.store.journal import Head, Page, Transaction, read_head, room_events
from sidecar.wire.news import PROJECT_CREATED, REPORTS

MAX_STEPS = 1_000
MAX_LINES = 200_000
UNKNOWN_PROJECT = "unknown"
"""What the workflows of the guide write for a project that they could not find out."""
OPEN_SECONDS = 6 * 3_600
"""A deployment without news for so long takes no more reports that don't name it: its sender gave up without a word
(a workflow that fails sends no summary), and the next run must not be mixed into it."""
RECENT_SECONDS = 3_600
RECENT_DEPLOYMENTS = 50
EVENT_PAGE_BYTES = 4 * 1024 * 1024


def record(transaction: Transaction, identity: Identity, report: Report, source: str) -> tuple[Report, Event]:
    """Store what the report says and append its event; a command of the writer. Gives the report with its project
    and id filled in. Raises Invalid for one that can't be placed, NotAllowed or Conflict for a foreign id."""
    connection = transaction.connection
    report = _place(transaction, identity, report, source)
    if not access.may_write(identity, report.project):
        raise NotAllowed("The token does not give the right to write to this project.")
    if report.type == "test":
        _refuse_erased(connection, report.project)
        return report, transaction.append(REPORTS[report.type], report.payload, [rooms.project(report.project)])
    _announce(transaction, report.project)
    stored = store.find_deployment(connection, report.deployment_id)
    if stored is not None and stored.state.project != report.project:
        raise _foreign(identity, stored.state.project)
    if report.attempt == 0:
        report = replace(report, attempt=1 if stored is None else stored.state.attempt)
    state, outdated = _merge(transaction, stored, report, source)
    if not outdated:
        _record_steps(transaction, state, report)
        report = _record_lines(transaction, state, report, stored.lines if stored else 0)
        if report.metrics is not None:
            store.save_metrics(connection, state.deployment_id, state.attempt, report.metrics)
    event = transaction.append(
        REPORTS[report.type], report.payload, [rooms.project(report.project), rooms.deployment(report.deployment_id)]
    )
    return report, event


def _announce(transaction: Transaction, project: str) -> None:
    """Note news of the project; its first sight is an event of its own."""
    connection, now = transaction.connection, transaction.now
    if not store.touch_project(connection, project, now):
        _refuse_erased(connection, project)
        store.insert_project(connection, project, now)
        transaction.append(PROJECT_CREATED, {"project": project}, [rooms.PROJECTS])


def _refuse_erased(connection: Connection, project: str) -> None:
    """What is of a project and comes while that is being deleted would be forgotten with it, or only in part."""
    if being_erased(connection, project):
        raise Unavailable("This project is being deleted; nothing of this request was stored.", retry_after_seconds=2)


def _foreign(identity: Identity, owner: str) -> Exception:
    """The first project owns an id: never a merge of two projects' deployments."""
    if identity.authenticated and not access.touches(identity, owner):
        return NotAllowed("This deployment id belongs to a project that the token has no right to.")
    return Conflict("This deployment id belongs to another project.")


def _place(transaction: Transaction, identity: Identity, report: Report, source: str) -> Report:
    """Find the project and deployment that the sender left out, from what is stored; only among those that the
    identity may write to. Raises Invalid naming what is still missing."""
    connection, hints = transaction.connection, report.hints
    deployment_id, project = report.deployment_id, report.project
    if hints.newest_open and project:
        since = utc_text(unix_seconds(transaction.now) - OPEN_SECONDS)
        repeated = store.ended_so(connection, project, report.status, report.at) if report.status else None
        deployment_id = repeated or store.newest_open(connection, project, since) or deployment_id
    if not deployment_id and hints.started_at:
        deployment_id = _started_then(transaction, identity, report, source) or ""
    if deployment_id and project in ("", UNKNOWN_PROJECT):
        owner = store.project_of(connection, deployment_id)
        if owner is not None and not project and not access.may_write(identity, owner):
            raise _foreign(identity, owner)
        project = owner if owner is not None and access.may_write(identity, owner) else project
    if deployment_id != report.deployment_id or project != report.project:
        payload = report.payload | {"project": project, "deployment_id": deployment_id}
        report = replace(report, deployment_id=deployment_id, project=project, payload=payload)
    missing = missing_identity(report)
    if missing:
        raise Invalid("The message can't be placed: it names no deployment that is known here.", missing)
    return report


def _started_then(transaction: Transaction, identity: Identity, report: Report, source: str) -> str | None:
    """Metrics of a workflow job that lost its variables name only the run's start: the one recent deployment of
    this kind of sender (and of the project, if it is told) that started then, else the only recent one."""
    since = utc_text(unix_seconds(transaction.now) - RECENT_SECONDS)
    recent = [
        deployment
        for deployment in store.recent_deployments(transaction.connection, since, source, RECENT_DEPLOYMENTS)
        if access.may_write(identity, deployment.project) and report.project in ("", deployment.project)
    ]
    started = [deployment for deployment in recent if deployment.started_at == report.hints.started_at]
    candidates = started or recent
    return candidates[0].deployment_id if len(candidates) == 1 else None


def _merge(
    transaction: Transaction, stored: DeploymentRow | None, report: Report, source: str
) -> tuple[Deployment, bool]:
    """The deployment's state after the report, saved; and whether the report is of an attempt that a later one
    has replaced (it is told to browsers, but changes nothing)."""
    before = stored.state if stored is not None else None
    state = merge_deployment(before, report, transaction.now)
    if before is not None and report.attempt < before.attempt:
        return before, True
    if before is None or state.attempt > before.attempt:
        state = replace(state, source=source)
        store.insert_deployment(transaction.connection, state, transaction.seq + 1)
    else:
        store.update_deployment(transaction.connection, state, transaction.seq + 1)
    return state, False


def _record_steps(transaction: Transaction, state: Deployment, report: Report) -> None:
    connection = transaction.connection
    for step in report.steps:
        before = store.find_step(connection, state.deployment_id, state.attempt, step.key)
        if before is None:
            count = store.count_steps(connection, state.deployment_id, state.attempt)
            if count >= MAX_STEPS:
                raise Invalid(f"A deployment may have {MAX_STEPS} steps.")
            if step.position is None:
                step = replace(step, position=count + 1)
        after = merge_step(before, step, report.at, transaction.now)
        if after != before:
            store.save_step(connection, state.deployment_id, state.attempt, after, new=before is None)


def _record_lines(transaction: Transaction, state: Deployment, report: Report, kept: int) -> Report:
    """Keep the lines, up to the deployment's bound; what is cut is said in the event."""
    lines = report.lines[: max(0, MAX_LINES - kept)]
    if lines:
        store.insert_lines(transaction.connection, state.deployment_id, state.attempt, transaction.seq + 1, lines)
    cut = len(report.lines) - len(lines)
    return report if cut == 0 else replace(report, payload=report.payload | {"lines_not_kept": cut})


@dataclass(frozen=True, slots=True)
class DeploymentView:
    """A deployment with its steps, true at `head.seq`."""

    row: DeploymentRow
    steps: Sequence[Step]
    head: Head


class History:
    """Reads with rights: what somebody may not see is not found."""

    def __init__(self, database: Database):
        self._database = database

    def project_of(self, deployment_id: str) -> str | None:
        """The project that owns the id, whoever asks; None for an id not seen yet."""
        return self._database.read(lambda c: store.project_of(c, deployment_id))

    def projects_of(self, deployment_ids: Sequence[str]) -> dict[str, str | None]:
        """The same for several, in one read."""
        return self._database.read(lambda c: {name: store.project_of(c, name) for name in deployment_ids})

    def projects(self, identity: Identity) -> tuple[list[dict[str, Any]], Head]:
        def query(connection: Connection) -> tuple[list[dict[str, Any]], Head]:
            return store.list_projects(connection, identity.projects), read_head(connection)

        found, head = self._database.read(query)
        return [item for item in found if access.may_read(identity, item["name"])], head

    def deployments(
        self, identity: Identity, wanted: DeploymentFilter, before: int | None, offset: int, limit: int, count: bool
    ) -> tuple[list[DeploymentRow], int | None, Head]:
        """A page of deployments, newest first; with `count` also how many match in all."""
        wanted = self._visible(identity, wanted)

        def query(connection: Connection) -> tuple[list[DeploymentRow], int | None, Head]:
            rows = store.list_deployments(connection, wanted, before, offset, limit)
            total = store.count_deployments(connection, wanted) if count else None
            return rows, total, read_head(connection)

        return self._database.read(query)

    def deployment(self, identity: Identity, deployment_id: str) -> DeploymentView:
        """Raises NotFound, also for one that the identity may not see."""
        return self._database.read(lambda connection: _view(connection, identity, deployment_id))

    def deployment_with_log(
        self, identity: Identity, deployment_id: str, lines: int
    ) -> tuple[DeploymentView, list[str]]:
        """The same with what its newest log lines say, at most so many, the oldest of them first. Raises NotFound."""

        def query(connection: Connection) -> tuple[DeploymentView, list[str]]:
            view = _view(connection, identity, deployment_id)
            return view, store.last_messages(connection, deployment_id, lines)

        return self._database.read(query)

    def lines(
        self, identity: Identity, deployment_id: str, after: int, limit: int, levels: Sequence[str], text: str | None
    ) -> tuple[list[LineRow], Head]:
        """A page of log lines. Raises NotFound."""

        def query(connection: Connection) -> tuple[list[LineRow], Head]:
            _readable(connection, identity, deployment_id)
            lines = store.list_lines(connection, deployment_id, after, limit, levels, text)
            return lines, read_head(connection)

        return self._database.read(query)

    def events(self, identity: Identity, deployment_id: str, after: int, limit: int) -> tuple[Page, Head]:
        """A page of the deployment's events as its room got them. Raises NotFound."""

        def query(connection: Connection) -> tuple[Page, Head]:
            _readable(connection, identity, deployment_id)
            head = read_head(connection)
            room = rooms.deployment(deployment_id)
            return room_events(connection, [room], after, head.seq, limit, EVENT_PAGE_BYTES), head

        return self._database.read(query)

    def _visible(self, identity: Identity, wanted: DeploymentFilter) -> DeploymentFilter:
        """The filter narrowed to projects that the identity may read."""
        if identity.projects is None and identity.patterns is None:
            return wanted
        names = wanted.projects
        if names is None:
            found = self._database.read(lambda c: store.list_projects(c, identity.projects))
            names = tuple(item["name"] for item in found)
        return replace(wanted, projects=tuple(name for name in names if access.may_read(identity, name)))


def _view(connection: Connection, identity: Identity, deployment_id: str) -> DeploymentView:
    row = _readable(connection, identity, deployment_id)
    return DeploymentView(row, store.list_steps(connection, deployment_id, row.state.attempt), read_head(connection))


def _readable(connection: Connection, identity: Identity, deployment_id: str) -> DeploymentRow:
    row = store.find_deployment(connection, deployment_id)
    if (
        row is None
        or not access.may_watch_deployment(identity, deployment_id, row.state.project)
        or being_erased(connection, row.state.project)
    ):
        raise NotFound("There is no such deployment, or the token does not give the right to see it.")
    return row
