"""examples/browser: the page, its back end and a real sidecar on another origin, in a real browser."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from werkzeug.serving import make_server

from examples.browser.backend import Settings, create_app
from tests.chromium import Browser


@dataclass
class Team:
    """A running back end of the example, beside the sidecar that it belongs to."""

    url: str
    sidecar: Any
    project: str

    def deploy(self, type: str, deployment: str, **fields: Any) -> None:
        body = {"type": type, "project": self.project, "deployment_id": deployment, **fields}
        assert self.sidecar.post("/api/webhooks/deployment", body).status_code == 200


def idle_server() -> Any:
    """A server without application yet: back end and sidecar must each know the other's address first."""
    return make_server("127.0.0.1", 0, lambda environ, start_response: [], threaded=True)


@pytest.fixture
def start_team(start_sidecar: Callable[..., Any], name: str) -> Iterator[Callable[..., Team]]:
    running: list[tuple[Any, threading.Thread]] = []

    def start(token_seconds: int = 300, scopes: tuple[str, ...] = ("tokens:issue", "deployments:read")) -> Team:
        server = idle_server()
        url = f"http://127.0.0.1:{server.server_port}"
        sidecar = start_sidecar(SIDECAR_ALLOWED_ORIGINS=url)
        made = sidecar.post("/api/tokens", {"name": "dashboard", "scopes": scopes, "projects": None})
        settings = Settings(f"{sidecar.url}/project-dashboard", made.json()["token"], name, token_seconds)
        server.app = create_app(settings)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        running.append((server, thread))
        return Team(url, sidecar, name)

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


CONNECTED = "document.getElementById('connection').textContent === 'connected'"
WATCHING = f"{CONNECTED} && [...rooms.values()].every((room) => room.since !== null)"
LINES = "[...document.getElementById('log').children].map((line) => line.textContent)"
NOTICE = "document.getElementById('notice').textContent"


def cells(table: str) -> str:
    return f"[...document.getElementById('{table}').rows].map((row) => [...row.cells].map((c) => c.innerText))"


def same(expression: str, value: Any) -> str:
    return f"JSON.stringify({expression}) === JSON.stringify({json.dumps(value)})"


def enter(browser: Browser, team: Team, user: str = "ada") -> None:
    browser.open(f"{team.url}/login?user={user}")
    browser.wait_for(WATCHING)


def open_deployment(browser: Browser, id: str) -> None:
    field = "document.getElementById('deployment')"
    browser.evaluate(f"{field}.value = {json.dumps(id)}; {field}.form.requestSubmit()")


def test_a_deployment_is_seen_live(browser: Browser, start_team: Callable[..., Team]) -> None:
    team = start_team()
    enter(browser, team)
    open_deployment(browser, "7")
    team.deploy("deployment_started", "7", status="running")
    team.deploy("step_started", "7", step_name="build", step_status="started")
    team.deploy("log_entry", "7", level="info", message="one")
    team.deploy("log_batch", "7", logs=[{"message": "two"}, {"level": "error", "message": "three"}])
    team.deploy("step_completed", "7", step_name="build", step_status="completed", duration=12)
    team.deploy("step_manual", "7", step_name="smoke test", step_status="failed", logs="no answer")
    team.deploy("metrics_update", "7", metrics={"steps_count": 2})
    browser.wait_for(same(cells("steps"), [["build", "success", "12", ""], ["smoke test", "failed", "", "no answer"]]))
    browser.wait_for("document.getElementById('metrics').textContent.includes('steps_count: 2')")
    assert browser.evaluate(LINES) == ["one", "two", "three"]
    assert browser.evaluate("document.querySelector('[data-level=error]').textContent") == "three"
    assert [row[:3] for row in browser.evaluate(cells("deployments"))] == [["7", team.project, "running"]]
    team.deploy("deployment_completed", "7", status="success", duration=45)
    browser.wait_for("document.querySelector('#deployments [data-status=success]')")
    team.deploy("test", "")
    browser.wait_for(f"{NOTICE}.startsWith('Test message')")
    assert browser.errors == []


def test_a_deployment_opened_late_shows_its_whole_story(browser: Browser, start_team: Callable[..., Team]) -> None:
    """Also what came by the project's room: the sidecar doesn't send that again."""
    team = start_team()
    team.deploy("step_started", "7", step_name="build", step_status="started")
    team.deploy("log_entry", "7", message="before the page")
    enter(browser, team)
    team.deploy("log_entry", "7", message="while the page watched the project")
    team.deploy("deployment_started", "8", status="running")
    browser.wait_for("document.getElementById('deployments').rows.length === 2")
    open_deployment(browser, "7")
    browser.wait_for(same(LINES, ["before the page", "while the page watched the project"]))
    assert browser.evaluate(cells("steps")) == [["build", "running", "", ""]]
    open_deployment(browser, "8")
    browser.wait_for(same(LINES, []))
    browser.evaluate("[...document.querySelectorAll('button')].find((b) => b.textContent === '7').click()")
    browser.wait_for(same(LINES, ["before the page", "while the page watched the project"]))
    assert browser.errors == []


