"""examples/github as GitHub would run it, against a live sidecar: what arrives can be read back."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.github_actions import (
    API_TOKEN,
    REPOSITORY,
    GitHub,
    Ran,
    Runner,
    evaluate,
    fill,
    github,
    job,
    load,
    log_of,
    run_of,
    runner_environment,
)
from tests.programs import require
from tests.servers import RunningSidecar

FOLDER = Path(__file__).parents[2] / "examples" / "github"
README = (FOLDER / "README.md").read_text()
ACTION = load(FOLDER / "action.yml")
WORKFLOW = load(FOLDER / "websocket-notification.yml")
NOBODY = "http://127.0.0.1:1"
"""A port that nothing may listen on without being root."""

HOSTILE = [
    'deploy (eu, "west", 🚀)',
    "$(touch owned) `touch owned` ; touch owned",
    "'; touch owned; '",
    "test (部署, déjà vu) \\n %s %n",
    "::error::owned",
    "${{ secrets.SIDECAR_TOKEN }}",
]
LINES = [
    b'he said "hi" \\ and left',
    b"\x1b[1;31mred\x1b[0m, a \ttab, a \x08 backspace, a NUL \x00",
    "déjà vu, 部署成功, 🚀 👩‍💻 \u2028".encode(),
    b"latin-1 caf\xe9, cut \xf0\x9f\x9a",
    b"$(touch owned) `touch owned` ${{ secrets.X }} ::set-output name=x::y",
    b"***",
    b"",
]


def set_up(repository: Path) -> None:
    """By the commands of README.md."""
    block = README.split("## Set up", 1)[1].split("\n\n")[2]
    first, _, commands = block.partition("\n")
    assert first.split() == ["sidecar=../sidecar", "#", "a", "clone", "of", "the", "sidecar"]
    subprocess.run(["bash", "-euc", f"sidecar={FOLDER.parents[1]}\n{commands}"], cwd=repository, check=True)


class Recipe:
    """One repository on GitHub with the recipe in it, and the sidecar that it reports to."""

    def __init__(self, folder: Path, api: GitHub, sidecar: RunningSidecar):
        self.api = api
        self.sidecar = sidecar
        self.folder = folder
        self.run_id = random.SystemRandom().randrange(10**9, 10**12)
        self.project = f"project-{self.run_id}"
        self.variables = {"SIDECAR_URL": f"{sidecar.url}/project-dashboard", "SIDECAR_PROJECT": self.project}
        self.secrets = {"SIDECAR_TOKEN": sidecar.token}
        self.count = 0
        self.repository = folder / "repository"
        self.repository.mkdir()
        set_up(self.repository)

    def runner(self, event_name: str, event: dict[str, Any], inputs: dict[str, str], run_id: int) -> Runner:
        self.count += 1
        place = self.folder / f"job-{self.count}"
        place.mkdir()
        (place / "action").symlink_to(self.repository / ".github" / "actions" / "sidecar")
        (place / "event.json").write_text(json.dumps(event))
        environment = runner_environment(self.api, run_id, place / "event.json", event_name)
        environment |= {"REPORT_PAUSE": "0.01", "SIDECAR_RETRY_SECONDS": "0.01"}
        contexts = {
            "inputs": inputs,
            "vars": self.variables,
            "secrets": self.secrets,
            "github": {"token": API_TOKEN},
            "job": {"status": "success"},
            "env": {},
        }
        return Runner(place, environment, contexts)

    def notify(self, event_name: str, event: dict[str, Any], inputs: dict[str, str] | None = None, **more: str) -> Ran:
        """websocket-notification.yml, run by an event."""
        (step,) = WORKFLOW["jobs"]["notify"]["steps"]
        assert step["uses"] == "$/.github/actions/sidecar"
        run_id = self.run_id if event_name == "push" else self.run_id + 1
        runner = self.runner(event_name, event, inputs or {}, run_id)
        given = {name: fill(value, runner.contexts) for name, value in step["with"].items()}
        return checked(runner.uses(ACTION, given, **more))

    def workflow_run(self, **more: Any) -> Ran:
        """The event of the run that is reported on."""
        run = run_of(self.run_id, **more)
        self.api.runs[self.run_id] = run
        return self.notify("workflow_run", {"workflow_run": run, "workflow": {"name": run["name"]}})

    def deployment(self) -> dict[str, Any]:
        answer = self.sidecar.get(f"/api/deployments/{self.run_id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def steps(self) -> dict[str, str]:
        return {step["name"]: step["status"] for step in self.deployment()["steps"]}

    def lines(self, deployment_id: str | None = None) -> list[dict[str, Any]]:
        path = f"/api/deployments/{deployment_id or self.run_id}/logs?limit=5000"
        found: list[dict[str, Any]] = []
        page = self.sidecar.get(path).json()
        while True:
            found += page["items"]
            if page["next"] is None:
                return found
            page = self.sidecar.get(f"{path}&after={page['next']}").json()


def checked(ran: Ran) -> Ran:
    """What holds whatever happened: the job goes on, and its log gives GitHub no commands but our warnings."""
    assert ran.code == 0, ran.output
    commands = [line for line in ran.output.splitlines() if line.startswith(("::", "##["))]
    assert commands == ran.warnings
    return ran


@pytest.fixture
def api() -> Iterator[GitHub]:
    require("bash")
    require("curl")
    require("jq")
    with github() as api:
        yield api


@pytest.fixture
def recipe(tmp_path: Path, api: GitHub, sidecar: RunningSidecar) -> Iterator[Recipe]:
    yield Recipe(tmp_path, api, sidecar)
    assert list(tmp_path.rglob("owned")) == []


def test_a_completed_run_arrives_whole(recipe: Recipe) -> None:
    """Project, id, durations and figures are where the original sent nothing, zeros and the word unknown."""
    failing = {"steps": [{"number": 1, "name": "make", "status": "completed", "conclusion": "failure"}]}
    recipe.api.jobs = [
        job(1, "build"),
        job(2, "deploy", "failure", **failing),
        job(3, "smoke test", "skipped", steps=[]),
    ]
    recipe.api.logs = {1: log_of(b"compiling", b"##[warning]old compiler"), 2: log_of(b"##[error]no space")}
    ran = recipe.workflow_run(conclusion="failure")
    assert ran.warnings == []

    found = recipe.deployment()
    assert (found["project"], found["status"], found["attempt"]) == (recipe.project, "failed", 1)
    assert (found["duration_seconds"], found["started_at"]) == (120, "2026-01-22T01:00:00.000Z")
    assert (found["workflow_name"], found["workflow_id"]) == ("deploy-project", "4711")
    assert (found["ref"], found["actor"]) == ("main", "bob")
    assert found["url"] == f"https://github.example/{REPOSITORY}/actions/runs/{recipe.run_id}"
    assert found["error_message"] == "deploy"
    assert found["metrics"] == {
        "total_duration": 120,
        "start_time": "2026-01-22T01:00:00Z",
        "end_time": "2026-01-22T01:02:00Z",
        "status": "failure",
        "steps_count": 3,
        "successful_steps": 1,
        "failed_steps": 1,
        "cancelled_steps": 0,
        "skipped_steps": 1,
    }
    steps = {step["name"]: step for step in found["steps"]}
    assert {name: step["status"] for name, step in steps.items()} == {
        "build": "success",
        "deploy": "failed",
        "smoke test": "skipped",
    }
    assert steps["build"]["duration_seconds"] == 90
    assert steps["deploy"]["error_message"] == "make"
    assert [(line["step"], line["level"], line["message"]) for line in recipe.lines()] == [
        ("deploy", "error", "no space"),
        ("build", "info", "compiling"),
        ("build", "warn", "old compiler"),
    ]
    assert recipe.lines()[1]["at"] == "2026-01-22T01:00:00.000Z"


def test_names_and_lines_arrive_as_they_were(recipe: Recipe) -> None:
    recipe.api.jobs = [job(number, name) for number, name in enumerate(HOSTILE, 1)]
    recipe.api.logs = {number: log_of(*LINES) for number in range(1, len(HOSTILE) + 1)}
    recipe.workflow_run(head_branch="fix/$(touch${IFS}owned)", display_title='"; touch owned; "')
    assert list(recipe.steps()) == HOSTILE
    assert recipe.deployment()["ref"] == "fix/$(touch${IFS}owned)"
    expected = [line.replace(b"\x00", b"\xff").decode("utf-8", "replace") for line in LINES]
    lines = recipe.lines()
    for name in HOSTILE:
        assert [line["message"] for line in lines if line["step"] == name] == expected


def test_ten_thousand_lines_take_few_requests(recipe: Recipe) -> None:
    """The original sent each line by itself, ten a second, against a limit of a hundred in a quarter of an hour."""
    recipe.api.jobs = [job(1, "deploy")]
    recipe.api.logs = {1: log_of(*(b"line %d \xf0\x9f\x9a\x80 \xff" % number for number in range(10_000)))}
    recipe.workflow_run()
    assert [line["message"] for line in recipe.lines()] == [f"line {number} 🚀 \ufffd" for number in range(10_000)]
    events = recipe.sidecar.get(f"/api/deployments/{recipe.run_id}/events?limit=1000").json()["items"]
    assert len([event for event in events if event["type"] == "log_batch"]) <= 60


def test_of_a_longer_log_the_end_is_kept(recipe: Recipe) -> None:
    recipe.api.runs[recipe.run_id] = run_of(recipe.run_id)
    recipe.api.jobs = [job(1, "deploy")]
    recipe.api.logs = {1: log_of(*(b"%d" % number for number in range(223)))}
    runner = recipe.runner("push", {}, {}, recipe.run_id)
    given = {"url": recipe.variables["SIDECAR_URL"], "token": recipe.sidecar.token, "project": recipe.project}
    checked(runner.uses(ACTION, given | {"log_lines": 100}))
    messages = [line["message"] for line in recipe.lines()]
    assert messages[:2] == ["123 earlier lines are left out here", "123"]
    assert (len(messages), messages[-1]) == (101, "222")


def test_a_run_is_queued_then_running_then_over(recipe: Recipe) -> None:
    recipe.workflow_run(status="queued", conclusion=None, updated_at="2026-01-22T01:00:00Z")
    assert recipe.deployment()["status"] == "queued"
    assert recipe.api.asked == [], "there is nothing to ask of a run that hasn't begun"

    recipe.api.jobs = [job(1, "build", status="in_progress"), job(2, "deploy", status="queued")]
    recipe.workflow_run(status="in_progress", conclusion=None, updated_at="2026-01-22T01:00:10Z")
    assert recipe.deployment()["status"] == "running"
    assert recipe.steps() == {"build": "running", "deploy": "queued"}
    assert recipe.deployment()["steps"][1]["started_at"] is None
    assert recipe.api.paths("logs") == [], "a log is there when its job is over"

    recipe.api.jobs = [job(1, "build"), job(2, "deploy")]
    recipe.api.logs = {1: log_of(b"one"), 2: log_of(b"two")}
    recipe.workflow_run()
    assert recipe.deployment()["status"] == "success"
    assert recipe.steps() == {"build": "success", "deploy": "success"}


def test_reports_that_overtake_each_other_change_nothing(recipe: Recipe) -> None:
    recipe.api.jobs = [job(1, "deploy")]
    recipe.api.logs = {1: log_of(b"done")}
    recipe.workflow_run(conclusion="cancelled")
    recipe.workflow_run(status="in_progress", conclusion=None, updated_at="2026-01-22T01:00:10Z")
    recipe.workflow_run(status="queued", conclusion=None, updated_at="2026-01-22T01:00:00Z")
    found = recipe.deployment()
    assert (found["status"], found["duration_seconds"]) == ("cancelled", 120)
    assert [line["message"] for line in recipe.lines()] == ["done"]


def test_a_reporter_that_is_run_again_doubles_nothing(recipe: Recipe) -> None:
    recipe.api.jobs = [job(1, "deploy")]
    recipe.api.logs = {1: log_of(*[b"the same"] * 500)}
    recipe.workflow_run()
    seq = recipe.deployment()["last_seq"]
    recipe.workflow_run()
    assert recipe.deployment()["last_seq"] == seq
    assert len(recipe.lines()) == 500


def test_a_run_started_again_is_another_attempt(recipe: Recipe) -> None:
    """GitHub tells of it with "in_progress" only: a re-run is not requested."""
    recipe.api.jobs = [job(1, "deploy", "failure")]
    recipe.api.logs = {1: log_of(b"first")}
    recipe.workflow_run(conclusion="failure")
    recipe.api.jobs = [job(11, "deploy", status="in_progress")]
    recipe.workflow_run(status="in_progress", conclusion=None, run_attempt=2, updated_at="2026-01-22T02:00:00Z")
    found = recipe.deployment()
    assert (found["status"], found["attempt"]) == ("running", 2)
    assert recipe.api.paths("/attempts/2/jobs")
    assert recipe.steps() == {"deploy": "running"}


def test_a_cancelled_run_has_jobs_that_never_began(recipe: Recipe) -> None:
    never = job(
        2, "deploy", "cancelled", started_at="2026-01-22T01:01:40Z", completed_at="2026-01-22T01:01:39Z", steps=[]
    )
    recipe.api.jobs = [job(1, "build", "cancelled"), never]
    recipe.api.logs = {1: log_of(b"##[error]The operation was canceled.")}
    ran = recipe.workflow_run(conclusion="cancelled")
    assert (recipe.deployment()["status"], ran.warnings) == ("cancelled", [])
    assert recipe.steps() == {"build": "cancelled", "deploy": "cancelled"}
    assert len(recipe.api.paths("/logs")) == 1


def test_a_matrix_of_many_jobs_takes_few_calls(recipe: Recipe) -> None:
    """A thousand calls an hour are all that a repository's workflows have together."""
    recipe.variables["SIDECAR_LOG_JOBS"] = "3"
    recipe.api.jobs = [job(number, f"test ({number})") for number in range(1, 103)]
    recipe.api.jobs[100] = job(101, "test (101)", "failure")
    recipe.api.logs = {number: log_of(b"line of %d" % number) for number in range(1, 103)}
    ran = recipe.workflow_run(conclusion="failure")
    assert len(recipe.steps()) == 102
    assert recipe.deployment()["metrics"]["steps_count"] == 102
    assert len(recipe.api.paths("/jobs?")) == 2
    assert len(recipe.api.paths("/logs")) == 3
    assert recipe.lines()[0]["message"] == "line of 101", "the log of what failed comes first"
    assert ran.warnings == ["::warning title=sidecar::the logs of 99 more jobs are not sent (log_jobs: 3)"]


