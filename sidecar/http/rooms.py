"""Free rooms over HTTP: which there are, and who is in them."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from sidecar.domain.access import Identity
from sidecar.domain.errors import BadName
from sidecar.http.operations import operation
from sidecar.http.requests import Caller
from sidecar.services.rooms import SCOPE, Presence, Rooms
from sidecar.wire.answers_messages import RoomList, RoomPresence


def rooms(service: Rooms, caller: Caller) -> Blueprint:
    routes = Blueprint("rooms", __name__)

    @routes.get("/api/rooms")
    @operation("rooms", "The free rooms with somebody in them", scope=SCOPE, answer=RoomList)
    def list_rooms() -> Response:
        identity = caller.identity()
        found = service.list(identity)
        return jsonify(items=[_shown(identity, presence) for presence in found], next=None)

    @routes.get("/api/rooms/<path:name>/presence")
    @operation(
        "rooms",
        "Who is in a free room",
        notes="A room that nobody is in is empty, not unknown.",
        scope=SCOPE,
        path={"name": "The room's name, without `room:`."},
        answer=RoomPresence,
        refusals=(BadName,),
    )
    def presence(name: str) -> Response:
        identity = caller.identity()
        return jsonify(_shown(identity, service.presence(identity, name)))

    return routes


def _shown(identity: Identity, presence: Presence) -> dict[str, object]:
    """Who is there is not for strangers."""
    body: dict[str, object] = {
        "room": presence.room,
        "connections": sum(presence.users.values()),
        "anonymous": presence.users.get("", 0),
    }
    if identity.authenticated:
        named = sorted((user, count) for user, count in presence.users.items() if user)
        body["users"] = [{"user": user, "connections": count} for user, count in named]
    return body
