"""The kinds of frames that an event becomes: one text for each kind, made once and shared by all who get it."""

from __future__ import annotations

from sidecar.domain.events import Event
from sidecar.fanout.transports import engine_frame
from sidecar.wire.envelopes import envelope
from sidecar.wire.frames import TEXT, frame


class SocketIoCodec:
    """Socket.IO 5 EVENT packets for one namespace, as WebSocket frames."""

    def __init__(self, namespace: str, epoch: str):
        self._head = "2" if namespace == "/" else f"2{namespace},"
        self._epoch = epoch

    def frame(self, event: Event) -> bytes:
        return engine_frame(f'{self._head}["event",{envelope(event, self._epoch)}]')


class JsonCodec:
    """The envelope alone, for WebSockets that speak no Socket.IO."""

    def __init__(self, epoch: str):
        self._epoch = epoch

    def frame(self, event: Event) -> bytes:
        return frame(TEXT, envelope(event, self._epoch).encode())
