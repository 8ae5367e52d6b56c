"""Messages for a bot that is away: in order, until one of its connections has acknowledged them."""

from __future__ import annotations

import gc

import gevent
import pytest
from sqlalchemy import func, select, update

from sidecar.domain.times import utc_text
from sidecar.store.maim import PAGE
from sidecar.store.tables import events
from sidecar.store.tables import maim_queue as table
from tests.fanout.stages import wait_until
from tests.services.bots import Away, House


def waiting(house: House) -> int:
    return int(house.rows(select(func.count()).select_from(table))[0][0])


def test_what_came_while_it_was_away_comes_first_and_in_order(house):
    alice, bob = house.connect(house.key("alice")), house.key("bob")
    sent = [alice.send(bob, number, queue=True) for number in range(5)]
    assert alice.acked == sent
    peer = house.connect(bob)
    for number in range(5, 10):
        alice.send(bob, number, queue=True)
    wait_until(lambda: len(peer.texts) == 10, "all of it")
    assert peer.texts == list(range(10))
    peer.acknowledge()
    wait_until(lambda: waiting(house) == 0, "nothing waits")
    house.settle()
    again = house.connect(bob)
    house.settle()
    assert (len(peer.texts), again.texts) == (10, [])


def test_more_than_a_page_while_new_ones_come(house):
    alice, bob = house.connect(house.key("alice")), house.key("bob")
    count = 2 * PAGE + 7
    for number in range(count):
        alice.send(bob, number, queue=True)
    peer = house.connect(bob)
    number = count
    while len(peer.texts) < count:
        alice.send(bob, number, queue=True)
        number += 1
    wait_until(lambda: len(peer.texts) == number, "the rest")
    assert peer.texts == list(range(number))


def test_large_ones_come_when_those_before_have_left(house):
    """Fifty messages may be more than an outbox holds: who was away used to be cut off for it."""
    alice, bob = house.connect(house.key("alice")), house.key("bob")
    for number in range(6):
        alice.send(bob, f"{number}" * 300_000, queue=True)
    peers = [house.connect(bob) for _ in range(2)]
    gone = house.connect(bob)
    gone.link.drained = False
    wait_until(lambda: all(len(peer.texts) == 6 for peer in peers), "all of it")
    assert [text[0] for text in peers[0].texts] == list("012345")
    house.settle()
    assert gone.texts == []


def test_who_did_not_acknowledge_is_given_the_same_again(house):
    alice, bob = house.connect(house.key("alice")), house.key("bob")
    alice.send(bob, queue=True)
    for _ in range(3):
        peer = house.connect(bob)
        wait_until(lambda peer=peer: len(peer.got) == 1, "it comes")
        peer.close()
    ids = {peer.got[0]["msg_id"]}
    last = house.connect(bob)
    wait_until(lambda: len(last.got) == 1, "it comes")
    assert {one["msg_id"] for one in last.got} == ids
    last.acknowledge("msg_that_it_was_never_sent", "")
    assert waiting(house) == 1
    last.acknowledge()
    wait_until(lambda: waiting(house) == 0, "nothing waits")


def test_each_connection_is_given_each_and_one_acknowledgement_is_enough(house):
    alice, bob = house.connect(house.key("alice")), house.key("bob")
    alice.send(bob, "before", queue=True)
    one, two, elsewhere = house.connect(bob), house.connect(bob), house.connect(bob, "wechat")
    alice.send(bob, "after", queue=True)
    wait_until(lambda: one.texts == two.texts == ["before", "after"], "both have both")
    one.acknowledge()
    wait_until(lambda: waiting(house) == 0, "nothing waits")
    two.acknowledge()
    house.settle()
    assert (elsewhere.texts, waiting(house)) == ([], 0)


@pytest.mark.parametrize("before", [True, False])
def test_who_comes_to_another_process_before_the_dead_connection_is_known_gets_it(opened, before: bool):
    """It used to stay with the process that had handed it over, until a connection came after that one had ended."""
    here, there = opened(), opened()
    alice, bob = here.connect(here.key("alice")), here.key("bob")
    if before:
        alice.send(bob, queue=True)
    dead = here.connect(bob)
    if not before:
        alice.send(bob, queue=True)
    wait_until(lambda: len(dead.got) == 1, "it is handed to the dead one")
    alive = there.connect(bob, uuid=dead.bot.uuid)
    wait_until(lambda: alive.texts == ["hello"], "it comes to the living one")
    wait_until(lambda: dead.link.ended == ["replaced"], "the dead one is known")
    alive.acknowledge()
    wait_until(lambda: waiting(here) == 0, "nothing waits")


def test_who_comes_while_another_connection_is_dying_gets_it(house):
    """It used to be nobody's if the new one was still being given what waited."""
    alice, bob = house.connect(house.key("alice")), house.key("bob")
    alice.send(bob, queue=True)
    dead = house.connect(bob)
    wait_until(lambda: len(dead.got) == 1, "it is handed to the dead one")
    alive = house.connect(bob)
    dead.close()
    wait_until(lambda: alive.texts == ["hello"], "it comes to the living one")


