"""The server as an embedder's hooks see it (`use(server)`, docs/maim.md)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from sidecar.domain.errors import Invalid
from sidecar.services.inprocess import INSIDER
from sidecar.services.maim_hooks import Hooks, Metadata
from sidecar.services.maim_sending import BotSending
from sidecar.wire.bodies import sound
from sidecar.wire.checks import read
from sidecar.wire.maim import MaimBroadcastBody, MaimSendBody, as_text, read_custom, with_message

Results = dict[str, bool]
"""By connection: was the frame handed to it, or to the process that holds it?"""


class EmbeddedServer:
    """Every method raises a SidecarError for what can't be used or stored."""

    def __init__(self, sending: BotSending, hooks: Hooks):
        self._sending = sending
        self._hooks = hooks

    def register_custom_handler(self, type: str, handler: Callable[[dict[str, Any], Metadata], Any]) -> None:
        """`handler(envelope, metadata)` is called for each custom message of this type, which may lack `custom_`."""
        self._hooks.register_custom_handler(type, handler)

    def send_message(
        self, message: Mapping[str, Any], target_platform: str | None = None, queue: bool = False
    ) -> Results:
        """To whom its `message_dim` names."""
        body = {**with_message(_json(message)), "target_platform": target_platform, "queue": queue}
        return self._sending.send(INSIDER, read(MaimSendBody, body)).results

    def send_custom_message(self, message_type: str, payload: Any, **to: Any) -> Results:
        """`to` is connection_uuid, or target_user and target_platform, or api_key and platform; and queue perhaps."""
        body = {"message_type": message_type, "payload": _json(payload), **to}
        return self._sending.custom(INSIDER, read_custom(body)).results

    def broadcast_message(
        self, message: Mapping[str, Any], platform: str | None = None, tenant: str | None = None
    ) -> Results:
        """To everybody of a tenant, or on one platform."""
        body = {**with_message(_json(message)), "platform": platform, "tenant": tenant}
        return self._sending.broadcast(INSIDER, read(MaimBroadcastBody, body)).results

    def get_connections(self) -> list[dict[str, Any]]:
        """Over all processes."""
        return [asdict(row) for row in self._sending.connections(INSIDER)]


def _json(value: Any) -> Any:
    """A copy, as JSON holds it."""
    try:
        return sound(json.loads(as_text(value)))
    except (TypeError, ValueError, RecursionError):
        raise Invalid("It must be what JSON can hold.") from None
