"""Socket.IO under the hub: the one module that touches private names of python-socketio and python-engineio.

Their exact versions are pinned in requirements.txt, and tests/fanout/test_engine_names.py holds a check a name.
Flask-SocketIO keeps handlers, namespaces, acks, polling and upgrades; who is in which room and what is sent to
rooms is the hub's.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

import structlog
from engineio import packet as engine_packet
from flask import Flask
from flask_socketio import SocketIO
from socketio import packet as socketio_packet
from socketio.exceptions import ConnectionRefusedError

from sidecar.domain.errors import SidecarError
from sidecar.fanout.rooms import RoomManager
from sidecar.fanout.transports import EngineSocket, engine_frames
from sidecar.fanout.websocket import Network
from sidecar.observability.logs import RateLimited
from sidecar.observability.metrics import Metrics

log = RateLimited(structlog.get_logger("sidecar.engine"))

PING_INTERVAL_SECONDS = 25
PING_TIMEOUT_SECONDS = 20
RESERVED_EVENTS = frozenset(
    {"connect", "disconnect", "connect_error", "disconnecting", "newListener", "removeListener"}
)
MAX_ATTACHMENTS = 16
ENVIRON = (
    "HTTP_AUTHORIZATION",
    "HTTP_COOKIE",
    "HTTP_HOST",
    "HTTP_ORIGIN",
    "REMOTE_ADDR",
    "SERVER_NAME",
    "SERVER_PORT",
    "wsgi.url_scheme",
)
"""What is kept of the handshake's environ for the handlers that come later; the rest is half of a connection's
memory."""
CONNECT_SECONDS = 45
"""How long a connection may stay without connecting to a namespace."""


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


class Handshakes:
    """`Server.environ` of python-socketio, by Engine.IO sid: keeps of each environ the little that handlers need."""

    def __init__(self, app: Flask, names: tuple[str, ...]):
        self._names = names
        self._shared = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": "/",
            "QUERY_STRING": "",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "flask.app": app,
        }
        self._kept: dict[str, tuple[str | None, ...]] = {}

    def __setitem__(self, eio_sid: str, environ: dict[str, Any]) -> None:
        values = (environ.get(name) for name in self._names)
        self._kept[eio_sid] = tuple(sys.intern(value) if value else None for value in values)

    def __getitem__(self, eio_sid: str) -> dict[str, Any]:
        pairs = zip(self._names, self._kept[eio_sid], strict=True)
        return self._shared | {name: value for name, value in pairs if value is not None}

    def __contains__(self, eio_sid: object) -> bool:
        return eio_sid in self._kept

    def __delitem__(self, eio_sid: str) -> None:
        del self._kept[eio_sid]

    def get(self, eio_sid: str) -> dict[str, Any] | None:
        return self[eio_sid] if eio_sid in self._kept else None


def make_socketio(app: Flask, network: Network, environ_names: tuple[str, ...] = ()) -> SocketIO:
    """Flask-SocketIO for this app, over this network. Origins are judged before it (sockets/gate.py).
    `environ_names` are more that handlers need of the handshake's environ."""
    socketio = SocketIO(
        app,
        async_mode="gevent",
        async_handlers=False,
        manage_session=False,
        cors_allowed_origins="*",
        cors_credentials=True,
        ping_interval=PING_INTERVAL_SECONDS,
        ping_timeout=PING_TIMEOUT_SECONDS,
        max_http_buffer_size=network.max_message_bytes,
        monitor_clients=False,
        client_manager=RoomManager(),
        json=StrictJson,
        path="socket.io",
        logger=False,
        engineio_logger=False,
    )
    socketio.server.environ = Handshakes(app, (*ENVIRON, *environ_names))
    _harden(socketio.server, network.metrics)
    _take_over(socketio.server, network)
    return socketio