def test_too_many_are_not_acknowledged(opened):
    house = opened(maim_queue_messages=3)
    alice, bob = house.connect(house.key("alice")), house.key("bob")
    sent = [alice.send(bob, number, queue=True) for number in range(5)]
    alice.send(bob, platform="another that nobody is on", queue=True)
    assert alice.acked == sent[:3]
    assert house.sending.stats()["undelivered"]["queue_full"] == 3
    peer = house.connect(bob)
    wait_until(lambda: peer.texts == [0, 1, 2], "those that were kept")
    peer.acknowledge()
    wait_until(lambda: waiting(house) == 0, "nothing waits")
    alice.send(bob, 4, queue=True, msg_id=sent[4])
    assert alice.acked == [*sent[:3], sent[4]], "it may be tried again"


def test_a_bot_that_never_acknowledges_takes_a_bounded_memory(opened):
    house = opened(maim_queue_messages=2)
    alice, bob = house.connect(house.key("alice")), house.key("bob")
    silent = house.connect(bob)
    loud = house.connect(bob)
    for number in range(10):
        alice.send(bob, number, queue=True)
        wait_until(lambda number=number: number in loud.texts, "it comes")
        loud.acknowledge(loud.got[-1]["msg_id"])
        wait_until(lambda: waiting(house) == 0, "there is room")
    assert len(silent.bot.queued) == 4


def test_its_time_ends(opened):
    house = opened(maim_queue_seconds=60)
    house.queue._clock = house.core.writer._clock = clock = lambda: now
    now = 1_800_000_000.0
    alice, bob = house.connect(house.key("alice")), house.key("bob")
    alice.send(bob, "short", queue={"ttl_seconds": 10})
    alice.send(bob, "long", queue={"ttl_seconds": 10_000})
    alice.send(bob, "odd", queue={"ttl_seconds": -1})
    expires = [row[0] for row in house.rows(select(table.c.expires_at).order_by(table.c.seq))]
    assert expires == [utc_text(clock() + seconds) for seconds in (10, 60, 60)]
    now += 10
    peer = house.connect(bob)
    wait_until(lambda: peer.texts == ["long", "odd"], "what is left")
    now += 50
    late = house.connect(bob)
    house.settle()
    assert late.texts == []


def test_one_that_can_not_be_read_holds_up_nothing(house):
    """Sealed with a secret that was changed since: the receiver used to get nothing more, what came later neither."""
    alice, bob = house.connect(house.key("alice")), house.key("bob")
    for number in range(3):
        alice.send(bob, number, queue=True)
    seqs = [row[0] for row in house.rows(select(table.c.seq).order_by(table.c.seq))]
    spoil = update(table).where(table.c.seq == seqs[1]).values(sealed="gAAAAAB")
    house.core.writer.submit(lambda transaction: transaction.connection.execute(spoil) and None)
    peer = house.connect(bob)
    alice.send(bob, 3, queue=True)
    wait_until(lambda: peer.texts == [0, 2, 3], "the others")


def test_nothing_readable_lies_in_the_database(house):
    alice, bob = house.connect(house.key("alice")), house.key("bob")
    alice.send(bob, "a secret of two", queue=True)
    stored = [*house.rows(select(table)), *house.rows(select(events))]
    assert "a secret of two" not in str(stored)
    assert bob not in str(stored)


def test_without_a_database_it_is_not_acknowledged(house, monkeypatch):
    alice, bob = house.connect(house.key("alice")), house.key("bob")
    peer = house.connect(bob)
    monkeypatch.setattr(house.delivery, "_submit", away := Away(house.delivery._submit))
    sent = alice.send(bob, queue=True)
    assert (alice.acked, peer.texts, house.sending.stats()["undelivered"]["unavailable"]) == ([], [], 1)
    away.away = False
    alice.send(bob, queue=True, msg_id=sent)
    house.settle()
    assert (alice.acked, peer.texts) == ([sent], ["hello"])


@pytest.mark.parametrize("service", ["_database", "_submit"])
def test_without_a_database_it_goes_on_when_it_is_back(house, monkeypatch, service: str):
    """As it is read for who has come; as it is struck out."""
    alice, bob = house.connect(house.key("alice")), house.key("bob")
    alice.send(bob, queue=True)
    monkeypatch.setattr(house.queue, service, away := Away(getattr(house.queue, service)))
    peer = house.connect(bob)
    if service == "_submit":
        wait_until(lambda: len(peer.got) == 1, "it comes")
        peer.acknowledge()
    wait_until(lambda: away.tries > 2, "it is tried again")
    if service == "_submit":
        again = house.connect(bob)
        house.settle()
        assert again.texts == [], "it was acknowledged"
    away.away = False
    wait_until(lambda: peer.texts == ["hello"], "it comes")
    peer.acknowledge()
    wait_until(lambda: waiting(house) == 0, "nothing waits")


def test_nothing_is_left_of_who_went(house, monkeypatch):
    """Also while it is given what waited, and the database is away."""
    alice, bob = house.connect(house.key("alice")), house.key("bob")
    alice.send(bob, queue=True)
    monkeypatch.setattr(house.queue, "_database", away := Away(house.queue._database))
    peer = house.connect(bob)
    wait_until(lambda: away.tries > 0, "it is tried")
    peer.close()
    wait_until(lambda: "maim-queue" not in named_greenlets(), "the greenlet is gone")


def named_greenlets() -> list[str]:
    found = [one for one in gc.get_objects() if isinstance(one, gevent.Greenlet) and not one.dead]
    return [one.name for one in found]
