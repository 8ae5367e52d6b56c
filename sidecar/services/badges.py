"""Badges of projects: who may see which, and what they are made of. Nobody learns from an answer whether a project
exists that they may not see."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from sqlalchemy import Connection

from sidecar.domain import access
from sidecar.domain.access import Identity
from sidecar.domain.badges import Badge, Newest, last_badge, rate_badge, status_badge
from sidecar.domain.errors import NotFound
from sidecar.domain.patterns import fits
from sidecar.domain.projects import FAILURES, period
from sidecar.domain.times import utc_text
from sidecar.services.access import require
from sidecar.services.views import Views
from sidecar.store import deployments as store
from sidecar.store.database import Database
from sidecar.store.deployments import DeploymentFilter
from sidecar.store.erasing import known_project
from sidecar.store.projects import count_statuses


class Badges:
    """`public` are patterns of the projects whose badges anybody may see."""

    def __init__(
        self, database: Database, views: Views, public: tuple[str, ...], clock: Callable[[], float] = time.time
    ):
        self._database = database
        self._views = views
        self._public = public
        self._clock = clock

    def public(self, project: str) -> bool:
        return any(fits(project, pattern) for pattern in self._public)

    def badge(self, asks: Callable[[], Identity], project: str, kind: str, label: str | None) -> Badge:
        """`asks` finds who wants to see it, where that counts. A project that isn't there has no deployments. Raises
        Unauthenticated, NotAllowed or NotFound."""
        if not self.public(project):
            identity = asks()
            require(identity, "deployments:read")
            if not access.may_read(identity, project):
                raise NotFound("There is no such project, or the token does not give the right to see it.")
        if kind == "success-rate":
            made = self._rate(project)
        else:
            newest = self._newest(project)
            made = (status_badge if kind == "status" else last_badge)(project, newest)
        return made if label is None else replace(made, label=label)

    def _rate(self, project: str) -> Badge:
        month, stale_before = period(None, None, utc_text(self._clock())), self._views.stale_before()

        def query(connection: Connection) -> dict[str, int]:
            known = known_project(connection, project)
            return count_statuses(connection, project, month, stale_before) if known else {}

        counts = self._database.read(query)
        return rate_badge(project, counts.get("success", 0), sum(counts.get(status, 0) for status in FAILURES))

    def _newest(self, project: str) -> Newest | None:
        def query(connection: Connection) -> Newest | None:
            rows = store.list_deployments(connection, DeploymentFilter(projects=(project,)), None, 0, 1)
            if not rows:
                return None
            shown = self._views.summary(rows[0])
            state = rows[0].state
            return Newest(state.deployment_id, str(shown["status"]), bool(shown["stale"]), state.last_at)

        return self._database.read(query)
