"""Webhook secrets over HTTP, for admins."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from sidecar.domain.errors import Conflict
from sidecar.http.operations import operation
from sidecar.http.parameters import Parameters, name
from sidecar.http.requests import Caller, json_body
from sidecar.services.webhook_secrets import WebhookSecrets
from sidecar.store.webhook_secrets import SecretRow
from sidecar.wire.answers import Done
from sidecar.wire.answers_webhook_secrets import NewWebhookSecret, WebhookSecretList
from sidecar.wire.checks import read
from sidecar.wire.webhook_secrets import WebhookSecretBody

ID = {"id": "As the list names it, `whs_` and 12 digits."}


class SecretsQuery(Parameters):
    project: str | None = name("those that may write to this one")


def webhook_secrets(service: WebhookSecrets, caller: Caller) -> Blueprint:
    routes = Blueprint("webhook_secrets", __name__)

    @routes.get("/api/secrets")
    @operation(
        "secrets", "All secrets, without their text", scope="admin", query=SecretsQuery, answer=WebhookSecretList
    )
    def list_secrets(query: SecretsQuery) -> Response:
        caller.require("admin")
        return jsonify(items=[_shown(row) for row in service.list(query.project)])

    @routes.post("/api/secrets")
    @operation(
        "secrets",
        "Make a secret",
        scope="admin",
        body=WebhookSecretBody,
        answer=NewWebhookSecret,
        refusals=(Conflict,),
        notes="It is shown this once. There are 64 active ones at most.",
    )
    def create_secret() -> Response:
        caller.require("admin")
        made = service.create(read(WebhookSecretBody, json_body()))
        shown = _shown(made.row)
        del shown["revoked_at"]
        return jsonify(success=True, secret=made.secret, **shown)

    @routes.delete("/api/secrets/<id>")
    @operation("secrets", "Revoke a secret", scope="admin", path=ID, answer=Done)
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
