"""Which bots are connected, over all processes: names taken over, processes that die, a database that is away."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from gevent.event import Event as Signal
from sqlalchemy import delete, select

from sidecar.domain.errors import Unauthenticated, Unavailable
from sidecar.services import maim_connections
from sidecar.services.presences import TIMES
from sidecar.store.tables import maim_connections as table
from sidecar.store.tables import maim_keys, nodes
from tests.fanout.stages import wait_until
from tests.services.bots import Away, House, Peer

BOTH = pytest.mark.parametrize("opened", ["sqlite", "postgresql"], indirect=True)


def rows(house: House) -> dict[str, str]:
    """The node of each connection that is written down."""
    return {row.uuid: row.node for row in house.rows(select(table.c.uuid, table.c.node))}


def uuids(house: House) -> list[str]:
    found = house.connections.of_this() + house.connections.of_others()
    return sorted(row.uuid for row in found)


def figure(house: House, name: str = "sidecar_maim_connections") -> float | None:
    return house.core.metrics.registry.get_sample_value(name)


@BOTH
def test_who_comes_is_known_everywhere_and_who_goes_is_not(opened):
    here, there = opened(), opened()
    bob = here.key("bob")
    peers = [here.connect(bob), there.connect(bob), there.connect(bob, "wechat")]
    names = sorted(peer.bot.uuid for peer in peers)
    assert uuids(here) == uuids(there) == names
    alice = here.connect(here.key("alice"))
    alice.send(bob)
    wait_until(lambda: peers[0].texts == peers[1].texts == ["hello"], "it comes to both")
    for peer in [*peers, alice]:
        peer.close()
    wait_until(lambda: not rows(here), "nothing is written down")
    assert (figure(here), figure(there)) == (0, 0)
    assert here.sending.stats()["network"]["total_connections"] == 2


@BOTH
def test_a_client_that_comes_again_takes_its_name_over(opened):
    """At the same process, and at another; also on another platform."""
    here, there = opened(), opened()
    bob = here.key("bob")
    first = here.connect(bob, uuid="u")
    second = here.connect(bob, uuid="u")
    assert (first.link.ended, second.bot.uuid, figure(here)) == (["replaced"], "u", 1)
    here.settle()
    third = there.connect(bob, "wechat", uuid="u")
    wait_until(lambda: second.link.ended == ["replaced"], "it is known at the other process")
    assert (third.bot.uuid, third.link.ended, uuids(there)) == ("u", [], ["u"])
    fourth = here.connect(bob, uuid="u")
    wait_until(lambda: third.link.ended == ["replaced"], "it is known at the other process")
    here.settle()
    assert (uuids(here), fourth.link.ended) == (["u"], [])


def test_a_name_of_another_key_is_not_taken_over(opened):
    here, there = opened(), opened()
    first = here.connect(here.key("bob"), uuid="u")
    others = [here.connect(here.key("eve"), uuid="u"), there.connect(here.key("bob"), uuid="u")]
    here.settle()
    assert first.link.ended == []
    assert len({first.bot.uuid, *(peer.bot.uuid for peer in others)}) == 3
    assert sorted(rows(here)) == uuids(here) == sorted([first.bot.uuid, *(peer.bot.uuid for peer in others)])


def test_who_went_on_to_another_process_is_not_closed_by_news_of_before(opened):
    """The news of the first opening may come by after the second has begun; it used to close the second one."""
    here, there = opened(), opened()
    bob = here.key("bob")
    heard: list[tuple[Any, ...]] = []
    real = there.bots.others_changed
    late = {**there.core.controls}
    there.core.controls[maim_connections.CHANGED] = [lambda body: heard.append(body)]
    first = here.connect(bob, uuid="u")
    there.settle()
    (news,) = [body for body in heard if body["opened"]]
    submit = there.connections._submit

    def hear_first(command: Any) -> Any:
        real(**news)
        return submit(command)

    there.connections._submit = hear_first
    there.core.controls.update(late)
    second = there.connect(bob, uuid="u")
    there.settle()
    assert second.link.ended == []
    wait_until(lambda: first.link.ended == ["replaced"], "the first is closed")


def test_a_reader_that_is_slow_does_not_hide_who_has_come(opened, monkeypatch):
    """While one message waited for the list of the others, the next one used to go by the old list."""
    here, there = opened(), opened()
    bob = here.key("bob")
    ours, alice = here.connect(bob), here.connect(here.key("alice"))
    alice.send(bob)
    slow = Slow(here.core.database)
    monkeypatch.setattr(here.connections, "_database", slow)
    theirs = there.connect(bob)
    here.settle()
    first = gevent.spawn(alice.send, bob, "first")
    wait_until(lambda: slow.waiting == 1, "it reads")
    second = gevent.spawn(alice.send, bob, "second")
    wait_until(lambda: slow.waiting == 2 or second.dead, "it reads too")
    slow.go.set()
    gevent.joinall([first, second], raise_error=True)
    wait_until(lambda: sorted(theirs.texts) == ["first", "second"], "both come there")
    assert sorted(ours.texts) == ["first", "hello", "second"]


class Slow:
    """A database whose readers wait before they get their answer."""

    def __init__(self, real: Any):
        self._real = real
        self.waiting = 0
        self.go = Signal()

    def read(self, query: Any) -> Any:
        found = self._real.read(query)
        self.waiting += 1
        self.go.wait()
        return found


@BOTH
def test_a_dead_process_holds_nobody(opened):
    here, there = opened(), opened()
    bob = here.key("bob")
    there.connect(bob, uuid="u")
    here.settle()
    alice = here.connect(here.key("alice"))
    assert there.core.node in rows(here).values()
    now = here.core.writer._clock()
    here.connections._clock = lambda: now + maim_connections.ALIVE_SECONDS + 1
    assert uuids(here) == [alice.bot.uuid], "it has not said that it lives"
    alice.send(bob)
    assert here.sending.stats()["undelivered"]["offline"] == 1
    for _ in range(TIMES.silent_beats + 1):
        here.sidecar.jobs[0].say()
    assert list(rows(here)) == [alice.bot.uuid], "of the one that said nothing nothing is left"


@BOTH
def test_who_was_taken_for_dead_writes_its_connections_down_again(opened, monkeypatch):
    """Also when the database is away just then: nobody used to try again."""
    here, there = opened(), opened()
    bob = here.key("bob")
    peer, alice = here.connect(bob), there.connect(here.key("alice"))
    clear = lambda transaction: [transaction.connection.execute(delete(one)) for one in (nodes, table)]  # noqa: E731
    there.core.writer.submit(clear)
    presence = here.sidecar.jobs[0]
    monkeypatch.setattr(here.connections, "_submit", away := Away(here.connections._submit))
    presence.say()
    wait_until(lambda: away.tries > 1, "it is tried again")
    away.away = False
    wait_until(lambda: peer.bot.uuid in rows(here), "it is written down")
    alice.send(bob)
    wait_until(lambda: peer.texts == ["hello"], "messages come")


def test_who_leaves_while_the_database_is_away_is_struck_out_later(opened, monkeypatch):
    here = opened()
    bob = here.key("bob")
    peers = [here.connect(bob, uuid=f"u{number}") for number in range(3)]
    monkeypatch.setattr(here.connections, "_submit", away := Away(here.connections._submit))
    for peer in peers:
        peer.close()
    wait_until(lambda: away.tries > 1, "it is tried again")
    with pytest.raises(Unavailable):
        here.connect(bob, uuid="u0")
    away.away = False
    again = here.connect(bob, uuid="u1")
    wait_until(lambda: list(rows(here)) == ["u1"], "the others are struck out")
    here.settle()
    assert (list(rows(here)), uuids(here), again.link.ended) == (["u1"], ["u1"], [])
    assert figure(here) == 1


def test_one_that_could_not_be_taken_in_leaves_nothing(opened, monkeypatch):
    """Whether its row can't be written, or its key not be looked up again: it used to stay a receiver for ever."""
    here = opened()
    bob = here.key("bob")
    monkeypatch.setattr(here.connections, "_submit", away := Away(here.connections._submit))
    with pytest.raises(Unavailable):
        here.connect(bob)
    away.away = False
    monkeypatch.setattr(here.keys, "_database", lost := Away(here.keys._database))
    lost.away = False
    submit = here.connections._submit

    def another_key_changes(command: Any) -> Any:
        here.keys.forget()
        lost.away = True
        return submit(command)

    monkeypatch.setattr(here.connections, "_submit", another_key_changes)
    with pytest.raises(Unavailable):
        here.connect(bob)
    assert len(here.connections.roster) == 0
    wait_until(lambda: not rows(here), "nothing is written down")
    assert figure(here) == 0


