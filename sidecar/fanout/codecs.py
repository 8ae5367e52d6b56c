"""The kinds of frames that an event becomes: one text for each kind, made once and shared by all who get it."""

from __future__ import annotations

from sidecar.domain.events import Event, Volatile
from sidecar.fanout.transports import engine_frame
from sidecar.wire.envelopes import bare_message, envelope, notice, volatile_envelope
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

    def volatile_frame(self, news: Volatile) -> bytes:
        """(Without an offset the client keeps the one it has.)"""
        return engine_frame(f'{self._head}["event",{volatile_envelope(news)}]')


class NoticeCodec:
    """Events as the plain WebSockets about permissions get them, but for those of the `muted` types."""

    def __init__(self, muted: frozenset[str]):
        self._muted = muted

    def frame(self, event: Event, place: str | None = None) -> bytes:
        if event.type in self._muted:
            return b""
        return frame(TEXT, notice(event, place or event.offset).encode())

    def volatile_frame(self, news: Volatile) -> bytes:
        """(None of their rooms has any.)"""
        return b""


class BareCodec:
    """Messages of free rooms as plain WebSockets get them. With `offsets` each says its place, to come back with."""

    def __init__(self, offsets: bool):
        self._offsets = offsets

    def frame(self, event: Event, place: str | None = None) -> bytes:
        offset = event.offset if self._offsets else None
        return frame(TEXT, bare_message(event.type, event.payload, event.at, offset).encode())

    def volatile_frame(self, news: Volatile) -> bytes:
        return frame(TEXT, bare_message(news.type, news.payload, news.at).encode())
