"""A project on the page that comes with the sidecar, in a real Chromium: its figures, its badge, and its end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.chromium import Browser, Chromium
from tests.conftest import Start
from tests.pages import DESKTOP, PHONE, fill, log_in, needs_no_sideways_scrolling, press, shows, text
from tests.servers import RunningSidecar


@pytest.fixture
def fresh(start_sidecar: Start) -> RunningSidecar:
    return start_sidecar(SIDECAR_RATE_LIMIT="off")


@pytest.fixture
def other(chromium: Chromium) -> Iterator[Browser]:
    """Somebody else's page."""
    with Browser(chromium) as browser:
        yield browser


def deployed(server: RunningSidecar, project: str, id: str, status: str, seconds: int) -> None:
    common: dict[str, Any] = {"project": project, "deployment_id": id}
    step = {"type": "step_completed", "step_name": "build", "step_status": status, "duration": seconds - 1}
    for body in (step, {"type": "deployment_completed", "status": status, "duration": seconds}):
        assert server.post("/api/webhooks/deployment", body | common).status_code == 200


def shop(server: RunningSidecar, project: str = "shop") -> None:
    for number, (status, seconds) in enumerate([("success", 20), ("failed", 90), ("success", 40)], 1):
        deployed(server, project, f"{project}-{number}", status, seconds)


def go(browser: Browser, project: str) -> None:
    browser.evaluate(f"location.hash = '#/' + encodeURIComponent('{project}'); null")
    shows(browser, "#list-title", project)
    browser.wait_for("!document.getElementById('project').hidden")


def opened(browser: Browser) -> None:
    browser.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true }); null")


def test_a_projects_figures_are_shown_and_follow_what_happens(browser: Browser, fresh: RunningSidecar) -> None:
    shop(fresh)
    log_in(browser, fresh)
    go(browser, "shop")
    shows(browser, "#figures", "66.6 %")
    assert text(browser, "#figures").split("\n") == [
        *("Succeeded", "66.6 %"),
        *("Deployments", "3"),
        *("Duration, p50", "40 s"),
        *("Duration, p95", "1 min 30 s"),
    ]
    opened(browser)
    assert text(browser, "#step-rows").split("\t") == ["build", "3", "66.6 %", "39 s", "1 min 29 s"]
    days = browser.evaluate("[...document.querySelectorAll('#trend title')].map((day) => day.textContent)")
    assert len(days) == 30
    assert days[-1].endswith(": 3 deployments, 2 succeeded, 1 failed, p50 40 s")
    label = browser.evaluate("document.querySelector('#trend svg').getAttribute('aria-label')")
    assert label == "3 deployments in 30 days, 1 failed; at most 3 a day"
    deployed(fresh, "shop", "shop-4", "success", 10)
    shows(browser, "#figures", "75 %")
    assert browser.errors == []


def test_a_badge_can_be_copied_and_is_the_one_that_is_shown(browser: Browser, fresh: RunningSidecar) -> None:
    shop(fresh, "商店 (a)/b")
    log_in(browser, fresh)
    go(browser, "商店 (a)/b")
    opened(browser)
    fill(browser, "#badge-kind", "success-rate")
    browser.wait_for("document.getElementById('badge-image').complete")
    address: str = browser.evaluate("document.getElementById('badge-image').src")
    assert browser.evaluate("document.getElementById('badge-text').value") == f"![deploy]({address})"
    assert not set("() ") & set(address)
    assert browser.evaluate("document.getElementById('badge-image').naturalWidth") > 100
    shown = fresh.get(address.removeprefix(fresh.url)).text
    assert "66 %" in shown
    press(browser, "#badge-copy")
    shows(browser, "#badge-copy", "Copied")
    assert browser.errors == []


def test_an_admin_deletes_a_project_and_it_leaves_every_open_page(
    browser: Browser, other: Browser, fresh: RunningSidecar
) -> None:
    shop(fresh)
    shop(fresh, "kept")
    log_in(browser, fresh)
    go(browser, "shop")
    link = fresh.cli("login", SIDECAR_URL=fresh.url).stdout.split()[-1]
    other.open(link)
    other.evaluate("document.querySelector('button').click()")
    other.wait_for("document.getElementById('link')?.textContent === 'live'")
    go(other, "shop")
    press(browser, "#delete")
    shows(browser, "#delete-title", "Delete shop?")
    press(browser, "#delete-no")
    browser.wait_for("!document.getElementById('delete-dialog').open")
    assert fresh.get("/api/projects/shop/metrics").status_code == 200
    press(browser, "#delete")
    press(browser, "#delete-yes")
    for page in (browser, other):
        shows(page, "#notice", "The project shop has been deleted.")
        page.wait_for("document.getElementById('list-title').textContent === 'kept'")
        page.wait_for("!document.getElementById('delete-dialog').open")
        assert "shop" not in text(page, "#projects")
        shows(page, "#detail-title", "kept-3")
        assert text(page, "#problem") == ""
    assert fresh.get("/api/projects/shop/metrics").status_code == 404
    assert fresh.request("DELETE", "/api/projects/shop").status_code in (200, 404), "to its end"
    deployed(fresh, "shop", "shop-9", "success", 5)
    for page in (browser, other):
        shows(page, "#projects", "shop")
        go(page, "shop")
        shows(page, "#detail-title", "shop-9")
        assert page.errors == []


def test_who_was_away_at_a_deletion_finds_it_done(browser: Browser, fresh: RunningSidecar) -> None:
    shop(fresh)
    log_in(browser, fresh)
    go(browser, "shop")
    fresh.stop()
    browser.wait_for("document.getElementById('link').textContent !== 'live'")
    fresh.start()
    assert fresh.request("DELETE", "/api/projects/shop").status_code == 200
    browser.wait_for("document.getElementById('link').textContent === 'live'")
    shows(browser, "#notice", "The project shop has been deleted.")
    browser.wait_for("document.getElementById('list').hidden")
    assert browser.evaluate("document.getElementById('detail').hidden") is True
    shows(browser, "#empty", "Nothing has been posted yet")


def test_who_is_no_admin_can_look_and_not_delete(browser: Browser, start_sidecar: Start) -> None:
    server = start_sidecar(SIDECAR_OPEN="true")
    shop(server)
    browser.open(f"{server.url}/project-dashboard/")
    shows(browser, "#figures", "66.6 %")
    assert browser.evaluate("document.getElementById('delete').hidden") is True
    assert browser.errors == []


def test_all_of_a_project_fits_a_phone(browser: Browser, fresh: RunningSidecar, tmp_path: Any) -> None:
    shop(fresh, "a-project-with-quite-a-long-name-for-a-phone-商店-前端")
    log_in(browser, fresh)
    shows(browser, "#figures", "66.6 %")
    opened(browser)
    for size in (PHONE, DESKTOP):
        browser.screenshot(tmp_path / "project.png", *size)
        assert needs_no_sideways_scrolling(browser)
