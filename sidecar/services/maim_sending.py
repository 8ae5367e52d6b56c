"""What back ends and hooks send to bots, and ask about them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from sidecar.domain.access import Identity, may_reach_tenant
from sidecar.domain.errors import NotAllowed
from sidecar.domain.maim import DEFAULT_TENANT, STANDARD, Place, Undelivered, destination, place_of
from sidecar.services.access import require
from sidecar.services.idempotency import KeyedRequest, answered, remember
from sidecar.services.maim_connections import BotConnections
from sidecar.services.maim_delivery import Delivery, Receivers
from sidecar.services.maim_figures import Figures, Sent
from sidecar.store.journal import Transaction
from sidecar.store.maim import ConnectionRow
from sidecar.store.writer import Submit
from sidecar.wire.maim import MaimBroadcastBody, MaimCustomBody, MaimRouteBody, MaimSendBody

SCOPE = "maim:send"


@dataclass(frozen=True, slots=True)
class Route:
    """Where a message would go."""

    place: Place | None
    connections: list[str]
    reason: str | None


class BotSending:
    """Every method but `stats` raises Unauthenticated or NotAllowed for who may not, and Unavailable; those that send
    also Conflict for a request's key that was used with another body."""

    def __init__(self, submit: Submit, connections: BotConnections, delivery: Delivery, figures: Figures):
        self._submit = submit
        self._connections = connections
        self._delivery = delivery
        self._figures = figures

    def send(self, identity: Identity, body: MaimSendBody, request: KeyedRequest | None = None) -> Sent:
        """A message to whom its `message_dim` names."""

        def find() -> Receivers:
            reach = _reach(identity)
            return self._delivery.at(destination(body.message, body.target_platform, self._delivery.receiver, reach))

        return self._send(identity, request, find, STANDARD, body.message, body.kept_seconds)

    def broadcast(self, identity: Identity, body: MaimBroadcastBody, request: KeyedRequest | None = None) -> Sent:
        """A message to every connection of a tenant, or to those on one platform."""
        tenant = body.tenant or _tenant(identity)

        def find() -> Receivers:
            if not may_reach_tenant(identity, tenant):
                raise NotAllowed("The token does not give the right to this tenant.")
            return self._delivery.everybody(tenant, body.platform)

        return self._send(identity, request, find, STANDARD, body.message, None)

    def custom(self, identity: Identity, body: MaimCustomBody, request: KeyedRequest | None = None) -> Sent:
        """A custom message to one connection, to a user on a platform, or to whom a key stands for. Raises NotFound
        for a connection that is not there."""
        reach = _reach(identity)

        def find() -> Receivers:
            if body.connection_uuid is not None:
                return self._delivery.one(body.connection_uuid, reach)
            if body.target_user is None:
                platform = body.target_platform or body.platform
                return self._delivery.at(place_of(body.api_key, platform, self._delivery.receiver, reach))
            place = Place(body.tenant or _tenant(identity), body.target_user, body.target_platform or "")
            if not reach(place.tenant):
                raise Undelivered("foreign_tenant")
            return self._delivery.at(place)

        return self._send(identity, request, find, body.message_type, body.payload, body.kept_seconds)

    def route(self, identity: Identity, body: MaimRouteBody) -> Route:
        """Where a message would go; nothing is sent."""
        require(identity, SCOPE)
        find, reach = self._delivery.receiver, _reach(identity)
        try:
            if body.message is not None:
                place = destination(body.message, body.target_platform, find, reach)
            else:
                place = place_of(body.api_key, body.target_platform or body.platform, find, reach)
        except Undelivered as problem:
            return Route(None, [], problem.reason)
        uuids = self._delivery.at(place).uuids
        return Route(place, uuids, None if uuids else "offline")

    def connections(self, identity: Identity) -> list[ConnectionRow]:
        """Of the tenants that it may reach, over all processes, in the order in which they came."""
        require(identity, SCOPE)
        rows = self._connections.of_this() + self._connections.of_others()
        reach = _reach(identity)
        return sorted((row for row in rows if reach(row.tenant)), key=lambda row: (row.opened_at, row.uuid))

    def stats(self) -> dict[str, object]:
        """Of this process."""
        return self._figures.stats()

    def _send(
        self,
        identity: Identity,
        request: KeyedRequest | None,
        find: Callable[[], Receivers],
        type: str,
        payload: Any,
        ttl_seconds: float | None,
    ) -> Sent:
        """To those that are found; a request with a key that was used gets its first answer again, wherever they are by
        now."""
        require(identity, SCOPE)
        known = self._answered(request)
        if known is not None:
            return known
        repeated: list[Sent] = []
        try:
            to = find()

            def first(transaction: Transaction) -> bool:
                answer = answered(transaction, request)
                if answer is not None:
                    repeated.append(Sent(**answer, duplicate=True))
                    return False
                remember(transaction, request, _answer(to, ttl_seconds))
                return True

            keyed = request is not None and request.key is not None
            once = first if keyed else None
            sent = self._delivery.publish(to, type, payload, ttl_seconds, once, must_store=keyed)
        except Undelivered as problem:
            sent = Sent(reason=problem.reason)
        return repeated[0] if repeated else self._figures.account_for(sent, identity.name, type)

    def _answered(self, request: KeyedRequest | None) -> Sent | None:
        """What a request with this key was answered before."""
        if request is None or request.key is None:
            return None
        known = self._submit(lambda transaction: answered(transaction, request))
        return None if known is None else Sent(**known, duplicate=True)


def _answer(to: Receivers, ttl_seconds: float | None) -> dict[str, Any]:
    """What a request is answered, as far as that is known before it is done."""
    answer = asdict(Sent(dict.fromkeys(to.uuids, True), queued=ttl_seconds is not None and to.place is not None))
    del answer["duplicate"]
    return answer


def _reach(identity: Identity) -> Callable[[str], bool]:
    return lambda tenant: may_reach_tenant(identity, tenant)


def _tenant(identity: Identity) -> str:
    """Of a token for a single project that one; else the default."""
    projects = identity.projects
    return projects[0] if projects is not None and len(projects) == 1 else DEFAULT_TENANT
