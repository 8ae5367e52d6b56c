"""`?count=`: whose connections the `recipients` of an answer are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.governing import short_name

STEP = {"type": "step_started", "step_name": "build"}
HERE = {"latitude": 52.5, "longitude": 13.4}
NOTICE = {"type": "system_notification", "to": "all", "data": {}}
ROUTES = [
    ("POST", "/api/send-websocket/", {}),
    ("POST", "/ashe/push-location", HERE),
    ("POST", "/api/broadcast/", {"message": "x"}),
    ("POST", "/api/notify-user/", {"user_id": "ada", "message": "x"}),
    ("POST", "/api/webhooks/deployment", STEP),
    ("POST", "/api/webhook/step", STEP),
    ("POST", "/api/permissions/notify", NOTICE),
    ("PUT", "/api/menu/{name}", {"name": "x"}),
    ("PATCH", "/api/menu/{name}", {"icon": "{name}"}),
    ("POST", "/api/menu/sync?dry_run=1", {"items": [{"key": "{name}-2", "name": "x"}]}),
    ("DELETE", "/api/menu/{name}", None),
]


@pytest.fixture(params=ROUTES, ids=lambda route: f"{route[0]} {route[1]}")
def ask(request, sidecar, name):
    """`ask("count=all")`: the answer of a route with this query."""
    method, path, body = json.loads(json.dumps(request.param).replace("{name}", short_name()))
    if body is STEP or path.startswith("/api/webhook"):
        body |= {"project": name, "deployment_id": name}
    if method in ("PATCH", "DELETE"):
        assert sidecar.request("PUT", path, json={"name": "y"}).status_code == 200

    def answer(query: str) -> Any:
        options = {} if body is None else {"json": body}
        return sidecar.request(method, f"{path}{'&' if '?' in path else '?'}{query}", **options)

    return answer


@pytest.mark.parametrize(
    ("query", "nodes"), [("", None), ("count=node", None), ("count=all", {"asked": 1, "answered": 1})]
)
def test_the_answer_says_of_how_many_processes_they_are(ask, query: str, nodes: dict[str, int] | None):
    answer = ask(query)
    assert answer.status_code == 200, answer.text
    assert answer.json()["recipients"] >= 0
    assert answer.json().get("nodes") == nodes


@pytest.mark.parametrize("value", ["everybody", "", "All"])
def test_another_word_is_refused(ask, value: str):
    answer = ask(f"count={value}")
    assert answer.status_code == 400
    assert [(error["path"], error["message"]) for error in answer.json()["errors"]] == [
        ("count", "must be node or all")
    ]


def test_a_write_that_changes_nothing_is_told_to_nobody(sidecar):
    key = short_name()
    for nodes in ({"asked": 1, "answered": 1}, {"asked": 0, "answered": 0}):
        answer = sidecar.request("PUT", f"/api/menu/{key}?count=all", json={"name": "x"}).json()
        assert (answer["recipients"], answer["nodes"]) == (0, nodes)


def test_a_repetition_is_counted_as_it_is_now(sidecar, name):
    for duplicate in (False, True):
        answer = sidecar.post(
            "/api/send-websocket/?count=all", {"room": name}, headers={"Idempotency-Key": name}
        ).json()
        assert (answer["duplicate"], answer["nodes"]) == (duplicate, {"asked": 1, "answered": 1})


def test_the_command_line_counts_everywhere(sidecar, name):
    answer = sidecar.cli("send", "--room", name, "--everywhere", "hello", SIDECAR_PORT=str(sidecar.port))
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.endswith("; 0 connections at 1 processes get it now.\n")
