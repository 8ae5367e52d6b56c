"""Live pushes: which rooms are told something again and again, where it comes from, and how often.

They are rows, so they outlive every process; one process of all runs them (jobs/live_push.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace

from sidecar.domain import rooms
from sidecar.domain.access import Identity, may, may_push, may_watch_room
from sidecar.domain.errors import FieldError, Invalid, NotAllowed, TooMany
from sidecar.domain.events import Control
from sidecar.domain.messages import sender_of
from sidecar.services.access import require
from sidecar.services.idempotency import KeyedRequest, answered, remember
from sidecar.store.database import Database
from sidecar.store.journal import Transaction
from sidecar.store.live_pushes import (
    LivePushRow,
    count_live_pushes,
    delete_live_push,
    find_live_push,
    list_live_pushes,
    save_live_push,
)
from sidecar.store.writer import Submit
from sidecar.wire.messages import StartPushBody, StopPushBody

CHANGED = Control("control.live_push")
"""Type of the control event after which the live pushes are read again; its payload `{"room"}` says which one."""

SCOPE = "push:manage"
MAX_PUSHES = 1_000

Source = Callable[[], Mapping[str, object]]
"""What is pushed, as it is now: `type`, `content` and fields of the message. Called in the greenlet of its push;
what would block the event loop is wrapped (services/sources.py, InThread)."""


class LivePushes:
    """`submit` runs a command in the writer; `sources` are the functions that can be asked, by name."""

    def __init__(self, database: Database, submit: Submit, sources: Mapping[str, Source]):
        self._database = database
        self._submit = submit
        self._sources = sources

    def start(self, identity: Identity, request: KeyedRequest | None, body: StartPushBody) -> tuple[LivePushRow, bool]:
        """Start the push of a room, or change its interval and source; and whether it was answered so before (by its
        key). Raises Unauthenticated, NotAllowed, Invalid, TooMany, Conflict, Unavailable."""
        require(identity, SCOPE)
        if not may_push(identity, rooms.free(body.room)):
            raise NotAllowed("The token does not give the right to push there.")
        if body.source not in self._sources:
            known = ", ".join(sorted(self._sources))
            raise Invalid("There is no such source.", (FieldError("source", f"must be one of {known}"),))

        def command(transaction: Transaction) -> tuple[LivePushRow, bool]:
            connection = transaction.connection
            first = answered(transaction, request)
            if first is not None:
                return LivePushRow(**first), True
            running = find_live_push(connection, body.room)
            if running is None and count_live_pushes(connection) >= MAX_PUSHES:
                raise TooMany(f"There are {MAX_PUSHES} live pushes; stop some first.")
            event = transaction.append(CHANGED, {"room": body.room}, ())
            sender = sender_of(identity)
            started = LivePushRow(
                room=body.room,
                interval_seconds=body.interval,
                source=body.source,
                token_id=identity.token_id,
                sender=sender.name,
                sender_id=sender.number,
                started_at=transaction.now,
                version=event.seq,
            )
            row = started if running is None else replace(started, started_at=running.started_at)
            save_live_push(connection, row)
            remember(transaction, request, asdict(row))
            return row, False

        return self._submit(command)

    def stop(self, identity: Identity, body: StopPushBody) -> list[str]:
        """Stop the push of a room, or without one all that this token has started, as far as it may; the rooms that
        were pushed to.
        Raises Unauthenticated, NotAllowed, Unavailable."""
        require(identity, SCOPE)
        if body.room is not None and not may_push(identity, rooms.free(body.room)):
            raise NotAllowed("The token does not give the right to push there.")

        def ends(row: LivePushRow) -> bool:
            if body.room is not None:
                return row.room == body.room
            return row.token_id == identity.token_id and may_push(identity, rooms.free(row.room))

        def command(transaction: Transaction) -> list[str]:
            found = [row.room for row in list_live_pushes(transaction.connection) if ends(row)]
            for room in found:
                delete_live_push(transaction.connection, room)
                transaction.append(CHANGED, {"room": room}, ())
            return found

        return self._submit(command)

    def visible(self, identity: Identity) -> list[LivePushRow]:
        """Those that it may watch or manage. Raises Unauthenticated, NotAllowed, Unavailable."""
        if not may(identity, SCOPE):
            require(identity, "rooms:read")
        return list(_visible(identity, self.all()))

    @property
    def source_names(self) -> list[str]:
        return sorted(self._sources)

    def all(self) -> list[LivePushRow]:
        return self._database.read(list_live_pushes)

    def now(self, row: LivePushRow) -> Mapping[str, object] | None:
        """What its source says now; None if there is no such source (any more). Raises what the source raises."""
        source = self._sources.get(row.source)
        return None if source is None else source()


def _visible(identity: Identity, rows: Iterable[LivePushRow]) -> Iterable[LivePushRow]:
    for row in rows:
        room = rooms.free(row.room)
        if may_push(identity, room) or may_watch_room(identity, room):
            yield row
