"""What becomes of the items of the Redis list: each is a delivery, as if it had been posted to the webhook, but nobody
hears an answer. So whatever a sender would have been refused is kept in quarantine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from sidecar.domain.access import Identity
from sidecar.domain.errors import SidecarError, TooLarge
from sidecar.observability.logs import RateLimited, described
from sidecar.observability.metrics import Metrics
from sidecar.services.deliveries import SCOPE, Deliveries, Draft, Posted
from sidecar.store.database import lost
from sidecar.store.journal import Transaction
from sidecar.store.redis_list import ListItem, ReliableList
from sidecar.store.writer import Submit

log = RateLimited(structlog.get_logger("sidecar.redis_list"))

POSTER = Identity("list", "redis list", frozenset({SCOPE}), projects=None, token_id="redis_list")  # noqa: S106 - a name
"""Who has posted the items, in the deliveries: whoever may write to that Redis may write to every project."""
PATH = "/api/webhooks/deployment"
TRIES = 5
"""So often an item is tried that fails unexpectedly, before it is put into quarantine."""


@dataclass(slots=True)
class _Failed:
    """The item that the last try ended before: how often it has failed, and why the last time."""

    id: str
    tries: int
    problem: SidecarError


class ListItems:
    def __init__(self, source: ReliableList, deliveries: Deliveries, submit: Submit, metrics: Metrics):
        self._list = source
        self._deliveries = deliveries
        self._submit = submit
        self._metrics = metrics
        self._failed: _Failed | None = None

    def settle(self, items: Sequence[ListItem], guard: Callable[[Transaction], None]) -> int:
        """Store these items or put them into quarantine, in their order and in one commit; how many. It ends before one
        that is to be tried again. Raises Unavailable, and what `guard` raises, which may forbid it."""
        drafts = [self._draft(item) for item in items]

        def command(transaction: Transaction) -> tuple[list[str], Exception | None]:
            guard(transaction)
            verdicts: list[str] = []
            for draft in drafts:
                try:
                    verdicts.append(self._deliveries.settle(transaction, draft))
                except Exception as error:
                    if lost(error):
                        raise
                    return verdicts, error
            return verdicts, None

        verdicts, problem = self._submit(command)
        for verdict in verdicts:
            self._deliveries.settled(verdict)
            self._metrics.redis_list_items.labels(verdict).inc()
        if problem is not None:
            self._note(items[len(verdicts)], problem)
        return len(verdicts)

    def _note(self, item: ListItem, error: Exception) -> None:
        log.warning("redis_list.item_failed", id=item.id, problem=described(error))
        before = self._failed.tries if self._failed is not None and self._failed.id == item.id else 0
        self._failed = _Failed(item.id, before + 1, error if isinstance(error, SidecarError) else _unexpected())

    def _draft(self, item: ListItem) -> Draft:
        posted = Posted(PATH, item.body, {}, "", item.id)
        source = f"redis:{self._list.name}"
        problem: SidecarError | None = None
        failed = self._failed
        if item.too_large is not None:
            problem = TooLarge(f"The item has {item.too_large} bytes, and lies in the Redis list {self._list.large}.")
        elif failed is not None and failed.id == item.id and failed.tries >= TRIES:
            problem = failed.problem
        try:
            return self._deliveries.draft(POSTER, posted, source, problem)
        except Exception as error:
            log.warning("redis_list.item_failed", id=item.id, problem=described(error))
            return self._deliveries.draft(POSTER, posted, source, _unexpected())


def _unexpected() -> SidecarError:
    return SidecarError("The item could not be stored; the log says why.")
