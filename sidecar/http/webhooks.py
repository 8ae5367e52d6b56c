"""Webhooks in: the three paths that deploy workflows post to. Deployed senders take only 200 for success."""

from __future__ import annotations

import json

from flask import Blueprint, Response
from flask.globals import request_ctx
from werkzeug.datastructures import Headers

from sidecar.domain import rooms
from sidecar.fanout.hub import Hub
from sidecar.fanout.tail import Tail
from sidecar.http.requests import Caller, raw_body
from sidecar.services.deliveries import Deliveries, Posted

PATHS = ("/api/webhooks/deployment", "/api/webhook/deployment", "/api/webhook/step")
DELIVERY_IDS = ("Idempotency-Key", "X-GitHub-Delivery", "webhook-id")
"""Gitea and Forgejo send GitHub's too, GitLab the first one, and those of Standard Webhooks the last."""

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""What jsonify writes, without making an encoder a request."""


def webhooks(deliveries: Deliveries, caller: Caller, hub: Hub, tail: Tail) -> Blueprint:
    routes = Blueprint("webhooks", __name__)

    def receive() -> Response:
        caller.identity()  # a wrong token is told before the body is read
        asked = request_ctx.request
        body = raw_body()
        receipt = deliveries.receive(
            caller.poster(body),
            Posted(
                path=asked.path.rstrip("/"),
                body=body,
                headers=asked.headers,  # type: ignore[arg-type]
                address=asked.remote_addr or "",
                key=_delivery_id(asked.headers),
            ),
        )
        reached = [rooms.project(receipt.project)]
        if receipt.deployment_id is not None:
            reached.append(rooms.deployment(receipt.deployment_id))
        answer = {
            "success": True,
            "status": "success",
            "message": "Deployment webhook processed successfully",
            "event_id": str(receipt.seq),
            "epoch": tail.epoch,
            "recipients": hub.count(reached),
            "duplicate": receipt.duplicate,
            "type": receipt.type,
            "project": receipt.project,
            "deployment_id": receipt.deployment_id,
            "repaired": receipt.repaired,
        }
        return Response(_encode(answer) + "\n", mimetype="application/json")

    for path in PATHS:
        routes.add_url_rule(path, path.rpartition("webhook")[2].replace("/", "_"), receive, methods=["POST"])
    return routes


def _delivery_id(headers: Headers) -> str | None:
    """By what a repetition is known: our own header first, then what senders number their deliveries with."""
    return next((found for name in DELIVERY_IDS if (found := headers.get(name)) is not None), None)