def test_several_runs_at_once_stay_apart(recipe: Recipe, tmp_path: Path, sidecar: RunningSidecar) -> None:
    others = []
    for number in range(3):
        folder = tmp_path / f"other-{number}"
        folder.mkdir()
        others.append(Recipe(folder, recipe.api, sidecar))
    recipe.api.jobs = [job(1, "deploy")]
    recipe.api.logs = {1: log_of(b"line")}
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda other: other.workflow_run(), others))
    for other in others:
        assert (other.deployment()["project"], other.steps()) == (other.project, {"deploy": "success"})
        assert len(other.lines()) == 1


def test_logs_can_be_left_to_others(recipe: Recipe) -> None:
    recipe.variables["SIDECAR_LOG_JOBS"] = "0"
    recipe.api.jobs = [job(1, "deploy")]
    assert recipe.workflow_run().warnings == []
    assert (recipe.steps(), recipe.api.paths("/logs")) == ({"deploy": "success"}, [])


def test_each_step_of_a_job_on_request(recipe: Recipe) -> None:
    recipe.variables["SIDECAR_DETAIL"] = "steps"
    steps = [
        {"number": 1, "name": "Set up job", "status": "completed", "conclusion": "success"},
        {
            "number": 2,
            "name": "make",
            "status": "in_progress",
            "conclusion": None,
            "started_at": "2026-01-22T01:00:20Z",
        },
        {"number": 3, "name": "upload", "status": "queued", "conclusion": None},
    ]
    recipe.api.jobs = [job(1, "deploy", status="in_progress", steps=steps)]
    recipe.workflow_run(status="in_progress", conclusion=None, updated_at="2026-01-22T01:00:10Z")
    assert recipe.steps() == {"deploy": "running", "deploy / Set up job": "success", "deploy / make": "running"}


