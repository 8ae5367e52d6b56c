"""What a program in this very process calls instead of the HTTP API: `current_app.extensions["sidecar"]`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from sidecar.domain.access import Identity
from sidecar.domain.errors import FieldError, Invalid
from sidecar.domain.messages import DEFAULT_INTERVAL_SECONDS, LIVE_ROOM, RESERVED
from sidecar.services.live_push import LivePushes, Source
from sidecar.services.messages import Messages
from sidecar.services.sources import InThread
from sidecar.wire.bodies import parse_message
from sidecar.wire.checks import read
from sidecar.wire.messages import DEFAULT_SOURCE, SendBody, StartPushBody, StopPushBody

INSIDER = Identity(kind="process", name="sidecar", scopes=frozenset({"admin"}), projects=None)
"""Who a message of this process is from."""


class InProcess:
    """The names of `sidecar.client`, without a network and a token between."""

    def __init__(self, messages: Messages, pushes: LivePushes, sources: MutableMapping[str, Source]):
        self._messages = messages
        self._pushes = pushes
        self._sources = sources

    def send_websocket_message(self, room: str, message: Mapping[str, Any], user_id: object = None) -> bool:
        """Send a message to a free room, with a `user_id` to that user's sockets in it alone. True once it is stored.
        Raises Invalid for what can't be sent, Unavailable."""
        data = {name: value for name, value in _as_json(message).items() if name not in RESERVED}
        content = str(data.get("content", data.get("message", "")))
        body = read(SendBody, {"room": room, "message": content, "data": data, "target_user": user_id})
        self._messages.send(INSIDER, None, body)
        return True

    def LivePusher(self, room_name: str = LIVE_ROOM, interval: float = DEFAULT_INTERVAL_SECONDS) -> LivePusher:
        """As `sidecar.client.LivePusher`."""
        return LivePusher(self._pushes, room_name, interval)

    WebSocketPusher = LivePusher

    def add_live_source(self, name: str, function: Callable[[], Mapping[str, object]]) -> None:
        """From now on a live push can be fed from this function, which may block, in this process."""
        self._sources[name] = InThread(function)


def _as_json(message: Mapping[str, Any]) -> dict[str, Any]:
    """What a client of the HTTP API would have sent. Raises Invalid."""
    try:
        text = json.dumps(dict(message), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise Invalid("The message can't be sent.", (FieldError("message", f"is no JSON: {error}"),)) from None
    sent: dict[str, Any] = parse_message(text)
    return sent


class LivePusher:
    """The live push of a room."""

    def __init__(self, pushes: LivePushes, room_name: str, interval: float):
        self._pushes = pushes
        self._room = room_name
        self._interval = interval

    def start_pushing(self, source: str = DEFAULT_SOURCE) -> None:
        """Raises Invalid, TooMany, Unavailable."""
        body = read(StartPushBody, {"room": self._room, "interval": self._interval, "source": source})
        self._pushes.start(INSIDER, None, body)

    def stop_pushing(self) -> None:
        """Raises Invalid, Unavailable."""
        self._pushes.stop(INSIDER, read(StopPushBody, {"room": self._room}))
