"""Bots' keys: stored so that nobody can read or try them, remembered for a moment, gone when they are revoked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event as Signal
from sqlalchemy import select

from sidecar.core import Core
from sidecar.domain.access import Identity
from sidecar.domain.errors import Conflict, NotAllowed, NotFound, Unavailable
from sidecar.services import maim_keys
from sidecar.services.maim_keys import CACHE_SECONDS, CHANGED, BotKeys
from sidecar.store.tables import events
from sidecar.store.tables import maim_keys as table
from sidecar.wire.maim import MaimKeyBody
from tests.fanout.stages import wait_until
from tests.services.bots import Away, House


@pytest.fixture
def keys(core: Core, clock: Any) -> BotKeys:
    return BotKeys(core.database, core.writer.run_alone, b"secret", clock)


def make(keys: BotKeys, user: str = "bob", identity: Identity | None = None, **more: Any) -> maim_keys.NewKey:
    return keys.create(MaimKeyBody(user=user, **more), identity)


def manager(*projects: str) -> Identity:
    return Identity("token", "t", frozenset({"maim:manage"}), projects or None)


def test_a_key_is_whose_it_was_made_for(keys):
    made = make(keys, tenant="shop", platforms=["qq", "qq"], name="the bot")
    assert re.fullmatch(r"smk_[A-Za-z0-9_-]{43}", made.key)
    account = keys.holder(made.key)
    assert account is not None
    assert (account.tenant, account.user, account.platforms, account.key_id) == ("shop", "bob", ("qq",), made.row.id)
    assert keys.receiver(made.key) == keys.receiver(f"sma_{made.row.id}") == account
    assert keys.holder(f"sma_{made.row.id}") is None
    for unknown in ("", "other", made.key.upper(), made.key + " ", "sma_", "sma_000000000000", "sma_x", "\ud800", "ü"):
        assert keys.holder(unknown) is None
        assert keys.receiver(unknown) is None


def test_no_key_lies_in_the_database(core, keys):
    """Not as a plain hash either: many are short and could be tried."""
    own = make(keys, key="key-a").key
    other = make(keys).key
    with core.database.engine.connect() as connection:
        stored = str(connection.execute(select(table)).all()) + str(connection.execute(select(events)).all())
    assert own not in stored
    assert other not in stored
    assert BotKeys(core.database, core.writer.run_alone, b"another secret").holder(own) is None


def test_a_key_can_be_taken_over_once(keys):
    made = make(keys, key="key-a")
    assert made.key == "key-a"
    for again in ("bob", "eve"):
        with pytest.raises(Conflict) as caught:
            make(keys, again, key="key-a")
        assert "key-a" not in caught.value.detail
    keys.revoke(made.row.id)
    with pytest.raises(Conflict):
        make(keys, key="key-a")


def test_revoked_ones_are_nobodys(keys):
    made = make(keys)
    for named in (made.key, f"sma_{made.row.id}"):
        assert keys.receiver(named) is not None
    keys.revoke(made.row.id)
    keys.forget()
    for named in (made.key, f"sma_{made.row.id}"):
        assert keys.receiver(named) is None
    for id in (made.row.id, "000000000000", "", "\x00"):
        with pytest.raises(NotFound):
            keys.revoke(id)


def test_a_token_manages_its_tenants(keys):
    mine, theirs = make(keys, identity=manager("a")), make(keys, tenant="b")
    assert mine.row.tenant == "a"
    assert make(keys).row.tenant == make(keys, identity=manager()).row.tenant == "default"
    assert [row.id for row in keys.list(manager("a", "x"))] == [mine.row.id]
    assert len(keys.list(manager())) == len(keys.list()) == 4
    with pytest.raises(NotFound):
        keys.revoke(theirs.row.id, manager("a"))
    for act in (
        lambda: make(keys, identity=manager("a"), tenant="b"),
        lambda: make(keys, identity=manager("a", "b")),
        lambda: make(keys, identity=Identity("token", "t", frozenset({"maim:send"}), None)),
        lambda: keys.list(Identity("token", "t", frozenset(), None)),
        lambda: keys.revoke(mine.row.id, Identity("token", "t", frozenset(), None)),
    ):
        with pytest.raises(NotAllowed):
            act()
    keys.revoke(mine.row.id, manager("a"))
    with pytest.raises(NotFound):
        keys.revoke(mine.row.id, manager("a"))


def test_who_was_asked_for_is_remembered_for_a_while(core, keys, clock, monkeypatch):
    made = make(keys)
    assert keys.holder(made.key) is not None
    assert keys.holder("unknown") is None
    monkeypatch.setattr(keys, "_database", Away(core.database))
    assert keys.holder(made.key) is not None
    assert keys.holder("unknown") is None
    clock.now += CACHE_SECONDS
    for key in (made.key, "unknown"):
        with pytest.raises(Unavailable):
            keys.holder(key)


def test_who_comes_in_is_asked_for_again_unless_the_news_would_have_come(core, clock):
    """A frame for the key goes on being handed over, also while the database is away."""
    fresh = True
    keys = BotKeys(core.database, core.writer.run_alone, b"secret", clock, lambda: fresh)
    made = make(keys)
    account = keys.holder(made.key)
    keys.revoke(made.row.id)
    assert keys.holder(made.key) == account
    fresh = False
    assert keys.receiver(made.key) == account
    assert keys.holder(made.key) is None


def test_a_flood_of_wrong_keys_takes_a_bounded_memory(keys, monkeypatch):
    monkeypatch.setattr(maim_keys, "CACHED", 5)
    for number in range(20):
        keys.holder(f"guess-{number}")
    assert len(keys._cache) == 5


@pytest.fixture
def houses(tmp_path: Path) -> Iterator[list[House]]:
    made = [House(tmp_path / "instance") for _ in range(2)]
    yield made
    for house in made:
        house.close()


def test_a_change_at_one_process_is_heard_at_the_other(houses):
    here, there = houses
    assert there.keys.holder("key-a") is None
    here.key("bob", key="key-a")
    wait_until(lambda: there.keys.holder("key-a") is not None, "the new one is known")
    here.keys.revoke(here.keys.list()[0].id)
    wait_until(lambda: there.keys.holder("key-a") is None, "the revoked one is not")


def test_one_read_before_a_revocation_and_found_after_it_is_not_remembered(houses, monkeypatch):
    here, _ = houses
    key = here.key("bob")
    here.settle()
    real, read_, go = here.keys._database, Signal(), Signal()

    class Slow:
        def read(self, query: Any) -> Any:
            found = real.read(query)
            read_.set()
            go.wait()
            return found

    monkeypatch.setattr(here.keys, "_database", Slow())
    asking = gevent.spawn(here.keys.holder, key)
    read_.wait()
    monkeypatch.setattr(here.keys, "_database", real)
    here.keys.revoke(here.keys.list()[0].id)
    here.settle()
    go.set()
    assert asking.get() is not None, "it was asked before"
    assert here.keys.holder(key) is None


def test_its_events_tell_nothing_of_it(houses):
    here, _ = houses
    key = here.key("bob")
    (payload,) = [row[0] for row in here.rows(select(events.c.payload).where(events.c.type == CHANGED))]
    assert key not in payload
    assert "bob" not in payload
