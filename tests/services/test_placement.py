"""Reports that don't say whose they are: placed among what is stored and what the sender may write, or refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from config.settings import Settings
from sidecar.core import Core, open_core
from sidecar.domain.access import Identity
from sidecar.domain.errors import Conflict, Invalid, NotAllowed, SidecarError
from sidecar.domain.times import utc_text
from sidecar.observability.metrics import Metrics
from sidecar.services.deliveries import Deliveries, Posted
from sidecar.services.sources import builtin_sources
from sidecar.store.deliveries import DeliveryFilter
from sidecar.store.writer import Writer

HOUR = 3_600
START = "2026-11-21T11:00:00Z"


def sender(*projects: str) -> Identity:
    """A token for these projects; for all of them without any."""
    return Identity(
        kind="token", name="ci", scopes=frozenset({"webhooks:write"}), projects=projects or None, token_id="ci"
    )


class Intake:
    """Posts bodies at a time of the test's choice."""

    def __init__(self, core: Core, limit_bytes: int = 2**28):
        self.now = 1_795_262_400.0
        self.core = core
        writer = Writer(core.database, lambda events: None, clock=lambda: self.now)
        self.deliveries = Deliveries(
            core.database, writer.run_alone, Metrics(), limit_bytes, core.tokens.holder, clock=lambda: self.now
        )

    def post(self, body: str, identity: Identity | None = None, path: str = "deployment", agent: str = "axi") -> str:
        """The project and id it was placed at, or the error's code."""
        headers = {"Content-Type": "application/json", "User-Agent": agent}
        posted = Posted(f"/api/webhook/{path}", body.encode(), headers, "127.0.0.1", None)
        try:
            receipt = self.deliveries.receive(identity or sender(), posted)
        except SidecarError as error:
            return error.code
        return f"{receipt.project} {receipt.deployment_id}"


@pytest.fixture
def core(tmp_path: Path) -> Iterator[Core]:
    core = open_core(Settings(instance_dir=tmp_path))
    yield core
    core.close()


@pytest.fixture
def intake(core: Core) -> Intake:
    return Intake(core)


def opened(project: str, deployment_id: str, more: str = "") -> str:
    return f'{{"type":"deployment_started","project":"{project}","deployment_id":"{deployment_id}"{more}}}'


LINE = '{"type":"log_entry","project":"","message":"x","log_stream_id":"deployment_42_1704110400"}'
METRICS = '{"type":"metrics_update","project":"%s","deployment_id":"","metrics":{"start_time":"' + START + '"}}'
STEP = '{"project":"shop","status":"%s","step_name":"build","timestamp":"%s"}'


class TestById:
    def test_the_project_is_that_of_the_stored_deployment(self, intake):
        assert intake.post(LINE) == Invalid.code
        intake.post(opened("shop", "42"))
        assert intake.post(LINE) == "shop 42"

    def test_it_is_not_found_out_for_whoever_may_not_write_there(self, intake):
        intake.post(opened("shop", "42"))
        assert intake.post(LINE, sender("till")) == NotAllowed.code
        assert intake.post(LINE, sender("till", "shop")) == "shop 42"

    def test_a_project_called_unknown_is_the_stored_one(self, intake):
        """Fact 5: the workflow could not find out its project and says `unknown`."""
        intake.post(opened("shop", "42"))
        assert intake.post(opened("unknown", "42")) == "shop 42"
        assert intake.post(opened("unknown", "42"), sender("unknown")) == NotAllowed.code
        assert intake.post(opened("unknown", "43")) == "unknown 43"

    def test_the_first_project_owns_an_id(self, intake):
        intake.post(opened("shop", "42"))
        assert intake.post(opened("till", "42")) == Conflict.code
        assert intake.post(opened("till", "42"), sender("till")) == NotAllowed.code
        stranger = Identity(kind="anonymous", name="", scopes=frozenset({"webhooks:write"}), projects=None)
        assert intake.post(opened("till", "42"), stranger) == Conflict.code

    def test_a_refused_report_leaves_no_project_behind(self, intake):
        intake.post(opened("shop", "42"))
        intake.post(opened("till", "42"))
        with intake.core.database.engine.connect() as connection:
            names = connection.exec_driver_sql("SELECT name FROM projects").scalars().all()
        assert names == ["shop"]


