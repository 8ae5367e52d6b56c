"""One tenant's token must not reach another's deployments by any detour."""

from __future__ import annotations

PATH = "/api/webhooks/deployment"


def step(project: str, id: str, **more: object) -> dict[str, object]:
    return {"type": "step_started", "project": project, "deployment_id": id, "step_name": "build"} | more


def test_a_replay_has_the_rights_of_who_posted_not_of_who_replays(sidecar, name):
    """An admin clearing the quarantine used to carry out what the sender was never allowed."""
    own, foreign = f"{name}-a", f"{name}-b"
    token = sidecar.new_token("webhooks:write", projects=[own])
    body = {"type": "deployment_completed", "deployment_id": name, "status": "failed"}
    refused = sidecar.post(PATH, body, token)
    assert refused.status_code == 400
    number = int(refused.json()["detail"].rstrip(".").rpartition(" ")[2])
    assert sidecar.post(PATH, step(foreign, name)).status_code == 200
    assert sidecar.post(f"/api/deliveries/{number}/replay").status_code == 403
    assert sidecar.get(f"/api/deployments/{name}").json()["status"] == "running"


def test_a_known_foreign_id_is_refused_also_without_its_project(sidecar, name):
    sidecar.post(PATH, step(f"{name}-b", name))
    token = sidecar.new_token("webhooks:write", projects=[f"{name}-a"])
    assert sidecar.post(PATH, {"type": "log_entry", "deployment_id": name, "message": "x"}, token).status_code == 403


def test_one_key_for_two_projects_suppresses_neither(sidecar, name):
    """A run's number as key, one token for all workflows: the second project's post used to be lost with a 409."""
    for project in (f"{name}-a", f"{name}-b"):
        answer = sidecar.post(PATH, step(project, project), headers={"Idempotency-Key": name})
        assert (answer.status_code, answer.json()["duplicate"]) == (200, False)


def test_a_connection_token_writes_nowhere_outside_its_rooms(sidecar, name):
    issuer = sidecar.new_token("tokens:issue", "webhooks:write", "deployments:read")
    body = {"rooms": [f"project:{name}-a"], "scopes": ["webhooks:write"]}
    token = sidecar.post("/api/tokens/connection", body, issuer).json()["token"]
    assert sidecar.post(PATH, step(f"{name}-a", f"{name}-a"), token).status_code == 200
    assert sidecar.post(PATH, step(f"{name}-b", f"{name}-b"), token).status_code == 403


def test_admin_for_some_projects_is_refused_because_it_would_mean_all(sidecar):
    answer = sidecar.post("/api/tokens", {"name": "x", "scopes": ["admin"], "projects": ["a"]})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["path"] == "projects"


def test_a_message_that_names_no_attempt_means_the_latest(sidecar, name):
    """Only some of a workflow's senders know the attempt; the others' lines and ends used to change nothing."""
    sidecar.post(PATH, step(name, name, run_attempt=2))
    sidecar.post(PATH, {"type": "log_entry", "project": name, "deployment_id": name, "message": "hello"})
    sidecar.post(PATH, {"type": "deployment_completed", "project": name, "deployment_id": name, "status": "success"})
    shown = sidecar.get(f"/api/deployments/{name}").json()
    assert (shown["attempt"], shown["status"], shown["lines"]) == (2, "success", 1)


def test_a_success_shows_no_earlier_failure(sidecar, name):
    for status, at, more in (("failed", "10", {"error_message": "boom"}), ("success", "40", {})):
        at = f"2026-11-21T05:{at}:00Z"
        body = {"type": "deployment_completed", "project": name, "deployment_id": name, "status": status}
        assert sidecar.post(PATH, body | {"timestamp": at} | more).status_code == 200
    shown = sidecar.get(f"/api/deployments/{name}").json()
    assert (shown["status"], shown["error_message"]) == ("success", None)
