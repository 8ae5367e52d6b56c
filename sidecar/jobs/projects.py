"""Goes on with deletions of projects that nobody goes on with: the process that began one has died, or its request took
as long as a request may. Two that work on one deletion only share it, so no lease is needed."""

from __future__ import annotations

import gevent
import structlog

from sidecar.domain.errors import Unavailable
from sidecar.services.projects import Projects

log = structlog.get_logger("sidecar.projects")

PERIOD_SECONDS = 5.0
ABANDONED_SECONDS = 3.0


class Deletions:
    def __init__(self, projects: Projects):
        self._projects = projects
        self._greenlet: gevent.Greenlet | None = None

    def start(self) -> None:
        self._greenlet = gevent.spawn(self._run)
        self._greenlet.name = "deletions"

    def stop(self) -> None:
        if self._greenlet is not None:
            self._greenlet.kill()

    def run_once(self) -> None:
        """Bring to its end what is abandoned now. Raises Unavailable."""
        for project in self._projects.abandoned(ABANDONED_SECONDS):
            log.info("projects.deletion_goes_on")
            done = self._projects.go_on(project)
            log.info("projects.deleted", deployments=done.deployments, events=done.events, deliveries=done.deliveries)

    def _run(self) -> None:
        while True:
            try:
                self.run_once()
            except Unavailable as error:
                log.warning("projects.deletion_postponed", problem=error.detail)
            except Exception as error:
                log.error("projects.deletion_failed", exc_info=error)
            gevent.sleep(PERIOD_SECONDS)
