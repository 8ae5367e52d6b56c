"""The page that comes with the sidecar, in a real Chromium: first steps, live view, log, reload, phone."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.chromium import Browser
from tests.conftest import Start
from tests.pages import PHONE, log_in, shows, text
from tests.servers import RunningSidecar


@pytest.fixture
def fresh(start_sidecar: Start) -> RunningSidecar:
    """An installation that nothing has been posted to."""
    return start_sidecar()


def step(server: RunningSidecar, project: str, id: str, name: str, status: str) -> None:
    kind = "step_started" if status == "started" else "step_completed"
    body = {"type": kind, "project": project, "deployment_id": id, "step_name": name, "step_status": status}
    assert server.post("/api/webhooks/deployment", body).status_code == 200


def line(server: RunningSidecar, project: str, id: str, message: str, level: str = "info") -> None:
    body = {"type": "log_entry", "project": project, "deployment_id": id, "message": message, "level": level}
    assert server.post("/api/webhooks/deployment", body).status_code == 200


def test_the_empty_page_shows_a_curl_that_works_and_then_what_it_sent(browser: Browser, fresh: RunningSidecar) -> None:
    log_in(browser, fresh)
    shows(browser, "#first-curl", "sct_")
    command = text(browser, "#first-curl")
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, check=True)
    assert json.loads(done.stdout)["success"] is True
    shows(browser, "#steps", "build")
    shows(browser, "#projects", "my-project")
    assert browser.evaluate("document.getElementById('empty').hidden") is True
    assert browser.errors == []


def test_a_deployment_is_followed_live_and_is_the_same_after_a_reload(browser: Browser, fresh: RunningSidecar) -> None:
    step(fresh, "shop", "42", "build", "started")
    log_in(browser, fresh)
    shows(browser, "#detail-title", "42")
    for number in range(30):
        line(fresh, "shop", "42", f"line {number}", "error" if number == 7 else "info")
    step(fresh, "shop", "42", "build", "completed")
    shows(browser, "#log", "line 29")
    shows(browser, "#steps", "success")
    live = text(browser, "#log").splitlines()
    assert live == [f"line {number}" for number in range(30)]
    assert browser.evaluate("document.querySelectorAll('#log .error').length") == 1
    browser.evaluate("window.old = true, location.reload()")
    browser.wait_for("window.old === undefined")
    shows(browser, "#log", "line 29")
    assert text(browser, "#log").splitlines() == live
    assert browser.errors == []


def test_markup_in_what_senders_write_stays_text(browser: Browser, fresh: RunningSidecar) -> None:
    """What a deploy script prints must never run in the page of whoever watches."""
    evil = "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>"
    step(fresh, evil, evil, evil, "started")
    line(fresh, evil, evil, evil)
    log_in(browser, fresh)
    shows(browser, "#log", "<img src=x")
    shows(browser, "#steps", "<script>")
    assert browser.evaluate("document.querySelectorAll('#columns img:not(#badge-image), #columns script').length") == 0
    assert "owned" not in browser.evaluate("document.title").split(" · ")[0]


def test_after_a_restart_the_page_goes_on_without_a_gap(browser: Browser, fresh: RunningSidecar) -> None:
    step(fresh, "shop", "1", "build", "started")
    line(fresh, "shop", "1", "before")
    log_in(browser, fresh)
    shows(browser, "#log", "before")
    fresh.kill()
    browser.wait_for("document.getElementById('link').textContent !== 'live'")
    fresh.start()
    line(fresh, "shop", "1", "while away")
    browser.wait_for("document.getElementById('link').textContent === 'live'")
    line(fresh, "shop", "1", "after")
    shows(browser, "#log", "after")
    assert text(browser, "#log").splitlines() == ["before", "while away", "after"]


def test_a_phone_needs_no_sideways_scrolling(browser: Browser, fresh: RunningSidecar, tmp_path: Path) -> None:
    step(fresh, "a-project-with-quite-a-long-name-for-a-phone", "1234567890123456789", "build", "started")
    line(fresh, "a-project-with-quite-a-long-name-for-a-phone", "1234567890123456789", "x" * 300)
    log_in(browser, fresh)
    shows(browser, "#log", "xxx")
    browser.screenshot(tmp_path / "phone.png", *PHONE)
    assert browser.evaluate("document.documentElement.scrollWidth") <= PHONE[0]


def test_a_stranger_is_told_how_to_log_in(browser: Browser, fresh: RunningSidecar) -> None:
    browser.open(f"{fresh.url}/project-dashboard/")
    shows(browser, "#problem", "sidecar login")


def test_open_mode_is_said_on_the_page(browser: Browser, start_sidecar: Start) -> None:
    server = start_sidecar(SIDECAR_OPEN="true")
    step(server, "shop", "1", "build", "started")
    browser.open(f"{server.url}/project-dashboard/")
    shows(browser, ".warning", "Open mode")
    shows(browser, "#steps", "build")
