"""Is this process able to do its work? Answered from memory but for one short read of the database."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sidecar.domain.errors import Unavailable
from sidecar.fanout.catchup import CatchUp
from sidecar.fanout.doorbells import Doorbell
from sidecar.fanout.hub import Hub
from sidecar.fanout.redis_bell import RedisBell
from sidecar.fanout.tail import Tail
from sidecar.observability.metrics import Metrics
from sidecar.store.database import Database
from sidecar.store.journal import read_head
from sidecar.store.writer import Writer

MAX_TAIL_LAG_EVENTS = 10_000


class Health:
    """`connections` and `subscribers` count this process's sockets and namespaces, `recovered` the sessions that it has
    given back."""

    def __init__(
        self,
        database: Database,
        writer: Writer,
        tail: Tail,
        hub: Hub,
        catchup: CatchUp,
        bells: Sequence[Doorbell],
        redis_bell: RedisBell | None,
        connections: Callable[[], int],
        subscribers: Callable[[], int],
        recovered: Callable[[], int],
    ):
        self._database = database
        self._writer = writer
        self._tail = tail
        self._hub = hub
        self._catchup = catchup
        self._bells = bells
        self._redis_bell = redis_bell
        self._connections = connections
        self._subscribers = subscribers
        self._recovered = recovered
        self._demoted = 0
        self._dropped = 0
        self._refused = 0
        self._taken: dict[str, int] = {}

    @property
    def seq(self) -> int:
        return self._tail.last

    @property
    def epoch(self) -> str:
        return self._tail.epoch

    def problems(self) -> list[str]:
        """Why this process is not ready, a sentence each; empty when it is."""
        found = []
        try:
            head = self._database.read(read_head)
        except Unavailable:
            found.append("The database can't be read.")
        else:
            if head.seq - self._tail.last > MAX_TAIL_LAG_EVENTS:
                found.append("The tail is far behind the journal.")
        if not self._writer.healthy:
            found.append("The last batch could not be committed.")
        return found

    def warnings(self) -> list[str]:
        """What makes it slower and costs nothing else, a sentence each."""
        if self._redis_bell is None or self._redis_bell.connected:
            return []
        return ["Redis is away: other hosts hear of events by the database, and of volatile ones not at all."]

    def measure(self, metrics: Metrics) -> None:
        """Bring the gauges up to date."""
        metrics.connections.set(self._connections())
        metrics.subscribers.set(self._subscribers())
        metrics.recovered.set(self._recovered())
        metrics.rooms.set(self._hub.room_count)
        metrics.behind.set(self._catchup.behind)
        metrics.demoted.inc(self._catchup.demoted - self._demoted)
        self._demoted = self._catchup.demoted
        dropped = sum(bell.dropped for bell in self._bells)
        metrics.volatile_dropped.inc(dropped - self._dropped)
        self._dropped = dropped
        for road, count in self._tail.taken.items():
            metrics.tail_events.labels(road).inc(count - self._taken.get(road, 0))
        self._taken = dict(self._tail.taken)
        if self._redis_bell is not None:
            metrics.redis_configured.set(1)
            metrics.redis_connected.set(self._redis_bell.connected)
            metrics.redis_refused.inc(self._redis_bell.refused - self._refused)
            self._refused = self._redis_bell.refused
        metrics.tail_seq.set(self._tail.last)
        metrics.tail_lag.set(self._tail.lag)
        metrics.writer_waiting.set(self._writer.waiting)
        metrics.writer_healthy.set(self._writer.healthy)
