"""Notices: what another process commits is heard at once, one's own is not, and a lost connection is made anew."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest
from gevent.queue import Queue

from sidecar.fanout.doorbells import Batch
from sidecar.fanout.notices import Notices
from sidecar.store.postgres import Postgres as Backend
from tests.alarms import alarm
from tests.postgres import Postgres
from tests.store.stores import Place, Store


class Listening:
    """A store with notices; `heard` gets what they call."""

    def __init__(self, place: Place):
        self.store = Store(place)
        self.database = place.url.rpartition("/")[2]
        backend = self.store.database.backend
        assert isinstance(backend, Backend)
        self.notices = Notices(self.store.database.engine, backend)
        self.heard: Queue = Queue()
        self.notices.start(self, lambda news: None)

    def look(self, seq: int | None = None) -> None:
        self.heard.put(seq)

    def close(self) -> None:
        self.notices.stop()
        self.store.close()


@pytest.fixture
def place(postgres: Postgres, tmp_path) -> Place:
    return Place(postgres.url(postgres.new_database()), tmp_path)


@pytest.fixture
def listening(place: Place) -> Iterator[Listening]:
    opened = Listening(place)
    with alarm(60):
        assert opened.heard.get() is None, "whoever begins to listen looks once"
        yield opened
    opened.close()


def test_a_commit_of_another_process_is_heard_and_ones_own_is_not(listening: Listening, place: Place):
    other = Store(place)
    listening.store.append("room:a")
    other.append("room:a")
    assert listening.heard.get() == 2
    listening.store.append("room:a")
    other.append("room:a")
    assert listening.heard.get() == 4, "how far the journal has come"
    gevent.idle()
    assert listening.heard.empty()
    other.close()


def test_a_refused_command_rings_nobody(listening: Listening, place: Place):
    other = Store(place)

    def refuse(transaction):
        transaction.append("fact", {}, ["room:a"])
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        other.writer.submit(refuse)
    other.writer.submit(lambda transaction: None)
    assert listening.heard.empty()
    other.append("room:a")
    assert listening.heard.get() == 1
    assert listening.heard.empty()
    other.close()


@pytest.mark.parametrize("notice", ["", "0123456789abcdef", "x 9 9", "x -1", "x ١", "x 99999999999999999999"])
def test_a_notice_without_a_seq_has_it_look(listening: Listening, postgres: Postgres, notice: str):
    """From a process of an older release, or from anybody with a login."""
    with postgres.connect(listening.database) as stranger:
        stranger.execute("SELECT pg_notify('sidecar', %s)", (notice,))
    assert listening.heard.get() is None


def test_a_lost_connection_is_made_anew_and_looks_once(listening: Listening, postgres: Postgres, place: Place):
    """What was committed while nobody listened would otherwise wait for the next commit."""
    with postgres.connect() as operator:
        operator.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
    assert listening.heard.get() is None
    other = Store(place)
    other.append("room:a")
    assert listening.heard.get() == 1
    other.close()


def test_ringing_neither_blocks_nor_raises_without_a_database(listening: Listening):
    listening.notices.ring(Batch([]))
