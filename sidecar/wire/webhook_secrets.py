"""What an admin POSTs to have a webhook secret made."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from sidecar.wire.checks import Name, OptionalName, StrictBody

MAX_PROJECTS = 200
MIN_SECRET_CHARACTERS, MAX_SECRET_CHARACTERS = 16, 512

_SECRET_SCHEMA = WithJsonSchema(
    {"type": "string", "minLength": MIN_SECRET_CHARACTERS, "maxLength": MAX_SECRET_CHARACTERS}
)


def _secret(value: Any) -> str:
    fits = isinstance(value, str) and MIN_SECRET_CHARACTERS <= len(value) <= MAX_SECRET_CHARACTERS
    if not fits or not value.isprintable():
        raise ValueError(f"must be {MIN_SECRET_CHARACTERS} to {MAX_SECRET_CHARACTERS} printable characters")
    text: str = value
    return text


class WebhookSecretBody(StrictBody):
    """`projects` None is all of them; without a `secret` one is made."""

    name: OptionalName = None
    projects: Annotated[list[Name], Field(min_length=1, max_length=MAX_PROJECTS)] | None = None
    secret: Annotated[str, BeforeValidator(_secret), _SECRET_SCHEMA] | None = None
