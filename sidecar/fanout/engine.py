"""Socket.IO under the hub: the one module that touches private names of python-socketio and python-engineio.

Their exact versions are pinned in requirements.txt, and tests/fanout/test_engine_names.py holds a check a name.
Flask-SocketIO keeps handlers, namespaces, acks, polling and upgrades; who is in which room and what is sent to
rooms is the hub's.
"""

from __future__ import annotations

import json
from typing import Any

import gevent
import structlog
from engineio import packet as engine_packet
from engineio.payload import Payload
from flask import Flask
from flask_socketio import SocketIO
from socketio import packet as socketio_packet

from sidecar.domain.errors import SidecarError
from sidecar.domain.events import Event
from sidecar.fanout.hub import Codec
from sidecar.observability.logs import RateLimited
from sidecar.wire.envelopes import envelope

log = RateLimited(structlog.get_logger("sidecar.engine"))

PING_INTERVAL_SECONDS = 25
PING_TIMEOUT_SECONDS = 20
POLLING_PACKETS = 128
RESERVED_EVENTS = frozenset(
    {"connect", "disconnect", "connect_error", "disconnecting", "newListener", "removeListener"}
)
BINARY_PACKETS = ("5", "6")
"""First characters of Socket.IO's BINARY_EVENT and BINARY_ACK."""
UNSENT_PACKETS = 512
DRAINED_PACKETS = 4
DRAIN_SECONDS = 0.05


class StrictJson:
    """The `json` that python-socketio is given: NaN and Infinity neither come in nor go out (a browser would drop
    the connection over them)."""

    @staticmethod
    def dumps(value: Any, **_options: Any) -> str:
        return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))

    @staticmethod
    def loads(text: str | bytes, **_options: Any) -> Any:
        return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


class SocketIoCodec:
    """Socket.IO 5 EVENT packets for one namespace."""

    def __init__(self, namespace: str, epoch: str):
        self._head = "2" if namespace == "/" else f"2{namespace},"
        self._epoch = epoch

    def frame(self, event: Event) -> object:
        return engine_packet.Packet(engine_packet.MESSAGE, f'{self._head}["event",{envelope(event, self._epoch)}]')


class SocketIoRecipient:
    """The hub's way to one namespace of one Engine.IO socket. `limit_bytes` bounds what waits unsent."""

    __slots__ = ("_limit_bytes", "_socket", "codec")

    def __init__(self, socket: Any, codec: Codec, limit_bytes: int):
        self._socket = socket
        self._limit_bytes = limit_bytes
        self.codec = codec

    @property
    def congested(self) -> bool:
        queue = self._socket.queue
        waiting = queue.qsize()
        if waiting <= DRAINED_PACKETS:
            return False
        if waiting > UNSENT_PACKETS:
            return True
        return sum(len(packet.data or "") for packet in queue.queue if packet is not None) > self._limit_bytes

    def send(self, frame: object) -> None:
        if not self._socket.closed:
            self._socket.queue.put_nowait(frame)

    def close(self) -> None:
        gevent.spawn(self._socket.close, wait=False)

    def wait_drained(self) -> bool:
        while not self._socket.closed and self._socket.queue.qsize() > DRAINED_PACKETS:
            gevent.sleep(DRAIN_SECONDS)
        return not self._socket.closed


def make_socketio(app: Flask, max_message_bytes: int) -> SocketIO:
    """Flask-SocketIO for this app, hardened. Origins are judged before it (sockets/gate.py)."""
    Payload.max_decode_packets = POLLING_PACKETS
    socketio = SocketIO(
        app,
        async_mode="gevent",
        async_handlers=False,
        manage_session=False,
        cors_allowed_origins="*",
        cors_credentials=True,
        ping_interval=PING_INTERVAL_SECONDS,
        ping_timeout=PING_TIMEOUT_SECONDS,
        max_http_buffer_size=max_message_bytes,
        json=StrictJson,
        path="socket.io",
        logger=False,
        engineio_logger=False,
    )
    _harden(socketio.server)
    return socketio


