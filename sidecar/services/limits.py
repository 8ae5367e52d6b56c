"""A token bucket a caller: `rate` requests a second on average, `burst` at once. The table is bounded."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from sidecar.domain.access import Identity
from sidecar.domain.errors import RateLimited

MAX_CALLERS = 10_000


def bucket_of(identity: Identity, otherwise: str) -> str:
    """The caller that is counted, on all edges together: a token has its own bucket, and so has each user of one that
    issues tokens for them; who has none, the other one."""
    if identity.token_id is None:
        return otherwise
    return f"token:{identity.token_id}" if identity.user is None else f"user:{identity.token_id} {identity.user}"


class RateLimit:
    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic):
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> None:
        """Count one request of `caller`. Raises RateLimited, saying when to come back, if its bucket is empty.
        When the table is full the caller seen longest ago is forgotten."""
        left = self._left(caller)
        if left < 1:
            raise RateLimited("Too many requests.", retry_after_seconds=max(1, math.ceil((1 - left) / self._rate)))
        self._spend(caller)

    def owe(self, caller: str) -> float:
        """Count one, also beyond what is left; after how many seconds it is paid for. (Who waits so long before the
        next one owes no more than one at a time.)"""
        left = self._left(caller)
        self._spend(caller)
        return max(0.0, (1 - left) / self._rate)

    def charge(self, caller: str, requests: float) -> None:
        """Count what has cost as much as so many requests, also beyond what is left: the next ones wait for it."""
        self._left(caller)
        self._spend(caller, requests)

    def _left(self, caller: str) -> float:
        now = self._clock()
        left, seen = self._buckets.pop(caller, (float(self._burst), now))
        left = min(float(self._burst), left + (now - seen) * self._rate)
        self._buckets[caller] = (left, now)
        if len(self._buckets) > MAX_CALLERS:
            self._buckets.popitem(last=False)
        return left

    def _spend(self, caller: str, requests: float = 1) -> None:
        left, seen = self._buckets[caller]
        self._buckets[caller] = (left - requests, seen)
