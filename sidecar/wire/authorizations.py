"""What back ends and browsers send to have users authorized: checked, every bad field named."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from sidecar.domain.authorizations import App, Language, Method, ReceiverKind
from sidecar.wire.checks import Name, OptionalName, StrictBody, number, text, word

MAX_APP_CHARACTERS = 64
MAX_SCOPE_CHARACTERS = 4_000
MAX_RECEIVER_CHARACTERS = 200
MAX_SECRET_CHARACTERS = 500


def _app_id(value: Any) -> str:
    """As it can stand in an address of ours."""
    if not isinstance(value, str) or not re.fullmatch(rf"[A-Za-z0-9_.-]{{1,{MAX_APP_CHARACTERS}}}", value.strip()):
        raise ValueError(f"must be 1 to {MAX_APP_CHARACTERS} letters, digits, `_`, `.` and `-`")
    return value.strip()


Secret = Annotated[str, word(MAX_SECRET_CHARACTERS)]
OptionalSecret = Annotated[str, text(MAX_SECRET_CHARACTERS)]
AppId = Annotated[
    str,
    BeforeValidator(_app_id, json_schema_input_type=Annotated[str, Field(min_length=1, max_length=MAX_APP_CHARACTERS)]),
]


class StartBody(StrictBody):
    """Begin an authorization of `user`. Without `app` at the default one; `open_id` is who must complete it."""

    app: AppId | None = None
    user: Name
    open_id: OptionalName = None
    scope: Annotated[str, text(MAX_SCOPE_CHARACTERS)] = ""
    language: Language | None = None
    method: Method | None = None


class CardBody(StrictBody):
    """Send the card, without a receiver to the open_id of the authorization."""

    receive_id_type: ReceiverKind = "open_id"
    receive_id: Annotated[str, word(MAX_RECEIVER_CHARACTERS)] | None = None


class NewAppBody(StrictBody):
    """An app as an operator adds it."""

    app_id: AppId
    name: Annotated[str, text(MAX_RECEIVER_CHARACTERS)] = ""
    secret: Secret = Field(repr=False)
    verification_token: OptionalSecret = Field("", repr=False)
    encrypt_key: OptionalSecret = Field("", repr=False)

    @property
    def app(self) -> App:
        return App(self.app_id, self.secret, self.verification_token, self.encrypt_key)


class EventBody(StrictBody):
    """An event that came over the long connection of `app`."""

    app: AppId
    event: dict[str, Any]


class ReconnectsBody(StrictBody):
    attempt: Annotated[int, Field(ge=0, le=10**9)] = 0
    success: Annotated[int, Field(ge=0, le=10**9)] = 0
    failure: Annotated[int, Field(ge=0, le=10**9)] = 0


class LinkBody(StrictBody):
    """How the long connection of `app` is, from the process that holds it; counts since `started_at`."""

    app: AppId
    connected: bool
    reconnects: ReconnectsBody = Field(default_factory=ReconnectsBody)
    started_at: Annotated[str, word(40)]
    heartbeat_seconds: Annotated[float, number(1, 3_600)] = 30.0
