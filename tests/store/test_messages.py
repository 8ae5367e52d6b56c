"""Rows behind messages, on both databases: live pushes, devices, idempotency keys, a lease given up."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import select

from sidecar.domain.access import Identity
from sidecar.domain.errors import Conflict, Invalid
from sidecar.services.idempotency import KEY_SECONDS, KeyedRequest, answered, remember
from sidecar.store.devices import count_devices, save_position
from sidecar.store.idempotency import forget_answers
from sidecar.store.leases import give_up_lease, keep_lease, take_lease
from sidecar.store.live_pushes import (
    LivePushRow,
    count_live_pushes,
    delete_live_push,
    find_live_push,
    list_live_pushes,
    save_live_push,
)
from sidecar.store.tables import devices
from tests.store.stores import Store

ROW = LivePushRow("Zimmer", 0.2, "live_stats", None, "shop", 2**40, "2026-11-21T12:00:00.000Z", 2**40)


@pytest.fixture
def now(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the writer takes for the present, in a list of one."""
    present = [1_800_000_000.0]
    monkeypatch.setattr(store.writer, "_clock", lambda: present[0])
    return present


def test_live_pushes_are_one_a_room(store: Store):
    rows = [ROW, replace(ROW, room="a", token_id="t1"), replace(ROW, room="zimmer"), replace(ROW, interval_seconds=5.0)]
    for row in rows:
        store.writer.submit(lambda t, row=row: save_live_push(t.connection, row))
    read = store.database.read
    assert read(list_live_pushes) == [rows[3], rows[1], rows[2]], "by code points"
    assert read(count_live_pushes) == 3
    assert read(lambda c: find_live_push(c, "Zimmer")) == rows[3]
    assert read(lambda c: find_live_push(c, "ZIMMER")) is None
    deleted = [store.writer.submit(lambda t: delete_live_push(t.connection, "a")) for _ in range(2)]
    assert deleted == [1, 0]
    assert read(count_live_pushes) == 2


def test_the_last_position_of_a_device_stays(store: Store):
    assert store.database.read(count_devices) == (0, 0)
    for device, latitude, at in (("van", 1.5, "t1"), ("van", -89.25, "t2"), ("bike", 0.0, "t3")):
        store.writer.submit(lambda t, d=device, x=latitude, a=at: save_position(t.connection, d, x, -0.1, a))
    assert store.database.read(count_devices) == (2, 3)
    row = store.database.read(lambda c: c.execute(select(devices).where(devices.c.device_id == "van")).one())
    assert tuple(row) == ("van", -89.25, -0.1, 2, "t1", "t2")


class TestKeys:
    WHO = Identity(kind="token", name="a", token_id="t1")

    def ask(self, store: Store, key: str | None, body: bytes = b"{}", route: str = "r", who: Identity = WHO) -> object:
        """The answer of before; otherwise it is answered with its number."""
        request = KeyedRequest.of(who, "127.0.0.1", route, key, body)

        def command(transaction):
            first = answered(transaction, request)
            if first is None:
                remember(transaction, request, {"seq": transaction.append("fact", {}, ()).seq})
            return first

        return store.writer.submit(command)

    def test_the_first_answer_is_given_again(self, store: Store):
        assert self.ask(store, "k") is None
        assert self.ask(store, "k") == {"seq": 1}
        with pytest.raises(Conflict):
            self.ask(store, "k", b"other")
        assert self.ask(store, "k") == {"seq": 1}

    def test_a_key_is_its_senders_and_routes_alone(self, store: Store):
        other = Identity(kind="token", name="b", token_id="t2")
        stranger = Identity(kind="anonymous", name="anonymous")
        for more in ({}, {"route": "s"}, {"who": other}, {"who": stranger}):
            assert self.ask(store, "k", **more) is None
        assert self.ask(store, "K") is None
        assert self.ask(store, None) is None
        assert self.ask(store, None) is None

    def test_it_is_forgotten_after_three_days(self, store: Store, now: list[float]):
        assert self.ask(store, "k") is None
        now[0] += KEY_SECONDS
        assert self.ask(store, "k") == {"seq": 1}
        now[0] += 1
        assert self.ask(store, "k", b"other") is None
        assert self.ask(store, "k", b"other") == {"seq": 2}
        assert store.writer.submit(lambda t: forget_answers(t.connection, "9", 10)) == 1

    @pytest.mark.parametrize("key", ["", "x" * 256, "a\nb", "\x00"])
    def test_what_can_be_no_key(self, key: str):
        with pytest.raises(Invalid):
            KeyedRequest.of(self.WHO, "", "r", key, b"")


def test_a_lease_that_is_given_up_is_free_at_once(store: Store, now: list[float]):
    def take(owner: str) -> int | None:
        return store.writer.submit(lambda t: take_lease(t, "x", owner, 60))

    assert (take("a"), take("b")) == (1, None)
    store.writer.submit(lambda t: give_up_lease(t, "x", 99))
    assert take("b") is None, "another fence gives up nothing"
    store.writer.submit(lambda t: give_up_lease(t, "x", 1))
    assert not store.writer.submit(lambda t: keep_lease(t, "x", 1, 60))
    assert take("b") == 2
    store.writer.submit(lambda t: give_up_lease(t, "x", 1))
    assert take("a") is None