def _harden(server: Any) -> None:
    """A client that breaks the protocol loses its connection: it costs one line a kind, and nobody else anything."""
    handle_connect, handle_event, handle_message = (
        server._handle_connect,
        server._handle_event,
        server._handle_eio_message,
    )
    handle_disconnect, engine = server._handle_eio_disconnect, server.eio

    def handle_client_connect(eio_sid: str, namespace: str | None, data: Any) -> None:
        """The stock refusal of an unknown namespace is a bare text; socket.io-client shows an empty message for it."""
        if (namespace or "/") in server.handlers:
            handle_connect(eio_sid, namespace, data)
            return
        refusal = {"message": "Invalid namespace"}
        packet = server.packet_class(socketio_packet.CONNECT_ERROR, data=refusal, namespace=namespace)
        server._send_packet(eio_sid, packet)

    def handle_client_event(eio_sid: str, namespace: str, id: int | None, data: Any) -> None:
        """A client may not send the names that mean something to the server's own handlers."""
        if not isinstance(data, list) or not data or not isinstance(data[0], str) or data[0] in RESERVED_EVENTS:
            raise ValueError("not an event that a client may send")
        handle_event(eio_sid, namespace, id, data)

    def handle_client_message(eio_sid: str, data: Any) -> None:
        """Nothing here takes binary packets, whose attachments the stock parser gathers without a bound."""
        if eio_sid not in server.environ:  # closed by an earlier packet of the same request
            return
        try:
            if not isinstance(data, str) or data[:1] in BINARY_PACKETS:
                raise ValueError("a binary packet")
            handle_message(eio_sid, data)
        except SidecarError as error:
            log.warning("engine.connect_abandoned", problem=error.detail)
        except Exception as error:
            log.warning("engine.bad_packet", problem=type(error).__name__)
            drop(server, eio_sid)

    def handle_end(eio_sid: str, reason: str) -> None:
        """Who is gone is unknown from then on; the stock server fails at a POST of a session closed a moment ago."""
        handle_disconnect(eio_sid, reason)
        engine.sockets.pop(eio_sid, None)

    def disconnect(sid: str) -> None:
        """The stock one waits until the queue of a client that it has just refused is read: for ever."""
        drop(server, sid)

    server._handle_connect = handle_client_connect
    server._handle_event = handle_client_event
    engine.on("message", handle_client_message)
    engine.on("disconnect", handle_end)
    engine.disconnect = disconnect


def engine_socket(socketio: SocketIO, sid: str, namespace: str) -> Any:
    """The Engine.IO socket behind a Socket.IO sid, None when it has just gone."""
    server = socketio.server
    socket = server.eio.sockets.get(server.manager.eio_sid_from_sid(sid, namespace))
    return None if socket is None or socket.closed else socket


def connection_count(socketio: SocketIO) -> int:
    return len(socketio.server.eio.sockets)


def drop(server: Any, eio_sid: str) -> None:
    """Close the transport at once, so that nothing more is read from it or sent. Its disconnect handlers run here."""
    socket = server.eio.sockets.get(eio_sid)
    if socket is not None:
        socket.close(wait=False)


def abandon(socketio: SocketIO, sid: str, namespace: str) -> None:
    """Give up a connect that failed for a passing reason: the transport is closed without a CONNECT_ERROR, after
    which the client would never try again. The connect handler must then raise something that is no refusal."""
    server = socketio.server
    engine_sid = server.manager.eio_sid_from_sid(sid, namespace)
    server.manager.disconnect(sid, namespace, ignore_queue=True)
    drop(server, engine_sid)


def close_polling(socketio: SocketIO) -> None:
    """At shutdown: end the held long polls; WebSockets are closed by the server with 1012."""
    for socket in list(socketio.server.eio.sockets.values()):
        if not socket.upgraded:
            socket.close(wait=False)