def test_a_run_is_followed_while_it_goes_on(recipe: Recipe) -> None:
    """With conditional requests, which count for nothing when nothing changed."""
    recipe.variables["SIDECAR_FOLLOW_MINUTES"] = "5"
    recipe.api.logs = {1: log_of(b"built"), 2: log_of(b"deployed")}
    over = run_of(recipe.run_id)
    seen: list[dict[str, str]] = []

    def play(path: str) -> None:
        """The next scene each time that the jobs were asked for three times."""
        if "/jobs?" not in path:
            return
        asked = len(recipe.api.paths("/jobs?"))
        if asked % 3 == 0:
            seen.append(recipe.steps())
        if asked >= 7:
            recipe.api.jobs = [job(1, "build"), job(2, "deploy")]
            recipe.api.runs[recipe.run_id] = over
        elif asked >= 4:
            recipe.api.jobs = [job(1, "build"), job(2, "deploy", status="in_progress")]

    recipe.api.jobs = [job(1, "build", status="in_progress")]
    recipe.api.refuse = play
    ran = recipe.workflow_run(status="in_progress", conclusion=None, updated_at="2026-01-22T01:00:10Z")
    assert ran.warnings == []
    assert seen == [{"build": "running"}, {"build": "success", "deploy": "running"}]
    assert recipe.steps() == {"build": "success", "deploy": "success"}
    assert [line["message"] for line in recipe.lines()] == ["built", "deployed"]
    polls = [headers for path, headers in recipe.api.asked if "/jobs?" in path]
    assert all("if-none-match" in headers for headers in polls[1:])
    assert len(recipe.api.paths("/logs")) == 2, "each log is asked for once"

    recipe.workflow_run()  # the end tells all again, and nothing of it is stored twice
    assert recipe.deployment()["status"] == "success"
    assert len(recipe.lines()) == 2


