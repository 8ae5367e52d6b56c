"""The figures of an app at /metrics of a real server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sidecar.domain.authorizations import METHODS, REASONS
from tests.servers import RunningSidecar


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSidecar]:
    app = {
        "SIDECAR_LARK_APP_ID": "cli_a",
        "SIDECAR_LARK_APP_SECRET": "s" * 32,
        "SIDECAR_LARK_REDIRECT_URI": "http://localhost/callback",
    }
    server = RunningSidecar(tmp_path_factory.mktemp("figures"), app)
    server.start()
    yield server
    server.stop()


def samples(sidecar: RunningSidecar) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = sidecar.get("/metrics", token="").text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_an_app_has_its_figures_from_the_first_look(sidecar):
    app = ("app_id", "cli_a")
    found = samples(sidecar)
    assert found["sidecar_lark_apps", frozenset()] == 1
    for method in METHODS:
        for reason in REASONS:
            labels = frozenset({app, ("auth_method", method), ("reason", reason)})
            assert found["lark_service_auth_failure_total", labels] == 0
    for gauge in ("lark_service_auth_session_active", "lark_service_token_active_count"):
        assert found[gauge, frozenset({app})] == 0
    assert ("lark_service_websocket_connection_status", frozenset({app})) not in found

    answer = sidecar.post("/api/authorizations", {"user": "ada"})
    assert answer.status_code == 200, answer.text
    found = samples(sidecar)
    assert found["lark_service_auth_session_total", frozenset({app, ("auth_method", "oauth")})] == 1
    assert found["lark_service_auth_session_active", frozenset({app})] == 1
    assert found["sidecar_authorization_rows", frozenset({("state", "pending")})] == 1


def test_a_heartbeat_of_the_long_connection_is_shown(sidecar):
    told = {
        "app": "cli_a",
        "connected": True,
        "reconnects": {"attempt": 4, "success": 3, "failure": 1},
        "started_at": "2026-11-21T04:29:00Z",
        "heartbeat_seconds": 30,
    }
    labels = frozenset({("app_id", "cli_a")})
    assert sidecar.post("/api/authorizations/events/link", told).status_code == 200
    assert samples(sidecar)["lark_service_websocket_connection_status", labels] == 1
    told |= {"connected": False, "reconnects": {"attempt": 6, "success": 3, "failure": 3}}
    assert sidecar.post("/api/authorizations/events/link", told).status_code == 200
    found = samples(sidecar)
    assert found["lark_service_websocket_connection_status", labels] == 0
    grown = {
        outcome: found["lark_service_websocket_reconnect_total", labels | {("outcome", outcome)}]
        for outcome in ("attempt", "success", "failure")
    }
    assert grown == {"attempt": 2, "success": 0, "failure": 2}, "what was before this process began is not counted"