def test_markup_is_shown_and_not_obeyed(browser: Browser, start_team: Callable[..., Team]) -> None:
    team = start_team()
    enter(browser, team)
    evil = '<img src=x onerror="window.owned = 1"><script>window.owned = 1</script>'
    open_deployment(browser, "7")
    team.deploy("step_started", "7", step_name=evil, step_status="started")
    team.deploy("log_entry", "7", message=evil)
    browser.wait_for(same(LINES, [evil]))
    assert browser.evaluate(cells("steps"))[0][0] == evil
    assert browser.evaluate("document.images.length") == 0
    assert browser.evaluate("typeof window.owned") == "undefined"


def test_a_reconnect_misses_nothing_and_doubles_nothing(browser: Browser, start_team: Callable[..., Team]) -> None:
    team = start_team()
    enter(browser, team)
    open_deployment(browser, "7")
    expected = []
    for cut in range(3):
        for number in range(5):
            expected.append(f"{cut}.{number}")
            team.deploy("log_entry", "7", message=expected[-1])
        browser.evaluate("socket.io.engine.close(); null")
        expected.append(f"{cut} away")
        team.deploy("log_entry", "7", message=expected[-1])
        browser.wait_for(CONNECTED)
    team.deploy("log_entry", "7", message="end")
    browser.wait_for(f"{LINES}.includes('end')")
    assert browser.evaluate(LINES) == [*expected, "end"]


def test_a_restart_of_the_sidecar_misses_nothing(browser: Browser, start_team: Callable[..., Team]) -> None:
    team = start_team()
    enter(browser, team)
    open_deployment(browser, "7")
    team.deploy("log_entry", "7", message="before")
    browser.wait_for(same(LINES, ["before"]))
    team.sidecar.kill()
    browser.wait_for(f"!({CONNECTED})")
    team.sidecar.start()
    team.deploy("log_entry", "7", message="after")
    browser.wait_for(same(LINES, ["before", "after"]))


def test_a_token_that_ends_soon_is_renewed(browser: Browser, start_team: Callable[..., Team]) -> None:
    """The sidecar warns half a minute before the end; this token has little more."""
    team = start_team(token_seconds=31)
    enter(browser, team)
    browser.evaluate("window.renewed = 0; socket.on('token_expiring', () => { window.renewed += 1; }); null")
    browser.wait_for("window.renewed >= 2")
    assert browser.evaluate("socket.connected")
    assert browser.evaluate(NOTICE) == ""


def test_nobody_connects_without_a_login(browser: Browser, start_team: Callable[..., Team]) -> None:
    team = start_team()
    browser.open(team.url)
    browser.wait_for(f"{NOTICE}.startsWith('Log in first')")
    assert not browser.evaluate("socket.connected")


def test_a_refused_token_is_explained(browser: Browser, start_team: Callable[..., Team]) -> None:
    team = start_team()
    enter(browser, team)
    browser.evaluate("fetchToken = async () => 'not a token'; socket.disconnect(); socket.connect(); null")
    browser.wait_for(f"{NOTICE}.startsWith('No connection: ')")
    assert browser.evaluate("document.getElementById('connection').textContent") == "refused"


def test_other_projects_stay_closed(browser: Browser, start_team: Callable[..., Team]) -> None:
    team = start_team()
    body = {
        "type": "deployment_started",
        "project": "theirs",
        "deployment_id": "theirs-1",
        "status": "running",
    }
    assert team.sidecar.post("/api/webhooks/deployment", body).status_code == 200
    enter(browser, team)
    browser.evaluate("watchProject('theirs')")
    browser.wait_for(f"{NOTICE}.startsWith('project theirs: ') && {NOTICE}.includes('not_allowed')")
    open_deployment(browser, "theirs-1")
    browser.wait_for(f"{NOTICE}.startsWith('deployment theirs-1: ') && {NOTICE}.includes('not_allowed')")


def test_a_back_end_with_too_narrow_a_token_says_so(browser: Browser, start_team: Callable[..., Team]) -> None:
    team = start_team(scopes=("deployments:read",))
    browser.open(f"{team.url}/login?user=ada")
    browser.wait_for(f"{NOTICE} === 'The dashboard is not set up right.'")


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_fits_its_window(
    browser: Browser, start_team: Callable[..., Team], tmp_path: Path, width: int
) -> None:
    team = start_team()
    enter(browser, team)
    open_deployment(browser, "7")
    team.deploy("step_started", "7", step_name="a-step-name-without-any-space-" * 5, step_status="started")
    team.deploy("log_entry", "7", message="long " * 100 + "x" * 500)
    browser.wait_for("document.getElementById('log').children.length === 1")
    browser.screenshot(tmp_path / "page.png", width, 800)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