def test_a_key_revoked_while_it_is_taken_in_opens_nothing(opened, monkeypatch):
    here = opened()
    bob = here.key("bob")
    (id,) = [row[0] for row in here.rows(select(maim_keys.c.id))]
    submit = here.connections._submit
    for when in ("before", "after"):

        def revoke(command: Any, when: str = when) -> Any:
            found = submit(command) if when == "after" else None
            with_key = here.rows(select(maim_keys.c.id).where(maim_keys.c.revoked_at.is_(None)))
            if with_key:
                here.keys.revoke(with_key[0][0])
            return submit(command) if when == "before" else found

        monkeypatch.setattr(here.connections, "_submit", revoke)
        with pytest.raises(Unauthenticated):
            here.connect(bob)
        monkeypatch.setattr(here.connections, "_submit", submit)
        assert len(here.connections.roster) == 0
        here.settle()
        assert (figure(here), uuids(here)) == (0, [])
        bob = here.key("bob")
    assert id


def test_a_revocation_closes_what_is_open_and_nothing_it_said_before_counts(opened):
    """What had been read of a flood used to be passed on for seconds."""
    here, there = opened(), opened()
    bob, eve = here.key("bob"), here.key("eve")
    peer = here.connect(bob)
    mallory = [here.connect(eve), there.connect(eve), there.connect(eve)]
    (id,) = [row.id for row in here.keys.list() if row.user == "eve"]
    there.keys.revoke(id)
    wait_until(lambda: all(one.link.ended == ["revoked"] for one in mallory), "all are closed")
    for one in mallory:
        one.send(bob)
    here.settle()
    assert (peer.texts, uuids(here), mallory[0].acked) == ([], [peer.bot.uuid], [])
    with pytest.raises(Unauthenticated):
        here.connect(eve)


