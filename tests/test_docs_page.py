"""The page that shows both documents, /api/docs, in a real Chromium."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.chromium import Browser
from tests.conftest import Start
from tests.pages import DESKTOP, PHONE, fill, needs_no_sideways_scrolling, text
from tests.servers import RunningSidecar

PREFIX = "/project-dashboard"
SHOWN = "document.getElementById('content').getAttribute('aria-busy') === 'false'"
Open = Callable[..., Browser]


@pytest.fixture
def opened(browser: Browser, sidecar: RunningSidecar) -> Iterator[Open]:
    """`opened(anchor, prefix)`: the page, all shown. Nothing may be wrong with it to the end."""

    def open_page(anchor: str = "", prefix: str = PREFIX) -> Browser:
        browser.open(f"{sidecar.url}{prefix}/api/docs{anchor and '#'}{anchor}")
        browser.wait_for(SHOWN)
        return browser

    yield open_page
    assert browser.errors == []


def press_key(browser: Browser, key: str, text: str | None = None) -> None:
    codes = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32}
    code = codes.get(key, ord(key[0].upper()))
    options: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": code}
    if key == "Enter":
        text = "\r"
    browser._call("Input.dispatchKeyEvent", type="keyDown", **options, **({"text": text} if text else {}))
    browser._call("Input.dispatchKeyEvent", type="keyUp", **options)


def documents(sidecar: RunningSidecar) -> tuple[Any, Any]:
    http, sockets = (sidecar.get(f"{PREFIX}/api/{name}api.json", token="").json() for name in ("open", "async"))
    return http, sockets


@pytest.mark.parametrize("prefix", ["", PREFIX])
def test_every_operation_of_both_documents_is_shown(opened: Open, sidecar: RunningSidecar, prefix: str) -> None:
    page = opened(prefix=prefix)
    http, sockets = documents(sidecar)
    wanted = {f"{method.upper()} {path}" for path, found in http["paths"].items() for method in found}
    heads = "[...document.querySelectorAll('.operation > summary')]"
    shown = page.evaluate(f"{heads}.map((one) => one.children[0].textContent + ' ' + one.children[1].textContent)")
    assert wanted <= set(shown)
    assert len(shown) == len(wanted) + len(sockets["operations"])
    assert len(set(page.evaluate("[...document.querySelectorAll('[id]')].map((one) => one.id)"))) == page.evaluate(
        "document.querySelectorAll('[id]').length"
    )


def test_each_can_be_opened(opened: Open) -> None:
    """All bodies, answers and messages are filled in without an error, and none of them is empty."""
    page = opened()
    empty = page.evaluate("""(() => {
      for (const one of document.querySelectorAll('.operation')) one.fill();
      const all = [...document.querySelectorAll('.operation')];
      return all.filter((one) => !one.querySelector('.body').textContent.trim()).map((one) => one.id);
    })()""")
    assert empty == []
    assert (
        page.evaluate("""(async () => {
      for (const one of document.querySelectorAll('.operation details')) one.open = true;
      await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
      return document.body.textContent.includes('undefined') || document.body.textContent.includes('[object');
    })()""")
        is False
    )


@pytest.mark.parametrize(
    ("anchor", "words"),
    [
        ("get-api-deployments", "deployments:read|limit|1 to 200|cursor|200|400|401|503|$SIDECAR_TOKEN"),
        ("socket-subscribe_project", "subscribe:project|argument 1|since|answer to subscribe_project|refused"),
    ],
)
def test_an_operation_says_all_of_itself(opened: Open, anchor: str, words: str) -> None:
    shown = text(opened(anchor), f"#{anchor}")
    assert [word for word in words.split("|") if word not in shown] == []


@pytest.mark.parametrize("anchor", ["get-healthz", "get-api-projects", "get-api-deployments"])
def test_its_curl_line_works(opened: Open, sidecar: RunningSidecar, anchor: str) -> None:
    line = text(opened(anchor), f"#{anchor} .copying pre")
    command = ["bash", "-c", f"{line} --fail --silent"]
    environment = {"SIDECAR_TOKEN": sidecar.token, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment, check=True)
    assert isinstance(json.loads(done.stdout), dict)


def test_the_curl_line_of_the_webhook_posts_a_step(opened: Open, sidecar: RunningSidecar, start_sidecar: Start) -> None:
    """To a sidecar that has no other deployment of that name."""
    anchor = "post-api-webhooks-deployment"
    shown = text(opened(anchor), f"#{anchor} .copying pre")
    assert sidecar.url in shown
    server = start_sidecar()
    line = shown.replace(sidecar.url, server.url)
    environment = {"SIDECAR_TOKEN": server.token, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        ["bash", "-c", f"{line} --silent"], capture_output=True, text=True, timeout=30, env=environment, check=True
    )
    assert json.loads(done.stdout)["type"] == "step_started"


def test_a_curl_line_is_copied(opened: Open) -> None:
    page = opened("get-healthz")
    page.evaluate("""(() => {
      const told = window.copied = [];
      Object.defineProperty(navigator, 'clipboard', { value: { writeText: async (text) => { told.push(text); } } });
      document.querySelector('#get-healthz .copying button').click();
    })()""")
    page.wait_for("document.querySelector('#get-healthz .copying button').textContent === 'Copied'")
    assert page.evaluate("window.copied") == [text(page, "#get-healthz .copying pre")]
    page.wait_for("document.getElementById('told').textContent.startsWith('Copied')")
    page.wait_for("document.querySelector('#get-healthz .copying button').textContent === 'Copy'")


class TestSearch:
    def test_finds_operations_and_messages(self, opened: Open) -> None:
        page = opened()
        for words, found in (
            ("deliveries replay", "post-api-deliveries"),
            ("step_manual", "socket-events"),
            ("heartbeat", "socket-heartbeat"),
        ):
            fill(page, "#query", words)
            page.evaluate("document.getElementById('query').dispatchEvent(new Event('input')); null")
            shown = page.evaluate(
                "[...document.querySelectorAll('.operation')].filter((one) => one.offsetParent).map((one) => one.id)"
            )
            assert any(found in id for id in shown), (words, shown)
            assert len(shown) < 10
            assert text(page, "#found") == f"{len(shown)} found"

    def test_finds_nothing_and_all_again(self, opened: Open) -> None:
        page = opened()
        fill(page, "#query", "<img src=x onerror=alert(1)>")
        page.evaluate("document.getElementById('query').dispatchEvent(new Event('input')); null")
        assert text(page, "#found") == "0 found"
        assert page.evaluate("document.querySelectorAll('.group:not([hidden])').length") == 0
        page.evaluate("document.getElementById('query').focus(); null")
        press_key(page, "Escape")
        assert page.evaluate("document.querySelectorAll('.group[hidden]').length") == 0


def test_without_a_mouse(opened: Open) -> None:
    """A slash leads to the search, Enter to what was found, Enter opens it, Tab leads to the copy button."""
    page = opened()
    press_key(page, "/", "/")
    assert page.evaluate("document.activeElement.id") == "query"
    page._call("Input.insertText", text="/api/projects")
    page.wait_for("document.getElementById('found').textContent.endsWith('found')")
    press_key(page, "Enter")
    page.wait_for("document.activeElement.tagName === 'SUMMARY'")
    place = "document.activeElement.closest('.operation')"
    assert page.evaluate(f"{place}.open") is False
    press_key(page, "Enter")
    page.wait_for(f"{place}?.open && {place}.querySelector('.copying')")
    press_key(page, "Tab")
    assert page.evaluate("document.activeElement.textContent") == "Copy"
    assert page.evaluate("location.hash") == f"#{page.evaluate(f'{place}.id')}"


@pytest.mark.parametrize("size", [PHONE, DESKTOP])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_it_fits_every_screen(opened: Open, tmp_path, size: tuple[int, int], colours: str) -> None:
    page = opened()
    page._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": colours}])
    page.evaluate(
        "for (const one of document.querySelectorAll('.operation, .operation details')) one.open = true; null"
    )
    page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done))).then(() => null)")
    page.screenshot(tmp_path / "page.png", *size)
    assert needs_no_sideways_scrolling(page)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    ink = page.evaluate("getComputedStyle(document.body).color")
    bright = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (paper, ink)]
    assert (bright[0] > bright[1]) == (colours == "light")


def test_without_scripts_it_leads_to_both_documents(browser: Browser, sidecar: RunningSidecar) -> None:
    browser._call("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(f"{sidecar.url}{PREFIX}/api/docs")
    page = sidecar.get(f"{PREFIX}/api/docs", token="").text
    noscript = page.partition("<noscript>")[2].partition("</noscript>")[0]
    for name in ("openapi.json", "asyncapi.json"):
        assert f'href="{PREFIX}/api/{name}"' in noscript
        assert page.count(f'href="{PREFIX}/api/{name}"') == 2


def test_it_loads_nothing_from_elsewhere_and_runs_nothing_inline(sidecar: RunningSidecar) -> None:
    answer = sidecar.get(f"{PREFIX}/api/docs", token="")
    policy = answer.headers["Content-Security-Policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\bon\w+=|\bstyle=", answer.text) == []
    assert re.findall(r'(?:src|href)="(?!/|#)', answer.text) == []
    for name in ("docs.js", "docs.css"):
        file = sidecar.get(f"/static/{name}", token="").text
        assert re.findall(r"innerHTML|insertAdjacentHTML|document\.write|eval\(|https?://(?!HOST)", file) == []


def test_a_document_that_does_not_come_is_told(browser: Browser, sidecar: RunningSidecar) -> None:
    browser._call("Network.enable")
    browser._call("Network.setBlockedURLs", urls=["*asyncapi.json"])
    browser.open(f"{sidecar.url}{PREFIX}/api/docs")
    browser.wait_for(SHOWN)
    assert "can't be shown" in text(browser, "#problem")
    assert browser.evaluate("document.querySelectorAll('.operation').length") > 10
