"""A check for each name of other packages that `fanout/engine.py` and `server.py` touch though it is not promised to
anybody: an upgrade that changes one fails here, by name, and not on somebody's screen."""

from __future__ import annotations

import importlib.metadata
import inspect
import json

import engineio
import flask_socketio
import geventwebsocket.handler
import geventwebsocket.websocket
import pytest
import socketio
from engineio import packet as engine_packet
from engineio.async_drivers import gevent as driver
from engineio.payload import Payload
from engineio.socket import Socket
from flask import Flask
from gevent import pywsgi
from packaging.requirements import Requirement
from socketio import packet as socketio_packet
from socketio.base_manager import BaseManager

from sidecar.fanout.engine import StrictJson, make_socketio
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
def engine_socket(server: socketio.Server) -> Socket:
    made = Socket(server.eio, "engine-sid")
    made.connected = True
    server.eio.sockets["engine-sid"] = made
    return made


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

    def test_environ_knows_who_is_open(self, server: socketio.Server):
        server._handle_eio_connect("e", {"a": 1})
        assert server.environ["e"] == {"a": 1}
        server._handle_eio_disconnect("e", "reason")
        assert "e" not in server.environ

    def test_handlers_are_kept_by_namespace(self, server: socketio.Server):
        server.on("x", lambda: None, namespace="/n")
        assert "/n" in server.handlers
        assert "/m" not in server.handlers

    def test_a_packet_can_be_sent_by_engine_sid(self, server: socketio.Server, engine_socket: Socket):
        packet = server.packet_class(socketio_packet.CONNECT_ERROR, data={"message": "m"}, namespace="/n")
        server._send_packet("engine-sid", packet)
        assert engine_socket.queue.get_nowait().encode() == '44/n,{"message":"m"}'

    def test_disconnect_takes_a_sid_and_a_namespace(self):
        assert parameters(socketio.Server.disconnect)[:3] == ["self", "sid", "namespace"]

    def test_the_connect_packet_follows_the_handler_without_a_switch(self):
        """What our connect handler joins must not be told of anything before CONNECT is queued."""
        source = inspect.getsource(socketio.Server._handle_connect)
        assert source.index("_trigger_event(") < source.rindex("packet.CONNECT, {'sid': sid}")


class TestManager:
    def test_it_leads_from_a_sid_to_its_engine_sid(self, server: socketio.Server):
        manager: BaseManager = server.manager
        sid = manager.pre_connect("engine-sid", "/n")
        assert manager.eio_sid_from_sid(sid, "/n") == "engine-sid"
        assert manager.eio_sid_from_sid("unknown", "/n") is None
        assert manager.eio_sid_from_sid(sid, "/nowhere") is None

    def test_a_second_connect_to_a_namespace_is_none(self, server: socketio.Server):
        """We keep one session for a namespace of a connection."""
        assert server.manager.pre_connect("e", "/")
        assert server.manager.pre_connect("e", "/") is None

    def test_a_half_connect_can_be_taken_back(self, server: socketio.Server):
        sid = server.manager.pre_connect("e", "/")
        server.manager.disconnect(sid, "/", ignore_queue=True)
        assert not server.manager.rooms
        assert not server.manager.pending_connect


