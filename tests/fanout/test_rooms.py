"""What python-socketio asks of a client manager: its own and ours answer alike, and ours reaches each client once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import socketio
from flask import Flask

from sidecar.fanout.engine import make_socketio
from sidecar.fanout.rooms import RoomManager
from sidecar.fanout.transports import EngineSocket
from sidecar.fanout.websocket import Network


@pytest.fixture
def network() -> Iterator[Network]:
    made = Network(10_000, 100_000, 1_000_000)
    yield made
    made.stop()


@pytest.fixture(params=[socketio.Manager, RoomManager])
def manager(request: pytest.FixtureRequest) -> socketio.Manager:
    server = socketio.Server(async_mode="gevent", client_manager=request.param())
    return server.manager


def join(manager: socketio.Manager, engine_sid: str, *rooms: str, namespace: str = "/") -> str:
    sid = manager.pre_connect(engine_sid, namespace)
    assert sid is not None
    manager.connect(sid, namespace)
    for room in rooms:
        manager.enter_room(sid, namespace, room)
    return sid


class TestContract:
    """Both managers."""

    def test_connecting_and_disconnecting(self, manager: socketio.Manager):
        sid = manager.pre_connect("e", "/")
        assert manager.pre_connect("e", "/") is None
        assert not manager.is_connected(sid, "/")
        manager.connect(sid, "/")
        assert manager.is_connected(sid, "/")
        assert manager.can_disconnect(sid, "/")
        assert not manager.is_connected(sid, "/other")
        assert not manager.is_connected(None, "/")
        assert manager.sid_from_eio_sid("e", "/") == sid
        assert manager.sid_from_eio_sid("x", "/") is None
        assert manager.eio_sid_from_sid(sid, "/") == "e"
        assert list(manager.get_namespaces()) == ["/"]
        assert manager.pre_disconnect(sid, "/") == "e"
        assert not manager.is_connected(sid, "/")
        manager.disconnect(sid, "/", ignore_queue=True)
        manager.disconnect(sid, "/", ignore_queue=True)
        assert manager.eio_sid_from_sid(sid, "/") is None
        assert list(manager.get_namespaces()) == []

    def test_rooms(self, manager: socketio.Manager):
        a, b = join(manager, "ea", "red", "blue"), join(manager, "eb", "red")
        assert sorted(manager.get_rooms(a, "/")) == sorted([a, "red", "blue"])
        assert dict(manager.get_participants("/", "red")) == {a: "ea", b: "eb"}
        assert dict(manager.get_participants("/", a)) == {a: "ea"}
        assert dict(manager.get_participants("/", None)) == {a: "ea", b: "eb"}
        assert dict(manager.get_participants("/", ["red", "blue"])) == {a: "ea", b: "eb"}
        assert dict(manager.get_participants("/", "none")) == {}
        assert dict(manager.get_participants("/other", "red")) == {}
        manager.leave_room(a, "/", "red")
        manager.leave_room(a, "/", "red")
        assert dict(manager.get_participants("/", "red")) == {b: "eb"}
        manager.close_room("red", "/")
        manager.close_room("red", "/")
        assert dict(manager.get_participants("/", "red")) == {}
        manager.disconnect(a, "/")
        assert dict(manager.get_participants("/", "blue")) == {}

    def test_a_client_s_own_room_is_its_alone(self, manager: socketio.Manager):
        a, b = join(manager, "ea"), join(manager, "eb")
        with pytest.raises(ValueError, match="sid room"):
            manager.enter_room(a, "/", b)
        with pytest.raises(ValueError, match="sid room"):
            manager.close_room(b, "/")
        with pytest.raises(ValueError, match="not connected"):
            manager.enter_room(a, "/other", "red")

    def test_namespaces_are_apart(self, manager: socketio.Manager):
        a, b = join(manager, "e", "red"), join(manager, "e", "red", namespace="/n")
        assert a != b
        manager.disconnect(a, "/")
        assert dict(manager.get_participants("/n", "red")) == {b: "e"}

    def test_callbacks_end_with_their_client(self, manager: socketio.Manager):
        sid = join(manager, "e")
        answers: list[str] = []
        number = manager._generate_ack_id(sid, answers.append)
        manager.trigger_callback(sid, number, ["yes"])
        assert answers == ["yes"]
        manager._generate_ack_id(sid, answers.append)
        manager.disconnect(sid, "/")
        assert sid not in manager.callbacks


@pytest.fixture
def crowd(network: Network) -> tuple[socketio.Server, Callable[..., tuple[str, EngineSocket]]]:
    """A server, and a way to add polling clients to it."""
    server = make_socketio(Flask("rooms"), network).server

    def add(name: str, *rooms: str) -> tuple[str, EngineSocket]:
        session = EngineSocket(server.eio, network, name, "")
        server.eio.sockets[name] = session
        return join(server.manager, name, *rooms), session

    return server, add


def got(session: EngineSocket) -> list[str]:
    session.outbox.arrived()
    if not session.outbox.size:
        return []
    return [packet.encode() for packet in session.poll()]


class TestEmitting:
    def test_to_a_sid_a_room_several_or_all_each_client_once(self, crowd):
        server, add = crowd
        (a, first), (_, second), (_, third) = add("1", "red", "blue"), add("2", "red"), add("3")
        server.emit("x", 1, to=a)
        assert [got(client) for client in (first, second, third)] == [['42["x",1]'], [], []]
        server.emit("x", {"a": "ü"}, to="red")
        assert [got(client) for client in (first, second, third)] == [['42["x",{"a":"ü"}]'], ['42["x",{"a":"ü"}]'], []]
        server.emit("x", (1, 2), to=["red", "blue"])
        assert [got(client) for client in (first, second, third)] == [['42["x",1,2]'], ['42["x",1,2]'], []]
        server.emit("x", skip_sid=a)
        assert [got(client) for client in (first, second, third)] == [[], ['42["x"]'], ['42["x"]']]

    def test_a_frame_is_made_once_for_a_room(self, crowd, monkeypatch: pytest.MonkeyPatch):
        server, add = crowd
        clients = [add(str(number), "red")[1] for number in range(5)]
        made = []
        encode = server.packet_class.encode
        monkeypatch.setattr(server.packet_class, "encode", lambda self: made.append(1) or encode(self))
        server.emit("x", "y", to="red")
        assert len(made) == 1
        assert len({id(client.outbox._frames[0]) for client in clients}) == 1

    def test_with_a_callback_each_has_its_own_number(self, crowd):
        server, add = crowd
        (_, first), (_, second) = add("1", "red"), add("2", "red")
        server.emit("x", to="red", callback=print)
        assert (got(first), got(second)) == (['421["x"]'], ['421["x"]'])

    def test_binary_is_one_item_of_several_frames(self, crowd):
        server, add = crowd
        _, client = add("1", "red")
        server.emit("x", b"\x00\x01", to="red")
        assert got(client) == ['451-["x",{"_placeholder":true,"num":0}]', "bAAE="]

    def test_nobody_there_is_no_fault(self, crowd):
        server, add = crowd
        server.emit("x", to="nobody")
        _, session = add("1", "red")
        del server.eio.sockets["1"]
        server.emit("x", to="red")
        assert got(session) == []
