"""The doorbell of processes that share a PostgreSQL: LISTEN and NOTIFY. A notice says how far the journal has
come, not what is in it.

It is sent by the transaction that writes (`store.postgres`), so it goes out if and when the events are committed, also
when the process dies right after. One connection of each process listens.
"""

from __future__ import annotations

import random

import gevent
import structlog
from sqlalchemy import Engine

from sidecar.domain.events import Volatile
from sidecar.fanout.doorbells import Batch, Ear, HeardVolatile
from sidecar.observability.logs import RateLimited, described
from sidecar.store.postgres import Postgres

log = RateLimited(structlog.get_logger("sidecar.notices"))

RETRY_SECONDS = 0.5


class Notices:
    """A `Doorbell`. The ear is told to look when another process has committed, and each time that listening began
    (again), because nothing is kept for who did not listen. That may be once too often, never too rarely."""

    carries = False
    dropped = 0

    def __init__(self, engine: Engine, backend: Postgres):
        self._engine = engine
        self._backend = backend
        self._greenlet: gevent.Greenlet | None = None

    def start(self, ear: Ear, heard_volatile: HeardVolatile) -> None:
        self._greenlet = gevent.spawn(self._run, ear)
        self._greenlet.name = "notices"

    def ring(self, batch: Batch) -> None:
        """Nothing is left to do: the transaction has rung."""

    def stop(self) -> None:
        if self._greenlet is not None:
            self._greenlet.kill()

    def tell(self, news: Volatile) -> bool:
        """A notice is a number."""
        return False

    def _run(self, ear: Ear) -> None:
        while True:
            try:
                with self._backend.listening(self._engine) as notices:
                    ear.look()
                    for seq in notices:
                        ear.look(seq)
            except Exception as error:  # whatever it is, the poll of the tail goes on meanwhile
                log.warning("notices.lost", problem=described(error))
            gevent.sleep(RETRY_SECONDS * random.uniform(1, 2))  # noqa: S311 - so that processes don't come all at once