def _take_over(server: Any, network: Network) -> None:
    """Let python-engineio open our sessions instead of its own, each of which would need two or three greenlets."""
    engine = server.eio

    def connect(environ: dict[str, Any], start_response: Any, transport: str, jsonp_index: int | None = None) -> Any:
        sid = engine.generate_id()
        session = EngineSocket(engine, network, sid, environ.get("HTTP_USER_AGENT", ""))
        engine.sockets[sid] = session
        server._handle_eio_connect(sid, environ)
        opening = {
            "sid": sid,
            "upgrades": ["websocket"] if transport == "polling" else [],
            "pingTimeout": int(engine.ping_timeout * 1000),
            "pingInterval": int(engine.ping_interval * 1000),
            "maxPayload": engine.max_http_buffer_size,
        }
        session.send(engine_packet.Packet(engine_packet.OPEN, opening))
        network.wheel.add(CONNECT_SECONDS, _Unconnected(server, session))
        if transport == "websocket":
            return session.handle_get_request(environ, start_response)
        if network.trace is not None:
            network.trace.arrived(session, environ.get("PATH_INFO", ""))
        session.polls()
        return engine._ok(session.poll(), jsonp_index=jsonp_index)

    engine._handle_connect = connect


def _harden(server: Any, metrics: Metrics) -> None:
    """A client that breaks the protocol loses its connection: it costs one line a kind, and nobody else anything."""
    handle_event, handle_message = server._handle_event, server._handle_eio_message
    handle_disconnect, engine, manager = server._handle_eio_disconnect, server.eio, server.manager

    def handle_client_connect(eio_sid: str, namespace: str | None, data: Any) -> None:
        """The stock one answers before what the connect handler has emitted could wait for it, with a sid that was
        chosen before anybody asked who comes; and its refusal of an unknown namespace shows as an empty message."""
        name = namespace or "/"
        sid = manager.pre_connect(eio_sid, name) if name in server.handlers else None
        if sid is None:
            problem = "Invalid namespace" if name not in server.handlers else "Connected already"
            metrics.socket_error(EngineSocket.kind, "invalid")
            refuse(eio_sid, name, {"message": problem})
            return
        try:
            if server._trigger_event("connect", name, sid, server.environ[eio_sid], data) is False:
                raise ConnectionRefusedError
        except ConnectionRefusedError as refusal:
            refuse(eio_sid, name, refusal.error_args)
            manager.disconnect(manager.sid_from_eio_sid(eio_sid, name), name)
            return
        except SidecarError as error:  # a passing fault: after a CONNECT_ERROR the client would never try again
            log.warning("engine.connect_abandoned", problem=error.detail)
            manager.disconnect(manager.sid_from_eio_sid(eio_sid, name), name)
            drop(server, eio_sid)
            return
        sid = manager.sid_from_eio_sid(eio_sid, name)
        if sid is not None:
            answer = manager.answer(sid, name)
            send_packet(eio_sid, server.packet_class(socketio_packet.CONNECT, answer, namespace=name))
            manager.connect(sid, name)

    def refuse(eio_sid: str, namespace: str, problem: Any) -> None:
        send_packet(eio_sid, server.packet_class(socketio_packet.CONNECT_ERROR, problem, namespace=namespace))

    def handle_client_event(eio_sid: str, namespace: str, id: int | None, data: Any) -> None:
        """A client may not send the names that mean something to the server's own handlers."""
        if not isinstance(data, list) or not data or not isinstance(data[0], str) or data[0] in RESERVED_EVENTS:
            raise ValueError("not an event that a client may send")
        handle_event(eio_sid, namespace, id, data)

    def send_packet(eio_sid: str, packet: Any) -> None:
        """All of a packet, or (if the client has just gone) nothing."""
        session = engine.sockets.get(eio_sid)
        if session is not None:
            session.put(engine_frames(packet))

    def handle_client_message(eio_sid: str, data: Any) -> None:
        """The stock parser gathers attachments without a bound, and takes a text for one."""
        if eio_sid not in server.environ:  # closed by an earlier packet of the same request
            return
        try:
            gathering = server._binary_packet.get(eio_sid)
            if isinstance(data, str) != (gathering is None):
                raise ValueError("an attachment without its packet, or a packet without its attachment")
            if gathering is not None:
                size = len(data) + sum(len(attachment) for attachment in gathering.attachments)
                if size > engine.max_http_buffer_size:
                    raise ValueError("attachments too large")
            handle_message(eio_sid, data)
            begun = server._binary_packet.get(eio_sid)
            if begun is not None and not 0 < begun.attachment_count <= MAX_ATTACHMENTS:
                raise ValueError("number of attachments")
        except Exception as error:
            log.warning("engine.bad_packet", problem=type(error).__name__)
            drop(server, eio_sid, "bad_packet")

    def handle_end(eio_sid: str, reason: str) -> None:
        """Who is gone is unknown from then on; the stock server fails at a POST of a session closed a moment ago."""
        handle_disconnect(eio_sid, reason)
        engine.sockets.pop(eio_sid, None)
        server._binary_packet.pop(eio_sid, None)

    def disconnect(sid: str) -> None:
        """The stock one waits until the queue of a client that it has just refused is read: for ever."""
        drop(server, sid)

    server._send_packet = send_packet
    server._handle_connect = handle_client_connect
    server._handle_event = handle_client_event
    engine.on("message", handle_client_message)
    engine.on("disconnect", handle_end)
    engine.disconnect = disconnect


