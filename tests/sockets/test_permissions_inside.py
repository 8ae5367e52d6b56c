"""Plain WebSockets about permissions within a whole sidecar in this process: what they catch up with, their clock,
their limits, and what is left of closed ones."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, update

from sidecar.domain.errors import Unavailable
from sidecar.services.limits import RateLimit
from sidecar.sockets.text import TextSocket
from sidecar.store.journal import Transaction
from sidecar.store.tables import event_rooms, events, journal_head
from sidecar.wire.frames import CLOSE, PING, PONG, TEXT
from tests.fanout.stages import wait_until
from tests.sockets.inside import Installation, Peer


class House(Installation):
    """Edits by HTTP, as an admin's back end makes them."""

    def __init__(self, folder: Path, **settings: Any):
        super().__init__(folder, "permissions", rate_limit="off", **settings)
        self._numbers = itertools.count(1)
        issuer = self.sidecar.core.connections.identify(self.token)
        self.ada = self.sidecar.core.connections.issue(issuer, sub="ada").text

    def request(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"Authorization": f"Token {self.token}"}
        answer = self.sidecar.app.test_client().open(path, method=method, json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.get_json()
        return told

    def edit(self, key: str, **fields: Any) -> int:
        return int(self.request("PUT", f"/api/menu/{key}", {"name": key, **fields})["event_id"])

    def notify(self, number: int, to: Any = None, type: str = "system_notification", text: str = "") -> int:
        body = {"type": type, "to": to or {"user": "ada"}, "data": {"number": number, "text": text}}
        return int(self.request("POST", "/api/permissions/notify", body)["event_id"])

    def mixed(self, count: int) -> list[int]:
        """Events for ada in all rooms that she is in, in turn; their seqs."""
        makers: list[Any] = [
            lambda n: self.notify(n),
            lambda n: self.edit("item", description=f"{next(self._numbers)}"),
            lambda n: self.notify(n, "all"),
        ]
        return [makers[number % 3](number) for number in range(count)]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.close()


def seqs(peer: Peer) -> list[int]:
    """Of the events that it was told."""
    return [frame["seq"] for frame in peer.told if "seq" in frame and "data" in frame and "features" not in frame]


def has(peer: Peer, count: int) -> None:
    wait_until(lambda: len(seqs(peer)) >= count, f"{count} events have come")


class TestCatchingUp:
    def test_the_rooms_come_together_in_the_order_of_the_journal(self, house):
        begin = house.notify(-1)
        sent = house.mixed(30)
        peer = house.connect("ada", f"since={begin}", house.ada)
        sent += house.mixed(6)
        has(peer, len(sent))
        assert seqs(peer) == sent

    def test_who_is_cut_off_in_the_middle_comes_back_to_the_rest(self, house):
        """By the offset of whatever it has read last, also of the confirmation."""
        offset = str(house.notify(-1))
        sent, got = house.mixed(9), []
        while len(got) < len(sent):
            peer = house.connect("ada", f"since={offset}", house.ada)
            has(peer, len(sent) - len(got))
            confirmed, first, *_ = peer.told
            assert confirmed["seq"] == int(offset.partition(".")[0])
            again = house.connect("ada", f"since={confirmed['offset']}", house.ada)
            has(again, len(sent) - len(got))
            assert seqs(again) == seqs(peer) == sent[len(got) :]
            got.append(first["seq"])
            offset = first["offset"]
            peer.far.close()
            again.far.close()
        assert got == sent

    def test_what_is_muted_does_not_come_to_who_lags_behind(self, tmp_path):
        """A reader that is too slow for the live path is served from the journal."""
        house = House(tmp_path, max_body_bytes=16_384, outbox_bytes=65_536)
        try:
            peer = house.connect("ada", token=house.ada)
            peer.say(type="unsubscribe_notifications", types=["menu_updated", "tool_status_changed"])
            wait_until(lambda: len(peer.told) == 2, "it is muted")
            sent = []
            while not house.sidecar.core.catchup.behind:
                house.edit("item", description=f"{len(sent)}")
                house.notify(0, type="tool_status_changed")
                sent.append(house.notify(len(sent), text="x" * 10_000))
            for number in range(20):
                house.edit("item", description=f"again {number}")
                sent.append(house.notify(number))
            has(peer, len(sent))
            assert seqs(peer) == sent
        finally:
            house.close()

    def test_what_is_declined_while_it_catches_up_does_not_come_any_more(self, tmp_path):
        """What waits for one reader is far less than what there is, and the rest is held back until it is declined."""

        def command(transaction: Transaction) -> list[int]:
            heard = []
            for _ in range(1_500):
                transaction.append("tool_status_changed", {"text": "x" * 400}, ["permissions:ada"])
                heard.append(transaction.append("system_notification", {"text": "x" * 400}, ["permissions"]).seq)
            return heard

        house = House(tmp_path, max_body_bytes=16_384, outbox_bytes=65_536)
        try:
            heard = house.sidecar.core.writer.submit(command)
            peer = house.connect("ada", "since=0", house.ada)
            kinds: list[str] = []

            def heard_of(kind: str) -> int:
                kinds[:] = [frame["type"] for frame in peer.told]
                return kinds.count(kind)

            wait_until(lambda: heard_of("tool_status_changed") > 0, "it catches up")
            with house.sidecar.core.catchup.paused(peer.socket.subscriber, 0):
                peer.say(type="unsubscribe_notifications", types=["tool_status_changed"])
                wait_until(lambda: heard_of("unsubscription_confirmed") == 1, "it is declined")
            wait_until(lambda: heard_of("system_notification") == len(heard), "the rest has come")
            declined = kinds.index("unsubscription_confirmed")
            assert set(kinds[declined + 1 :]) == {"system_notification"}
            assert [frame["seq"] for frame in peer.told if frame["type"] == "system_notification"] == heard
        finally:
            house.close()

    @pytest.mark.parametrize("since", [10**12, "1.deadbeef"])
    def test_a_place_that_is_not_ours_is_told_first(self, house, since: object):
        house.mixed(3)
        peer = house.connect("ada", f"since={since}", house.ada)
        seq = house.notify(0)
        has(peer, 1)
        confirmed, truncated, event = peer.told
        assert (confirmed["type"], truncated["type"], event["seq"]) == ("connection_confirmed", "truncated", seq)
        assert set(truncated) == {"type", "seq", "offset", "epoch", "timestamp"}
        assert truncated["seq"] == seq - 1

    def test_a_place_that_is_no_longer_kept_is_told_and_the_rest_comes(self, house):
        first, *kept = house.mixed(6)
        house.sidecar.core.writer.submit(lambda transaction: retire(transaction, first))
        peer = house.connect("ada", "since=0", house.ada)
        has(peer, len(kept))
        assert [frame["type"] for frame in peer.told[:2]] == ["connection_confirmed", "truncated"]
        assert peer.told[1]["seq"] == first
        assert seqs(peer) == kept


class TestClock:
    def test_a_silent_peer_is_pinged_and_then_dropped(self, house):
        peer = house.connect("ada", token=house.ada)
        assert peer.socket.due() == peer.socket.ping_seconds == 25
        wait_until(lambda: peer.count(PING) == 1, "a ping")
        assert peer.socket.due() is None
        wait_until(lambda: bool(peer.frames) and peer.over, "it is dropped")
        wait_until(house.nothing_left, "nothing is left")
        figures = house.sidecar.core.metrics.registry
        assert figures.get_sample_value("sidecar_sockets_failed_total", {"kind": "permissions", "reason": "heartbeat"})

    @pytest.mark.parametrize(("opcode", "payload"), [(PONG, b""), (TEXT, b'{"type":"heartbeat"}')])
    def test_any_sign_of_life_keeps_it(self, house, opcode: int, payload: bytes):
        peer = house.connect("anonymous", token="")
        for _ in range(4):
            peer.socket.due()
            peer.send(opcode, payload)
            wait_until(lambda: peer.connection.heard, "it is heard")
        assert not peer.over
        assert peer.count(PING) <= 1

    def test_it_comes_by_itself(self, house, monkeypatch):
        monkeypatch.setattr(TextSocket, "ping_seconds", 0.01)
        peer = house.connect("ada", token=house.ada)
        wait_until(lambda: peer.count(PING) == 1 and peer.over, "pinged and dropped")
        wait_until(house.nothing_left, "nothing is left")


def test_checks_are_limited_and_heartbeats_are_not(house, monkeypatch):
    """Who asks too often is told which question was not answered."""
    monkeypatch.setattr(house.plain, "_limit", RateLimit(1, 3, clock=lambda: 0.0))
    peer = house.connect("ada", token=house.ada)
    for number in range(5):
        peer.say(type="permission_check", resource="a", action="b", request_id=number)
    for _ in range(10):
        peer.say(type="heartbeat")
    peer.say(type="connect")
    wait_until(lambda: len(peer.told) == 17, "all is answered")
    kinds = [(frame["type"], frame.get("error_code"), frame.get("request_id")) for frame in peer.told[1:6]]
    assert kinds == [("permission_check_response", None, number) for number in range(3)] + [
        ("error", "rate_limited", number) for number in (3, 4)
    ]
    assert {frame["type"] for frame in peer.told[6:16]} == {"heartbeat_response"}
    assert peer.told[16]["error_code"] == "rate_limited"


@pytest.mark.parametrize("query", ["", "since=0"])
@pytest.mark.parametrize("how", ["close frame", "cut off", "revoked", "sent away", "binary", "refused"])
def test_nothing_is_left_of_a_closed_one(house, how: str, query: str):
    made = house.sidecar.core.tokens.create("one", ["rooms:read", "tokens:issue"])
    issuer = house.sidecar.core.connections.identify(made.text)
    token = house.sidecar.core.connections.issue(issuer, sub="ada").text
    house.mixed(3)
    peers = [house.connect("bob" if how == "refused" else "ada", query, token) for _ in range(3)]
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
        if how in ("revoked", "sent away", "binary", "refused"):
            wait_until(lambda peer=peer: peer.count(CLOSE) == 1, "a Close frame")
            peer.send(CLOSE, b"\x03\xe8")
            peer.far.shutdown(socket.SHUT_WR)
    wait_until(house.nothing_left, "nothing is left")


def test_a_token_revoked_while_its_users_roles_are_read_opens_nothing(house, monkeypatch):
    made = house.sidecar.core.tokens.create("one", ["tokens:issue"])
    token = house.sidecar.core.connections.issue(house.sidecar.core.connections.identify(made.text), sub="ada").text
    given = house.plain.permissions.given

    def revoke_first(user: str) -> Any:
        house.sidecar.core.tokens.revoke(made.id)
        return given(user)

    monkeypatch.setattr(house.plain.permissions, "given", revoke_first)
    peer = house.connect("ada", token=token)
    wait_until(lambda: peer.count(CLOSE) == 1, "it is closed")
    assert [frame["type"] for frame in peer.told] == ["error"]


def test_a_past_that_can_not_be_read_leaves_nothing(house, monkeypatch):
    class Broken:
        def beginning(self, *_: object) -> None:
            raise Unavailable("not now")

    monkeypatch.setattr(house.plain, "catchup", Broken())
    with pytest.raises(Unavailable):
        house.connect("ada", "since=0", house.ada)
    wait_until(house.nothing_left, "nothing is left")


def test_a_fault_of_ours_is_logged_and_said_and_the_socket_stays(house, monkeypatch, capsys):
    def fail(_identity: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(house.plain.permissions, "rights", fail)
    peer = house.connect("ada", token=house.ada)
    peer.say(type="permission_check", resource="a", action="b")
    peer.say(type="ping")
    wait_until(lambda: len(peer.told) == 3, "both are answered")
    assert (peer.told[1]["type"], peer.told[1]["error_code"]) == ("error", "INTERNAL_ERROR")
    assert "ZeroDivisionError" not in peer.told[1]["message"]


def test_a_check_that_can_not_be_answered_now_says_which(house, monkeypatch):
    def away(_identity: object) -> None:
        raise Unavailable("The database is away.")

    monkeypatch.setattr(house.plain.permissions, "rights", away)
    peer = house.connect("ada", token=house.ada)
    peer.say(type="permission_check", resource="a", action="b", request_id="r1")
    wait_until(lambda: len(peer.told) == 2, "it is answered")
    error = peer.told[1]
    assert (error["error_code"], error["request_id"]) == ("permission_check_error", "r1")


def retire(transaction: Transaction, upto: int) -> None:
    """Retention: forget the events up to this seq."""
    transaction.connection.execute(delete(event_rooms).where(event_rooms.c.seq <= upto))
    transaction.connection.execute(delete(events).where(events.c.seq <= upto))
    transaction.connection.execute(update(journal_head).values(floor=upto))