class TestMetricsWithoutAnId:
    def test_the_only_recent_deployment_is_meant(self, intake):
        assert intake.post(METRICS % "") == Invalid.code
        intake.post(opened("shop", "42"))
        assert intake.post(METRICS % "") == "shop 42"

    def test_of_several_the_one_that_started_then(self, intake):
        intake.post(opened("shop", "42", f',"started_at":"{START}"'))
        intake.post(opened("till", "43", ',"started_at":"2026-11-21T11:30:00Z"'))
        assert intake.post(METRICS % "") == "shop 42"

    def test_of_several_that_fit_none(self, intake):
        for number in (42, 43):
            intake.post(opened("shop", str(number), f',"started_at":"{START}"'))
        assert intake.post(METRICS % "") == Invalid.code

    def test_never_in_a_project_that_the_sender_may_not_write(self, intake):
        """Protects one project's metrics from another's token, even where it is the only candidate."""
        intake.post(opened("shop", "42", f',"started_at":"{START}"'))
        assert intake.post(METRICS % "", sender("till")) == Invalid.code
        intake.post(opened("till", "43"))
        assert intake.post(METRICS % "", sender("till")) == "till 43"

    def test_never_in_another_project_than_the_one_told(self, intake):
        """It used to be a conflict with a deployment that the message never named."""
        intake.post(opened("shop", "42", f',"started_at":"{START}"'))
        assert intake.post(METRICS % "till") == Invalid.code
        intake.post(opened("till", "43"))
        assert intake.post(METRICS % "till") == "till 43"

    def test_only_of_the_same_kind_of_sender(self, intake):
        intake.post(opened("shop", "42"), agent="other")
        assert intake.post(METRICS % "") == Invalid.code

    def test_only_of_the_last_hour(self, intake):
        intake.post(opened("shop", "42"))
        intake.now += HOUR + 1
        assert intake.post(METRICS % "") == Invalid.code


class TestWithoutAnId:
    def test_steps_and_summary_of_a_run_are_one_deployment(self, intake):
        first = intake.post(STEP % ("running", "2026-11-21T11:00:00Z"), path="step")
        assert first.startswith("shop auto-")
        assert intake.post(STEP % ("success", "2026-11-21T11:00:09Z"), path="step") == first
        summary = '{"project":"shop","status":"success","step_details":{"build":"success"}}'
        assert intake.post(summary) == first
        assert intake.post(STEP % ("running", "2026-11-21T11:30:00Z"), path="step") != first

    def test_a_run_that_gave_up_takes_no_steps_of_the_next(self, intake):
        """The summary workflow sends nothing when a step failed, so that its deployment never ends: the runs of the
        next days used to be mixed into it."""
        first = intake.post(STEP % ("failed", "2026-11-21T11:00:00Z"), path="step")
        intake.now += 7 * HOUR
        assert intake.post(STEP % ("running", "2026-11-21T18:00:00Z"), path="step") != first

    def test_another_project_s_open_deployment_is_not_meant(self, intake):
        intake.post(opened("till", "42"))
        assert intake.post(STEP % ("running", START), path="step").startswith("shop auto-")
        assert intake.post(STEP % ("running", START), sender("till"), path="step") == NotAllowed.code

    def test_a_test_makes_no_deployment(self, intake):
        assert intake.post('{"type":"test","project":"shop"}') == "shop None"
        assert intake.post('{"type":"test"}') == Invalid.code
        assert intake.post('{"type":"test","project":"shop"}', sender("till")) == NotAllowed.code


class TestKeptBodies:
    def numbers(self, intake: Intake) -> list[int]:
        return [row["number"] for row in intake.deliveries.list(DeliveryFilter(), None, 1_000)]

    def test_the_newest_stay_within_the_bound(self, core):
        """Two large bodies used to make room for themselves too, a number in the answer led to nothing."""
        intake = Intake(core, limit_bytes=10_000)
        for _ in range(5):
            assert intake.post('{"x":"' + "x" * 4_000 + '"}') == Invalid.code
        assert self.numbers(intake) == [5, 4]

    def test_one_that_is_larger_than_the_bound_is_kept_alone(self, core):
        intake = Intake(core, limit_bytes=1_000)
        for _ in range(3):
            intake.post('{"x":"' + "x" * 4_000 + '"}')
        assert self.numbers(intake) == [3]

    def test_what_others_forgot_counts_no_longer(self, core):
        """Protects the quarantine: after the retention had deleted rows, their bytes were still counted, so that new
        ones were forgotten although there was room."""
        intake = Intake(core, limit_bytes=10_000)
        for _ in range(2):
            intake.post('{"x":"' + "x" * 4_000 + '"}')
        with core.database.engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM deliveries")
        for _ in range(2):
            intake.post('{"x":"' + "x" * 4_000 + '"}')
        assert self.numbers(intake) == [4, 3]


class TestSummaries:
    SUMMARY = (
        '{"project":"shop","repository":"a/shop","status":"success","timestamp":"2026-11-21T11:59:00Z",'
        '"step_details":{"build":"success"}}'
    )

    def test_a_summary_closes_the_newest_open_deployment(self, intake):
        intake.post(opened("shop", "42"))
        assert intake.post(self.SUMMARY) == "shop 42"

    def test_a_repeated_summary_is_the_same_deployment(self, intake):
        """Delivery is repeated: the second copy used to make a deployment of its own."""
        intake.post(opened("shop", "42"))
        intake.post(self.SUMMARY)
        assert intake.post(self.SUMMARY) == "shop 42"
        alone = self.SUMMARY.replace("shop", "till")
        assert intake.post(alone) == intake.post(alone)


def test_what_has_had_no_news_for_long_does_not_run_in_live_figures(intake):
    intake.post(opened("shop", "old"))
    intake.now += HOUR
    intake.post(opened("shop", "new"))
    since = utc_text(intake.now - 60)
    counts = builtin_sources(intake.core.database, lambda: 0, lambda: 0, lambda: since)["live_stats"]()["stats"]
    assert (counts["deployments"], counts["deployments_running"]) == (2, 1)
