"""The way of one frame to bots: whom a key stands for, who is there, and handing it over.

A frame goes straight to the connections of this process; those of others get it through the journal, as a control event
whose content is encrypted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.fernet import Fernet

from sidecar.domain.errors import NotFound, Unavailable
from sidecar.domain.events import Control
from sidecar.domain.maim import DEFAULT_TENANT, Account, Place, envelope
from sidecar.fanout.roster import Bot
from sidecar.services.maim_connections import BotConnections
from sidecar.services.maim_figures import Sent
from sidecar.services.maim_hooks import Hooks
from sidecar.services.maim_keys import BotKeys
from sidecar.services.maim_queue import BotQueue
from sidecar.store.journal import Transaction
from sidecar.store.maim import ConnectionRow
from sidecar.store.writer import Submit
from sidecar.wire.maim import as_text

RELAYED = Control("control.maim")
"""Type of the control event whose payload `{"to":{node:[uuid]},"sealed"}` is a frame for connections of other
processes."""


@dataclass(frozen=True, slots=True)
class Receivers:
    """The connections that a frame goes to, of this process and of others. `place` is where it can be kept for, `meta`
    what the frame says of them."""

    here: list[Bot]
    there: list[ConnectionRow]
    meta: Mapping[str, Any]
    place: Place | None = None

    @property
    def uuids(self) -> list[str]:
        return [bot.uuid for bot in self.here] + [row.uuid for row in self.there]


class Delivery:
    """`seal` encrypts what goes through the journal."""

    def __init__(
        self,
        submit: Submit,
        keys: BotKeys,
        connections: BotConnections,
        queue: BotQueue,
        hooks: Hooks,
        seal: Fernet,
        clock: Callable[[], float] = time.time,
    ):
        self._submit = submit
        self._keys = keys
        self._connections = connections
        self._roster = connections.roster
        self._queue = queue
        self._hooks = hooks
        self._seal = seal
        self._clock = clock

    def receiver(self, named: str) -> Account | None:
        """Whom this key or address stands for. Raises Unavailable."""
        account = self._keys.receiver(named)
        if account is not None:
            return account
        user = self._hooks.user_of(
            {"api_key": named, "platform": None, "message_type": "outgoing", "timestamp": self._clock()}
        )
        return None if user is None else Account(DEFAULT_TENANT, user)

    def at(self, place: Place) -> Receivers:
        """Everybody there."""
        meta = {"target_user": place.user, "platform": place.platform}
        return Receivers(*self._connections.at(place), meta, place)

    def one(self, name: str, may_reach: Callable[[str], bool]) -> Receivers:
        """The connection of this uuid. Raises NotFound, also for a tenant's that may not be reached."""
        found = self._connections.named(name)
        if found is None or not may_reach(found.place.tenant):
            raise NotFound("There is no such connection.")
        here, there = ([found], []) if isinstance(found, Bot) else ([], [found])
        return Receivers(here, there, {"target_user": None, "platform": None})

    def everybody(self, tenant: str, platform: str | None) -> Receivers:
        """Of a tenant, or on one platform."""
        meta = {"broadcast": True} | ({} if platform is None else {"platform": platform})
        return Receivers(*self._connections.of_tenant(tenant, platform), meta)

    def publish(
        self,
        to: Receivers,
        type: str,
        payload: Any,
        ttl_seconds: float | None,
        first: Callable[[Transaction], bool] | None,
        must_store: bool = False,
    ) -> Sent:
        """Hand a frame over; with `ttl_seconds` it is kept for its place. `first` says, within the transaction, whether
        this has not been sent before; with `must_store` nothing is sent unless that is stored. Raises Undelivered,
        Unavailable."""
        frame = envelope(type, payload, to.meta, self._clock())
        text = as_text(frame)
        place = to.place if ttl_seconds is not None else None
        if place is None and not to.uuids:
            return Sent(reason="offline")

        def command(transaction: Transaction) -> bool:
            if first is not None and not first(transaction):
                return False
            if place is not None:
                self._queue.put(transaction, place, frame["msg_id"], text, ttl_seconds or 0.0)
            elif to.there:
                self._relay(transaction, to.there, text)
            return True

        stored = True
        if place is not None or to.there or first is not None:
            try:
                if not self._submit(command):
                    return Sent(duplicate=True)
            except Unavailable:
                if place is not None or must_store or not to.here:
                    raise
                stored = False
        if place is not None:  # the tail brings it
            return Sent(dict.fromkeys(to.uuids, True), queued=True)
        results = self._roster.deliver(to.here, text) | {row.uuid: stored for row in to.there}
        return Sent(results, None if any(results.values()) else "slow")

    def relayed(self, node: str, body: Mapping[str, Any]) -> None:
        """As its control event passes the tail: a frame of another process, for connections of this one (`node`)
        perhaps."""
        bots = [self._roster.named(name) for name in body["to"].get(node, ())]
        if bots:
            text = self._seal.decrypt(body["sealed"].encode()).decode()
            self._roster.deliver([bot for bot in bots if bot is not None], text)

    def _relay(self, transaction: Transaction, rows: list[ConnectionRow], text: str) -> None:
        nodes: dict[str, list[str]] = {}
        for row in rows:
            nodes.setdefault(row.node, []).append(row.uuid)
        transaction.append(RELAYED, {"to": nodes, "sealed": self._seal.encrypt(text.encode()).decode()}, ())
