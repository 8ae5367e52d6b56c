"""docs/quickstart.md, followed word by word: tokens, workflow, back end, page."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import yaml

from tests.chromium import Browser
from tests.docs import pages
from tests.docs.stranger import Stranger
from tests.programs import free_port, require, running, wait_until

PAGE = pages.read("docs/quickstart.md")
HERE = [block for block in pages.commands(PAGE) if block.section[:2] in ("1.", "2.")]


def test_the_commands_report_a_deployment(stranger: Stranger) -> None:
    assert len(HERE) == 3
    told = stranger.follow(*(block.text for block in HERE))
    answers = [json.loads(line) for line in told.replace("}{", "}\n{").splitlines()]
    assert [answer["type"] for answer in answers] == ["step_started", "deployment_completed"]
    view = stranger.sidecar.get("/api/deployments/run-7").json()
    assert (view["status"], [step["name"] for step in view["steps"]]) == ("success", ["build"])


def test_the_workflow_reports_each_step_with_its_output(stranger: Stranger, tmp_path: Path) -> None:
    """What GitHub runs, as it runs it: each `run` by bash of its own, its expressions filled in before."""
    job = yaml.safe_load(pages.one(PAGE, "yaml"))["jobs"]["deploy"]
    assert job["env"]["SIDECAR_URL"].endswith("/project-dashboard")
    token = stranger.sidecar.new_token("webhooks:write", projects=[job["env"]["SIDECAR_PROJECT"]])
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "notify.sh").symlink_to(pages.ROOT / "examples" / "notify.sh")
    (repository / "Makefile").write_text("build:\n\t@echo 'it is \"built\"'\n")
    values = {"${{ secrets.SIDECAR_TOKEN }}": token, "${{ job.status }}": "failure"}
    url = f"{stranger.sidecar.url}/project-dashboard"
    environment = {name: values.get(text, text) for name, text in job["env"].items()} | {
        "SIDECAR_URL": url,
        "GITHUB_RUN_ID": "8675309",
        "GITHUB_RUN_ATTEMPT": "1",
    }
    for step in job["steps"]:
        if "run" in step:
            own = {name: values[text] for name, text in step.get("env", {}).items()}
            stranger.follow(f"cd {repository}", step["run"], **environment, **own)
    view = stranger.sidecar.get("/api/deployments/8675309").json()
    assert (view["status"], view["attempt"]) == ("failed", 1)
    assert [(step["name"], step["status"]) for step in view["steps"]] == [("build", "success")]
    lines = stranger.sidecar.get("/api/deployments/8675309/logs").json()["items"]
    assert [line["message"] for line in lines] == ['it is "built"']


def test_the_page_shows_what_is_posted(
    begin: Callable[..., Stranger], browser: Browser, serve_site: Callable[..., None]
) -> None:
    port = free_port()
    stranger = begin(SIDECAR_ALLOWED_ORIGINS=f"http://127.0.0.1:{port}")
    stranger.follow(*(block.text for block in HERE))
    serve_site(stranger, port, pages.one(PAGE, "html"))
    browser.open(f"http://127.0.0.1:{port}/")
    browser.wait_for("typeof since === 'string'")
    step = next(block.text for block in HERE if "run-7-build-1" in block.text).replace("run-7-build-1", "run-7-build-2")
    stranger.follow(HERE[0].text, step)
    browser.wait_for("document.getElementById('news').innerText.includes('step_started build running')")
    assert [error for error in browser.errors if "favicon.ico" not in error] == []
    token = browser.evaluate("fetchToken()")
    read = httpx.get(
        f"{stranger.sidecar.url}/project-dashboard/api/deployments/run-7", headers={"Authorization": f"Bearer {token}"}
    )
    assert read.json()["project"] == "my-project"


def test_the_back_end_in_node_answers_the_same(stranger: Stranger, tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "index.html").write_text("our page")
    text = pages.one(PAGE, "js", "createServer")
    (tmp_path / "backend.mjs").write_text(text.replace("5000", str(port)))
    token = stranger.sidecar.new_token("tokens:issue", "deployments:read", projects=["my-project"])
    environment = {"SIDECAR_URL": f"{stranger.sidecar.url}/project-dashboard", "SIDECAR_TOKEN": token}
    arguments = [require("node"), "backend.mjs"]
    with running(arguments, tmp_path / "output", os.environ | environment, tmp_path):
        wait_until(lambda: answers(port), "the back end answers")
        given = httpx.post(f"http://127.0.0.1:{port}/sidecar-token")
        assert given.status_code == 200
        url = f"{stranger.sidecar.url}/api/deployments?project=my-project"
        assert httpx.get(url, headers={"Authorization": f"Bearer {given.json()['token']}"}).status_code == 200
        assert httpx.get(f"http://127.0.0.1:{port}/other").status_code == 404


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/").text == "our page"
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("path", ["static/vendor/socket.io.min.js"])
def test_what_a_page_on_a_server_loads_is_there(stranger: Stranger, path: str) -> None:
    assert f'src="/project-dashboard/{path.split("/")[0]}/' in PAGE
    assert re.search(rf"/project-dashboard/{re.escape(path)}", PAGE)
    assert stranger.sidecar.get(f"/project-dashboard/{path}", token="").status_code == 200
