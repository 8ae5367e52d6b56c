"""Runs the live pushes: one process of all holds the lease and has a greenlet a room. What is pushed is volatile.

A push keeps its own beat: what is late by a slow source or a busy machine is left out, and the next one comes when it
would have come anyway. A little jitter keeps rooms of one period from all beating at once.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable

import gevent
import structlog
from gevent.event import Event as Signal

from sidecar.domain import messages, rooms
from sidecar.domain.errors import Unavailable
from sidecar.domain.events import Volatile
from sidecar.domain.times import utc_text
from sidecar.observability.logs import RateLimited, described
from sidecar.services.live_push import CHANGED, LivePushes
from sidecar.store.journal import Transaction
from sidecar.store.leases import give_up_lease, keep_lease, take_lease
from sidecar.store.live_pushes import LivePushRow
from sidecar.store.writer import Submit

log = RateLimited(structlog.get_logger("sidecar.live_push"))

LEASE = "live-push"
LEASE_SECONDS = 12.0
KEEP_SECONDS = 4.0
"""Between two looks: the holder renews its lease, the others see whether it is free."""
MARGIN_SECONDS = 2.0
"""So long before its lease ends at the latest a holder that could not renew it has stopped."""
JITTER = 0.1
MAX_JITTER_SECONDS = 0.25
MAX_BYTES = 32 * 1024


class LivePushing:
    """`publish` hands a message to the subscribers of every process; it must not block. `submit` runs a command in the
    writer; `node` is this process."""

    def __init__(
        self,
        pushes: LivePushes,
        submit: Submit,
        node: str,
        publish: Callable[[Volatile], None],
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ):
        self._pushes = pushes
        self._submit = submit
        self._node = node
        self._publish = publish
        self._clock = clock
        self._monotonic = monotonic
        self._wake = Signal()
        self._fence: int | None = None
        self._held_until = 0.0
        self._running: dict[str, tuple[LivePushRow, gevent.Greenlet]] = {}
        self._greenlet: gevent.Greenlet | None = None

    @property
    def rooms(self) -> list[str]:
        """Those that this process pushes to now."""
        return sorted(self._running)

    def start(self) -> None:
        self._greenlet = gevent.spawn(self._run)
        self._greenlet.name = "live-push"

    def stop(self) -> None:
        """Another process takes over at once: it is told, if there is something to take over."""
        if self._greenlet is None:
            return
        self._greenlet.kill()
        pushed_to = self.rooms
        self._stop_all()
        if self._fence is not None:
            fence = self._fence

            def give_up(transaction: Transaction) -> None:
                give_up_lease(transaction, LEASE, fence)
                if pushed_to:
                    transaction.append(CHANGED, {"room": pushed_to[0]}, ())

            try:
                self._submit(give_up)
            except Unavailable as error:
                log.warning("live_push.lease_not_given_up", problem=error.detail)

    def changed(self) -> None:
        """A push was started, changed or stopped."""
        self._wake.set()

    def look(self) -> None:
        """Hold the lease, if it is free or ours, and run what is to be run. Raises Unavailable."""
        if self._fence is None or self._monotonic() > self._held_until - LEASE_SECONDS + KEEP_SECONDS / 2:
            self._hold()
        if self._fence is None:
            self._stop_all()
        else:
            self._adjust(self._pushes.all())

    def _run(self) -> None:
        while True:
            try:
                self.look()
            except Unavailable as error:
                log.warning("live_push.postponed", problem=error.detail)
            except Exception as error:
                log.warning("live_push.failed", problem=described(error))
            self._wake.wait(KEEP_SECONDS)
            self._wake.clear()

    def _hold(self) -> None:
        """(Measured from before the question, so that we think the lease ends no later than the database does.)"""
        asked, fence = self._monotonic(), self._fence
        if fence is not None and self._submit(lambda t: keep_lease(t, LEASE, fence, LEASE_SECONDS)):
            self._held_until = asked + LEASE_SECONDS
            return
        self._fence = self._submit(lambda t: take_lease(t, LEASE, self._node, LEASE_SECONDS))
        if self._fence is not None:
            self._held_until = asked + LEASE_SECONDS

    def _adjust(self, wanted: list[LivePushRow]) -> None:
        rows = {row.room: row for row in wanted}
        for room, (row, greenlet) in list(self._running.items()):
            if rows.get(room) != row or greenlet.dead:
                greenlet.kill(block=False)
                del self._running[room]
        for room, row in rows.items():
            if room not in self._running:
                greenlet = gevent.spawn(self._push, row)
                greenlet.name = "live-push-room"
                self._running[room] = row, greenlet

    def _stop_all(self) -> None:
        gevent.killall([greenlet for _, greenlet in self._running.values()], block=False)
        self._running.clear()

    def _push(self, row: LivePushRow) -> None:
        begin, beat = self._monotonic(), 0
        jitter = min(row.interval_seconds * JITTER, MAX_JITTER_SECONDS)
        while True:
            if self._monotonic() < self._held_until - MARGIN_SECONDS:
                self._push_once(row)
            beat = max(beat + 1, int((self._monotonic() - begin) / row.interval_seconds) + 1)
            due = begin + beat * row.interval_seconds + random.uniform(0, jitter)  # noqa: S311 - no secret
            gevent.sleep(max(0.0, due - self._monotonic()))

    def _push_once(self, row: LivePushRow) -> None:
        try:
            data = self._pushes.now(row)
            if data is None:
                log.warning("live_push.no_source", source=row.source)
                return
            sender = messages.Sender(row.sender, row.sender_id)
            at = utc_text(self._clock())
            said = messages.api_message("Live update", sender, at, data, type=row.source)
            payload = json.dumps(said, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            size = len(payload.encode())
            if size > MAX_BYTES:
                log.warning("live_push.too_large", source=row.source, bytes=size, allowed=MAX_BYTES)
                return
            self._publish(Volatile(messages.API_MESSAGE, payload, rooms.free(row.room), at))
        except Exception as error:
            log.warning("live_push.source_failed", source=row.source, problem=described(error))
