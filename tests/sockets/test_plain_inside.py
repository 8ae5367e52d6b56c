"""Plain WebSockets within a whole sidecar in this process: silent peers, and what is left of closed ones."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.domain.errors import Unauthenticated, Unavailable
from sidecar.sockets.text import TextSocket
from sidecar.wire.frames import CLOSE, PING, PONG, TEXT
from tests.fanout.stages import wait_until
from tests.sockets.inside import Installation


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path)
    yield made
    made.close()


def test_a_silent_peer_is_pinged_and_then_dropped(house):
    peer = house.connect()
    assert peer.socket.due() == peer.socket.ping_seconds == 25
    wait_until(lambda: peer.count(PING) == 1, "a ping")
    assert peer.socket.due() is None
    wait_until(lambda: bool(peer.frames) and peer.over, "it is dropped")
    wait_until(house.nothing_left, "nothing is left")
    figures = house.sidecar.core.metrics.registry
    assert figures.get_sample_value("sidecar_sockets_failed_total", {"kind": "rooms", "reason": "heartbeat"}) == 1


@pytest.mark.parametrize(("opcode", "payload"), [(PONG, b""), (PING, b"x"), (TEXT, b'{"message_type":"ping"}')])
def test_any_sign_of_life_keeps_it(house, opcode: int, payload: bytes):
    peer = house.connect()
    for _ in range(5):
        peer.socket.due()
        peer.send(opcode, payload)
        wait_until(lambda: peer.connection.heard, "it is heard")
    assert not peer.over
    assert peer.count(PING) <= 1


def test_the_clock_comes_by_itself(house, monkeypatch):
    monkeypatch.setattr(TextSocket, "ping_seconds", 0.01)
    peer = house.connect()
    wait_until(lambda: peer.count(PING) == 1 and peer.over, "pinged and dropped")
    wait_until(house.nothing_left, "nothing is left")


def test_a_socket_that_is_gone_leaves_the_clock(house):
    peer = house.connect()
    peer.far.close()
    wait_until(house.nothing_left, "it is gone")
    assert peer.socket.due() is None


@pytest.mark.parametrize("query", ["", "since=0"])
@pytest.mark.parametrize("how", ["close frame", "cut off", "revoked", "sent away", "binary"])
def test_nothing_is_left_of_a_closed_one(house, how: str, query: str):
    made = house.sidecar.core.tokens.create("one", ["rooms:read", "tokens:issue"])
    issuer = house.sidecar.core.connections.identify(made.text)
    token = house.sidecar.core.connections.issue(issuer, sub="ada").text
    house.send("r", "before")
    peers = [house.connect(query=query, token=token) for _ in range(3)]
    for peer in peers:
        if how == "close frame":
            peer.send(CLOSE, b"\x03\xe8")
        elif how == "cut off":
            peer.far.close()
        elif how == "binary":
            peer.send(2, b"x")
    if how == "revoked":
        house.sidecar.core.tokens.revoke(made.id)
    elif how == "sent away":
        house.sidecar.watch.user_disconnected("ada")
    for peer in peers:
        if how in ("revoked", "sent away", "binary"):
            wait_until(lambda peer=peer: peer.count(CLOSE) == 1, "a Close frame")
            peer.send(CLOSE, b"\x03\xe8")
            peer.far.shutdown(socket.SHUT_WR)
    wait_until(house.nothing_left, "nothing is left")


def test_a_token_revoked_as_it_opens_opens_nothing(house, monkeypatch):
    made = house.sidecar.core.tokens.create("one", ["rooms:read"])
    unrevoked = house.sidecar.watch.unrevoked

    def revoke_first(find: Any) -> Any:
        house.sidecar.core.tokens.revoke(made.id)
        return unrevoked(find)

    monkeypatch.setattr(house.sidecar.watch, "unrevoked", revoke_first)
    with pytest.raises(Unauthenticated):
        house.connect(token=made.text)
    wait_until(house.nothing_left, "nothing is left")


def test_a_replay_that_can_not_be_read_leaves_nothing(house, monkeypatch):
    house.send("r", "before")
    monkeypatch.setattr(house.plain, "catchup", Broken())
    with pytest.raises(Unavailable):
        house.connect(query="since=0")
    wait_until(house.nothing_left, "nothing is left")


class Broken:
    def beginning(self, *_: object) -> None:
        raise Unavailable("not now")


def test_what_is_sent_while_it_catches_up_comes_once_and_in_order(house):
    for number in range(20):
        house.send("r", str(number))
    peer = house.connect(query="since=0")
    for number in range(20, 40):
        house.send("r", str(number))
    wait_until(lambda: len(peer.contents) >= 40, "all of it")
    assert peer.contents == [str(number) for number in range(40)]


def test_several_in_one_room_share_frames_and_leave_alone(house):
    one, two = house.connect(), house.connect()
    one.far.close()
    wait_until(lambda: len(house.plain.sockets) == 1, "one is gone")
    house.send("r", "still")
    wait_until(lambda: two.contents == ["still"], "the other is live")
