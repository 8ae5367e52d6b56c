"""Is this process able to do its work? Answered from memory but for one short read of the database."""

from __future__ import annotations

from collections.abc import Callable

from sidecar.domain.errors import Unavailable
from sidecar.fanout.catchup import CatchUp
from sidecar.fanout.hub import Hub
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
        connections: Callable[[], int],
        subscribers: Callable[[], int],
        recovered: Callable[[], int],
    ):
        self._database = database
        self._writer = writer
        self._tail = tail
        self._hub = hub
        self._catchup = catchup
        self._connections = connections
        self._subscribers = subscribers
        self._recovered = recovered
        self._demoted = 0
        self.draining = False
        """Is this process about to stop?"""

    @property
    def seq(self) -> int:
        return self._tail.last

    @property
    def epoch(self) -> str:
        return self._tail.epoch

    def problems(self) -> list[str]:
        """Why this process is not ready, a sentence each; empty when it is."""
        found = ["It is draining: it stops soon."] if self.draining else []
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

    def measure(self, metrics: Metrics) -> None:
        """Bring the gauges up to date."""
        metrics.connections.set(self._connections())
        metrics.subscribers.set(self._subscribers())
        metrics.recovered.set(self._recovered())
        metrics.rooms.set(self._hub.room_count)
        metrics.behind.set(self._catchup.behind)
        metrics.demoted.inc(self._catchup.demoted - self._demoted)
        self._demoted = self._catchup.demoted
        metrics.tail_seq.set(self._tail.last)
        metrics.tail_lag.set(self._tail.lag)
        metrics.writer_waiting.set(self._writer.waiting)
        metrics.writer_healthy.set(self._writer.healthy)
