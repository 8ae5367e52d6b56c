"""README.md, followed word by word; and README.zh-CN.md, which says the same."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from tests.chromium import Browser
from tests.docs import pages
from tests.docs.stranger import Stranger
from tests.programs import free_port

README = pages.read("README.md")
OTHER_TESTS = {
    r"git clone .*": "there is a clone already",
    r"make run": "the server runs already",
    r".*-m sidecar demo": "tests/test_cli.py; it takes its time",
    r".*examples/rest_to_websocket\.py 1": "tests/examples/test_rest_to_websocket.py; it takes its time",
    r".*examples/permissions_socket\.py": "tests/examples/test_permissions_socket.py",
    r"sudo .*": "tests/docs/test_nginx.py",
}
"""Lines that are not run here, and why."""


def test_every_command_works_as_it_stands(stranger: Stranger) -> None:
    lines = "".join(block.text for block in pages.commands(README)).splitlines()
    left = [line for line in lines if not any(re.fullmatch(pattern, line) for pattern in OTHER_TESTS)]
    assert all(any(re.fullmatch(pattern, line) for line in lines) for pattern in OTHER_TESTS)
    assert len(lines) - len(left) == 7

    told = stranger.follow(*left)

    assert '"success":true' in told
    assert '"token":"ey' in told
    listed = stranger.sidecar.get("/api/deployments?project=my-project").json()["items"]
    assert {"1", "2"} <= {item["id"] for item in listed}
    last = stranger.sidecar.get("/api/deployments/2").json()
    assert [(step["name"], step["status"]) for step in last["steps"]] == [("build", "success")]
    assert last["status"] == "success"
    assert {item["key"] for item in stranger.sidecar.get("/api/menu").json()["items"]} >= {"home", "reports"}


def test_the_page_hears_of_the_first_curl(
    begin: Callable[..., Stranger], browser: Browser, serve_site: Callable[..., None]
) -> None:
    port = free_port()
    stranger = begin(SIDECAR_ALLOWED_ORIGINS=f"http://127.0.0.1:{port}")
    serve_site(stranger, port, pages.one(README, "html"))
    browser.open(f"http://127.0.0.1:{port}/")
    browser.wait_for("socket.connected")
    browser.evaluate("window.heard = []; socket.on('event', ({ type }) => heard.push(type)); null")
    first = next(block for block in pages.commands(README) if "api/webhooks/deployment" in block.text)
    assert json.loads(stranger.follow(first.text))["success"] is True
    browser.wait_for("heard.includes('step_started')")
    assert [error for error in browser.errors if "favicon.ico" not in error] == []


def code_of(page: str) -> list[tuple[str, list[str]]]:
    """Its blocks without what is said in words: comments, and what echo prints."""
    plain = [(block.language, re.sub(r"(?:(?<=\s)#|//) .*", "", block.text)) for block in pages.blocks(page)]
    return [(language, [line.rstrip() for line in text.splitlines()]) for language, text in plain]


def test_the_chinese_readme_has_the_same_commands_links_and_tables() -> None:
    chinese = pages.read("README.zh-CN.md")
    own = "<address of this repository>", "<本仓库地址>"
    assert code_of(chinese.replace(own[1], own[0])) == code_of(README)
    other = {"README.md", "README.zh-CN.md"}
    for pattern in (r"\]\(([^)]*)\)", r"`(SIDECAR_\w+|/[\w-]+(?:/[\w-]+)*)", r"^\| (`[^|]*)\|"):
        found, wanted = (re.findall(pattern, page, re.MULTILINE) for page in (chinese, README))
        assert sorted(set(found) - other) == sorted(set(wanted) - other)
    assert "(README.zh-CN.md)" in README
    assert "(README.md)" in chinese
    assert len(chinese.splitlines()) < 150