def test_a_run_from_a_fork_is_not_reported(recipe: Recipe) -> None:
    """Its workflow file may be the fork's own: anybody could show a deployment of his making."""
    for head in ({"full_name": "mallory/axi-star-cloud"}, None):
        ran = recipe.workflow_run(head_repository=head)
        assert "is of a fork" in ran.output
    assert recipe.api.asked == []
    assert recipe.sidecar.get(f"/api/deployments/{recipe.run_id}").status_code == 404


def test_without_permission_to_look_the_run_is_reported_all_the_same(recipe: Recipe) -> None:
    recipe.api.refuse = lambda path: (403, {}, b'{"message":"Resource not accessible by integration"}')
    ran = recipe.workflow_run()
    assert len(recipe.api.asked) == 1
    assert "actions: read" in ran.warnings[0]
    assert recipe.deployment()["status"] == "success"
    assert "steps_count" not in recipe.deployment()["metrics"]


def test_a_spent_limit_of_requests_is_respected(recipe: Recipe) -> None:
    recipe.api.jobs = [job(1, "build"), job(2, "deploy")]
    spent = {"X-RateLimit-Remaining": "0", "Retry-After": "3600"}
    recipe.api.refuse = lambda path: (403, spent, b"{}") if "/logs" in path else None
    ran = recipe.workflow_run()
    assert len(recipe.api.paths("/logs")) == 1
    assert "used up" in ran.warnings[0]
    assert recipe.deployment()["status"] == "success"


