"""Bots over HTTP: messages to them, who is connected, where a message would go, figures, and their keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, Response, jsonify

from sidecar.domain.access import Identity
from sidecar.domain.errors import Conflict, NotFound, SidecarError
from sidecar.domain.maim import REASONS, address_of
from sidecar.http.operations import operation
from sidecar.http.parameters import Parameters, name
from sidecar.http.requests import Caller, json_body, keyed_request, parsed, raw_body
from sidecar.services.idempotency import KeyedRequest
from sidecar.services.maim_figures import Sent
from sidecar.services.maim_keys import SCOPE as MANAGE
from sidecar.services.maim_keys import BotKeys
from sidecar.services.maim_sending import SCOPE, BotSending
from sidecar.store.maim import ConnectionRow, KeyRow
from sidecar.wire.answers import Done
from sidecar.wire.answers_maim import (
    BotConnectionList,
    BotFigures,
    BotKeyList,
    BotRoute,
    NewBotKey,
    Results,
)
from sidecar.wire.checks import StrictBody, read
from sidecar.wire.maim import (
    MaimBroadcastBody,
    MaimCustomBody,
    MaimKeyBody,
    MaimRouteBody,
    MaimSendBody,
    read_custom,
    with_message,
)

Body = Mapping[str, Any]
TOLD = {
    "X-Maim-Undelivered": f"Why nobody was reached: {' '.join(REASONS)}.",
    "X-Maim-Queued": "`true`: it waits for its receiver.",
    "X-Maim-Duplicate": "`true`: it was sent before, and is not sent again.",
}
NOTES = "The answer tells of each connection whether the message was handed to it, or to the process that holds it."


class ConnectionsQuery(Parameters):
    user: str | None = name("Of this user only.")
    platform: str | None = name("Of this platform only.")
    tenant: str | None = name("Of this tenant only.")


def maim(service: BotSending, keys: BotKeys, caller: Caller) -> Blueprint:
    routes = Blueprint("maim", __name__)

    def send(identity: Identity, body: Body, keyed: KeyedRequest) -> Sent:
        return service.send(identity, read(MaimSendBody, with_message(body)), keyed)

    def broadcast(identity: Identity, body: Body, keyed: KeyedRequest) -> Sent:
        return service.broadcast(identity, read(MaimBroadcastBody, with_message(body)), keyed)

    def custom(identity: Identity, body: Body, keyed: KeyedRequest) -> Sent:
        return service.custom(identity, read_custom(body), keyed)

    def route(
        name: str,
        summary: str,
        body: type[StrictBody],
        act: Callable[[Identity, Body, KeyedRequest], Sent],
        refusals: tuple[type[SidecarError], ...] = (),
    ) -> None:
        @operation(
            "bots",
            summary,
            notes=NOTES,
            scope=SCOPE,
            body=body,
            keyed=True,
            answer=Results,
            headers=TOLD,
            refusals=refusals,
        )
        def answer() -> Response:
            identity = caller.require(SCOPE)
            raw = raw_body()
            return _told(act(identity, parsed(raw), keyed_request(identity, f"maim/{name}", raw)))

        routes.add_url_rule(f"/api/maim/{name}", name, answer, methods=["POST"])

    route("send", "Send a message to the bots that its message_dim names", MaimSendBody, send)
    route("broadcast", "Send a message to all bots, or those of a platform", MaimBroadcastBody, broadcast)
    route("custom", "Send a message of a type of your own", MaimCustomBody, custom, (NotFound,))

    @routes.post("/api/maim/route")
    @operation("bots", "Say where a message would go", scope=SCOPE, body=MaimRouteBody, answer=BotRoute)
    def dry_run() -> Response:
        identity = caller.require(SCOPE)
        found = service.route(identity, read(MaimRouteBody, json_body()))
        place = found.place
        return jsonify(
            tenant=None if place is None else place.tenant,
            user=None if place is None else place.user,
            platform=None if place is None else place.platform,
            connections=found.connections,
            reason=found.reason,
        )

    @routes.get("/api/maim/connections")
    @operation("bots", "The bots that are connected", scope=SCOPE, query=ConnectionsQuery, answer=BotConnectionList)
    def connections(query: ConnectionsQuery) -> Response:
        rows = service.connections(caller.require(SCOPE))
        return jsonify(items=[_connection(row) for row in rows if _asked_for(row, query)])

    @routes.get("/api/maim/stats")
    @operation("bots", "Figures by the names of the original server", scope=SCOPE, answer=BotFigures)
    def stats() -> Response:
        caller.require(SCOPE)
        return jsonify(service.stats())

    @routes.get("/api/maim/keys")
    @operation("bots", "All keys, without their text", scope=MANAGE, answer=BotKeyList)
    def list_keys() -> Response:
        return jsonify(items=[_key(row) for row in keys.list(caller.require(MANAGE))])

    @routes.post("/api/maim/keys")
    @operation("bots", "Make a key", scope=MANAGE, body=MaimKeyBody, answer=NewBotKey, refusals=(Conflict,))
    def create_key() -> Response:
        identity = caller.require(MANAGE)
        made = keys.create(read(MaimKeyBody, json_body()), identity)
        return jsonify(success=True, key=made.key, **_key(made.row))

    @routes.delete("/api/maim/keys/<id>")
    @operation("bots", "Revoke a key", scope=MANAGE, path={"id": "As the list names it."}, answer=Done)
    def revoke_key(id: str) -> Response:
        keys.revoke(id, caller.require(MANAGE))
        return jsonify(success=True, message="The key is revoked.")

    return routes


def _told(sent: Sent) -> Response:
    """What clients of the original library expect, `{connection_uuid: bool}`; all else is in headers."""
    response = jsonify(sent.results)
    if sent.reason is not None:
        response.headers["X-Maim-Undelivered"] = sent.reason
    if sent.queued:
        response.headers["X-Maim-Queued"] = "true"
    if sent.duplicate:
        response.headers["X-Maim-Duplicate"] = "true"
    return response


def _asked_for(row: ConnectionRow, query: ConnectionsQuery) -> bool:
    said = ((query.user, row.user), (query.platform, row.platform), (query.tenant, row.tenant))
    return all(asked in (None, value) for asked, value in said)


def _connection(row: ConnectionRow) -> dict[str, object]:
    return {
        "uuid": row.uuid,
        "tenant": row.tenant,
        "user": row.user,
        "platform": row.platform,
        "node": row.node,
        "line": row.line,
        "key_id": row.key_id,
        "opened_at": row.opened_at,
    }


def _key(row: KeyRow) -> dict[str, object]:
    return {
        "id": row.id,
        "tenant": row.tenant,
        "user": row.user,
        "platforms": row.platforms,
        "name": row.name,
        "address": address_of(row.id),
        "created_at": row.created_at,
        "revoked_at": row.revoked_at,
    }
