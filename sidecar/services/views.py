"""What deployments look like to those who read them: the bodies of the read API, and the snapshots that a subscriber is
given whose past is no longer kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection

from sidecar.domain import access
from sidecar.domain.access import Identity
from sidecar.domain.deployments import TERMINAL, Deployment, Step, duration_of, step_word
from sidecar.domain.times import utc_text
from sidecar.services.deployments import DeploymentView
from sidecar.services.menu import Menu
from sidecar.store import deployments as store
from sidecar.store.deployments import DeploymentFilter, DeploymentRow
from sidecar.store.erasing import being_erased
from sidecar.store.journal import Head, read_head

SNAPSHOT_DEPLOYMENTS = 50


class Views:
    """A deployment that is not over but has had no news for `stale_after_hours` is shown as unknown (stale)."""

    def __init__(self, stale_after_hours: float, menu: Menu, clock: Callable[[], float] = time.time):
        self._menu = menu
        self._stale_after_seconds = stale_after_hours * 3_600
        self._clock = clock

    def stale_before(self) -> str:
        return utc_text(self._clock() - self._stale_after_seconds)

    def summary(self, row: DeploymentRow) -> dict[str, object]:
        """A deployment without its steps."""
        state = row.state
        shown = _state(state)
        shown |= {"id": state.deployment_id, "lines": row.lines, "metrics": row.metrics, "stale": False}
        if state.status == "success":
            shown["error_message"] = None  # an earlier failure's, before the retry that went well
        return shown | self._doubt(state.status, state.last_at)

    def project(self, item: dict[str, Any]) -> dict[str, object]:
        """A project as `list_projects` finds it, with the status of its newest deployment as that is shown."""
        last_at = item["deployment_last_at"]
        shown = {name: value for name, value in item.items() if name != "deployment_last_at"} | {"stale": False}
        return shown if last_at is None else shown | self._doubt(item["status"], last_at)

    def _doubt(self, status: str, last_at: str) -> dict[str, object]:
        """What is shown in place of the status of a deployment that is stale."""
        if status in TERMINAL or last_at >= self.stale_before():
            return {}
        return {"stale": True, "status": "unknown", "last_status": status}

    def whole(self, view: DeploymentView) -> dict[str, object]:
        """A deployment with its steps."""
        return self.summary(view.row) | {"steps": [_state(step) for step in view.steps], "last_seq": view.row.seq}

    def for_ui(self, view: DeploymentView, messages: Sequence[str]) -> dict[str, object]:
        """A deployment in the two shapes that the guide's front end declares (protocol.md, 5), with these log lines."""
        shown = self.summary(view.row)
        return {
            "id": shown["id"],
            "project": shown["project"],
            "status": shown["status"],
            "duration": shown["duration_seconds"],
            "steps": [
                {
                    "stepName": step.name,
                    "status": step_word(step.status, step.reported_status),
                    "duration": duration_of(step),
                    "logs": step.logs or "",
                    "timestamp": step.status_at or step.last_at,
                }
                for step in view.steps
            ],
            "logs": list(messages) or (view.row.state.logs or "").splitlines(),
        }

    def snapshot_of(self, kind: str, name: str, identity: Identity) -> Callable[[Connection], object]:
        """A query for what a room is about: of a deployment what the read API shows of it, of a project its newest
        deployments, of `projects` all that the identity may read, of the menu what it sees; None for what has no
        state."""

        def query(connection: Connection) -> object:
            if kind == "deployment":
                row = store.find_deployment(connection, name)
                if row is None or being_erased(connection, row.state.project):
                    return None
                steps = store.list_steps(connection, name, row.state.attempt)
                return self.whole(DeploymentView(row, steps, read_head(connection)))
            if kind == "project":
                wanted = DeploymentFilter(projects=(name,))
                rows = store.list_deployments(connection, wanted, None, 0, SNAPSHOT_DEPLOYMENTS)
                return {"project": name, "deployments": [self.summary(row) for row in rows]}
            if kind == "projects":
                found = store.list_projects(connection, identity.projects)
                return {"projects": [self.project(item) for item in found if access.may_read(identity, item["name"])]}
            if kind == "menu":
                return self._menu.snapshot(connection, identity)
            return None

        return query


def at(head: Head) -> dict[str, object]:
    """Where in the journal an answer is true: who subscribes `since` this `offset` lacks nothing."""
    return {"seq": head.seq, "epoch": head.epoch, "offset": head.offset.text}


def _state(state: Deployment | Step) -> dict[str, object]:
    return asdict(state) | {"duration_seconds": duration_of(state)}