def test_githubs_moments_of_trouble_are_waited_out(recipe: Recipe) -> None:
    recipe.api.jobs = [job(1, "deploy")]
    recipe.api.logs = {1: log_of(b"line")}
    failed: set[str] = set()

    def once(path: str) -> Any:
        if path in failed:
            return None
        failed.add(path)
        return (502, {}, b"<html>") if "/jobs?" in path else (404, {}, b"BlobNotFound")

    recipe.api.refuse = once
    ran = recipe.workflow_run()
    assert (ran.warnings, recipe.steps()) == ([], {"deploy": "success"})
    assert [line["message"] for line in recipe.lines()] == ["line"]


def test_a_list_of_jobs_that_lags_behind_the_event_is_asked_for_again(recipe: Recipe) -> None:
    recipe.api.jobs = [job(1, "deploy", status="in_progress")]
    recipe.api.logs = {1: log_of(b"line")}

    def catch_up(path: str) -> None:
        if len(recipe.api.paths("/jobs?")) == 2:
            recipe.api.jobs = [job(1, "deploy")]

    recipe.api.refuse = catch_up
    recipe.workflow_run()
    assert (recipe.steps(), len(recipe.lines())) == ({"deploy": "success"}, 1)


@pytest.mark.parametrize("body", [b"<html>", b"{}", b"[]", b'{"jobs":[null]}', b""])
def test_an_answer_that_makes_no_sense_fails_nothing(recipe: Recipe, body: bytes) -> None:
    recipe.api.refuse = lambda path: (200, {}, body) if "/jobs?" in path else None
    recipe.workflow_run()
    assert recipe.deployment()["status"] == "success"


def test_an_event_that_makes_no_sense_fails_nothing(recipe: Recipe) -> None:
    for event in ({}, {"workflow_run": None}, {"workflow_run": {"id": "1; touch owned"}}):
        assert recipe.notify("workflow_run", event).warnings == ["::warning title=sidecar::the event tells of no run"]


def test_a_log_that_is_gone_is_said(recipe: Recipe) -> None:
    recipe.api.jobs = [job(1, "gone\n::error::x"), job(2, "there")]
    recipe.api.logs = {2: log_of(b"line")}
    ran = recipe.workflow_run()
    assert ran.warnings == ["::warning title=sidecar::no log of the job gone ::error::x: HTTP 404"]
    assert [line["message"] for line in recipe.lines()] == ["line"]


def test_githubs_token_stays_with_github(recipe: Recipe) -> None:
    """A log is fetched from another host, which must not be given the token."""
    recipe.api.jobs = [job(1, "deploy")]
    recipe.api.logs = {1: log_of(b"line")}
    ran = recipe.workflow_run()
    assert recipe.api.fetched
    assert all("authorization" not in headers for headers in recipe.api.fetched)
    assert API_TOKEN not in ran.output
    assert recipe.sidecar.token not in ran.output