class TestEngineSocket:
    def test_closing_without_waiting_returns_and_is_seen(self, engine_socket: Socket):
        assert engine_socket.closed is False
        assert engine_socket.upgraded is False
        engine_socket.close(wait=False)
        assert engine_socket.closed is True

    def test_its_queue_is_what_the_hub_sends_to(self, engine_socket: Socket):
        packet = engine_packet.Packet(engine_packet.MESSAGE, "2[]")
        engine_socket.queue.put_nowait(packet)
        assert engine_socket.queue.qsize() == 1
        assert list(engine_socket.queue.queue) == [packet], "we count the bytes that wait"
        assert packet.data == "2[]"
        assert packet.encode() == "42[]"
        assert engine_socket.poll() == [packet]

    def test_queues_have_no_bound_of_their_own(self, server: socketio.Server):
        """`put_nowait` may not raise and `put` may not block: congestion is judged by us, before."""
        queue = server.eio.create_queue()
        for number in range(10_000):
            queue.put_nowait(number)
        assert queue.qsize() == 10_000

    def test_a_closed_socket_leaves_none_for_the_writer(self, engine_socket: Socket):
        engine_socket.close(wait=False)
        assert list(engine_socket.queue.queue)[-1] is None

    def test_the_engine_disconnects_by_the_instances_method(self, server: socketio.Server):
        assert parameters(engineio.Server.disconnect) == ["self", "sid"]
        assert "self.disconnect(sid)" in inspect.getsource(engineio.Server.handle_request)

    def test_events_are_triggered_from_close(self, server: socketio.Server, engine_socket: Socket):
        seen = []
        server.eio.on("disconnect", lambda *args: seen.append(args))
        engine_socket.close(wait=False)
        assert [args[0] for args in seen] == ["engine-sid"]

    def test_the_number_of_packets_in_a_post_is_bounded_by_the_payload_class(self):
        assert isinstance(Payload.max_decode_packets, int)
        original = Payload.max_decode_packets
        Payload.max_decode_packets = 2
        try:
            with pytest.raises(ValueError, match="packets"):
                Payload(encoded_payload="2\x1e2\x1e2")
        finally:
            Payload.max_decode_packets = original

    def test_gevent_websocket_carries_the_frames(self):
        assert driver._async["websocket"] is driver.WebSocketWSGI
        assert driver.SimpleWebSocketWSGI is None


class TestFlaskSocketIo:
    def test_our_json_is_used_both_ways(self):
        server = make_socketio(Flask("names"), 1_000).server
        assert server.packet_class.json is StrictJson
        assert engine_packet.Packet.json is StrictJson
        for text in ('2["x",NaN]', '2["x",-Infinity]'):
            with pytest.raises(ValueError, match="not JSON"):
                server.packet_class(encoded_packet=text)
        with pytest.raises(ValueError, match="not JSON compliant"):
            server.packet_class(socketio_packet.EVENT, data=["x", float("nan")]).encode()
        assert server.packet_class(socketio_packet.EVENT, data=["ü"]).encode() == '2["ü"]'

    def test_options_reach_the_engine(self):
        socketio_ = make_socketio(Flask("names"), 1_234)
        server = socketio_.server
        assert (server.async_handlers, server.always_connect) == (False, False)
        assert server.eio.max_http_buffer_size == 1_234
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

    def test_it_takes_every_path_below_its_own(self):
        """Why the gate answers 404 itself for the others."""
        app = Flask("names")
        make_socketio(app, 1_000)
        answers = []
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/socket.io/x/", "QUERY_STRING": "", "wsgi.url_scheme": "http"}
        app.wsgi_app(environ, lambda status, headers: answers.append(status))
        assert answers == ["400 BAD REQUEST"]


class TestServer:
    def test_gevent_websockets_handler_asks_the_hook_before_it_upgrades(self):
        source = inspect.getsource(geventwebsocket.handler.WebSocketHandler.run_application)
        assert source.index("pre_start_hook(self)") < source.index("upgrade_websocket()")

    def test_its_handler_keeps_the_websocket_where_we_look(self):
        names = inspect.getsource(geventwebsocket.handler.WebSocketHandler)
        assert "self.websocket = WebSocket(" in names
        assert parameters(geventwebsocket.handler.WebSocketHandler.run_websocket) == ["self"]
        assert parameters(geventwebsocket.websocket.WebSocket.close) == ["self", "code", "message"]

    def test_pywsgis_handler_has_the_methods_that_ours_replaces(self):
        handler = pywsgi.WSGIHandler
        assert parameters(handler.log_request) == ["self"]
        assert parameters(handler.log_error) == ["self", "msg", "args"]
        assert parameters(handler.get_environ) == ["self"]
        assert parameters(handler._check_http_version) == ["self"]
        assert "self._check_http_version()" in inspect.getsource(handler)

    def test_pywsgis_server_closes_its_listener_and_then_stops(self):
        assert parameters(pywsgi.WSGIServer.close) == ["self"]
        assert parameters(pywsgi.WSGIServer.stop) == ["self", "timeout"]
