"""Takes the items of the Redis list: one process of all, which holds the lease, so that they keep their order.

Exactly once is not the lease's work: each item is stored together with its id, by which a repetition is recognised.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import gevent
import structlog
from redis import RedisError

from sidecar.domain.errors import Unavailable
from sidecar.observability.logs import RateLimited, described
from sidecar.observability.metrics import Metrics
from sidecar.services.redis_list import ListItems
from sidecar.store.journal import Transaction
from sidecar.store.leases import give_up_lease, keep_lease, take_lease
from sidecar.store.redis import Pace
from sidecar.store.redis_list import ReliableList
from sidecar.store.writer import Submit

log = RateLimited(structlog.get_logger("sidecar.redis_list"))

LEASE = "redis-list"
LEASE_SECONDS = 6.0
KEEP_SECONDS = 2.0
"""Between two looks at the lease."""
WAIT_SECONDS = 1.5
"""For items, before the next look at whether the lease needs one."""
STOP_SECONDS = 1.0


class LeaseLost(Exception):
    """Another process takes the items by now."""


class ItemFailed(Exception):
    """The oldest item could not be stored; it is tried again, or put aside."""


class ListTaking:
    """`node` is this process."""

    def __init__(
        self,
        source: ReliableList,
        items: ListItems,
        submit: Submit,
        node: str,
        metrics: Metrics,
        monotonic: Callable[[], float] = time.monotonic,
    ):
        self._list = source
        self._items = items
        self._submit = submit
        self._node = node
        self._metrics = metrics
        self._monotonic = monotonic
        self._lease = f"{LEASE} {source.name}"
        self._fence: int | None = None
        self._kept_at = 0.0
        self._greenlet: gevent.Greenlet | None = None

    def start(self) -> None:
        self._greenlet = gevent.spawn(self._run)
        self._greenlet.name = "redis-list"

    def stop(self) -> None:
        """Another process takes over within KEEP_SECONDS, and with the rest what is on its way."""
        if self._greenlet is not None:
            self._greenlet.kill()
        with gevent.Timeout(STOP_SECONDS, False):
            self._give_up()

    def take(self) -> bool:
        """Store what is there now, if that is ours to do; False if there is nothing to do at once. Raises Unavailable,
        LeaseLost, ItemFailed and redis.RedisError."""
        if self._fence is None:  # who can't reach Redis wants no lease
            self._metrics.redis_list_waiting.set(self._list.waiting())
        if not self._hold():
            return False
        taken = self._list.take()
        self._metrics.redis_list_waiting.set(taken.waiting)
        if not taken.items:
            return False
        asked = self._monotonic()
        settled = self._items.settle(taken.items, self._guard)
        self._kept_at = asked
        self._list.remove(taken.items[:settled])
        if settled < len(taken.items):
            raise ItemFailed
        return True

    def _run(self) -> None:
        pace = Pace()
        while True:
            try:
                if not self.take():
                    self._rest()
                pace.reset()
                continue
            except RedisError as error:
                log.warning("redis_list.redis_failed", problem=described(error))
                self._give_up()  # another process may reach it
            except LeaseLost:
                log.warning("redis_list.lease_lost")
                self._fence = None
            except ItemFailed:
                pass  # told already
            except Unavailable as error:
                log.warning("redis_list.postponed", problem=error.detail)
            except Exception as error:
                log.warning("redis_list.failed", problem=described(error))
            pace.wait()

    def _rest(self) -> None:
        if self._fence is None:
            gevent.sleep(KEEP_SECONDS)
        else:
            self._list.wait(WAIT_SECONDS)

    def _hold(self) -> bool:
        """Is the lease ours? It is looked at only now and then, and again in each commit."""
        asked, fence = self._monotonic(), self._fence
        if fence is not None and asked < self._kept_at + KEEP_SECONDS:
            return True
        if fence is None or not self._submit(lambda t: keep_lease(t, self._lease, fence, LEASE_SECONDS)):
            self._fence = self._submit(lambda t: take_lease(t, self._lease, self._node, LEASE_SECONDS))
        self._kept_at = asked
        return self._fence is not None

    def _guard(self, transaction: Transaction) -> None:
        if self._fence is None or not keep_lease(transaction, self._lease, self._fence, LEASE_SECONDS):
            raise LeaseLost

    def _give_up(self) -> None:
        fence, self._fence = self._fence, None
        if fence is not None:
            with contextlib.suppress(Unavailable):
                self._submit(lambda transaction: give_up_lease(transaction, self._lease, fence))
