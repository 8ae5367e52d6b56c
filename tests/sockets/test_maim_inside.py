"""Bots' plain WebSockets within a whole sidecar in this process: floods, silence, and what is left of closed ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event as Signal

from sidecar.domain.errors import Unauthenticated, Unavailable
from sidecar.fanout.rooms import RoomManager
from sidecar.fanout.websocket import INBOX_MESSAGES
from sidecar.services.maim import Bots
from sidecar.wire.frames import CLOSE, PING, PONG, TEXT
from sidecar.wire.maim import MaimKeyBody
from tests.fanout.stages import wait_until
from tests.services.bots import Away, frame, message
from tests.sockets.inside import Installation, Peer


class House(Installation):
    def __init__(self, folder: Path):
        super().__init__(folder, "bots", rate_limit="off", maim_connection_log=False)
        self.bots: Bots = self.plain.house.bots
        self.key = self.new_key("bob")

    def new_key(self, user: str) -> str:
        return self.sidecar.core.bot_keys.create(MaimKeyBody(user=user)).key

    def bot(self, platform: str = "qq", key: str | None = None) -> Peer:
        return self.connect(query=f"api_key={key or self.key}&platform={platform}", token="")

    def nothing_left(self) -> bool:
        return super().nothing_left() and len(self.bots._roster) == 0


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.close()


def say(peer: Peer, said: dict[str, Any]) -> None:
    peer.send(TEXT, json.dumps(said).encode())


def test_a_silent_bot_is_pinged_and_then_dropped(house):
    peer = house.bot()
    assert peer.socket.due() == 20
    wait_until(lambda: peer.count(PING) == 1, "a ping")
    assert peer.socket.due() is None
    wait_until(lambda: bool(peer.frames) and peer.over, "it is dropped")
    wait_until(house.nothing_left, "nothing is left")


def test_one_that_is_not_read_from_is_not_taken_for_dead(house):
    """A flood is read more slowly, perhaps for longer than a ping is waited for; what had been read was lost."""
    go = Signal()
    house.bots._hooks._handlers["custom_wait"] = lambda *_: go.wait()
    peer = house.bot()
    count = 3 * INBOX_MESSAGES
    for number in range(count):
        say(peer, frame(None, "custom_wait", msg_id=f"m{number}"))
    wait_until(lambda: peer.connection.paused, "nothing more is read")
    for _ in range(4):
        assert peer.socket.due() == 20
    go.set()
    wait_until(lambda: len(peer.told) == count, "all of it is dealt with")
    assert [told["meta"]["acked_msg_id"] for told in peer.told] == [f"m{number}" for number in range(count)]


def test_of_a_flood_that_has_to_wait_nothing_is_lost(house):
    house.bots.pace = lambda bot, said: 0.0001
    receiver, peer = house.bot("wechat"), house.bot(key=house.new_key("alice"))
    for number in range(100):
        say(peer, frame(message(house.key, "wechat", number)))
    wait_until(lambda: len(receiver.told) == 100, "all of it")
    assert [told["payload"]["message_segment"]["data"] for told in receiver.told] == list(range(100))


@pytest.mark.parametrize("how", ["close frame", "cut off", "revoked", "binary", "replaced", "too slow"])
def test_nothing_is_left_of_a_closed_one(house, how: str):
    peers = [house.connect(query=f"api_key={house.key}&uuid=u{number}", token="") for number in range(3)]
    (id,) = [row.id for row in house.sidecar.core.bot_keys.list()]
    if how == "revoked":
        house.sidecar.core.bot_keys.revoke(id)
    for number, peer in enumerate(list(peers)):
        if how == "close frame":
            peer.send(CLOSE, b"\x03\xe8")
        elif how == "cut off":
            peer.far.close()
        elif how == "binary":
            peer.send(2, b"x")
        elif how == "too slow":
            peer.socket.cut_off()
        elif how == "replaced":
            peers.append(house.connect(query=f"api_key={house.key}&uuid=u{number}", token=""))
    codes = {"revoked": 4401, "binary": 1003, "replaced": 1000, "too slow": 1013}
    for peer in peers[:3]:
        if how in codes:
            wait_until(lambda peer=peer: peer.count(CLOSE) == 1, "a Close frame")
            (payload,) = [payload for opcode, payload in peer.frames if opcode == CLOSE]
            assert int.from_bytes(payload[:2]) == codes[how]
            peer.send(CLOSE, payload)
            peer.far.close()
    for peer in peers[3:]:
        assert not peer.over
        peer.far.close()
    wait_until(house.nothing_left, "nothing is left")


@pytest.mark.parametrize("when", ["written down", "looked up again"])
def test_one_that_can_not_be_taken_in_leaves_nothing(house, monkeypatch, when: str):
    connections, keys = house.bots._connections, house.bots._keys
    if when == "written down":
        monkeypatch.setattr(connections, "_submit", Away(connections._submit))
    else:
        submit = connections._submit

        def lose(command: Any) -> Any:
            found = submit(command)
            keys.forget()
            monkeypatch.setattr(keys, "_database", Away(keys._database))
            return found

        monkeypatch.setattr(connections, "_submit", lose)
    with pytest.raises(Unavailable):
        house.bot()
    monkeypatch.undo()
    wait_until(house.nothing_left, "nothing is left")


def test_one_that_goes_while_it_is_taken_in_leaves_nothing(house, monkeypatch):
    connections = house.bots._connections
    submit = connections._submit

    def leave(command: Any) -> Any:
        house.peers[-1].far.close()
        gevent.sleep(0.01)
        return submit(command)

    monkeypatch.setattr(connections, "_submit", leave)
    house.bot()
    wait_until(house.nothing_left, "nothing is left")
    gauge = house.sidecar.core.metrics.registry.get_sample_value
    assert gauge("sidecar_maim_connections") == 0


def test_a_wrong_key_is_not_taken_in(house):
    with pytest.raises(Unauthenticated):
        house.bot(key="wrong")
    assert house.nothing_left()


def test_pongs_and_acknowledgements_keep_it(house):
    peer = house.bot()
    for opcode, payload in ((PONG, b""), (TEXT, b'{"type":"sys_ack","msg_id":"a"}'), (TEXT, b"nonsense")):
        peer.socket.due()
        peer.send(opcode, payload)
        wait_until(lambda: peer.connection.heard, "it is heard")
    assert not peer.over
    assert peer.told == []


class Client:
    """Of a Socket.IO namespace, being connected."""

    class Session:
        class Outbox:
            limit_bytes = 100

        outbox = Outbox()


def test_what_waits_for_a_connect_is_bounded():
    """While the connect waits for the database anybody could send to the bot that it is."""
    manager = RoomManager()
    manager.server = manager
    manager.eio = manager
    manager.generate_id = lambda: "sid"
    manager.sockets = {"eio": Client.Session()}
    sid = manager.pre_connect("eio", "/")
    assert manager.offer(sid, "/", b"x" * 200), "one of any size"
    assert not manager.offer(sid, "/", b"x")
    assert manager._client(sid, "/").early == [b"x" * 200]
    assert not manager.offer("other", "/", b"x")
