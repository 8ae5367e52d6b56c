"""What posted webhooks are answered, and what is kept of them."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from sidecar.wire.answers import Done, FieldProblem, Published, Time

Verdict = Literal["stored", "test", "quarantined", "replayed", "erased"]
"""What became of a delivery; `erased`: its project was deleted."""


class Taken(TypedDict):
    """What a message was taken for. `repaired`: it was not JSON as it came."""

    type: str
    project: str
    deployment_id: str | None
    repaired: bool


class WebhookTaken(Published, Taken):
    pass


class Reason(TypedDict):
    """Why it could not be used."""

    code: str
    detail: str
    errors: list[FieldProblem]


class Delivery(TypedDict):
    """A webhook as it came, secrets masked. `seq` is that of its event."""

    number: int
    received_at: Time
    path: str
    source: str
    address: str
    token_id: str | None
    delivery_id: str | None
    headers: dict[str, str]
    body_bytes: int
    body_sha256: str
    verdict: Verdict
    reason: Reason | None
    repaired: bool
    project: str | None
    deployment_id: str | None
    seq: int | None
    replay_of: int | None


class WholeDelivery(Delivery):
    """With its body as text."""

    body: str


class DeliveryList(TypedDict):
    """`next` is the `cursor` of the next page."""

    items: list[Delivery]
    next: str | None


class DeliveryCounts(TypedDict):
    """Those that came since then, by verdict."""

    since: Time
    counts: dict[Verdict, int]


class Replayed(Done, Taken):
    """`seq` is that of the new event."""

    seq: int
