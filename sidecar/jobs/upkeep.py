"""Upkeep: forgets what is older than the retention, and what processes have left behind that died. One greenlet in one
of the processes, small chunks, other commands in between."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import gevent
import structlog

from sidecar.domain.errors import Unavailable
from sidecar.domain.maim import DUPLICATE_SECONDS
from sidecar.domain.times import utc_text
from sidecar.services.idempotency import KEY_SECONDS
from sidecar.store.journal import Transaction
from sidecar.store.leases import give_up_lease, keep_lease, take_lease
from sidecar.store.maim import retire_queued, retire_seen
from sidecar.store.retention import (
    CHUNK,
    retire_answers,
    retire_deliveries,
    retire_events,
    retire_lines,
    retire_login_links,
)
from sidecar.store.sessions import end_orphans, retire_sessions
from sidecar.store.writer import Submit

log = structlog.get_logger("sidecar.upkeep")

LEASE = "upkeep"
PERIOD_SECONDS = 61.7
LEASE_SECONDS = 2 * PERIOD_SECONDS
"""Longer than the pause between two runs: who holds it goes on holding it, until it dies."""
PAUSE_SECONDS = 0.05


class LeaseLost(Exception):
    """Another process does the upkeep by now."""


class Upkeep:
    def __init__(
        self,
        submit: Submit,
        node: str,
        retention_days: float,
        recovery_seconds: float,
        clock: Callable[[], float] = time.time,
    ):
        self._submit = submit
        self._node = node
        self._retention_seconds = retention_days * 86_400
        self._recovery_seconds = recovery_seconds
        self._clock = clock
        self._fence: int | None = None
        self._greenlet: gevent.Greenlet | None = None

    def start(self) -> None:
        self._greenlet = gevent.spawn(self._run)
        self._greenlet.name = "upkeep"

    def stop(self) -> None:
        """Another process takes over at its next run."""
        if self._greenlet is not None:
            self._greenlet.kill()
        fence, self._fence = self._fence, None
        if fence is not None:
            with contextlib.suppress(Unavailable):
                self._submit(lambda transaction: give_up_lease(transaction, LEASE, fence))

    def run_once(self) -> bool:
        """Forget everything that is due now; False if that is another process's business. Raises Unavailable, or
        LeaseLost when it became another's meanwhile."""
        self._fence = fence = self._submit(lambda t: take_lease(t, LEASE, self._node, LEASE_SECONDS))
        if fence is None:
            return False
        old = self._ago(self._retention_seconds)
        old_messages = self._ago(DUPLICATE_SECONDS)
        old_keys, old_sessions = self._ago(KEY_SECONDS), self._ago(self._recovery_seconds)
        self._repeat(fence, lambda transaction: retire_events(transaction, old))
        self._repeat(fence, retire_lines)
        self._repeat(fence, lambda transaction: retire_deliveries(transaction, old))
        self._repeat(fence, lambda transaction: retire_answers(transaction, old_keys))
        self._repeat(fence, retire_login_links)
        self._repeat(fence, lambda transaction: retire_queued(transaction, CHUNK))
        self._repeat(fence, lambda transaction: retire_seen(transaction, old_messages, CHUNK))
        self._repeat(fence, lambda transaction: end_orphans(transaction.connection, transaction.now, CHUNK))
        self._repeat(fence, lambda transaction: retire_sessions(transaction.connection, old_sessions, CHUNK))
        return True

    def _ago(self, seconds: float) -> str:
        return utc_text(self._clock() - seconds)

    def _repeat(self, fence: int, retire: Callable[[Transaction], int]) -> None:
        def command(transaction: Transaction) -> int:
            if not keep_lease(transaction, LEASE, fence, LEASE_SECONDS):
                raise LeaseLost
            return retire(transaction)

        while self._submit(command) == CHUNK:
            gevent.sleep(PAUSE_SECONDS)

    def _run(self) -> None:
        while True:
            gevent.sleep(PERIOD_SECONDS)
            try:
                self.run_once()
            except Unavailable as error:
                log.warning("upkeep.postponed", problem=error.detail)
            except LeaseLost:
                log.warning("upkeep.lease_lost")
            except Exception as error:
                log.error("upkeep.failed", exc_info=error)
