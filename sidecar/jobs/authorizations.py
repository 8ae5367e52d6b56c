"""Looks after authorizations: ends those whose time is over, changes cards that could not be changed, renews tokens
before they end, handles events again that were not, and cleans up. One process of all holds the lease."""

from __future__ import annotations

import contextlib
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
from sidecar.store.leases import give_up_lease, take_lease
from sidecar.store.writer import Submit

log = RateLimited(structlog.get_logger("sidecar.authorizations"))

LEASE = "authorizations"
PERIOD_SECONDS = 5.0
LEASE_SECONDS = 30.0
CLEAN_SECONDS = 3_600.0
STOP_SECONDS = 4.0


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
        self._tokens = tokens
        self._cleaning = cleaning
        self._parts: dict[str, Callable[[], object]] = {
            "expire": authorizations.expire,
            "cards": cards.change_due,
            "events": callbacks.redo,
            "renew": tokens.renew_ending,
            "clean": self._clean,
            "sync": self._sync,
        }
        self._running: dict[str, gevent.Greenlet] = {}
        """By part, its last run: a slow platform in one part doesn't hold up the others."""
        self._submit = submit
        self._node = node
        self._schedule = schedule
        self._clock = clock
        self._clean_at = 0.0
        self._sync_at = self._next_sync()
        self._fence: int | None = None
        self._greenlet: gevent.Greenlet | None = None

    def start(self) -> None:
        self._greenlet = gevent.spawn(self._run)
        self._greenlet.name = "authorizations"

    def stop(self) -> None:
        """Another process takes over at once. (What runs is waited for: a token that is being renewed would be lost
        between the platform's answer and the commit.)"""
        if self._greenlet is not None:
            self._greenlet.kill()
        running = list(self._running.values())
        gevent.joinall(running, timeout=STOP_SECONDS)
        gevent.killall(running)
        fence, self._fence = self._fence, None
        if fence is not None:
            with contextlib.suppress(Unavailable):
                self._submit(lambda transaction: give_up_lease(transaction, LEASE, fence))

    def run_once(self) -> bool:
        """Begin what is due now, each part in a greenlet; False if that is another process's business, or there is no
        app. Raises Unavailable."""
        if not self._apps.all():
            return False
        self._fence = self._submit(lambda transaction: take_lease(transaction, LEASE, self._node, LEASE_SECONDS))
        if self._fence is None:
            self._time_to_sync()  # the other process does it
            return False
        for name, part in self._parts.items():
            running = self._running.get(name)
            if running is None or running.dead:
                greenlet = self._running[name] = gevent.spawn(self._guarded, part)
                greenlet.name = f"authorizations-{name}"
        return True

    def _clean(self) -> None:
        if self._clock() >= self._clean_at:
            self._clean_at = self._clock() + CLEAN_SECONDS
            self._cleaning.run()

    def _sync(self) -> None:
        if self._time_to_sync():
            self._tokens.sync_people()

    def _time_to_sync(self) -> bool:
        """Once at each time of the schedule."""
        if self._sync_at is None or self._clock() < self._sync_at:
            return False
        self._sync_at = self._next_sync()
        return True

    def _next_sync(self) -> float | None:
        if self._schedule is None:
            return None
        return next(CronSim(self._schedule, datetime.fromtimestamp(self._clock(), UTC))).timestamp()

    def _run(self) -> None:
        while True:
            self._guarded(self.run_once)
            gevent.sleep(PERIOD_SECONDS)

    def _guarded(self, part: Callable[[], object]) -> None:
        try:
            part()
        except Unavailable as error:
            log.warning("authorizations.upkeep_postponed", problem=error.detail)
        except Exception as error:
            log.warning("authorizations.upkeep_failed", problem=described(error))
