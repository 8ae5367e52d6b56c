"""Reports: each fact about real senders and each field, read tolerantly and refused by name."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import ClassVar

import pytest

from sidecar.domain.deployments import LogLine, Report
from sidecar.domain.errors import Invalid
from sidecar.domain.redaction import MARK
from sidecar.wire.bodies import parse_body
from sidecar.wire.deployments import MAX_DETAILS, MAX_LINES, MAX_MESSAGE_CHARACTERS, MAX_METRICS, TYPES, read_report
from sidecar.wire.fields import ALIASES, MAX_WORD_CHARACTERS
from tests.alarms import alarm

pytest.importorskip("hypothesis", reason="hypothesis is not installed (tests/requirements.txt)")

from hypothesis import given
from hypothesis import strategies as st

NOW = "2026-11-21T12:00:00.000Z"
AT = "2026-11-21T11:59:00.000Z"
TOKEN = "ghp_" + "aB3" * 12
PLACE = {"project": "shop", "deployment_id": "42"}


def read(body: dict[str, object], path_kind: str = "deployment", **more: object) -> Report:
    return read_report(body, path_kind, NOW, **more)


def problems(body: dict[str, object], path_kind: str = "deployment") -> dict[str, str]:
    with pytest.raises(Invalid) as raised:
        read(body, path_kind)
    return {field.path: field.message for field in raised.value.fields}


class TestSteps:
    BODY: ClassVar = PLACE | {"type": "step_started", "step_name": "build", "timestamp": AT}

    @pytest.mark.parametrize("type", ["step_started", "step_completed", "step_manual"])
    @pytest.mark.parametrize(
        ("word", "status"),
        [
            ("started", "running"),
            ("running", "running"),
            ("retrying", "running"),
            ("completed", "success"),
            ("failed", "failed"),
            ("success", "success"),
            ("failure", "failed"),
            ("cancelled", "cancelled"),
            ("skipped", "skipped"),
            ("timed_out", "timed_out"),
            ("neutral", "success"),
            ("deployed", "unknown"),
        ],
    )
    def test_the_guide_s_words_and_github_s_conclusions(self, type, word, status):
        report = read(self.BODY | {"type": type, "step_status": word})
        assert (report.type, report.status) == (type, None)
        assert (report.steps[0].status, report.steps[0].reported_status) == (status, word)
        assert (report.payload["status"], report.payload["step_status"]) == (status, word)

    @pytest.mark.parametrize("word", [None, "null", "", "..."])
    def test_a_job_that_still_runs_has_no_conclusion(self, word):
        """Fact 3: `step_completed` is also sent for jobs without a conclusion, with `null` as text."""
        times = {"started_at": "null", "completed_at": "null", "duration": 0}
        report = read(self.BODY | times | {"type": "step_completed", "step_status": word})
        step = report.steps[0]
        assert (step.status, step.reported_status, step.started_at, step.completed_at) == ("unknown", None, None, None)
        assert report.payload["started_at"] is None

    def test_started_says_running_without_a_word(self):
        assert read(self.BODY).steps[0].status == "running"

    def test_status_where_step_status_is_meant(self):
        report = read(self.BODY | {"status": "failure"})
        assert (report.steps[0].status, report.payload["step_status"]) == ("failed", "failure")

    def test_all_that_the_guide_lists(self):
        body = self.BODY | {
            "type": "step_completed",
            "step_status": "success",
            "workflow_name": "deploy",
            "workflow_id": "987",
            "logs": "built",
            "duration": 12,
            "started_at": "2026-11-21T11:58:00Z",
            "completed_at": AT,
        }
        report = read(body)
        step = report.steps[0]
        assert (report.project, report.deployment_id, report.at, report.attempt) == ("shop", "42", AT, 0)
        assert (step.key, step.name, step.duration_seconds, step.logs) == ("build", "build", 12, "built")
        assert (step.started_at, step.completed_at) == ("2026-11-21T11:58:00.000Z", AT)
        assert (report.facts.workflow_name, report.facts.workflow_id) == ("deploy", "987")
        expected = {name: value for name, value in body.items() if name != "type"}
        assert report.payload == expected | {"status": "success", "started_at": "2026-11-21T11:58:00.000Z"}

    @pytest.mark.parametrize(
        ("duration", "seconds"),
        [("12", 12), ("12.5", 12.5), (0, 0), ("", None), ("null", None), (-2, None), (1_795_241_344, None), (" 3 ", 3)],
    )
    def test_durations_as_scripts_make_them(self, duration, seconds):
        """A job cancelled before it began has a negative one, a script that lost its start time sends an epoch."""
        assert read(self.BODY | {"duration": duration}).steps[0].duration_seconds == seconds

    def test_a_step_id_tells_steps_of_one_name_apart(self):
        assert read(self.BODY | {"step_id": 7}).steps[0].key == "7"

    @pytest.mark.parametrize(
        ("name", "kept"),
        [("deploy 👨‍💻 (a, 1)", "deploy 👨‍💻 (a, 1)"), ("a\tb\nc", "a b c"), ("x" * 300, "x" * 200), (5, "5")],
    )
    def test_a_step_s_name_as_people_write_it(self, name, kept):
        """A step's name is no room's: joined emoji and long names used to be refused."""
        assert read(self.BODY | {"step_name": name}).steps[0].name == kept

    def test_what_is_missing_is_told_all_at_once(self):
        assert set(problems({"type": "step_started"})) == {"step_name", "project", "deployment_id"}


class TestDeployments:
    @pytest.mark.parametrize(
        ("type", "body", "status"),
        [
            ("deployment_started", {}, "running"),
            ("deployment_started", {"status": "queued"}, "queued"),
            ("deployment_completed", {"status": "success"}, "success"),
            ("deployment_completed", {"status": "failure"}, "failed"),
            ("deployment_completed", {"status": ""}, "unknown"),
            ("deployment_completed", {"step_status": "failed"}, "failed"),
        ],
    )
    def test_the_status_of_the_whole(self, type, body, status):
        report = read(PLACE | {"type": type} | body)
        assert (report.type, report.status, report.payload["status"]) == (type, status, status)

    def test_an_end_needs_a_status(self):
        assert problems(PLACE | {"type": "deployment_completed"}) == {"status": "is required"}

    def test_all_that_real_workflows_send(self):
        report = read(
            PLACE
            | {
                "type": "deployment_completed",
                "status": "failed",
                "duration": "45",
                "sourceRepo": "owner/shop",
                "deployType": "static",
                "serverHost": "example.com",
                "errorMessage": "disk full",
                "started_at": "",
                "logs": "one\ntwo",
            }
        )
        assert (report.facts.duration_seconds, report.facts.error_message) == (45, "disk full")
        assert (report.facts.logs, report.facts.started_at) == ("one\ntwo", None)
        assert report.payload["source_repo"] == "owner/shop"

    def test_the_word_of_the_sender_stands_beside_ours(self):
        payload = read(PLACE | {"type": "deployment_completed", "status": "failure"}).payload
        assert (payload["status"], payload["reported_status"]) == ("failed", "failure")


class TestLogLines:
    BODY: ClassVar = {"type": "log_entry", "project": "", "deployment_id": "", "source": "workflow", "level": "info"}

    def test_the_id_is_recovered_from_the_stream(self):
        """Fact 2: in the job that streams the log, the project and the run's id are empty."""
        report = read(self.BODY | {"message": "x", "log_stream_id": "deployment_123456789_1704110400"})
        assert (report.project, report.deployment_id) == ("", "123456789")

    @pytest.mark.parametrize("stream", ["deployment_1704110400", "123_1704110400", "deployment__1704110400", "x", ""])
    def test_a_stream_that_names_no_deployment(self, stream):
        assert read(self.BODY | {"message": "x", "log_stream_id": stream}).deployment_id == ""

    def test_a_line_quoted_twice_is_the_line_itself(self):
        """Fact 1, with the line end that `jq -s` takes into the line."""
        raw = b'{"type": "log_entry", "message": ""he said \\"hi\\"\\n"", "level": "info"}'
        parsed = parse_body(raw, "application/json")
        report = read(parsed.value, repaired=parsed.repaired)
        assert report.lines[0].message == report.payload["message"] == 'he said "hi"'
        assert report.repaired

    @pytest.mark.parametrize("text", ["", " ", "null", "None", "...", "a\n", 0, False, 1.5])
    def test_any_text_is_a_line(self, text):
        assert read(self.BODY | {"message": text}).lines[0].message == str(text)

    def test_a_line_without_text_is_none(self):
        assert "message" in problems(self.BODY)
        assert "message" in problems(self.BODY | {"message": None})

    @pytest.mark.parametrize(
        ("word", "level"),
        [
            ("DEBUG", "debug"),
            ("trace", "debug"),
            ("info", "info"),
            ("notice", "info"),
            ("Warning", "warn"),
            (" warn ", "warn"),
            ("error", "error"),
            ("FATAL", "error"),
            ("critical", "error"),
            ("", "info"),
            (None, "info"),
            (3, "info"),
        ],
    )
    def test_levels(self, word, level):
        report = read(self.BODY | {"message": "x", "level": word})
        assert report.lines[0].level == report.payload["level"] == level

    def test_a_batch_is_lines_of_text_or_objects(self):
        report = read(
            PLACE
            | {
                "type": "log_batch",
                "timestamp": AT,
                "step_name": "build",
                "source": "runner",
                "logs": [
                    "text",
                    7,
                    {"message": "two", "level": "ERROR", "timestamp": "2026-11-21T11:58:30Z", "step": "test", "n": 1},
                    {"message": "three", "source": "npm"},
                    {},
                ],
            }
        )
        at = "2026-11-21T11:58:30.000Z"
        assert report.lines == (
            LogLine(AT, "info", "text", "runner", "build"),
            LogLine(AT, "info", "7", "runner", "build"),
            LogLine(at, "error", "two", "runner", "test"),
            LogLine(AT, "info", "three", "npm", "build"),
            LogLine(AT, "info", "", "runner", "build"),
        )
        assert report.payload["logs"][2] == {
            "message": "two",
            "level": "error",
            "timestamp": at,
            "step": "test",
            "n": 1,
        }

    def test_an_empty_batch_is_fine(self):
        assert read(PLACE | {"type": "log_batch", "logs": []}).lines == ()

    @pytest.mark.parametrize("logs", [None, "text", "", "null"])
    def test_a_batch_needs_a_list(self, logs):
        assert problems(PLACE | {"type": "log_batch", "logs": logs}) == {"logs": "must be a list of lines"}

    def test_each_bad_line_is_named(self):
        logs = ["fine", None, {"message": {}}, [], {"level": [], "timestamp": "soon"}]
        assert problems(PLACE | {"type": "log_batch", "logs": logs}) == {
            "logs[1]": "must be text or an object",
            "logs[2].message": "must be text",
            "logs[3]": "must be text or an object",
            "logs[4].level": "must be text",
            "logs[4].timestamp": "is not a time (write it like 2026-11-21T12:00:00Z)",
        }

    def test_too_many_lines(self):
        assert len(read(PLACE | {"type": "log_batch", "logs": ["x"] * MAX_LINES}).lines) == MAX_LINES
        assert "logs" in problems(PLACE | {"type": "log_batch", "logs": ["x"] * (MAX_LINES + 1)})

    def test_a_long_line_says_what_was_cut(self):
        message = read(self.BODY | {"message": "x" * (MAX_MESSAGE_CHARACTERS + 5)}).lines[0].message
        assert message.endswith("x … [cut 5 characters]")


