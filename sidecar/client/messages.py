"""The two calls that programs written for an older server know: a message in one line, and a live push."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from sidecar.client.http import ApiError, SidecarClient

log = logging.getLogger("sidecar.client")

SERVERS = frozenset({"sender", "sender_id", "timestamp"})
"""Fields of a message that the server fills."""


def send_websocket_message(
    room: str, message: Mapping[str, Any], user_id: object = None, client: SidecarClient | None = None
) -> bool:
    """Send a message of any fields to a free room, with a `user_id` to that user's sockets in it alone. True if the
    sidecar has stored it; what went wrong otherwise is logged. The sidecar is that of SIDECAR_URL and SIDECAR_TOKEN, or
    the given `client`'s."""
    data = {name: value for name, value in message.items() if name not in SERVERS}
    content = str(data.get("content", data.get("message", "")))
    used = client or SidecarClient()
    try:
        used.send(room, content, data, target_user=user_id)
    except ApiError as error:
        log.warning("A message to room %s was not sent: %s", room, error)
        return False
    finally:
        if client is None:
            used.close()
    return True


class LivePusher:
    """Tells a room something every `interval` seconds. Without a `function` the server does it, from its own `source`,
    and goes on when this program has ended; with one this program does it, in a thread, with what the function
    returns: the fields of the message."""

    def __init__(
        self,
        room_name: str = "live_updates",
        interval: float = 5,
        source: str = "live_stats",
        function: Callable[[], Mapping[str, Any]] | None = None,
        client: SidecarClient | None = None,
    ):
        self.room_name = room_name
        self.interval = interval
        self._source = source
        self._function = function
        self._client = client or SidecarClient()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start_pushing(self) -> None:
        """Starting again changes the interval. Raises ApiError if the server does it and refuses."""
        if self._function is None:
            self._client.start_live_push(self.room_name, self.interval, self._source)
            return
        self.stop_pushing()
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=_push,
            args=(self._client, self.room_name, self.interval, self._function, self._stopping),
            daemon=True,
        )
        self._thread.start()

    def stop_pushing(self) -> None:
        """Nothing is pushed after this. Raises ApiError if the server does it and refuses."""
        if self._function is None:
            self._client.stop_live_push(self.room_name)
            return
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None


WebSocketPusher = LivePusher


def _push(
    client: SidecarClient,
    room: str,
    interval: float,
    function: Callable[[], Mapping[str, Any]],
    stopping: threading.Event,
) -> None:
    """A beat that is missed is left out; the next one comes when it would have come anyway."""
    begin, beat = time.monotonic(), 0
    while not stopping.is_set():
        try:
            send_websocket_message(room, function(), client=client)
        except Exception:
            log.exception("The function of the live push to room %s failed.", room)
        beat = max(beat, int((time.monotonic() - begin) / interval)) + 1
        stopping.wait(begin + beat * interval - time.monotonic())
