"""Looks after authorizations: ends those whose time is over, changes cards that could not be changed, renews tokens
before they end, handles events again that were not, and cleans up. One process of all holds the lease."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

import gevent
import structlog
from cronsim import CronSim

from sidecar.domain.errors import Unavailable
from sidecar.observability.logs import RateLimited, described
from sidecar.services.authorization_cards import Cards
from sidecar.services.authorization_upkeep import CleanUp
from sidecar.services.authorizations import Authorizations
from sidecar.services.lark_apps import Apps
from sidecar.services.lark_callbacks import Callbacks
from sidecar.services.user_tokens import TokenStore
from sidecar.store.leases import take_lease
from sidecar.store.writer import Submit

log = RateLimited(structlog.get_logger("sidecar.authorizations"))

LEASE = "authorizations"
PERIOD_SECONDS = 5.0
LEASE_SECONDS = 30.0
CLEAN_SECONDS = 3_600.0


class AuthorizationUpkeep:
    """`schedule` (five fields as in cron, UTC) is when users are asked for again who they are; None never."""

    def __init__(
        self,
        apps: Apps,
        authorizations: Authorizations,
        cards: Cards,
        tokens: TokenStore,
        callbacks: Callbacks,
        cleaning: CleanUp,
        submit: Submit,
        node: str,
        schedule: str | None,
        clock: Callable[[], float] = time.time,
    ):
        self._apps = apps
        self._authorizations = authorizations
        self._cards = cards
        self._tokens = tokens
        self._callbacks = callbacks
        self._cleaning = cleaning
        self._submit = submit
        self._node = node
        self._schedule = schedule
        self._clock = clock
        self._clean_at = 0.0
        self._sync_at = self._next_sync()
        self._greenlet: gevent.Greenlet | None = None

    def start(self) -> None:
        self._greenlet = gevent.spawn(self._run)
        self._greenlet.name = "authorizations"

    def stop(self) -> None:
        if self._greenlet is not None:
            self._greenlet.kill()

    def run_once(self) -> bool:
        """What is due now; False if that is another process's business, or there is no app. Raises Unavailable."""
        if not self._apps.all():
            return False
        if self._submit(lambda transaction: take_lease(transaction, LEASE, self._node, LEASE_SECONDS)) is None:
            return False
        self._authorizations.expire()
        self._cards.change_due()
        self._callbacks.redo()
        self._tokens.renew_ending()
        if self._clock() >= self._clean_at:
            self._clean_at = self._clock() + CLEAN_SECONDS
            self._cleaning.run()
        if self._sync_at is not None and self._clock() >= self._sync_at:
            self._sync_at = self._next_sync()
            self._tokens.sync_people()
        return True

    def _next_sync(self) -> float | None:
        if self._schedule is None:
            return None
        return next(CronSim(self._schedule, datetime.fromtimestamp(self._clock(), UTC))).timestamp()

    def _run(self) -> None:
        while True:
            try:
                self.run_once()
            except Unavailable as error:
                log.warning("authorizations.upkeep_postponed", problem=error.detail)
            except Exception as error:
                log.warning("authorizations.upkeep_failed", problem=described(error))
            gevent.sleep(PERIOD_SECONDS)
