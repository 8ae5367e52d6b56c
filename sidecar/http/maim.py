"""Bots over HTTP: messages to them, who is connected, where a message would go, figures, and their keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, Response, jsonify, request

from sidecar.domain.access import Identity
from sidecar.domain.maim import address_of
from sidecar.http.paging import only_parameters
from sidecar.http.requests import Caller, json_body, keyed_request, parsed, raw_body
from sidecar.services.idempotency import KeyedRequest
from sidecar.services.maim_figures import Sent
from sidecar.services.maim_keys import SCOPE as MANAGE
from sidecar.services.maim_keys import BotKeys
from sidecar.services.maim_sending import SCOPE, BotSending
from sidecar.store.maim import ConnectionRow, KeyRow
from sidecar.wire.checks import read
from sidecar.wire.maim import MaimBroadcastBody, MaimKeyBody, MaimRouteBody, MaimSendBody, read_custom, with_message

Body = Mapping[str, Any]


def maim(service: BotSending, keys: BotKeys, caller: Caller) -> Blueprint:
    routes = Blueprint("maim", __name__)
    only_parameters(routes, {"connections": ("user", "platform", "tenant")})

    def send(identity: Identity, body: Body, keyed: KeyedRequest) -> Sent:
        return service.send(identity, read(MaimSendBody, with_message(body)), keyed)

    def broadcast(identity: Identity, body: Body, keyed: KeyedRequest) -> Sent:
        return service.broadcast(identity, read(MaimBroadcastBody, with_message(body)), keyed)

    def custom(identity: Identity, body: Body, keyed: KeyedRequest) -> Sent:
        return service.custom(identity, read_custom(body), keyed)

    def route(name: str, act: Callable[[Identity, Body, KeyedRequest], Sent]) -> None:
        def answer() -> Response:
            identity = caller.require(SCOPE)
            raw = raw_body()
            return _told(act(identity, parsed(raw), keyed_request(identity, f"maim/{name}", raw)))

        routes.add_url_rule(f"/api/maim/{name}", name, answer, methods=["POST"])

    route("send", send)
    route("broadcast", broadcast)
    route("custom", custom)

    @routes.post("/api/maim/route")
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
    def connections() -> Response:
        rows = service.connections(caller.require(SCOPE))
        return jsonify(items=[_connection(row) for row in rows if _asked_for(row)])

    @routes.get("/api/maim/stats")
    def stats() -> Response:
        caller.require(SCOPE)
        return jsonify(service.stats())

    @routes.get("/api/maim/keys")
    def list_keys() -> Response:
        return jsonify(items=[_key(row) for row in keys.list(caller.require(MANAGE))])

    @routes.post("/api/maim/keys")
    def create_key() -> Response:
        identity = caller.require(MANAGE)
        made = keys.create(read(MaimKeyBody, json_body()), identity)
        return jsonify(success=True, key=made.key, **_key(made.row))

    @routes.delete("/api/maim/keys/<id>")
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


def _asked_for(row: ConnectionRow) -> bool:
    said = {"user": row.user, "platform": row.platform, "tenant": row.tenant}
    return all(request.args.get(name, value) == value for name, value in said.items())


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