@pytest.mark.parametrize("command", ["report", "start", "finish", "step", "log", "metrics"])
def test_a_sidecar_that_is_away_fails_nothing(recipe: Recipe, command: str) -> None:
    recipe.variables["SIDECAR_URL"] = NOBODY
    recipe.api.jobs = [job(1, "deploy")]
    recipe.api.logs = {1: log_of(b"line")}
    given = {"url": NOBODY, "token": "sct_1_x", "project": recipe.project, "step_name": "s", "step_status": "started"}
    if command == "report":
        ran = recipe.workflow_run()
    else:
        runner = recipe.runner("push", {}, {}, recipe.run_id)
        more = {"logs": "line", "metrics": "a=1", "status": "success"}
        ran = checked(runner.uses(ACTION, {"command": command, **given, **more}))
    assert ran.warnings
    assert "not delivered" in ran.output


def test_a_wrong_token_fails_nothing_and_is_said(recipe: Recipe) -> None:
    recipe.secrets["SIDECAR_TOKEN"] = "sct_1_wrong"
    recipe.api.jobs = [job(1, "deploy")]
    ran = recipe.workflow_run()
    assert "HTTP 401" in ran.warnings[0]
    assert "sct_1_wrong" not in ran.output


def test_signed_messages_arrive_like_those_with_a_token(recipe: Recipe) -> None:
    made = recipe.sidecar.post("/api/secrets", {"name": "GitHub", "projects": [recipe.project]}).json()
    recipe.secrets = {"SIDECAR_WEBHOOK_SECRET": made["secret"]}
    recipe.api.jobs = [job(1, HOSTILE[0])]
    recipe.api.logs = {1: log_of(*LINES)}
    ran = recipe.workflow_run()
    assert ran.warnings == []
    assert made["secret"] not in ran.output
    assert (recipe.deployment()["status"], recipe.steps()) == ("success", {HOSTILE[0]: "success"})
    assert len(recipe.lines()) == len(LINES)

    recipe.variables["SIDECAR_PROJECT"] = f"not-{recipe.project}"
    recipe.run_id += 1
    assert "HTTP 403" in recipe.workflow_run().warnings[0]
    recipe.secrets = {"SIDECAR_WEBHOOK_SECRET": "another secret"}
    assert "HTTP 401" in recipe.workflow_run().warnings[0]


def test_without_secrets_it_is_said_why(recipe: Recipe) -> None:
    recipe.secrets.clear()
    assert "forks and Dependabot get no secrets" in recipe.workflow_run().output


def test_without_an_address_nothing_is_sent(recipe: Recipe) -> None:
    del recipe.variables["SIDECAR_URL"]
    assert recipe.workflow_run().warnings == ["::warning title=sidecar::SIDECAR_URL is not set: nothing is sent"]
    assert recipe.api.asked == []


def test_one_workflow_for_many_projects_names_them_in_its_title(recipe: Recipe) -> None:
    recipe.variables |= {"SIDECAR_TITLE_PREFIX": "deploy ", "SIDECAR_PROJECT": "elsewhere"}
    recipe.workflow_run(display_title=f"deploy {recipe.project} to production")
    assert recipe.deployment()["project"] == recipe.project


def test_the_project_is_the_repository_where_nothing_else_is_said(recipe: Recipe) -> None:
    del recipe.variables["SIDECAR_PROJECT"]
    recipe.variables["SIDECAR_TITLE_PREFIX"] = "deploy "
    recipe.workflow_run(display_title="Merge branch 'deploy x'")
    assert recipe.deployment()["project"] == REPOSITORY.partition("/")[2]


# ---- by hand, and called by another workflow ---------------------------------------------------------


def by_hand(recipe: Recipe, **fields: str) -> Ran:
    """gh workflow run websocket-notification.yml --field …"""
    declared = WORKFLOW["on"]["workflow_dispatch"]["inputs"]
    required = {name for name, about in declared.items() if about.get("required") == "true"}
    assert required <= fields.keys() <= declared.keys()
    assert fields["step_status"] in declared["step_status"]["options"]
    return recipe.notify("workflow_dispatch", {"inputs": fields}, fields)


def test_a_step_by_hand(recipe: Recipe) -> None:
    logs = 'first\nsecond "x" \\ 🚀 $(touch owned)\n::error::owned'
    fields = {"project": recipe.project, "deployment_id": f"by-hand-{recipe.run_id}", "step_name": HOSTILE[1]}
    ran = by_hand(recipe, **fields, step_status="completed", logs=logs, duration="12.5")
    assert ran.warnings == []
    assert ran.outputs == f"deployment_id=by-hand-{recipe.run_id}\n"
    found = recipe.sidecar.get(f"/api/deployments/by-hand-{recipe.run_id}").json()
    (step,) = found["steps"]
    assert (step["name"], step["status"], step["duration_seconds"]) == (HOSTILE[1], "success", 12.5)
    assert step["logs"] == logs
    assert recipe.api.asked == []


