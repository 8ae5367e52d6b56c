"""The kinds of frames that an event becomes: one text for each kind, made once and shared by all who get it."""

from __future__ import annotations

from sidecar.domain.events import Event
from sidecar.fanout.transports import engine_frame
from sidecar.wire.envelopes import envelope
from sidecar.wire.frames import TEXT, frame


class SocketIoCodec:
    """Socket.IO 5 EVENT packets for one namespace, as WebSocket frames. With `offsets` the packet's last argument is
    the place that socket.io-client sends back when it reconnects; only its JavaScript takes an argument more."""

    def __init__(self, namespace: str, epoch: str, offsets: bool):
        self._head = "2" if namespace == "/" else f"2{namespace},"
        self._epoch = epoch
        self._offsets = offsets

    def frame(self, event: Event, place: str | None = None) -> bytes:
        last = f',"{place or event.offset}"' if self._offsets else ""
        return engine_frame(f'{self._head}["event",{envelope(event, self._epoch)}{last}]')


class JsonCodec:
    """The envelope alone, for WebSockets that speak no Socket.IO."""

    def __init__(self, epoch: str):
        self._epoch = epoch

    def frame(self, event: Event, place: str | None = None) -> bytes:
        return frame(TEXT, envelope(event, self._epoch).encode())
