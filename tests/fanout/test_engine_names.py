"""A check for each name of other packages that `fanout/engine.py` and `server.py` touch though it is not promised to
anybody: an upgrade that changes one fails here, by name, and not on somebody's screen."""

from __future__ import annotations

import importlib.metadata
import inspect
import json
import re
from collections.abc import Iterator

import engineio
import flask_socketio
import geventwebsocket.handler
import pytest
import socketio
from engineio import packet as engine_packet
from engineio.payload import Payload
from flask import Flask
from gevent import pywsgi
from packaging.requirements import Requirement
from socketio import packet as socketio_packet

from sidecar.fanout.engine import StrictJson, make_socketio
from sidecar.fanout.rooms import RoomManager
from sidecar.fanout.transports import NOOP, BadPayload, EngineSocket, PolledPacket, engine_frames
from sidecar.fanout.websocket import Network
from sidecar.wire.frames import BINARY, TEXT, frame
from tests.servers import ROOT


def pinned() -> list[Requirement]:
    lines = (line.partition("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines())
    return [Requirement(line) for line in lines if line]


@pytest.mark.parametrize("requirement", pinned(), ids=lambda requirement: requirement.name)
def test_what_is_installed_is_what_is_pinned(requirement: Requirement):
    (pin,) = requirement.specifier
    assert pin.operator == "=="
    assert importlib.metadata.version(requirement.name) == pin.version


def parameters(function) -> list[str]:
    return list(inspect.signature(function).parameters)


@pytest.fixture
def server() -> socketio.Server:
    return flask_socketio.SocketIO(Flask("names"), async_mode="gevent").server


@pytest.fixture
def network() -> Iterator[Network]:
    made = Network(1_000, 10_000, 100_000)
    yield made
    made.stop()


@pytest.fixture
def ours(network: Network) -> socketio.Server:
    return make_socketio(Flask("names"), network).server


@pytest.fixture
def session(ours: socketio.Server, network: Network) -> EngineSocket:
    made = EngineSocket(ours.eio, network, "engine-sid", "")
    made.connected = True
    ours.eio.sockets["engine-sid"] = made
    return made


def polled(session: EngineSocket) -> list[str]:
    return [packet.encode() for packet in session.poll()]


class TestSocketIoServer:
    def test_the_handlers_that_we_wrap_take_what_we_pass_on(self):
        assert parameters(socketio.Server._handle_connect) == ["self", "eio_sid", "namespace", "data"]
        assert parameters(socketio.Server._handle_event) == ["self", "eio_sid", "namespace", "id", "data"]
        assert parameters(socketio.Server._handle_eio_message) == ["self", "eio_sid", "data"]
        assert parameters(socketio.Server._handle_eio_disconnect) == ["self", "eio_sid", "reason"]

    def test_events_and_connects_go_through_the_instances_handlers(self, server: socketio.Server):
        """We replace them on the instance; a call on the class would go round us."""
        seen = []
        server._handle_connect = lambda *args: seen.append(("connect", args))
        server._handle_event = lambda *args: seen.append(("event", args))
        server._handle_eio_message("e", '0{"token":"t"}')
        server._handle_eio_message("e", '21["name","x"]')
        assert seen == [("connect", ("e", None, {"token": "t"})), ("event", ("e", None, 1, ["name", "x"]))]

    def test_engineio_calls_what_was_registered_last(self, server: socketio.Server):
        seen = []
        server.eio.on("message", lambda *args: seen.append(args))
        server.eio.on("disconnect", lambda *args: seen.append(args))
        server.eio._trigger_event("message", "e", "data")
        server.eio._trigger_event("disconnect", "e", "reason")
        assert seen == [("e", "data"), ("e", "reason")]

    def test_environ_knows_who_is_open(self, ours: socketio.Server):
        """Ours keeps what handlers need, and answers to all that python-socketio does with it."""
        ours._handle_eio_connect("e", {"HTTP_HOST": "h", "HTTP_COOKIE": "c", "wsgi.input": object(), "HTTP_X": "x"})
        assert ours.environ["e"]["HTTP_HOST"] == "h"
        assert ours.environ["e"]["HTTP_COOKIE"] == "c"
        assert "wsgi.input" not in ours.environ["e"]
        assert "HTTP_X" not in ours.environ["e"]
        sid = ours.manager.pre_connect("e", "/")
        assert ours.get_environ(sid, "/") == ours.environ["e"]
        used = re.findall(r"self\.environ\b(.{0,12})", inspect.getsource(socketio.server))
        assert {use.split("eio_sid")[0].split("(")[0] for use in used} <= {"[", ".get", "", ":"}
        ours._handle_eio_disconnect("e", "reason")
        assert "e" not in ours.environ
        assert ours.environ.get("e") is None

    def test_handlers_are_kept_by_namespace(self, server: socketio.Server):
        server.on("x", lambda: None, namespace="/n")
        assert "/n" in server.handlers
        assert "/m" not in server.handlers

    def test_answers_go_through_the_instances_send_packet(self, ours: socketio.Server, session: EngineSocket):
        """CONNECT, CONNECT_ERROR and acknowledgements all take the session's outbox."""
        for name in ("_handle_connect", "_handle_event_internal", "disconnect"):
            assert "._send_packet(eio_sid, self.packet_class(" in inspect.getsource(getattr(socketio.Server, name))
        packet = ours.packet_class(socketio_packet.CONNECT_ERROR, data={"message": "m"}, namespace="/n")
        ours._send_packet("engine-sid", packet)
        assert polled(session) == ['44/n,{"message":"m"}']

    def test_disconnect_takes_a_sid_and_a_namespace(self):
        assert parameters(socketio.Server.disconnect)[:3] == ["self", "sid", "namespace"]

    def test_the_connect_packet_follows_the_handler_without_a_switch(self):
        """What our connect handler joins must not be told of anything before CONNECT is queued."""
        source = inspect.getsource(socketio.Server._handle_connect)
        assert source.index("_trigger_event(") < source.rindex("packet.CONNECT, {'sid': sid}")


class TestManager:
    def test_ours_has_every_method_that_python_socketio_calls(self):
        source = inspect.getsource(socketio.Server) + inspect.getsource(socketio.base_server)
        for name in set(re.findall(r"self\.manager\.(\w+)\(", source)) - {
            "can_disconnect",
            "initialize",
            "set_server",
            "trigger_callback",
        }:
            stock, own = getattr(socketio.Manager, name), RoomManager.__dict__[name]
            assert parameters(own)[: len(parameters(stock))][:3] == parameters(stock)[:3], name

    def test_nothing_else_looks_into_its_tables(self):
        source = inspect.getsource(socketio.Server) + inspect.getsource(flask_socketio)
        assert re.findall(r"manager\.(?:rooms|eio_to_sid|pending_\w+)", source) == []


class TestEngine:
    def test_ours_has_every_name_of_a_socket_that_the_engine_uses(self, session: EngineSocket):
        source = inspect.getsource(engineio.server) + inspect.getsource(engineio.base_server)
        names = set(re.findall(r"\b(?:socket|s|sockets\[sid\]|_get_socket\(sid\))\.(\w+)", source))
        names -= {"Socket", "strip", "split", "check_ping_timeout", "handlers"}
        assert {"closed", "connected", "upgraded", "poll", "send", "close", "handle_get_request"} <= names
        for name in names:
            assert hasattr(session, name), name

    def test_sessions_are_opened_by_the_instances_method(self):
        assert parameters(engineio.Server._handle_connect)[1:] == [
            "environ",
            "start_response",
            "transport",
            "jsonp_index",
        ]
        assert "self._handle_connect(environ, start_response" in inspect.getsource(engineio.Server.handle_request)
        assert parameters(engineio.Server._ok) == ["self", "packets", "headers", "jsonp_index"]
        assert parameters(engineio.Server._trigger_event) == ["self", "event", "args", "kwargs"]

    def test_a_closed_session_is_taken_out_by_the_engine(self):
        """After a request it looks at `closed`; an error of the engine's own kind is answered 400."""
        source = inspect.getsource(engineio.Server.handle_request)
        assert "except exceptions.EngineIOError:" in source
        assert issubclass(BadPayload, engineio.exceptions.EngineIOError)

    def test_the_engine_disconnects_by_the_instances_method(self, server: socketio.Server):
        assert parameters(engineio.Server.disconnect) == ["self", "sid"]
        assert "self.disconnect(sid)" in inspect.getsource(engineio.Server.handle_request)

    def test_reasons_have_the_names_that_we_give(self, server: socketio.Server):
        reason = server.eio.reason
        assert reason.PING_TIMEOUT == "ping timeout"
        assert reason.TRANSPORT_CLOSE == "transport close"
        assert reason.TRANSPORT_ERROR == "transport error"
        assert reason.CLIENT_DISCONNECT == "client disconnect"
        assert reason.SERVER_DISCONNECT == "server disconnect"

    def test_events_are_triggered_from_close(self, ours: socketio.Server, session: EngineSocket):
        seen = []
        ours.eio.on("disconnect", lambda *args: seen.append(args))
        session.close(wait=False)
        session.close(wait=False)
        assert seen == [("engine-sid", "server disconnect")]

    def test_no_service_task_looks_at_every_session(self, ours: socketio.Server):
        assert ours.eio.start_service_task is False

    def test_a_packet_gathers_its_attachments_where_we_count_them(self, ours: socketio.Server):
        sid = ours.manager.pre_connect("e", "/")
        ours.manager.connect(sid, "/")
        ours._handle_eio_message("e", '52-["x",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]')
        ours._handle_eio_message("e", b"12")
        gathering = ours._binary_packet["e"]
        assert (gathering.attachment_count, gathering.attachments) == (2, [b"12"])

    def test_payload_encodes_whatever_has_an_encode(self):
        assert Payload(packets=[NOOP, PolledPacket("4x")]).encode() == "6\x1e4x"

    def test_a_packet_of_python_socketio_encodes_to_text_or_to_text_and_attachments(self, ours: socketio.Server):
        plain = ours.packet_class(socketio_packet.EVENT, data=["a", 1])
        assert engine_frames(plain) == [frame(TEXT, b'42["a",1]')]
        binary = ours.packet_class(socketio_packet.EVENT, data=["a", b"\x00"])
        head, attachment = engine_frames(binary)
        assert head[2:].startswith(b"451-")
        assert attachment == frame(BINARY, b"\x00")


class TestFlaskSocketIo:
    def test_our_json_is_used_both_ways(self, ours: socketio.Server):
        server = ours
        assert server.packet_class.json is StrictJson
        assert engine_packet.Packet.json is StrictJson
        for text in ('2["x",NaN]', '2["x",-Infinity]'):
            with pytest.raises(ValueError, match="not JSON"):
                server.packet_class(encoded_packet=text)
        with pytest.raises(ValueError, match="not JSON compliant"):
            server.packet_class(socketio_packet.EVENT, data=["x", float("nan")]).encode()
        assert server.packet_class(socketio_packet.EVENT, data=["ü"]).encode() == '2["ü"]'

    def test_options_reach_the_engine(self, ours: socketio.Server):
        server = ours
        assert (server.async_handlers, server.always_connect) == (False, False)
        assert server.eio.max_http_buffer_size == 1_000
        assert (server.eio.ping_interval, server.eio.ping_timeout) == (25, 20)
        assert server.eio.async_mode == "gevent"
        assert json.loads(StrictJson.dumps({"a": [1]})) == {"a": [1]}

    def test_a_connect_handler_that_raises_type_error_is_called_again(self):
        """Why ours catches everything itself (sockets/sessions.py). Should this ever change, the comment may go."""
        source = inspect.getsource(flask_socketio.SocketIO._handle_event)
        assert "except TypeError:\n                        ret = handler()" in source

    def test_the_request_of_an_event_has_sid_and_namespace(self):
        source = inspect.getsource(flask_socketio.SocketIO._handle_event)
        assert "flask.request.sid = sid" in source
        assert "flask.request.namespace = namespace" in source

    def test_it_takes_every_path_below_its_own(self, network: Network):
        """Why the gate answers 404 itself for the others."""
        app = Flask("names")
        make_socketio(app, network)
        answers = []
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/socket.io/x/", "QUERY_STRING": "", "wsgi.url_scheme": "http"}
        app.wsgi_app(environ, lambda status, headers: answers.append(status))
        assert answers == ["400 BAD REQUEST"]


class TestServer:
    def test_gevent_websockets_handler_asks_the_hook_before_it_upgrades(self):
        source = inspect.getsource(geventwebsocket.handler.WebSocketHandler.run_application)
        assert source.index("pre_start_hook(self)") < source.index("upgrade_websocket()")

    def test_its_handler_answers_101_before_run_websocket(self):
        """There the socket is taken away from it."""
        source = inspect.getsource(geventwebsocket.handler.WebSocketHandler.run_application)
        assert source.index("self.write('')") < source.index("self.run_websocket()")
        assert parameters(geventwebsocket.handler.WebSocketHandler.run_websocket) == ["self"]

    def test_pywsgis_handler_leaves_a_socket_alone_that_is_none(self):
        """Otherwise its closing `recv` would eat frames."""
        source = inspect.getsource(pywsgi.WSGIHandler.handle)
        assert "while self.socket is not None:" in source
        assert "if self.socket is not None:\n                _sock" in source

    def test_pywsgis_handler_has_the_methods_that_ours_replaces(self):
        handler = pywsgi.WSGIHandler
        assert parameters(handler.log_request) == ["self"]
        assert parameters(handler.log_error) == ["self", "msg", "args"]
        assert parameters(handler.get_environ) == ["self"]
        assert parameters(handler.read_request) == ["self", "raw_requestline"]
        assert parameters(handler._headers) == ["self"]
        assert parameters(handler._sendall) == ["self", "data"]
        assert parameters(handler._write_with_headers) == ["self", "data"]
        source = inspect.getsource(handler._write_with_headers)
        assert (
            source.index("self.finalize_headers()") < source.index("self._sendall(") < source.index("self._write(data)")
        )

    def test_pywsgis_handler_asks_nothing_else_of_the_headers(self):
        """Ours are not its header class."""
        used = set(re.findall(r"self\.headers\.(\w+)", inspect.getsource(pywsgi.WSGIHandler)))
        assert used <= {"get", "getheader", "typeheader", "status", "headers"}
        assert "self.headers.headers" in inspect.getsource(pywsgi.WSGIHandler._headers)
        assert inspect.getsource(pywsgi.WSGIHandler).count("self.headers.headers") == 1

    def test_pywsgis_server_closes_its_listener_and_then_stops(self):
        assert parameters(pywsgi.WSGIServer.close) == ["self"]
        assert parameters(pywsgi.WSGIServer.stop) == ["self", "timeout"]