@pytest.mark.parametrize(
    ("word", "status"),
    [("started", "running"), ("running", "running"), ("failed", "failed"), ("retrying", "running")],
)
def test_every_state_by_hand(recipe: Recipe, word: str, status: str) -> None:
    fields = {"project": recipe.project, "deployment_id": str(recipe.run_id), "step_name": "build"}
    by_hand(recipe, **fields, step_status=word)
    assert recipe.steps() == {"build": status}


def test_a_duration_that_is_no_number_is_left_out(recipe: Recipe) -> None:
    fields = {"project": recipe.project, "deployment_id": str(recipe.run_id), "step_name": "build"}
    ran = by_hand(recipe, **fields, step_status="completed", duration="a minute")
    assert ran.warnings == ["::warning title=sidecar::duration is not a number of seconds: left out"]
    assert recipe.steps() == {"build": "success"}


def test_a_big_log_by_hand_arrives_cut_and_says_so(recipe: Recipe) -> None:
    """64 KiB is what GitHub takes as inputs, and the sidecar as a step's log."""
    fields = {"project": recipe.project, "deployment_id": str(recipe.run_id), "step_name": "build"}
    by_hand(recipe, **fields, step_status="completed", logs="x" * 65_000)
    assert recipe.deployment()["steps"][0]["logs"] == "x" * 65_000


def test_a_line_break_in_an_id_forges_no_output(recipe: Recipe) -> None:
    fields = {"project": recipe.project, "deployment_id": "1\ndeployment_id=2", "step_name": "build"}
    ran = by_hand(recipe, **fields, step_status="started")
    assert ran.outputs == ""
    assert "HTTP 400" in ran.warnings[0]


def called(recipe: Recipe, **inputs: str) -> Ran:
    """By a job of the run that it reports on."""
    assert inputs.keys() <= WORKFLOW["on"]["workflow_call"]["inputs"].keys()
    return recipe.notify("push", {"ref": "refs/heads/main"}, inputs)


def test_called_by_a_workflow_it_reports_that_one(recipe: Recipe) -> None:
    recipe.api.runs[recipe.run_id] = run_of(recipe.run_id, status="in_progress", conclusion=None)
    own = job(9, "notify / notify", status="in_progress", runner_name="GitHub Actions 99")
    recipe.api.jobs = [job(1, "build"), own]
    recipe.api.logs = {1: log_of(b"line")}
    ran = called(recipe)
    assert ran.warnings == []
    assert (recipe.deployment()["status"], recipe.steps()) == ("running", {"build": "success"})
    called(recipe, status="failure")
    assert (recipe.deployment()["status"], recipe.steps()) == ("failed", {"build": "success"})
    assert [line["message"] for line in recipe.lines()] == ["line"]


def test_called_with_a_step_it_reports_that_step(recipe: Recipe) -> None:
    called(recipe, step_name="deploy", step_status="failure", logs="it broke")
    assert recipe.steps() == {"deploy": "failed"}
    assert recipe.deployment()["attempt"] == 1


def test_called_it_reports_even_where_github_does_not_answer(recipe: Recipe) -> None:
    recipe.api.refuse = lambda path: (403, {}, b"{}")
    called(recipe, status="success")
    found = recipe.deployment()
    assert (found["status"], found["actor"], found["ref"]) == ("success", "ada", "main")


# ---- the action in a job -----------------------------------------------------------------------------


def test_a_job_tells_of_itself(recipe: Recipe) -> None:
    """start puts notify.sh on the PATH of the job's later steps, and what it needs into their environment."""
    runner = recipe.runner("push", {}, {}, recipe.run_id)
    job_environment = {
        "SIDECAR_URL": recipe.variables["SIDECAR_URL"],
        "SIDECAR_TOKEN": recipe.secrets["SIDECAR_TOKEN"],
        "SIDECAR_PROJECT": recipe.project,
    }
    began = checked(runner.uses(ACTION, {"command": "start"}, **job_environment))
    assert began.warnings == []
    assert began.outputs == f"deployment_id={recipe.run_id}\n"
    assert recipe.sidecar.token not in began.later_environment
    assert recipe.deployment()["status"] == "running"

    later = dict(line.split("=", 1) for line in began.later_environment.splitlines())
    assert later["SIDECAR_PROJECT"] == recipe.project
    path = f"{began.later_path.strip()}:{os.environ['PATH']}"
    environment = runner.environment | later | {"SIDECAR_TOKEN": recipe.sidecar.token, "PATH": path}
    built = runner.run('notify.sh step build -- sh -c "echo one; exit 3"', environment)
    assert built.code == 3

    environment |= job_environment
    for given in (
        {"command": "step", "step_name": "upload", "step_status": "completed"},
        {"command": "log", "step_name": "upload", "logs": "two\n::error::three"},
        {"command": "metrics", "metrics": "files=12\n\nratio=0.5"},
        {"command": "finish", "status": "failure"},
    ):
        assert checked(runner.uses(ACTION, given, **environment)).warnings == []
    found = recipe.deployment()
    assert (found["status"], found["metrics"]) == ("failed", {"files": 12, "ratio": 0.5})
    assert recipe.steps() == {"build": "failed", "upload": "success"}
    assert [(line["step"], line["message"]) for line in recipe.lines()] == [
        ("build", "one"),
        ("upload", "two"),
        ("upload", "::error::three"),
    ]