class TestMetrics:
    METRICS: ClassVar = {
        "total_duration": 0,
        "start_time": "2026-11-21T11:00:00Z",
        "end_time": AT,
        "status": "",
        "steps_count": 0,
    }

    def test_metrics_pass_as_they_came(self):
        report = read(PLACE | {"type": "metrics_update", "metrics": self.METRICS})
        assert report.metrics == report.payload["metrics"] == self.METRICS
        assert report.hints.started_at is None

    def test_without_an_id_the_start_is_the_hint(self):
        report = read({"type": "metrics_update", "project": "", "deployment_id": "", "metrics": self.METRICS})
        assert (report.project, report.deployment_id) == ("", "")
        assert report.hints.started_at == "2026-11-21T11:00:00.000Z"

    @pytest.mark.parametrize("start", [None, "", "null", "soon", 5, {}])
    def test_without_a_readable_start_there_is_no_hint(self, start):
        report = read({"type": "metrics_update", "metrics": {"start_time": start}})
        assert report.hints.started_at is None

    def test_bad_metrics(self):
        assert problems(PLACE | {"type": "metrics_update"}) == {"metrics": "must be an object"}
        assert problems(PLACE | {"type": "metrics_update", "metrics": []}) == {"metrics": "must be an object"}
        many = {str(number): number for number in range(MAX_METRICS + 1)}
        assert "metrics" in problems(PLACE | {"type": "metrics_update", "metrics": many})


