"""Projects as a whole: their figures over a time, and forgetting one."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import gevent
from gevent.lock import Semaphore
from sqlalchemy import Connection

from sidecar.domain import access, rooms
from sidecar.domain.access import Identity
from sidecar.domain.deployments import STATUSES
from sidecar.domain.errors import NotFound
from sidecar.domain.events import Control
from sidecar.domain.projects import FAILURES, Period, period, success_rate
from sidecar.domain.times import utc_text
from sidecar.services.idempotency import scope_of, sender_of
from sidecar.services.views import at
from sidecar.store import erasing as store
from sidecar.store.database import Database
from sidecar.store.erasing import Erased, KeyedDelivery
from sidecar.store.journal import Head, Transaction, read_head
from sidecar.store.projects import Figures, project_figures
from sidecar.store.writer import Submit
from sidecar.wire.bodies import names_project
from sidecar.wire.news import PROJECT_DELETED

DELETED = Control("control.project_deleted")
"""Type of the control event whose payload `{"project"}` names one that is forgotten from here on."""
WORK_SECONDS = 20.0
"""How long a request goes on with a deletion; what is left then is done by the job (jobs/projects.py)."""
TRANSACTION_SECONDS = 0.02
"""How long a deletion may hold up the posts that are to be committed with it or after it."""
QUARANTINED = 50


class Projects:
    """`stale_before` is the time before which the last news of a deployment was too long ago."""

    def __init__(
        self,
        database: Database,
        submit: Submit,
        stale_before: Callable[[], str],
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ):
        self._database = database
        self._submit = submit
        self._stale_before = stale_before
        self._clock = clock
        self._monotonic = monotonic
        self._turn = Semaphore()  # figures are counted one after the other: it may take long, and others read too

    def metrics(self, identity: Identity, project: str, since: str | None, until: str | None) -> dict[str, Any]:
        """A project's figures, as the read API shows them. Raises Invalid; NotFound, also for one that the identity
        may not see."""
        asked = period(since, until, utc_text(self._clock()))
        stale_before = self._stale_before()

        def query(connection: Connection) -> tuple[Figures, Head]:
            if not (access.may_read(identity, project) and store.known_project(connection, project)):
                raise _not_found()
            return project_figures(connection, project, asked, stale_before), read_head(connection)

        with self._turn:
            figures, head = self._database.read(query)
        return _shown(project, asked, figures) | at(head)

    def delete(self, identity: Identity, project: str, seconds: float = WORK_SECONDS) -> Erased:
        """Forget a project: at once for everybody who reads, and for `seconds` at most what is stored. The same
        again goes on with what is left. Raises NotFound; Unavailable, after which it may have begun."""

        def begin(transaction: Transaction) -> None:
            connection = transaction.connection
            if not access.may_read(identity, project):
                raise _not_found()
            if store.begin_erasing(transaction, project):
                body = {"project": project}
                transaction.append(DELETED, body, ())
                transaction.append(PROJECT_DELETED, body, [rooms.PROJECTS, rooms.project(project)])
            elif not store.being_erased(connection, project):
                raise _not_found()

        self._submit(begin)
        return self.go_on(project, seconds)

    def abandoned(self, seconds: float) -> list[str]:
        """Projects whose deletion nobody has gone on with for so long."""
        return self._database.read(lambda c: store.abandoned(c, utc_text(self._clock() - seconds)))

    def go_on(self, project: str, seconds: float | None = None) -> Erased:
        """Go on with a deletion to its end, or for so long. Half of the time is left to others."""
        end = None if seconds is None else self._monotonic() + seconds
        total = Erased(deliveries=self._erase_quarantined(project))
        while not total.finished and (end is None or self._monotonic() < end):
            began = self._monotonic()
            total += self._submit(partial(self._erase, project))
            gevent.sleep(self._monotonic() - began)
        return total

    def _erase(self, project: str, transaction: Transaction) -> Erased:
        """As many chunks as there is time for: each transaction waits for the disk, however little it does."""
        end = self._monotonic() + TRANSACTION_SECONDS
        total = store.erase_some(transaction, project, _scope_of)
        while not total.finished and self._monotonic() < end:
            total += store.erase_some(transaction, project, _scope_of)
        return total

    def _erase_quarantined(self, project: str) -> int:
        """Nobody knows whose deliveries in quarantine are, but for what their bodies say."""
        count = 0
        rows = self._quarantined_after(0)
        while rows:
            numbers = [number for number, body in rows if names_project(body, project)]
            if numbers:
                self._submit(partial(_erase_deliveries, numbers))
            count += len(numbers)
            rows = self._quarantined_after(rows[-1][0])
        return count

    def _quarantined_after(self, number: int) -> list[tuple[int, bytes]]:
        return self._database.read(lambda connection: store.quarantined_after(connection, number, QUARANTINED))


def _erase_deliveries(numbers: list[int], transaction: Transaction) -> None:
    store.erase_deliveries(transaction.connection, numbers)


def _scope_of(delivery: KeyedDelivery) -> str:
    sender = sender_of(delivery.token_id, delivery.address)
    return scope_of(sender, delivery.path, delivery.project, delivery.key)


def _not_found() -> NotFound:
    return NotFound("There is no such project, or the token does not give the right to see it.")


def _shown(project: str, asked: Period, figures: Figures) -> dict[str, Any]:
    by_status: Counter[str] = Counter()
    by_day: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for day, status, count in figures.counts:
        by_status[status] += count
        by_day[day][status] += count
    return {
        "project": project,
        "since": asked.since,
        "until": asked.until,
        "counts": {"total": sum(by_status.values())} | {status: by_status[status] for status in STATUSES},
        "success_rate": success_rate(by_status["success"], _failed(by_status)),
        "duration": {"count": figures.durations.count, "p50": figures.durations.p50, "p95": figures.durations.p95},
        "steps": [
            {
                "name": step.name,
                "count": step.count,
                "success_rate": success_rate(step.succeeded, step.failed),
                "p50": step.p50,
                "p95": step.p95,
            }
            for step in figures.steps
        ],
        "days": [_day(day, by_day[day], figures.medians.get(day)) for day in asked.days],
    }


def _failed(counts: Counter[str]) -> int:
    return sum(counts[status] for status in FAILURES)


def _day(day: str, counts: Counter[str], median: float | None) -> dict[str, Any]:
    total, success, failed = sum(counts.values()), counts["success"], _failed(counts)
    return {
        "day": day,
        "total": total,
        "success": success,
        "failed": failed,
        "other": total - success - failed,
        "p50": median,
    }