def test_finish_takes_the_jobs_own_status(recipe: Recipe) -> None:
    runner = recipe.runner("push", {}, {}, recipe.run_id)
    runner.contexts["job"]["status"] = "cancelled"
    given = {"command": "finish", "url": recipe.variables["SIDECAR_URL"], "token": recipe.sidecar.token}
    checked(runner.uses(ACTION, given | {"project": recipe.project}))
    assert recipe.deployment()["status"] == "cancelled"


def test_only_the_command_test_fails(recipe: Recipe) -> None:
    runner = recipe.runner("push", {}, {}, recipe.run_id)
    given = {"command": "test", "project": recipe.project, "token": recipe.sidecar.token}
    assert checked(runner.uses(ACTION, given | {"url": recipe.variables["SIDECAR_URL"]})).warnings == []
    assert runner.uses(ACTION, given | {"url": NOBODY}).code == 1


def test_what_is_no_command_is_said(recipe: Recipe) -> None:
    runner = recipe.runner("push", {}, {}, recipe.run_id)
    given = {"url": recipe.variables["SIDECAR_URL"], "token": recipe.sidecar.token}
    for wrong in ({"command": "finsh"}, {"command": "step"}, {"command": "metrics"}):
        assert checked(runner.uses(ACTION, given | wrong)).warnings


# ---- the files ---------------------------------------------------------------------------------------


def test_the_workflow_asks_for_little() -> None:
    assert WORKFLOW["permissions"] == {}
    (notify,) = WORKFLOW["jobs"].values()
    assert notify["permissions"] == {"actions": "read", "contents": "read"}
    assert "concurrency" not in WORKFLOW, "a group drops what waits in it"
    assert WORKFLOW["on"]["workflow_run"] == {
        "workflows": ["deploy-project", "main-deployment"],
        "types": ["requested", "in_progress", "completed"],
    }
    assert {place["continue-on-error"] for place in (notify, *notify["steps"])} == {"true"}


def test_expressions_are_worked_out_as_by_github() -> None:
    """The stand-in's own arithmetic, which the tests above rest on."""
    contexts = {"inputs": {"a": "", "b": "x"}, "vars": {}}
    assert evaluate("inputs.a || 'y'", contexts) == "y"
    assert evaluate("inputs.b && 'step' || 'report'", contexts) == "step"
    assert evaluate("inputs.a && 'step' || 'report'", contexts) == "report"
    assert evaluate("vars.none", contexts) == ""
    assert fill("<${{ inputs.b }}>", contexts) == "<x>"


def test_actions_linter_has_nothing_to_say(tmp_path: Path) -> None:
    """About the files where README.md puts them, and its examples beside them."""
    require("git")
    require("shellcheck")
    pytest.importorskip("jactionlint", reason="jactionlint is not installed (tests/requirements.txt)")
    set_up(tmp_path)
    workflows = tmp_path / ".github" / "workflows"
    examples = [block.partition("```")[0] for block in README.split("```yaml\n")[1:]]
    assert len(examples) == 2
    for number, example in enumerate(examples):
        (workflows / f"example-{number}.yml").write_text(example)
    for name in WORKFLOW["on"]["workflow_run"]["workflows"]:
        (workflows / f"{name}.yml").write_text(examples[1].replace("name: deploy", f"name: {name}", 1))
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    # each for a reason that the files give: nothing of the reported run is trusted, no report may be dropped
    meant = ["--ignore", "dangerous-triggers", "--ignore", "concurrency-limits"]
    done = subprocess.run(
        [sys.executable, "-m", "jactionlint", "--format", "oneline", "--strict-exit", *meant],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_shellcheck_has_nothing_to_say() -> None:
    done = subprocess.run(
        [require("shellcheck"), str(FOLDER / "report.sh")], capture_output=True, text=True, check=False
    )
    assert done.stdout == ""