class TestUntyped:
    def test_the_script_s_camel_case(self):
        """Fact 6: scripts/notify-dashboard.sh."""
        report = read(
            {
                "project": "shop",
                "status": "failed",
                "duration": 45,
                "timestamp": AT,
                "sourceRepo": "owner/shop",
                "runId": "123",
                "deployType": "static",
                "serverHost": "example.com",
                "logs": "one\ntwo",
                "errorMessage": "boom",
            }
        )
        assert (report.type, report.status, report.deployment_id) == ("deployment_completed", "failed", "123")
        assert (report.facts.duration_seconds, report.facts.error_message) == (45, "boom")
        assert not report.hints.newest_open

    def test_without_a_run_s_id_a_repetition_is_the_same_deployment(self):
        body = {"project": "shop", "status": "success", "duration": 0, "timestamp": AT, "runId": ""}
        first = read(body)
        assert first.deployment_id.startswith("auto-")
        assert first.payload["deployment_id"] == first.deployment_id
        assert read(body).deployment_id == first.deployment_id
        for change in ({"project": "till"}, {"status": "failed"}, {"timestamp": NOW}):
            assert read(body | change).deployment_id != first.deployment_id

    def test_the_summary_carries_the_results_of_its_steps(self):
        """Fact 7: deployment-summary.yml, no run id, results by name."""
        details = {"validate_artifact": "success", "server_init": "skipped", "deploy_project": "failure", "test": ""}
        report = read(
            {
                "project": "shop",
                "repository": "owner/shop",
                "branch": "main",
                "commit_hash": "latest",
                "status": "failed",
                "triggered_by": "axi-deploy",
                "trigger_type": "manual",
                "test_url": "https://example.com",
                "message": "部署失败",
                "timestamp": "2026-11-21T11:59:00Z",
                "step_details": details,
            }
        )
        assert [(step.name, step.status, step.position) for step in report.steps] == [
            ("validate_artifact", "success", 1),
            ("server_init", "skipped", 2),
            ("deploy_project", "failed", 3),
            ("test", "unknown", 4),
        ]
        assert report.hints.newest_open
        facts = report.facts
        assert (facts.ref, facts.sha, facts.actor, facts.title) == ("main", "latest", "axi-deploy", "部署失败")
        assert report.payload["repository"] == "owner/shop"

    def test_a_step_without_type(self):
        """Fact 8: webhook-notification.yml posts to /api/webhook/step; numbers are text."""
        body = {
            "project": "shop",
            "repository": "owner/shop",
            "status": "success",
            "step_name": "build",
            "step_duration": "12",
            "step_logs": "one\ntwo",
            "error_message": "",
            "message": "build success",
            "timestamp": AT,
        }
        for path_kind in ("step", "deployment"):
            report = read(body, path_kind)
            step = report.steps[0]
            assert (report.type, report.status, step.status) == ("step_completed", None, "success")
            assert (step.duration_seconds, step.logs, step.error_message) == (12, "one\ntwo", None)
            assert report.hints.newest_open
        assert read(body | {"status": "running"}, "step").type == "step_started"
        assert problems({"project": "shop", "step_name": "build"}, "step") == {"status": "is required"}

    def test_the_snake_case_form(self):
        """Fact 9: deploy-notification.yml; a status with an emoji, a flag instead of a word."""
        body = {
            "project": "shop",
            "source_repo": "owner/shop",
            "run_id": "123",
            "deploy_success": False,
            "deploy_duration": 30,
            "status": "❌ 失败",
            "error": "boom",
            "workflow_url": "https://ci.example.com/123",
        }
        report = read(body)
        assert (report.status, report.reported_status, report.deployment_id) == ("failed", "❌ 失败", "123")
        facts = report.facts
        assert (facts.duration_seconds, facts.error_message) == (30, "boom")
        assert facts.url == "https://ci.example.com/123"
        for flag, status in ((True, "success"), ("true", "success"), ("false", "failed"), (0, "failed")):
            assert read(body | {"status": "", "deploy_success": flag}).status == status

    def test_what_it_needs(self):
        assert problems({"project": "shop"}) == {"status": "is required"}
        assert {"project", "status"} <= set(problems({}))

    def test_an_unknown_type_counts_as_untyped_if_it_can(self):
        """The receiver before us took it so."""
        assert read(PLACE | {"type": "deployed", "status": "success"}).type == "deployment_completed"
        assert problems(PLACE | {"type": "deployed"})["type"].startswith("must be one of step_started")

    @pytest.mark.parametrize("type", ["", None, "null"])
    def test_a_blank_type_is_none(self, type):
        assert read(PLACE | {"type": type, "status": "success"}).type == "deployment_completed"

    def test_too_many_steps_in_one(self):
        details = {str(number): "success" for number in range(MAX_DETAILS + 1)}
        assert "step_details" in problems(PLACE | {"status": "success", "step_details": details})


