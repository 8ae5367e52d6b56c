"""examples/browser-menu: a menu in two windows, kept in sync, and shown without a server."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.serving import make_server

from tests.chromium import Browser
from tests.conftest import Start
from tests.pages import fill, press, shows
from tests.servers import RunningSidecar

FOLDER = Path(__file__).resolve().parent.parent.parent / "examples" / "browser-menu"


def create_app(*given: str) -> Any:
    """The example's; its folder is no package."""
    spec = importlib.util.spec_from_file_location("browser_menu_backend", FOLDER / "backend.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.create_app(*given)


@pytest.fixture
def team(start_sidecar: Start) -> Iterator[tuple[str, RunningSidecar]]:
    """The page's address, and the sidecar behind it."""
    server = make_server("127.0.0.1", 0, lambda environ, start_response: [], threaded=True)
    url = f"http://127.0.0.1:{server.server_port}"
    sidecar = start_sidecar(SIDECAR_ALLOWED_ORIGINS=url)
    token = sidecar.new_token("tokens:issue", "deployments:read", "menu:write")
    server.app = create_app(f"{sidecar.url}/project-dashboard", token)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield url, sidecar
    server.shutdown()
    thread.join()
    server.server_close()


def test_two_windows_show_the_same_menu(browser: Browser, team: tuple[str, RunningSidecar]) -> None:
    url, _ = team
    browser.open(f"{url}/login?user=ada")
    shows(browser, "#standing", "version")
    browser.evaluate("window.other = window.open('/'); null")
    browser.wait_for("other.document.getElementById('standing')?.textContent.startsWith('version')")
    fill(browser, "#add input", "Reports")
    press(browser, "#add button")
    shows(browser, "#menu", "Reports")
    browser.wait_for("other.document.getElementById('menu').innerText === 'Reports'")
    assert browser.errors == []


def test_a_stranger_is_told_to_log_in(browser: Browser, team: tuple[str, RunningSidecar]) -> None:
    browser.open(team[0])
    shows(browser, "#standing", "Log in first")
    shows(browser, "#user", "nobody")
