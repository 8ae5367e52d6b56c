"""Forgetting: what is older than the retention goes, in small chunks; what people look up stays."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from sidecar.domain.access import Identity
from sidecar.domain.events import Offset
from sidecar.domain.times import unix_seconds, utc_text
from sidecar.fanout.catchup import Past
from sidecar.fanout.hub import Hub, Subscriber
from sidecar.jobs.upkeep import Upkeep
from sidecar.services.deliveries import Deliveries, Posted
from sidecar.services.deployments import History
from sidecar.store.journal import read_head
from sidecar.store.retention import CHUNK
from sidecar.store.tables import deliveries, event_rooms, events, idempotency, log_lines, login_links
from sidecar.store.tokens import insert_login_link
from sidecar.store.writer import Writer
from tests.fanout.recipients import CountingCodec, FakeRecipient

DAY = 86_400
ADMIN = Identity(kind="token", name="test", scopes=frozenset({"admin"}), projects=None, token_id="t")


class Installation:
    """A store on a clock of the test's own, and what the product does with it."""

    def __init__(self, core, clock):
        self.clock = clock
        self.database = core.database
        self.writer = Writer(core.database, lambda events: None, clock)
        self.core = core
        self.deliveries = Deliveries(
            core.database, self.writer.run_alone, core.metrics, 10**9, core.tokens.holder, clock
        )
        self.upkeep = Upkeep(self.writer.run_alone, "node", retention_days=30, recovery_seconds=600, clock=clock)

    def post(self, body: str, key: str | None = None) -> int:
        posted = Posted("/api/webhooks/deployment", body.encode(), {}, "127.0.0.1", key)
        return self.deliveries.receive(ADMIN, posted).seq

    def line(self, deployment: str, text: str = "x", key: str | None = None) -> int:
        return self.post(f'{{"type":"log_entry","project":"p","deployment_id":"{deployment}","message":"{text}"}}', key)

    def count(self, table) -> int:
        return self.database.read(lambda c: c.execute(select(func.count()).select_from(table)).scalar_one())

    @property
    def head(self):
        return self.database.read(read_head)


@pytest.fixture
def installation(core, clock):
    made = Installation(core, clock)
    yield made
    made.writer.stop()


def test_what_is_old_goes_and_what_is_young_stays(installation, clock):
    installation.post(
        '{"type":"step_completed","project":"p","deployment_id":"old","step_name":"build","step_status":"success"}'
    )
    last_old = installation.line("old", key="k")
    clock.now += 20 * DAY
    first_young = installation.line("young")
    clock.now += 10 * DAY + 1
    installation.upkeep.run_once()
    assert (installation.head.floor, installation.head.seq) == (last_old, first_young)
    for table in (events, log_lines, deliveries):
        assert installation.count(table) == 1, table.name
    assert installation.count(event_rooms) == 2, "the rooms of the young event"
    assert installation.count(idempotency) == 0
    view = History(installation.database).deployment(ADMIN, "old")
    assert (view.row.state.status, [step.name for step in view.steps]) == ("running", ["build"])


def test_keys_go_after_three_days(installation, clock):
    installation.line("a", key="k")
    clock.now += 3 * DAY - 1
    installation.upkeep.run_once()
    assert installation.count(idempotency) == 1
    clock.now += 2
    installation.upkeep.run_once()
    assert installation.count(idempotency) == 0
    assert installation.count(events) == 2, "the event and that of its new project stay"


def test_nothing_is_forgotten_before_its_time(installation, clock):
    installation.line("a")
    clock.now += 30 * DAY - 1
    installation.upkeep.run_once()
    assert (installation.head.floor, installation.count(log_lines)) == (0, 1)


def test_an_empty_installation_has_nothing_to_forget(installation):
    installation.upkeep.run_once()
    assert installation.head.floor == 0


def test_more_than_a_chunk_goes_in_one_run(installation, clock):
    for number in range(CHUNK + 30):
        installation.line("a", str(number))
    clock.now += 31 * DAY
    installation.upkeep.run_once()
    assert installation.head.floor == installation.head.seq
    for table in (events, event_rooms, log_lines, deliveries):
        assert installation.count(table) == 0, table.name


def test_the_seq_goes_on_after_everything_is_forgotten(installation, clock):
    """An emptied journal is still the same journal: no seq is given out twice, and its name stays."""
    before, epoch = installation.line("a"), installation.head.epoch
    clock.now += 31 * DAY
    installation.upkeep.run_once()
    assert installation.line("b") == before + 1
    assert installation.head.epoch == epoch


def test_a_clock_that_was_put_back_leaves_no_rooms_behind(installation, clock):
    """Events go by seq; one that claims a later time than those behind it goes with them, rooms included."""
    clock.now += 50 * DAY
    installation.line("ahead")
    clock.now -= 50 * DAY
    last = installation.line("right")
    clock.now += 31 * DAY
    installation.upkeep.run_once()
    assert installation.head.floor == last
    assert (installation.count(events), installation.count(event_rooms)) == (0, 0)


def test_who_comes_back_too_late_is_told(installation, clock):
    """Never silently less: an offset below the floor says `truncated`."""
    old = installation.line("a")
    clock.now += 31 * DAY
    kept = installation.line("a")
    installation.upkeep.run_once()
    core = installation.core
    core.tail.start()
    hub = Hub(core.catchup.congested)

    def subscribe(since: int):
        return core.catchup.subscribe(
            hub, Subscriber(FakeRecipient(), CountingCodec(), core.tail.last), "project:p", Past(Offset(since))
        )

    try:
        late, exact, present = subscribe(old - 1), subscribe(old), subscribe(kept)
    finally:
        core.tail.stop()
    assert (late.truncated, late.replayed) == (True, 1)
    assert (exact.truncated, exact.replayed) == (False, 1), "the last forgotten event was seen: nothing is missing"
    assert (present.truncated, present.replayed) == (False, 0)


def test_times_sort_as_text():
    """Retention compares times as text, so they must all be written alike."""
    moments = [0, 0.5, 999_999_999, 1_800_000_000, 1_800_000_000.001, 32_000_000_000]
    texts = [utc_text(moment) for moment in moments]
    assert texts == sorted(texts)
    assert [unix_seconds(text) for text in texts] == moments


def test_login_links_that_have_ended_go(installation, clock):
    def links() -> int:
        return installation.count(login_links)

    ends = utc_text(clock.now + DAY / 2)
    installation.writer.run_alone(lambda t: insert_login_link(t.connection, b"code", "token", ends))
    installation.upkeep.run_once()
    assert links() == 1
    clock.now += DAY
    installation.upkeep.run_once()
    assert links() == 0


def test_one_process_alone_does_the_upkeep(installation, clock):
    """Until it is gone for longer than its lease."""
    other = Upkeep(installation.writer.run_alone, "other", retention_days=30, recovery_seconds=600, clock=clock)
    assert installation.upkeep.run_once()
    assert not other.run_once()
    clock.now += 60
    assert installation.upkeep.run_once()
    clock.now += 100
    assert not other.run_once()
    clock.now += 100
    assert other.run_once()
    assert not installation.upkeep.run_once()


def test_who_stops_leaves_the_upkeep_to_another(installation, clock):
    other = Upkeep(installation.writer.run_alone, "other", retention_days=30, recovery_seconds=600, clock=clock)
    assert installation.upkeep.run_once()
    assert not other.run_once()
    installation.upkeep.stop()
    assert other.run_once()