class TestTest:
    def test_it_has_no_deployment(self):
        report = read({"type": "test", "project": "test", "hello": [1]})
        assert (report.type, report.project, report.deployment_id) == ("test", "test", "")
        assert report.payload == {"project": "test", "timestamp": NOW, "hello": [1]}


class TestFields:
    STEP: ClassVar = PLACE | {"type": "step_started", "step_name": "build"}

    @pytest.mark.parametrize(("old", "new"), ALIASES.items())
    def test_camel_case_is_the_same_field(self, old, new):
        value = 2 if new == "attempt" else NOW if new.endswith("_at") else "x"
        project = {} if new == "project" else {"project": "p"}
        assert read({"status": "ok", old: value} | project).payload[new] == value

    def test_of_both_spellings_the_one_with_a_value_counts(self):
        assert read({"status": "ok", "project": "p", "run_id": "", "runId": "7"}).deployment_id == "7"
        assert read({"status": "ok", "project": "p", "run_id": "6", "runId": "7"}).deployment_id == "6"

    @pytest.mark.parametrize("blank", ["", "null", None, "..."])
    def test_blanks_are_null_to_browsers(self, blank):
        assert read(self.STEP | {"workflow_name": blank}).payload["workflow_name"] is None

    def test_numbers_are_taken_as_ids(self):
        report = read(self.STEP | {"deployment_id": 42, "project": 7, "workflow_id": 9})
        assert (report.deployment_id, report.project, report.facts.workflow_id) == ("42", "7", "9")

    @pytest.mark.parametrize(("attempt", "number"), [(2, 2), ("3", 3), (None, 0), ("", 0), (2.0, 2)])
    def test_attempts(self, attempt, number):
        assert read(self.STEP | {"run_attempt": attempt}).attempt == number

    def test_every_bad_field_is_named_at_once(self):
        body = {
            "type": "step_started",
            "project": 1.5,
            "deployment_id": "a\nb",
            "step_name": ["x"],
            "timestamp": "yesterday",
            "duration": "12s",
            "attempt": 0,
            "workflow_name": {},
            "step_details": [],
            "deploy_success": "maybe",
            "metrics": "x",
        }
        assert set(problems(body)) == set(body) - {"type"}

    def test_an_error_never_repeats_what_came_in(self):
        with pytest.raises(Invalid) as raised:
            read(self.STEP | {"duration": "hunter2", "project": "hunter2\n\x00", "metrics": "hunter2"})
        assert "hunter2" not in raised.value.detail + repr(raised.value.fields)

    def test_a_clock_that_runs_ahead_does_not_win_for_ever(self):
        assert read(self.STEP | {"timestamp": "2026-11-21T12:04:00Z"}).at == "2026-11-21T12:04:00.000Z"
        assert read(self.STEP | {"timestamp": "2036-01-01T00:00:00Z"}).at == NOW

    def test_a_missing_time_is_ours(self):
        report = read(self.STEP | {"timestamp": "..."})
        assert (report.at, report.payload["timestamp"]) == (NOW, NOW)

    def test_a_time_goes_to_browsers_as_it_came(self):
        report = read(self.STEP | {"timestamp": "2026-11-21 11:59:00 UTC"})
        assert (report.at, report.payload["timestamp"]) == (AT, "2026-11-21 11:59:00 UTC")

    def test_other_fields_pass_through(self):
        extra = {"region": "eu", "n": 1, "list": [1, {"a": None}], "camelCase": True}
        assert extra.items() <= read(self.STEP | extra).payload.items()

    def test_a_short_field_is_cut(self):
        """Protects the lists of the read API, which show two hundred deployments at once."""
        facts = read(PLACE | {"status": "x" * 9_999, "actor": "y" * 9_999, "message": "z" * 9_999})
        assert len(str(facts.reported_status)) == len(str(facts.facts.actor)) == MAX_WORD_CHARACTERS + 1
        assert len(str(facts.facts.title)) == MAX_WORD_CHARACTERS

    def test_no_secret_is_stored_or_sent(self):
        """Protects everything that the read API shows, not only log lines: titles, links, errors, metrics."""
        fields = [
            "status",
            "logs",
            "errorMessage",
            "workflow_name",
            "url",
            "ref",
            "sha",
            "actor",
            "message",
            "environment",
            "step_name",
            "step_logs",
            "source",
            "branch",
            "commit_hash",
            "triggered_by",
            "test_url",
            "workflow_url",
            "region",
            "log_stream_id",
            "error",
        ]
        body = PLACE | dict.fromkeys(fields, f"see {TOKEN}")
        for type in (*TYPES, None):
            special = {"log_batch": {"logs": [f"a {TOKEN}", {"message": TOKEN, "extra": TOKEN}]}}.get(str(type), {})
            for path_kind in ("step", "deployment"):
                report = read(body | special | {"type": type, "metrics": {"a": [TOKEN]}}, path_kind)
                assert TOKEN not in repr(report)
                assert MARK in repr(report)

    def test_a_secret_on_the_edge_of_what_is_cut_is_not_halved(self):
        text = "x" * (MAX_MESSAGE_CHARACTERS - 10) + " " + TOKEN
        assert "ghp_" not in read(PLACE | {"type": "log_entry", "message": text}).lines[0].message


