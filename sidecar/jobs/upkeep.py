"""Upkeep: forgets what is older than the retention. One greenlet, small chunks, other commands in between."""

from __future__ import annotations

import time
from collections.abc import Callable

import gevent
import structlog

from sidecar.domain.errors import Unavailable
from sidecar.domain.times import utc_text
from sidecar.services.deliveries import KEY_SECONDS
from sidecar.store.journal import Transaction
from sidecar.store.retention import (
    CHUNK,
    retire_answers,
    retire_deliveries,
    retire_events,
    retire_lines,
    retire_login_links,
)
from sidecar.store.sessions import retire_sessions
from sidecar.store.writer import Submit

log = structlog.get_logger("sidecar.upkeep")

PERIOD_SECONDS = 61.7
PAUSE_SECONDS = 0.05


class Upkeep:
    def __init__(
        self, submit: Submit, retention_days: float, recovery_seconds: float, clock: Callable[[], float] = time.time
    ):
        self._submit = submit
        self._retention_seconds = retention_days * 86_400
        self._recovery_seconds = recovery_seconds
        self._clock = clock
        self._greenlet: gevent.Greenlet | None = None

    def start(self) -> None:
        self._greenlet = gevent.spawn(self._run)
        self._greenlet.name = "upkeep"

    def stop(self) -> None:
        if self._greenlet is not None:
            self._greenlet.kill()

    def run_once(self) -> None:
        """Forget everything that is due now. Raises Unavailable."""
        before = utc_text(self._clock() - self._retention_seconds)
        keys_before = utc_text(self._clock() - KEY_SECONDS)
        self._repeat(lambda transaction: retire_events(transaction, before))
        self._repeat(retire_lines)
        self._repeat(lambda transaction: retire_deliveries(transaction, before))
        self._repeat(lambda transaction: retire_answers(transaction, keys_before))
        self._repeat(retire_login_links)
        sessions_before = utc_text(self._clock() - self._recovery_seconds)
        self._repeat(lambda transaction: retire_sessions(transaction.connection, sessions_before, CHUNK))

    def _repeat(self, retire: Callable[[Transaction], int]) -> None:
        while self._submit(retire) == CHUNK:
            gevent.sleep(PAUSE_SECONDS)

    def _run(self) -> None:
        while True:
            gevent.sleep(PERIOD_SECONDS)
            try:
                self.run_once()
            except Unavailable as error:
                log.warning("upkeep.postponed", problem=error.detail)
            except Exception as error:
                log.error("upkeep.failed", exc_info=error)
