"""Journal, tail, hub and catch-up put together as the factory does it, without sockets."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import gevent
from sqlalchemy import delete, update

from sidecar.domain.events import Event, Offset
from sidecar.fanout.catchup import PAGE_BYTES, CatchUp, Past, Subscription
from sidecar.fanout.hub import Hub, Subscriber
from sidecar.fanout.tail import Tail
from sidecar.store.journal import Transaction
from sidecar.store.tables import event_rooms, events, journal_head
from tests.fanout.recipients import FakeRecipient
from tests.store.stores import Store


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Returns once the condition holds, letting other greenlets run; fails the test otherwise."""
    deadline = time.monotonic() + seconds
    pause = 0.002
    while not condition():
        assert time.monotonic() < deadline, f"after {seconds} s still not: {what}"
        gevent.sleep(pause)
        pause = min(1.5 * pause, 0.02)


class Stage:
    """`published` are the events in the order in which the tail gave them out."""

    def __init__(self, folder: Path, page_bytes: int = PAGE_BYTES):
        self.store = Store(folder, started=False, on_commit=lambda events: self.tail.offer(events))
        self.published: list[Event] = []
        self.tail = Tail(self.store.database, self._publish, on_gap=lambda: self.hub.cut_off_all())
        self.catchup = CatchUp(self.store.database, self.tail, page_bytes)
        self.hub = Hub(self.catchup.congested)
        self.store.writer.start()
        self.tail.start()

    def _publish(self, event: Event) -> None:
        self.published.append(event)
        self.hub.publish(event)

    def subscriber(self, capacity: int = 1_000_000) -> tuple[Subscriber, FakeRecipient]:
        recipient = FakeRecipient(capacity=capacity)
        return Subscriber(recipient, recipient.codec, self.tail.last), recipient

    def subscribe(self, subscriber: Subscriber, room: str, since: int | Offset | None = None) -> Subscription:
        offset = Offset(since) if isinstance(since, int) else since
        return self.catchup.subscribe(self.hub, subscriber, room, None if offset is None else Past(offset))

    def settle(self) -> None:
        """Wait until the tail is at the journal's end and nobody is catching up."""
        wait_until(lambda: self.tail.last == self.store.head() and not self.catchup.behind, "everything is sent")

    def retire(self, upto: int) -> None:
        """Retention: forget the events up to this seq."""

        def command(transaction: Transaction) -> None:
            transaction.connection.execute(delete(event_rooms).where(event_rooms.c.seq <= upto))
            transaction.connection.execute(delete(events).where(events.c.seq <= upto))
            transaction.connection.execute(update(journal_head).values(floor=upto))

        self.store.writer.submit(command)

    def close(self) -> None:
        self.tail.stop()
        self.store.close()
