"""What answers about webhook secrets hold, for the document of the API."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from sidecar.wire.answers import Time


class WebhookSecret(TypedDict):
    """`projects` null is all."""

    id: str
    name: str
    projects: list[str] | None
    created_at: Time
    revoked_at: Time | None


class WebhookSecretList(TypedDict):
    items: list[WebhookSecret]


class NewWebhookSecret(TypedDict):
    """`secret` is the only time that it is seen."""

    success: Literal[True]
    secret: str
    id: str
    name: str
    projects: list[str] | None
    created_at: Time
