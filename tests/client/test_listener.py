"""`python -m sidecar tail`: what it prints is what happened, in the order in which it happened."""

from __future__ import annotations

import json
import threading
import time

from sidecar.client.http import ApiError, SidecarClient
from sidecar.client.listener import follow

EVENTS = 50
WAIT_SECONDS = 20
HEAD_START_SECONDS = 1


def test_events_are_told_in_order_until_the_token_is_revoked(sidecar, name):
    """python-engineio handles each message in a thread of its own: one that took long was overtaken by the next, and
    the place to go on from after a reconnect could go back."""
    for number in range(EVENTS):
        body = {"type": "log_entry", "project": name, "deployment_id": name, "message": str(number)}
        assert sidecar.post("/api/webhooks/deployment", body).status_code == 200
    token = sidecar.post("/api/tokens", {"name": name, "scopes": ["deployments:read"]}).json()
    told: list[str] = []
    ends: list[str] = []
    overtaken = threading.Event()

    def say(line: object) -> None:
        message = json.loads(str(line))["payload"]["message"]
        if message == "0":
            overtaken.wait(HEAD_START_SECONDS)
        else:
            overtaken.set()
        told.append(message)

    def listen() -> None:
        with SidecarClient(f"{sidecar.url}/project-dashboard", token["token"]) as client:
            try:
                follow(client, [("project", name)], "0", True, say)
            except ApiError as error:
                ends.append(str(error))

    listener = threading.Thread(target=listen)
    listener.start()
    deadline = time.monotonic() + WAIT_SECONDS
    while len(told) < EVENTS and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sidecar.request("DELETE", f"/api/tokens/{token['id']}").status_code == 200
    listener.join(WAIT_SECONDS)
    assert told == [str(number) for number in range(EVENTS)]
    assert ends == ["The token has been revoked."]
