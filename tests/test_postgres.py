"""Whole servers on a PostgreSQL: what clients see of it, also while it is restarted under them."""

from __future__ import annotations

import pytest

from tests.postgres import Postgres
from tests.programs import JsClient, wait_until
from tests.servers import RunningSidecar
from tests.sockets.clients import Page

PROJECT = "shop"


@pytest.fixture
def url(postgres: Postgres) -> str:
    return postgres.url(postgres.new_database()).replace("+psycopg", "")


def line(server: RunningSidecar, text: str):
    body = {"type": "log_entry", "project": PROJECT, "deployment_id": "d", "message": text}
    return server.post("/api/webhooks/deployment", body)


def subscribed(js: JsClient, server: RunningSidecar) -> Page:
    page = Page(js, server, token=server.token, reconnection=False).connected()
    assert page.call("subscribe_project", PROJECT, {"since": 0})["ok"]
    return page


def messages(page: Page) -> list[str]:
    return [event["payload"]["message"] for event in page.events if event["type"] == "log_entry"]


def test_a_restart_of_the_database_is_503_and_then_all_goes_on(
    start_sidecar, js: JsClient, url: str, postgres: Postgres
):
    """Neither a 500 nor a closed socket nor a restart of the sidecar; what was refused is not stored."""
    server = start_sidecar(SIDECAR_DATABASE_URL=url, SIDECAR_RATE_LIMIT="off")
    page = subscribed(js, server)
    assert line(server, "before").status_code == 200
    wait_until(lambda: messages(page) == ["before"], "the first line")
    postgres.stop()
    try:
        refused = line(server, "meanwhile")
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
        assert int(refused.headers["Retry-After"]) > 0
        assert server.get(f"/api/deployments?project={PROJECT}").status_code == 503
        assert server.get("/readyz").status_code == 503
        assert page.call("heartbeat")
    finally:
        postgres.start()
    assert line(server, "after").status_code == 200
    wait_until(lambda: messages(page) == ["before", "after"], "the line after the restart")
    answers = [server.get(f"/api/deployments?project={PROJECT}").status_code for _ in range(30)]
    assert set(answers) == {200}
    assert all(entry["what"] != "disconnect" for entry in page.lines())
    assert server.stop() == 0
    assert "Traceback" not in server.output()


def test_text_and_numbers_that_postgresql_can_not_hold_are_no_server_error(start_sidecar, url: str):
    server = start_sidecar(SIDECAR_DATABASE_URL=url, SIDECAR_RATE_LIMIT="off")
    body = {
        "type": "step_update",
        "project": "a\0b",
        "deployment_id": "d\0",
        "step_name": "s\0",
        "status": "ru\0nning",
        "logs": "x\0y",
        "attempt": 2**70,
        "duration": 2**70,
        "metrics": {"n": 2**70, "\0": "\0"},
    }
    for strange in (body, {**body, "attempt": 1, "duration": 1}, {"type": "nonsense\0", "x": 2**70}):
        answer = server.post("/api/webhooks/deployment", strange, headers={"Idempotency-Key": "a%00b"})
        assert answer.status_code < 500, answer.text
    for path in (
        "/api/deployments?project=%00",
        "/api/deployments/%00",
        "/api/deployments/a%00b/logs?text=%00&after=9223372036854775807",
        "/api/deployments?cursor=ZDk5OTk5OTk5OTk5OTk5OTk5OTk5",
        "/api/deployments?since=%00&status=%00",
        "/api/deliveries/99999999999999999999",
        "/api/webhooks/%00",
    ):
        assert server.get(path).status_code < 500, path
    assert line(server, "x\0y").status_code == 200
    assert "Traceback" not in server.output()
