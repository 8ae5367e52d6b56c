"""Plain WebSockets about permissions within a whole sidecar in this process: what they catch up with, their clock,
their limits, and what is left of closed ones."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fanout.stages import wait_until
from tests.sockets.inside import Installation, Peer


class House(Installation):
    """Edits by HTTP, as an admin's back end makes them."""

    def __init__(self, folder: Path, **settings: Any):
        super().__init__(folder, "permissions", **{"rate_limit": "off", **settings})
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

    def notify(self, number: int, **to: Any) -> int:
        body = {"type": "system_notification", "to": to or {"user": "ada"}, "data": {"number": number}}
        return int(self.request("POST", "/api/permissions/notify", body)["event_id"])

    def mixed(self, count: int) -> list[int]:
        """Events for ada in all rooms that she is in, in turn; their seqs."""
        makers: list[Any] = [
            lambda n: self.notify(n),
            lambda n: self.edit("item", description=f"{next(self._numbers)}"),
            lambda n: self.notify(n, all=True),
        ]
        return [makers[number % 3](number) for number in range(count)]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.close()


def seqs(peer: Peer) -> list[int]:
    """Of the events that it was told."""
    return [frame["seq"] for frame in peer.told if frame["type"] not in ("connection_confirmed", "truncated", "error")]


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
