"""Webhooks in: the three paths that deploy workflows post to. Deployed senders take only 200 for success."""

from __future__ import annotations

import json

from flask import Blueprint, Response
from flask.globals import request_ctx
from werkzeug.datastructures import Headers

from sidecar.domain import rooms
from sidecar.domain.errors import SignatureMismatch
from sidecar.fanout.tail import Tail
from sidecar.http.operations import operation
from sidecar.http.recipients import LenientCountQuery, Recipients
from sidecar.http.requests import Caller, raw_body
from sidecar.services.deliveries import SCOPE, Deliveries, Posted
from sidecar.wire.answers_webhooks import WebhookTaken
from sidecar.wire.fields import DeploymentMessage

PATHS = {
    "/api/webhooks/deployment": "deployment",
    "/api/webhook/deployment": "older_deployment",
    "/api/webhook/step": "step",
}
NOTES = """\
Which fields are needed depends on `type`; a message without a type is read as the older shapes are. Names may be in \
camelCase, numbers may be text; fields that are not named here go to the browsers as they are. What can't be used is \
kept in quarantine, and the refusal tells its number. A form with the JSON in `payload` is taken too, and a repetition \
is known by `X-GitHub-Delivery` or `webhook-id` as well.
"""
DELIVERY_IDS = ("Idempotency-Key", "X-GitHub-Delivery", "webhook-id")
"""Gitea and Forgejo send GitHub's too, GitLab the first one, and those of Standard Webhooks the last."""

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""What jsonify writes, without making an encoder a request."""


def webhooks(deliveries: Deliveries, caller: Caller, recipients: Recipients, tail: Tail) -> Blueprint:
    routes = Blueprint("webhooks", __name__)

    @operation(
        "webhooks",
        "Take a message about a deployment",
        notes=NOTES,
        scope=SCOPE,
        signed=True,
        query=LenientCountQuery,
        body=DeploymentMessage,
        keyed=True,
        answer=WebhookTaken,
        refusals=(SignatureMismatch,),
    )
    def receive(query: LenientCountQuery) -> Response:
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
            **recipients.of(query.count, reached),
            "duplicate": receipt.duplicate,
            "type": receipt.type,
            "project": receipt.project,
            "deployment_id": receipt.deployment_id,
            "repaired": receipt.repaired,
        }
        return Response(_encode(answer) + "\n", mimetype="application/json")

    for path, name in PATHS.items():
        routes.add_url_rule(path, name, receive, methods=["POST"])
    return routes


def _delivery_id(headers: Headers) -> str | None:
    """By what a repetition is known: our own header first, then what senders number their deliveries with."""
    return next((found for name in DELIVERY_IDS if (found := headers.get(name)) is not None), None)
