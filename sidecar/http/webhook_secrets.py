"""Webhook secrets over HTTP, for admins."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request

from sidecar.http.paging import Query, only_parameters
from sidecar.http.requests import Caller, json_body
from sidecar.services.webhook_secrets import WebhookSecrets
from sidecar.store.webhook_secrets import SecretRow
from sidecar.wire.checks import name, read
from sidecar.wire.webhook_secrets import WebhookSecretBody


def webhook_secrets(service: WebhookSecrets, caller: Caller) -> Blueprint:
    routes = Blueprint("webhook_secrets", __name__)
    only_parameters(routes, {"list_secrets": ("project",)})

    @routes.get("/api/secrets")
    def list_secrets() -> Response:
        caller.require("admin")
        query = Query(request.args)
        project = query.read("project", name)
        query.finish()
        return jsonify(items=[_shown(row) for row in service.list(project)])

    @routes.post("/api/secrets")
    def create_secret() -> Response:
        caller.require("admin")
        made = service.create(read(WebhookSecretBody, json_body()))
        shown = _shown(made.row)
        del shown["revoked_at"]
        return jsonify(success=True, secret=made.secret, **shown)

    @routes.delete("/api/secrets/<id>")
    def revoke_secret(id: str) -> Response:
        caller.require("admin")
        service.revoke(id)
        return jsonify(success=True, message="The webhook secret is revoked.")

    return routes


def _shown(row: SecretRow) -> dict[str, object]:
    return {
        "id": row.id,
        "name": row.name,
        "projects": row.projects,
        "created_at": row.created_at,
        "revoked_at": row.revoked_at,
    }
