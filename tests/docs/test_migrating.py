"""docs/migrating.md: each older shape is posted as it is written there, the old address behind a real nginx, and events
are turned back by the page's own lines."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.docs import pages
from tests.docs.stranger import Stranger
from tests.programs import require, running_nginx

PAGE = pages.read("docs/migrating.md")
POSTS = [block.text for block in pages.commands(PAGE)]
CONF = (pages.ROOT / "nginx" / "sidecar.conf").read_text()


def test_every_shape_is_taken_as_it_is_written(stranger: Stranger) -> None:
    assert len(POSTS) == 6
    told = stranger.follow(*POSTS)
    answers = [json.loads(line) for line in told.replace("}{", "}\n{").splitlines()]
    assert [answer["type"] for answer in answers] == [
        "test",
        "deployment_completed",
        "deployment_started",
        "step_completed",
        "log_entry",
        "deployment_completed",
    ]
    assert [answer["repaired"] for answer in answers] == [False, False, False, False, True, False]
    assert answers[2]["deployment_id"] == answers[3]["deployment_id"], "the newest that is not over"
    summary = stranger.sidecar.get(f"/api/deployments/{answers[2]['deployment_id']}").json()
    assert [step["name"] for step in summary["steps"]] == ["validate_artifact", "deploy_project", "configure_nginx"]
    (line,) = stranger.sidecar.get("/api/deployments/987654321/logs").json()["items"]
    assert line["message"].startswith("npm ci")
    assert stranger.sidecar.get("/api/deployments/987654321").json()["status"] == "success"


def test_what_is_said_of_answers_is_so(stranger: Stranger) -> None:
    """The table of section 4, and what is said not to be here."""
    sidecar, path = stranger.sidecar, "/project-dashboard/api/webhooks/deployment"
    assert sidecar.post(path, {"type": "test", "project": "p"}, token="").status_code == 401
    numbers = []
    for body in (b'{"status":"success"}', b'{"type":"step_updated","project":"p"}', b"status=success"):
        answer = sidecar.post(path, content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, bool(answer.json()["errors"])) == (400, True), body
        numbers.append(int(answer.json()["detail"].rpartition("delivery ")[2].rstrip(".")))
    kept = sidecar.get("/api/deliveries?verdict=quarantined&limit=3").json()["items"]
    assert [item["number"] for item in kept] == numbers[::-1]
    for missing in re.findall(r"`(/api/[^`]+)`", PAGE.partition("Not here:")[2].partition("(404)")[0]):
        assert sidecar.post(missing, {}).status_code == 404
    listed = sidecar.get("/api/deployments?page=1&limit=20").json()
    assert set(listed["pagination"]) == {"page", "limit", "total", "totalPages", "hasNext", "hasPrev"}


def test_senders_without_a_token_are_let_in_where_that_is_set(begin: Callable[..., Stranger]) -> None:
    stranger = begin(SIDECAR_OPEN="webhooks")
    anonymous = [re.sub(r'-H "Authorization: Token \$TOKEN"', "", text) for text in POSTS]
    assert not any("$TOKEN" in text for text in anonymous)
    stranger.follow(*(text.partition("\n")[2] if text.startswith("TOKEN=") else text for text in anonymous))


def test_the_oldest_address_is_handed_on_and_no_other(sidecar: Any, tmp_path: Path, name: str) -> None:
    site = CONF.replace("# BEGIN sidecar", pages.one(PAGE, "nginx") + "\nlocation /api/ { return 418; }\n")
    body = {"type": "test", "project": name}
    headers = {"Authorization": f"Token {sidecar.token}"}
    with running_nginx(tmp_path / "site", site, sidecar.port) as nginx:
        for path in ("/api/webhooks/deployment", "/api/webhook/deployment", "/api/webhook/step/"):
            assert httpx.post(nginx.url + path, json=body, headers=headers).json()["success"] is True
        for path in ("/api/webhooks/github", "/api/deployments", "/api/webhooks/deployment/x"):
            assert httpx.post(nginx.url + path, json=body, headers=headers).status_code == 418


@pytest.mark.parametrize("type", ["step_completed", "deployment_completed"])
def test_events_are_turned_back(type: str) -> None:
    event = {
        "type": type,
        "payload": {"project": "p", "deployment_id": "7", "step_name": "build", "workflow_name": "w"},
        "timestamp": "2026-01-01T12:00:00.000Z",
    }
    script = (
        "const heard = []; const handle = (event) => heard.push(event);"
        f"const socket = {{ on: (name, listener) => listener({json.dumps(event)}) }};"
        f"{pages.one(PAGE, 'js')}; console.log(JSON.stringify(heard));"
    )
    done = subprocess.run([require("node"), "-e", script], capture_output=True, text=True, check=True, timeout=30)
    (told,) = json.loads(done.stdout)
    assert told["type"] == ("step_updated" if type == "step_completed" else type)
    assert told["timestamp"] == event["timestamp"]
    assert told["payload"].items() >= {"projectId": "p", "deploymentId": "7", "stepName": "build"}.items()
