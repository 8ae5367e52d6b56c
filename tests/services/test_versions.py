"""The newest state in memory: read again only when there is a newer one, and kept while the database can't be read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gevent
import pytest
from sqlalchemy import Connection

from sidecar.domain.errors import Unavailable
from sidecar.services.versions import RETRY_SECONDS, Latest
from sidecar.store.versions import MENU, read_version
from tests.services.conftest import Clock
from tests.store.menus import EDITOR, House, unreadable, user
from tests.store.stores import Store, counted


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def house(store: Store) -> House:
    return House(store)


class Loaded:
    """A `Latest` whose reads are counted. Each ends as the test says, or finds the newest version there is."""

    def __init__(self, store: Store, clock: Clock):
        self.reads = 0
        self.newest = 5
        self.fault: BaseException | None = None
        self.while_reading = lambda: None
        self.latest = Latest(store.database, self.load, clock)

    def load(self, _connection: Connection) -> Number:
        self.reads += 1
        number = Number(self.newest)
        self.while_reading()
        if self.fault is not None:
            raise self.fault
        return number

    def get(self) -> tuple[int, int]:
        """The version, and how many reads there were by now."""
        return self.latest.get().version, self.reads


@dataclass
class Number:
    version: int


@pytest.fixture
def loaded(store: Store, clock: Clock) -> Loaded:
    return Loaded(store, clock)


class TestLatest:
    def test_it_is_read_once(self, loaded: Loaded):
        assert [loaded.get() for _ in range(3)] == [(5, 1)] * 3

    def test_only_what_is_newer_is_read(self, loaded: Loaded):
        loaded.get()
        for version in (3, 5):
            loaded.latest.heard(version)
            assert loaded.get() == (5, 1)
        loaded.newest = 8
        assert loaded.get() == (5, 1)
        loaded.latest.heard(8)
        assert [loaded.get() for _ in range(2)] == [(8, 2)] * 2
        loaded.latest.heard(6)
        assert loaded.get() == (8, 2)

    def test_what_is_heard_before_the_first_read_is_no_second_one(self, loaded: Loaded):
        loaded.latest.heard(5)
        assert [loaded.get() for _ in range(2)] == [(5, 1)] * 2

    def test_a_doubt_is_one_read(self, loaded: Loaded):
        loaded.get()
        loaded.latest.doubt()
        assert [loaded.get() for _ in range(2)] == [(5, 2)] * 2

    @pytest.mark.parametrize("tell", ["heard", "doubt"])
    def test_what_comes_while_it_is_read_is_read_after(self, loaded: Loaded, tell: str):
        def interrupt() -> None:
            loaded.newest = 9
            loaded.latest.heard(9) if tell == "heard" else loaded.latest.doubt()
            loaded.while_reading = lambda: None

        loaded.while_reading = interrupt
        assert loaded.get() == (5, 1)
        assert [loaded.get() for _ in range(2)] == [(9, 2)] * 2

    def test_of_a_crowd_one_reads(self, loaded: Loaded):
        greenlets = [gevent.spawn(loaded.latest.get) for _ in range(20)]
        gevent.joinall(greenlets, raise_error=True)
        assert {greenlet.value.version for greenlet in greenlets} == {5}
        assert loaded.reads == 1

    def test_a_database_that_was_never_read_is_unavailable(self, loaded: Loaded):
        loaded.fault = Unavailable("It is away.")
        for _ in range(2):
            with pytest.raises(Unavailable):
                loaded.get()
        loaded.fault = None
        assert loaded.get()[0] == 5, "at once"

    def test_later_the_last_answer_holds_and_it_is_asked_now_and_then(self, loaded: Loaded, clock: Clock):
        loaded.get()
        loaded.newest = 8
        loaded.latest.heard(8)
        loaded.fault = Unavailable("It is away.")
        assert [loaded.get() for _ in range(3)] == [(5, 2)] * 3
        clock.now += RETRY_SECONDS
        assert [loaded.get() for _ in range(3)] == [(5, 3)] * 3
        loaded.fault = None
        assert loaded.get() == (5, 3)
        clock.now += RETRY_SECONDS
        assert [loaded.get() for _ in range(3)] == [(8, 4)] * 3

    def test_a_doubt_outlives_a_failed_read(self, loaded: Loaded, clock: Clock):
        loaded.get()
        loaded.latest.doubt()
        loaded.fault, loaded.newest = Unavailable("It is away."), 6
        assert loaded.get() == (5, 2)
        clock.now += RETRY_SECONDS
        loaded.fault = None
        assert loaded.get() == (6, 3)

    @pytest.mark.parametrize("fault", [gevent.GreenletExit(), RuntimeError("a fault of ours")], ids=["killed", "fault"])
    def test_a_doubt_outlives_who_was_to_dispel_it(self, loaded: Loaded, fault: BaseException):
        """The old state used to count as the newest from then on."""
        loaded.get()
        loaded.latest.doubt()
        loaded.fault, loaded.newest = fault, 6
        with pytest.raises(type(fault)):
            loaded.get()
        loaded.fault = None
        assert loaded.get() == (6, 3)


class TestMenu:
    def test_nothing_is_asked_of_the_database_when_nothing_has_changed(self, house: House, store: Store):
        house.sync("a", "b")
        house.allow({"r": {"menus": ["a"]}}, {"ada": ["r"]})
        house.sees(user("ada"))
        with counted(store.database.engine, "before_cursor_execute") as queries:
            for _ in range(3):
                assert json.loads(house.menu.state.public)["checksum"] == house.menu.state.checksum
                assert house.sees(user("ada")) == {"a"}
                assert house.menu.state.answer(True)["author"] == "editor"
                house.menu.item(user("ada"), "a")
        assert queries == [0]

    def test_an_own_change_is_known_at_once(self, house: House):
        house.menu.state.public  # noqa: B018
        version = house.put("a").version
        assert json.loads(house.menu.state.public)["version"] == version
        assert house.menu.delete(EDITOR, "a", "").version == house.menu.state.version > version

    def test_the_last_known_answer_while_the_database_is_away(self, house: House, store: Store):
        house.sync("a", "b")
        house.allow({"r": {"menus": ["a"]}}, {"ada": ["r"]})
        house.sees(user("ada"))
        known = house.menu.state.public
        with unreadable(store):
            house.menu.heard(house.menu.state.version + 1)
            house.permissions.doubt()
            assert house.menu.state.public == known
            assert house.sees(user("ada")) == {"a"}
            with pytest.raises(Unavailable):
                House(store).menu.state.public  # noqa: B018
            with pytest.raises(Unavailable):
                house.put("c")
        assert house.contents().keys() == {"a", "b"}

    def test_a_state_is_of_one_moment(self, house: House, store: Store):
        """Version, items and log are read in one transaction, whatever is written meanwhile."""
        house.put("a", sort_order=0)
        stop = False
        seen: list[tuple[int, int]] = []

        def watch() -> None:
            while not stop:
                other = House(store).menu.state
                assert other.items["a"].version == other.version == other.newest[0].revision.version
                seen.append((other.version, other.items["a"].sort_order))

        watching = gevent.spawn(watch)
        for number in range(1, 15):
            house.put("a", sort_order=number)
        stop = True
        watching.get()
        assert seen == sorted(seen)

    def test_the_version_of_the_start_is_fixed(self, house: House, store: Store):
        first = store.database.read(lambda c: read_version(c, MENU))
        assert House(store).menu.state.version == first.version
        assert json.loads(house.menu.state.public) == {
            "version": first.version,
            "timestamp": first.version,
            "checksum": "d751713988987e9331980363e24189ce",
            "changes": [],
            "author": "system",
            "description": "菜单配置版本信息",
        }
