"""Users over HTTP: sending one away."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from sidecar.domain import rooms
from sidecar.domain.errors import BadName
from sidecar.fanout.hub import Hub
from sidecar.fanout.tail import Tail
from sidecar.http.operations import operation
from sidecar.http.requests import Caller
from sidecar.services.users import Users
from sidecar.wire.answers_users import Disconnected


def users(service: Users, caller: Caller, hub: Hub, tail: Tail) -> Blueprint:
    routes = Blueprint("users", __name__)

    @routes.post("/api/users/<path:id>/disconnect")
    @operation(
        "users",
        "End all connections of a user",
        notes="Nothing is revoked: whoever holds a token may connect again.",
        scope="messages:send",
        path={"id": "The `sub` of their connection tokens."},
        answer=Disconnected,
        refusals=(BadName,),
    )
    def disconnect(id: str) -> Response:
        identity = caller.require("messages:send")
        user = rooms.clean_name(id, "the user's id")
        sockets = hub.count([rooms.user(user)])
        seq = service.disconnect(user, identity)
        return jsonify(
            success=True,
            status="success",
            message="The user's connections are ended.",
            event_id=str(seq),
            epoch=tail.epoch,
            disconnected=sockets,
        )

    return routes