def test_missed_events_have_all_come_back(opened):
    """Perhaps a key was revoked among them."""
    here, there = opened(), opened()
    bob, alice = here.key("bob"), here.key("alice")
    peers = [here.connect(bob), here.connect(alice)]
    theirs = there.connect(bob)
    here.connections.of_others()
    for act in here.core.gaps:
        act()
    assert all(peer.link.cut for peer in peers)
    assert not theirs.link.cut
    assert here.connections._read_at is None
    assert not here.keys._cache


def test_who_is_full_is_cut_off_and_the_others_get_theirs(opened):
    here = opened()
    bob = here.key("bob")
    peers: list[Peer] = [here.connect(bob) for _ in range(3)]
    peers[1].link.room = 0
    alice = here.connect(here.key("alice"))
    alice.send(bob)
    assert [peer.texts for peer in peers] == [["hello"], [], ["hello"]]
    assert [peer.link.cut for peer in peers] == [False, True, False]
    for peer in peers[::2]:
        peer.close()
    alice.send(bob)
    assert here.sending.stats()["undelivered"]["slow"] == 1


def test_one_that_went_while_it_was_given_another_name_is_struck_out(opened, monkeypatch):
    """Its row used to stay as long as the process, and messages went to it."""
    here, there = opened(), opened()
    there.connect(there.key("bob"), uuid="u")
    submit = here.connections._submit

    def leave(command: Any) -> Any:
        found = submit(command)
        monkeypatch.setattr(here.connections, "_submit", submit)
        here.bots.close(here.connections.roster.named("u"))
        return found

    monkeypatch.setattr(here.connections, "_submit", leave)
    here.connect(here.key("eve"), uuid="u")
    wait_until(lambda: list(rows(here)) == ["u"], "it is struck out")
    assert figure(here) == 0
