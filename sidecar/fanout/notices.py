"""The doorbell of processes that share a PostgreSQL: LISTEN and NOTIFY. A notice says that there is more, not what.

It is sent by the transaction that writes (`store.postgres`), so it goes out if and when the events are committed, also
when the process dies right after. One connection of each process listens.
"""

from __future__ import annotations

import random

import gevent
import structlog
from sqlalchemy import Engine

from sidecar.domain.events import Event, Volatile
from sidecar.fanout.doorbells import Heard, HeardVolatile
from sidecar.observability.logs import RateLimited, described
from sidecar.store.postgres import Postgres

log = RateLimited(structlog.get_logger("sidecar.notices"))

RETRY_SECONDS = 0.5


class Notices:
    """A `Doorbell`. `heard(None)` is called when another process has committed, and each time that listening began
    (again), because nothing is kept for who did not listen. It may be called once too often, never too rarely."""

    def __init__(self, engine: Engine, backend: Postgres):
        self._engine = engine
        self._backend = backend
        self._greenlet: gevent.Greenlet | None = None

    def start(self, heard: Heard, heard_volatile: HeardVolatile) -> None:
        self._greenlet = gevent.spawn(self._run, heard)
        self._greenlet.name = "notices"

    def ring(self, events: list[Event]) -> None:
        """Nothing is left to do: the transaction has rung."""

    def stop(self) -> None:
        if self._greenlet is not None:
            self._greenlet.kill()

    def tell(self, news: Volatile) -> None:
        """Nothing: a notice says only that there is more."""

    def _run(self, heard: Heard) -> None:
        while True:
            try:
                with self._backend.listening(self._engine) as notices:
                    heard(None)
                    for _ in notices:
                        heard(None)
            except Exception as error:  # whatever it is, the poll of the tail goes on meanwhile
                log.warning("notices.lost", problem=described(error))
            gevent.sleep(RETRY_SECONDS * random.uniform(1, 2))  # noqa: S311 - so that processes don't come all at once
