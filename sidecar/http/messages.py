"""Messages over HTTP: to free rooms, to chosen users in them, to a user, to everyone; and where devices are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, jsonify

from sidecar.domain.access import Identity
from sidecar.domain.messages import LOCATION_ROOM
from sidecar.fanout.tail import Tail
from sidecar.http.operations import operation
from sidecar.http.recipients import LenientCountQuery, Recipients
from sidecar.http.requests import Caller, keyed_request, parsed, raw_body
from sidecar.services.idempotency import KeyedRequest
from sidecar.services.messages import SCOPE, Messages, Published
from sidecar.wire.answers_messages import BroadcastSent, LocationPushed, MessageSent, UserNotified
from sidecar.wire.checks import Body, read
from sidecar.wire.messages import BroadcastBody, LocationBody, NotifyBody, SendBody

Answered = dict[str, Any]


def messages(service: Messages, caller: Caller, recipients: Recipients, tail: Tail) -> Blueprint:
    routes = Blueprint("messages", __name__)

    def send(identity: Identity, request: KeyedRequest, given: dict[str, Any]) -> tuple[Published, Answered]:
        body = read(SendBody, given)
        sent = service.send(identity, request, body)
        return sent, {"message": "Message sent to WebSocket", "room": body.room, "sent_at": sent.sent_at}

    def push_location(identity: Identity, request: KeyedRequest, given: dict[str, Any]) -> tuple[Published, Answered]:
        body = read(LocationBody, given)
        sent = service.push_location(identity, request, body)
        place = {"lat": body.latitude, "lng": body.longitude}
        return sent, {"message": "Location update pushed to WebSocket", "location": place, "room": LOCATION_ROOM}

    def broadcast(identity: Identity, request: KeyedRequest, given: dict[str, Any]) -> tuple[Published, Answered]:
        sent = service.broadcast(identity, request, read(BroadcastBody, given))
        return sent, {"message": "Message sent to everyone", "sent_at": sent.sent_at}

    def notify_user(identity: Identity, request: KeyedRequest, given: dict[str, Any]) -> tuple[Published, Answered]:
        body = read(NotifyBody, given)
        sent = service.notify(identity, request, body)
        return sent, {"message": "Message sent to the user", "user_id": body.user_id, "sent_at": sent.sent_at}

    def route(
        name: str,
        summary: str,
        body: type[Body],
        told: Any,
        act: Callable[[Identity, KeyedRequest, dict[str, Any]], tuple[Published, Answered]],
    ) -> None:
        @operation("messages", summary, scope=SCOPE, query=LenientCountQuery, body=body, keyed=True, answer=told)
        def answer(query: LenientCountQuery) -> Response:
            identity = caller.require(SCOPE)
            raw = raw_body()
            sent, said = act(identity, keyed_request(identity, name, raw), parsed(raw))
            return jsonify(
                success=True,
                status="success",
                **said,
                event_id=str(sent.seq),
                epoch=tail.epoch,
                **recipients.of(query.count, [sent.room], sent.target),
                duplicate=sent.duplicate,
            )

        for start in ("/api/", "/ashe/"):
            routes.add_url_rule(start + name, f"{start[1:-1]}_{name}".replace("-", "_"), answer, methods=["POST"])

    route("send-websocket", "Send a message to a room, or to one user in it", SendBody, MessageSent, send)
    route("push-location", "Tell where a device is", LocationBody, LocationPushed, push_location)
    route("broadcast", "Send a message to everyone", BroadcastBody, BroadcastSent, broadcast)
    route("notify-user", "Send a message to a user, wherever they are", NotifyBody, UserNotified, notify_user)
    return routes
