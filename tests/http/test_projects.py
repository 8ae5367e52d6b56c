"""Projects as a whole over HTTP: figures, the shape of the guide's front end, what is stale, and deleting one."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from tests.conftest import Start
from tests.servers import RunningSidecar

WEBHOOK = "/api/webhooks/deployment"


def post(
    server: RunningSidecar, project: str, id: str, type: str = "deployment_started", **more: Any
) -> dict[str, Any]:
    body = {"type": type, "project": project, "deployment_id": id} | more
    if type.startswith("deployment"):
        body.setdefault("status", "running")
    answer = server.post(WEBHOOK, body)
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    return made


def metrics(server: RunningSidecar, project: str, token: str | None = None, **query: str):
    return server.get(f"/api/projects/{quote(project, safe='')}/metrics", token, params=query)


def delete(server: RunningSidecar, project: str, token: str | None = None):
    return server.request("DELETE", f"/api/projects/{quote(project, safe='')}", token)


def test_the_figures_of_a_project(sidecar, name):
    for number, (status, seconds) in enumerate([("success", 10), ("failed", 30), ("success", 20), ("cancelled", 99)]):
        id = f"{name}/{number}"
        step = {"step_name": "build", "step_status": "failed" if status == "failed" else "success", "duration": number}
        post(sidecar, name, id, "step_completed", **step)
        post(sidecar, name, id, "deployment_completed", status=status, duration=seconds)
    post(sidecar, name, f"{name}/4")
    answer = metrics(sidecar, name)
    assert answer.status_code == 200
    body = answer.json()
    info = sidecar.get("/api/info").json()
    assert (body["seq"], body["epoch"], body["project"]) == (info["seq"], info["epoch"], name)
    assert {status: count for status, count in body["counts"].items() if count} == {
        "total": 5,
        "success": 2,
        "failed": 1,
        "cancelled": 1,
        "running": 1,
    }
    assert body["success_rate"] == 0.6667
    assert body["duration"] == {"count": 4, "p50": 20, "p95": 99}
    assert body["steps"] == [{"name": "build", "count": 4, "success_rate": 0.75, "p50": 1, "p95": 3}]
    assert len(body["days"]) == 30
    today = body["days"][-1]
    assert today.pop("day") == body["until"][:10]
    assert today == {"total": 5, "success": 2, "failed": 1, "other": 2, "p50": 20}
    assert {day["total"] for day in body["days"][:-1]} == {0}


def test_the_figures_of_another_time(sidecar, name):
    post(sidecar, name, name)
    body = metrics(sidecar, name, since="2026-01-01", until="2026-01-03T12:00:00+02:00").json()
    assert (body["since"], body["until"]) == ("2026-01-01T00:00:00.000Z", "2026-01-03T10:00:00.000Z")
    assert [day["day"] for day in body["days"]] == ["2026-01-01", "2026-01-02", "2026-01-03"]
    assert (body["counts"]["total"], body["success_rate"], body["duration"]["p50"]) == (0, None, None)


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ({"since": "yesterday"}, ["since"]),
        ({"since": "2026-01-02", "until": "2026-01-01"}, ["since"]),
        ({"since": "2026-01-02", "until": "2026-01-02"}, ["since"]),
        ({"since": "2024-01-01", "until": "2026-01-01"}, ["since"]),
        ({"since": "9999-01-01"}, ["since"]),
        ({"since": "0001-01-01", "until": "0001-01-02"}, ["since", "until"]),
        ({"since": "null"}, ["since"]),
        ({"until": "x" * 1000}, ["until"]),
        ({"since": "１２", "until": "99999999999999999999"}, ["since", "until"]),
    ],
)
def test_absurd_times_are_refused_by_their_fields(sidecar, name, query, fields):
    post(sidecar, name, name)
    answer = metrics(sidecar, name, **query)
    assert answer.status_code == 400
    assert [item["path"] for item in answer.json()["errors"]] == fields


def test_who_may_not_see_a_project_learns_nothing_of_it(sidecar, name):
    post(sidecar, name, name)
    other = sidecar.new_token("deployments:read", projects=[f"{name}-other"])
    answers = [metrics(sidecar, project, other) for project in (name, f"{name}-never")]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].json()["detail"] == answers[1].json()["detail"]
    assert metrics(sidecar, name, "").status_code == 401
    assert metrics(sidecar, name, sidecar.new_token("webhooks:write")).status_code == 403
    assert metrics(sidecar, name, sidecar.new_token("deployments:read", projects=[name])).status_code == 200


def test_a_deployment_in_the_shape_of_the_guides_front_end(sidecar, name):
    common = {"workflow_name": "w", "timestamp": "2026-11-21T06:00:00Z"}
    for step, status in [("a", "started"), ("b", "running"), ("c", "retrying"), ("d", "queued"), ("e", "skipped")]:
        post(sidecar, name, name, "step_manual", step_name=step, step_status=status, **common)
    post(
        sidecar, name, name, "step_completed", step_name="f", step_status="completed", duration=12, logs="ok", **common
    )
    post(sidecar, name, name, "step_completed", step_name="g", step_status="cancelled", **common)
    post(sidecar, name, name, "log_batch", logs=[{"message": "one"}, {"message": "two"}])
    post(sidecar, name, name, "deployment_completed", status="failure", duration=45)
    body = sidecar.get(f"/api/deployments/{name}?shape=ui").json()
    steps = body.pop("steps")
    assert body == {"id": name, "project": name, "status": "failed", "duration": 45, "logs": ["one", "two"]}
    assert [(step["stepName"], step["status"]) for step in steps] == [
        ("a", "started"),
        ("b", "running"),
        ("c", "retrying"),
        ("d", "started"),
        ("e", "completed"),
        ("f", "completed"),
        ("g", "failed"),
    ]
    assert steps[5] == {
        "stepName": "f",
        "status": "completed",
        "duration": 12,
        "logs": "ok",
        "timestamp": "2026-11-21T06:00:00.000Z",
    }


def test_the_shape_has_the_newest_lines_and_else_what_the_end_told(sidecar, name):
    post(sidecar, name, name, "log_batch", logs=[{"message": str(number)} for number in range(1_200)])
    logs = sidecar.get(f"/api/deployments/{name}?shape=ui").json()["logs"]
    assert logs == [str(number) for number in range(200, 1_200)]
    post(sidecar, name, f"{name}-2", "deployment_completed", status="success", logs="one\ntwo")
    assert sidecar.get(f"/api/deployments/{name}-2?shape=ui").json()["logs"] == ["one", "two"]


@pytest.mark.parametrize("shape", ["", "UI", "ui,ui", "tree"])
def test_another_shape_is_refused(sidecar, name, shape):
    post(sidecar, name, name)
    answer = sidecar.get(f"/api/deployments/{name}", params={"shape": shape})
    assert answer.status_code == 400
    assert [item["path"] for item in answer.json()["errors"]] == ["shape"]


def test_what_is_stale_is_shown_so_everywhere_until_there_is_news(start_sidecar: Start):
    """A sender that gave up without a word must not look as if it worked on for ever."""
    server = start_sidecar(SIDECAR_STALE_AFTER_HOURS="0.0000001", SIDECAR_PUBLIC_BADGES="*")
    post(server, "shop", "1")

    def shown() -> list[tuple[Any, ...]]:
        one, ui = server.get("/api/deployments/1").json(), server.get("/api/deployments/1?shape=ui").json()
        listed = server.get("/api/deployments?status=unknown").json()["items"]
        project = server.get("/api/projects").json()["items"][0]
        counts = metrics(server, "shop").json()["counts"]
        badge = server.get("/api/badges/shop.svg", token="").text
        return [
            *((item["status"], item["stale"], item.get("last_status")) for item in (one, *listed, project)),
            (ui["status"], counts["running"], counts["unknown"], ">stale<" in badge),
        ]

    stale = ("unknown", True, "running")
    assert shown() == [stale, stale, stale, ("unknown", 0, 1, True)]
    post(server, "shop", "1", "deployment_completed", status="success")
    over = ("success", False, None)
    assert shown() == [over, over, ("success", 0, 0, False)]


def test_a_deleted_project_is_gone_and_a_new_post_makes_it_anew(sidecar, name):
    project = f"{name}/商店"
    for number in range(3):
        post(sidecar, project, f"{name}#{number}", "step_started", step_name="build")
        post(sidecar, project, f"{name}#{number}", "log_entry", message="secret")
    answer = delete(sidecar, project)
    assert answer.status_code == 200
    assert answer.json() == {
        "success": True,
        "message": "The project is deleted.",
        "project": project,
        "finished": True,
        "deployments": 3,
        "steps": 3,
        "lines": 3,
        "events": 7,
        "deliveries": 6,
    }
    assert metrics(sidecar, project).status_code == 404
    assert sidecar.get(f"/api/deployments/{name}%230").status_code == 404
    assert sidecar.get(f"/api/deployments/{name}%230/events").status_code == 404
    assert delete(sidecar, project).status_code == 404
    post(sidecar, project, f"{name}#0", "log_entry", message="new")
    assert metrics(sidecar, project).json()["counts"]["total"] == 1
    lines = sidecar.get(f"/api/deployments/{name}%230/logs").json()["items"]
    assert [line["message"] for line in lines] == ["new"]


def test_only_an_admin_deletes(sidecar, name):
    post(sidecar, name, name)
    assert delete(sidecar, name, "").status_code == 401
    token = sidecar.new_token("webhooks:write", "deployments:read", projects=[name])
    assert delete(sidecar, name, token).status_code == 403
    assert metrics(sidecar, name).status_code == 200


def test_deliveries_of_a_deleted_project_can_be_listed_and_not_replayed(sidecar, name):
    post(sidecar, name, name)
    number = sidecar.get("/api/deliveries?limit=1").json()["items"][0]["number"]
    assert delete(sidecar, name).json()["deliveries"] == 1
    kept = sidecar.get(f"/api/deliveries/{number}").json()
    assert (kept["verdict"], kept["project"], kept["deployment_id"], kept["headers"]) == ("erased", None, None, {})
    assert name not in str(kept)
    assert number in [item["number"] for item in sidecar.get("/api/deliveries?verdict=erased").json()["items"]]
    refused = sidecar.post(f"/api/deliveries/{number}/replay")
    assert refused.status_code == 409
    assert [item["path"] for item in refused.json()["errors"]] == ["project"]


def test_a_key_that_was_used_before_the_deletion_counts_no_more(sidecar, name):
    """Otherwise a repeated post would be answered as stored, and be nowhere."""
    body = {"type": "log_entry", "project": name, "deployment_id": name, "message": "x"}
    headers = {"Idempotency-Key": name}
    assert sidecar.post(WEBHOOK, body, headers=headers).json()["duplicate"] is False
    assert sidecar.post(WEBHOOK, body, headers=headers).json()["duplicate"] is True
    delete(sidecar, name)
    assert sidecar.post(WEBHOOK, body, headers=headers).json()["duplicate"] is False
    assert metrics(sidecar, name).json()["counts"]["total"] == 1


def test_by_the_command_line(sidecar, name):
    post(sidecar, name, name)
    asked = sidecar.cli("project", "delete", name, stdin=b"n\n")
    assert asked.returncode == 1
    assert "can't be undone" in asked.stdout
    assert metrics(sidecar, name).status_code == 200
    done = sidecar.cli("project", "delete", name, stdin=b"y\n", SIDECAR_URL=sidecar.url)
    assert done.returncode == 0
    assert done.stdout.endswith("The project is deleted: 1 deployments, 0 steps, 0 lines, 2 events, 1 deliveries.\n")
    gone = sidecar.cli("project", "delete", name, "--yes", SIDECAR_URL=sidecar.url)
    assert gone.returncode == 1
    assert "no such project" in gone.stderr
