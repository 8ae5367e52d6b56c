def test_a_webhook_is_stored(sidecar, name):
    body = {"type": "step_started", "project": name, "deployment_id": name, "step_name": "build"}
    assert sidecar.post("/api/webhooks/deployment", body).status_code == 200
    assert sidecar.get(f"/api/deployments/{name}").json()["steps"][0]["status"] == "running"