@dataclass(frozen=True, slots=True)
class _Unconnected:
    """Closes a connection that has come without connecting to a namespace: it would hold its place for ever."""

    server: Any
    session: EngineSocket

    def due(self) -> None:
        manager = self.server.manager
        names = manager.get_namespaces()
        if not self.session.closed and not any(manager.sid_from_eio_sid(self.session.sid, name) for name in names):
            self.session.cut_off()


def engine_socket(socketio: SocketIO, sid: str, namespace: str) -> EngineSocket | None:
    """The Engine.IO session behind a Socket.IO sid, None when it has just gone."""
    server = socketio.server
    session: EngineSocket | None = server.eio.sockets.get(server.manager.eio_sid_from_sid(sid, namespace))
    return None if session is None or session.closed else session


def keep_recoverable(socketio: SocketIO, sid: str, namespace: str, pid: str, lasting_sid: str) -> None:
    """In a connect handler: the client can come back with this pid, and goes by `lasting_sid`, which it had before or
    is its own. A connection of the same sid that is still open is closed."""
    server = socketio.server
    if lasting_sid != sid:
        former = server.manager.eio_sid_from_sid(lasting_sid, namespace)
        if former is not None:
            drop(server, former)
    server.manager.adopt(sid, namespace, pid, lasting_sid)


def emit_with_offset(
    socketio: SocketIO, sid: str, namespace: str, name: str, body: dict[str, object], offset: str | None
) -> None:
    """An event whose last argument the client keeps, to come back with."""
    socketio.server.manager.emit(name, body, namespace, to=sid, offset=offset)


def offer_frame(socketio: SocketIO, sid: str, namespace: str, frame: bytes) -> bool:
    """Queue a frame of our own making for this client, behind the answer to its CONNECT; False if there is no room for
    it, or the client is gone. Never blocks."""
    taken: bool = socketio.server.manager.offer(sid, namespace, frame)
    return taken


def connection_count(socketio: SocketIO) -> int:
    return len(socketio.server.eio.sockets)


def is_open(socketio: SocketIO, eio_sid: str) -> bool:
    return eio_sid in socketio.server.eio.sockets


def drop(server: Any, eio_sid: str, failure: str = "") -> None:
    """Close the transport at once, so that nothing more is read from it or sent. Its disconnect handlers run here.
    `failure` is one of metrics.FAILURES."""
    session = server.eio.sockets.get(eio_sid)
    if session is not None:
        session.close(wait=False, failure=failure)


def close_polling(socketio: SocketIO) -> None:
    """At shutdown: end the held long polls; WebSockets are closed by the network with 1012."""
    for session in list(socketio.server.eio.sockets.values()):
        if not session.upgraded:
            session.close(wait=False)