@pytest.mark.parametrize("unit", ["eyJ", "eyJa.", "a://b:", "\\", '"', "-----BEGIN " + "PRIVATE KEY-----", "é"])
@pytest.mark.parametrize(
    "shape",
    [
        lambda text: {"type": "log_entry", "message": text},
        lambda text: {"type": "log_batch", "logs": [text[index::100] for index in range(100)]},
        lambda text: {"status": text},
        lambda text: {"status": "ok", "log_stream_id": "deployment_" + text},
        lambda text: {"type": "test", "extra": {"a": [text]}},
        lambda text: {"type": "step_started", "step_name": text},
    ],
    ids=["line", "batch", "status", "stream", "extra", "step"],
)
def test_a_hostile_megabyte_is_read_quickly(unit, shape):
    """Protects every other request: reports are read on the event loop."""
    text = unit * (2**20 // len(unit.encode()))
    with alarm(), suppress(Invalid):
        read(PLACE | shape(text))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(
    [
        "project",
        "deployment_id",
        "run_id",
        "attempt",
        "timestamp",
        "status",
        "duration",
        "logs",
        "error_message",
        "started_at",
        "completed_at",
        "step",
        "step_id",
        "step_name",
        "step_status",
        "step_details",
        "log_stream_id",
        "level",
        "message",
        "source",
        "metrics",
        "url",
        "deploy_success",
    ]
)


@given(
    st.sampled_from([*TYPES, "", "nope"]), st.dictionaries(names, json_values), st.sampled_from(["step", "deployment"])
)
def test_any_object_is_a_report_or_a_refusal(type, fields, path_kind):
    try:
        report = read({"type": type} | fields, path_kind)
    except Invalid:
        return
    assert report.type in TYPES
    json.dumps(report.payload, allow_nan=False)
