"""Deployment webhooks end to end: what is answered 200 is stored and told to browsers; what is not says why and
touches nothing."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from sidecar.wire.deployments import TYPES
from tests.servers import RunningSidecar

pytest.importorskip("hypothesis", reason="hypothesis is not installed (tests/requirements.txt)")

from hypothesis import given, settings
from hypothesis import strategies as st

PLURAL, SINGULAR, STEP = PATHS = ("/api/webhooks/deployment", "/api/webhook/deployment", "/api/webhook/step")
PREFIX = "/project-dashboard"
AGENT = "axi-deploy-websocket/1.0"
AT = "2026-11-21T05:00:00Z"

Body = dict[str, Any]


def events(sidecar: RunningSidecar, deployment_id: str) -> list[Body]:
    answer = sidecar.get(f"/api/deployments/{deployment_id}/events?limit=1000")
    return [] if answer.status_code == 404 else answer.json()["items"]


def detail(sidecar: RunningSidecar, deployment_id: str) -> Body:
    answer = sidecar.get(f"/api/deployments/{deployment_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def head(sidecar: RunningSidecar) -> int:
    return sidecar.get("/api/projects").json()["seq"]


def quarantined(sidecar: RunningSidecar) -> list[Body]:
    return sidecar.get("/api/deliveries?verdict=quarantined&limit=100").json()["items"]


def problem(answer: httpx.Response, status: int, code: str) -> Body:
    """The answer is a complete problem of this kind."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    body = answer.json()
    assert (body["status"], body["code"], body["success"]) == (status, code, False)
    assert body["message"] == body["detail"]
    assert body["request_id"] == answer.headers["X-Request-Id"]
    return body


@pytest.fixture
def started(name: str) -> Body:
    return {"type": "deployment_started", "project": name, "deployment_id": name, "timestamp": AT}


class TestStored:
    @pytest.mark.parametrize("path", PATHS)
    @pytest.mark.parametrize("prefix", ["", PREFIX])
    @pytest.mark.parametrize("slash", ["", "/"])
    def test_every_address_takes_it(self, sidecar, started, name, prefix, path, slash):
        answer = sidecar.post(prefix + path + slash, started)
        assert answer.status_code == 200
        body = answer.json()
        assert (body["success"], body["status"], body["duplicate"], body["repaired"]) == (True, "success", False, False)
        assert body["message"]
        assert (body["type"], body["project"], body["deployment_id"]) == ("deployment_started", name, name)
        assert isinstance(body["recipients"], int)
        [event] = events(sidecar, name)
        assert (str(event["seq"]), event["epoch"]) == (body["event_id"], body["epoch"])

    SHAPES = (
        (PLURAL, {"type": "step_started", "step_name": "build"}, "step_started", "running"),
        (PLURAL, {"type": "step_completed", "step_name": "b", "step_status": "failure"}, "step_completed", "running"),
        (PLURAL, {"type": "step_manual", "step_name": "b", "step_status": "retrying"}, "step_manual", "running"),
        (PLURAL, {"type": "deployment_started"}, "deployment_started", "running"),
        (PLURAL, {"type": "deployment_completed", "status": "failure"}, "deployment_completed", "failed"),
        (PLURAL, {"type": "log_entry", "message": "one"}, "log_entry", "running"),
        (PLURAL, {"type": "log_batch", "logs": ["one", {"message": "two"}]}, "log_batch", "running"),
        (PLURAL, {"type": "metrics_update", "metrics": {"steps_count": 5}}, "metrics_update", "running"),
        (PLURAL, {"status": "success", "duration": 3}, "deployment_completed", "success"),
        (PLURAL, {"status": "running"}, "deployment_started", "running"),
        (SINGULAR, {"status": "failed", "step_details": {"a": "failure"}}, "deployment_completed", "failed"),
        (PLURAL, {"status": "✅ 成功", "deploy_success": True}, "deployment_completed", "success"),
        (STEP, {"status": "success", "step_name": "b", "step_duration": "12"}, "step_completed", "running"),
        (STEP, {"type": "deployment_completed", "status": "success"}, "deployment_completed", "success"),
    )

    @pytest.mark.parametrize(("path", "body", "type", "status"), SHAPES)
    def test_every_type_and_shape(self, sidecar, name, path, body, type, status):
        answer = sidecar.post(path, {"project": name, "deployment_id": name, "timestamp": AT} | body)
        assert (answer.status_code, answer.json()["type"]) == (200, type)
        assert detail(sidecar, name)["status"] == status
        [event] = events(sidecar, name)
        assert (event["type"], event["payload"]["project"]) == (type, name)

    def test_lines_metrics_and_steps_are_read_back(self, sidecar, started, name):
        place = {"project": name, "deployment_id": name}
        for body in (
            started,
            place | {"type": "step_completed", "step_name": "build", "step_status": "success", "duration": 4},
            place | {"type": "log_batch", "logs": ["one", {"message": "two", "level": "ERROR"}]},
            place | {"type": "metrics_update", "metrics": {"steps_count": 5}},
            place | {"type": "deployment_completed", "status": "success", "duration": 45},
        ):
            assert sidecar.post(PLURAL, body).status_code == 200
        found = detail(sidecar, name)
        assert (found["status"], found["duration_seconds"], found["metrics"]) == ("success", 45, {"steps_count": 5})
        assert [(step["name"], step["status"], step["duration_seconds"]) for step in found["steps"]] == [
            ("build", "success", 4)
        ]
        lines = sidecar.get(f"/api/deployments/{name}/logs").json()["items"]
        assert [(line["level"], line["message"]) for line in lines] == [("info", "one"), ("error", "two")]
        assert len(events(sidecar, name)) == 5

    def test_a_span_is_shown_where_no_duration_was_told(self, sidecar, name):
        body = {"project": name, "runId": name, "status": "success", "duration": 0}
        sidecar.post(PLURAL, body | {"started_at": "2026-11-21T04:59:00Z", "timestamp": AT})
        assert detail(sidecar, name)["duration_seconds"] == 60

    def test_an_older_attempt_is_told_but_changes_nothing(self, sidecar, started, name):
        sidecar.post(PLURAL, started | {"attempt": 2})
        sidecar.post(PLURAL, started | {"type": "deployment_completed", "status": "failed", "attempt": 1})
        found = detail(sidecar, name)
        assert (found["attempt"], found["status"]) == (2, "running")
        assert [event["payload"]["attempt"] for event in events(sidecar, name)] == [2, 1]

    def test_a_test_is_told_and_makes_no_deployment(self, sidecar, name):
        before = head(sidecar)
        answer = sidecar.post(PLURAL, {"type": "test", "project": name})
        assert (answer.status_code, answer.json()["deployment_id"]) == (200, None)
        assert int(answer.json()["event_id"]) > before
        assert sidecar.get(f"/api/deployments?project={name}").json()["items"] == []
        [delivery] = sidecar.get("/api/deliveries?verdict=test&limit=1").json()["items"]
        assert delivery["project"] == name

    def test_a_line_quoted_twice_is_repaired(self, sidecar, started, name):
        sidecar.post(PLURAL, started)
        raw = (
            '{"type": "log_entry", "project": "", "deployment_id": "", "message": ""he said \\"hi\\"\\n"", '
            f'"log_stream_id": "deployment_{name}_1704110400"}}'
        )
        answer = sidecar.post(PLURAL, content=raw.encode(), headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["repaired"]) == (200, True)
        [line] = sidecar.get(f"/api/deployments/{name}/logs").json()["items"]
        assert line["message"] == 'he said "hi"'

    @pytest.mark.parametrize("content_type", [None, "application/x-www-form-urlencoded", "text/plain"])
    def test_json_of_curl_without_a_header(self, sidecar, started, name, content_type):
        headers = {} if content_type is None else {"Content-Type": content_type}
        answer = sidecar.post(PLURAL, content=json.dumps(started).encode(), headers=headers)
        assert answer.status_code == 200
        assert len(events(sidecar, name)) == 1

    def test_json_in_a_form(self, sidecar, started, name):
        assert sidecar.post(PLURAL, data={"payload": json.dumps(started)}).status_code == 200
        assert len(events(sidecar, name)) == 1

    def test_a_chunked_body(self, sidecar, started, name):
        raw = json.dumps(started).encode()
        answer = sidecar.post(PLURAL, content=iter([raw[:10], raw[10:]]), headers={"Content-Type": "application/json"})
        assert answer.status_code == 200

    def test_no_secret_is_shown(self, sidecar, started, name):
        token = "ghp_" + "aB3" * 12
        body = {"type": "deployment_completed", "status": "failed", "logs": token, "url": f"https://me:{token}@ci/"}
        sidecar.post(PLURAL, started | body | {"x": [token]})
        for path in ("", "/events"):
            assert token not in sidecar.get(f"/api/deployments/{name}{path}").text


class TestIdempotency:
    def test_a_repetition_is_answered_and_not_stored(self, sidecar, started, name):
        headers = {"Idempotency-Key": name}
        first = sidecar.post(PLURAL, started, headers=headers).json()
        again = sidecar.post(PLURAL, started, headers=headers)
        assert again.status_code == 200
        body = again.json()
        assert body["duplicate"] is True
        for field in ("event_id", "epoch", "type", "project", "deployment_id", "repaired", "success"):
            assert body[field] == first[field]
        assert len(events(sidecar, name)) == 1

    def test_another_body_is_a_conflict(self, sidecar, started, name):
        headers = {"Idempotency-Key": name}
        sidecar.post(PLURAL, started, headers=headers)
        problem(sidecar.post(PLURAL, started | {"x": 1}, headers=headers), 409, "conflict")
        assert len(events(sidecar, name)) == 1

    def test_a_key_counts_for_its_route_and_token(self, sidecar, started, name):
        """Protects one sender from another who answers or suppresses its posts by using its keys."""
        headers = {"Idempotency-Key": name}
        other = sidecar.new_token("webhooks:write")
        for path, token in ((PLURAL, None), (SINGULAR, None), (PLURAL, other)):
            assert sidecar.post(path, started, token, headers=headers).json()["duplicate"] is False
        assert len(events(sidecar, name)) == 3
        assert sidecar.post(PREFIX + PLURAL + "/", started, headers=headers).json()["duplicate"] is True

    def test_a_refused_post_does_not_use_up_its_key(self, sidecar, started, name):
        headers = {"Idempotency-Key": name}
        assert sidecar.post(PLURAL, started | {"timestamp": "soon"}, headers=headers).status_code == 400
        assert sidecar.post(PLURAL, started, headers=headers).json()["duplicate"] is False

    @pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
    def test_a_key_that_can_t_be_used(self, sidecar, started, name, key):
        body = problem(sidecar.post(PLURAL, started, headers={"Idempotency-Key": key}), 400, "invalid")
        assert body["errors"][0]["path"] == "Idempotency-Key"
        assert events(sidecar, name) == []

    def test_it_survives_a_restart(self, start_sidecar, started):
        server = start_sidecar()
        headers = {"Idempotency-Key": "k"}
        first = server.post(PLURAL, started, headers=headers).json()
        server.kill()
        server.start()
        again = server.post(PLURAL, started, headers=headers).json()
        assert (again["duplicate"], again["event_id"]) == (True, first["event_id"])


class TestRefused:
    @pytest.mark.parametrize(
        ("raw", "code", "says"),
        [
            (b"", "unparsable", "line 1, column 1"),
            (b'{"a": 1,\n', "unparsable", "line 2, column 1"),
            (b'{"logs": "he said "hi""}', "unparsable", "line 1, column 20"),
            (b"[" * 100_000, "unparsable", "nested deeper"),
            (b'{"a": NaN}', "unparsable", "NaN"),
            (b"\xff", "unparsable", "not UTF-8"),
            (b"[]", "invalid", "must be a JSON object"),
            (b"{}", "invalid", "lacks fields"),
        ],
    )
    def test_what_can_t_be_read_is_kept_in_quarantine(self, sidecar, name, raw, code, says):
        before = head(sidecar)
        headers = {"Content-Type": "application/json", "User-Agent": name, "X-Request-Id": "r-1"}
        body = problem(sidecar.post(PLURAL, content=raw, headers=headers), 400, code)
        assert says in body["detail"]
        assert body["request_id"] == "r-1"
        [kept] = [item for item in quarantined(sidecar) if item["source"] == name]
        assert f"delivery {kept['number']}." in body["detail"]
        shown = sidecar.get(f"/api/deliveries/{kept['number']}").json()
        assert shown["body"] == raw.decode("utf-8", "replace")
        assert (kept["reason"]["code"], kept["reason"]["errors"]) == (code, body["errors"])
        assert head(sidecar) == before

    def test_every_missing_and_every_bad_field_is_named(self, sidecar, name):
        missing = problem(sidecar.post(PLURAL, {"type": "step_started"}), 400, "invalid")
        assert {error["path"] for error in missing["errors"]} == {"step_name", "project", "deployment_id"}
        bad = {"type": "log_batch", "project": name, "deployment_id": [], "logs": [{"level": {}}, None]}
        body = problem(sidecar.post(PLURAL, bad), 400, "invalid")
        assert {error["path"] for error in body["errors"]} == {"deployment_id", "logs[0].level", "logs[1]"}

    def test_a_replay_after_the_cause_is_gone(self, sidecar, started, name):
        line = {"type": "log_entry", "message": "early", "project": "", "deployment_id": name}
        assert sidecar.post(PLURAL, line, headers={"User-Agent": name}).status_code == 400
        [kept] = [item for item in quarantined(sidecar) if item["source"] == name]
        replay = f"/api/deliveries/{kept['number']}/replay"
        assert sidecar.post(replay).status_code == 400
        sidecar.post(PLURAL, started)
        answer = sidecar.post(replay)
        assert (answer.status_code, answer.json()["deployment_id"]) == (200, name)
        assert [event["type"] for event in events(sidecar, name)] == ["deployment_started", "log_entry"]
        assert sidecar.get(f"/api/deliveries/{kept['number']}").json()["verdict"] == "replayed"
        assert all(item["number"] != kept["number"] for item in quarantined(sidecar))
        problem(sidecar.post("/api/deliveries/999999999/replay"), 404, "not_found")

    def test_deliveries_are_for_admins(self, sidecar):
        token = sidecar.new_token("webhooks:write", "deployments:read")
        problem(sidecar.get("/api/deliveries", token), 403, "not_allowed")
        problem(sidecar.post("/api/deliveries/1/replay", token=token), 403, "not_allowed")
        problem(sidecar.get("/api/deliveries", ""), 401, "unauthenticated")

    def test_without_a_token(self, sidecar, started, name):
        answer = sidecar.post(PLURAL, started, "")
        problem(answer, 401, "unauthenticated")
        assert answer.headers["WWW-Authenticate"]
        assert events(sidecar, name) == []

    @pytest.mark.parametrize(
        "headers",
        [
            {"Authorization": "Token sct_000000000000_" + "x" * 43},
            {"Authorization": "Token nonsense"},
            {"Authorization": "Token é".encode("latin-1")},
            {"Authorization": "Token"},
            {"Authorization": "Basic dXNlcjpwdw=="},
            {"X-API-Key": "nonsense"},
            {"X-Webhook-Token": "nonsense"},
        ],
    )
    def test_with_a_wrong_token(self, sidecar, started, headers):
        assert sidecar.post(PLURAL, started, "", headers=headers).status_code == 401

    @pytest.mark.parametrize(
        "header", ["Authorization: Token %s", "authorization: bearer %s", "X-API-Key: %s", "X-Webhook-Token: %s"]
    )
    def test_a_token_may_come_in_any_of_the_headers(self, sidecar, started, header):
        field, _, value = header.partition(": ")
        token = sidecar.new_token("webhooks:write")
        assert sidecar.post(PLURAL, started, "", headers={field: value % token}).status_code == 200

    def test_without_the_scope(self, sidecar, started, name):
        token = sidecar.new_token("deployments:read")
        problem(sidecar.post(PLURAL, started, token), 403, "not_allowed")
        assert events(sidecar, name) == []

    def test_a_token_for_other_projects(self, sidecar, started, name):
        token = sidecar.new_token("webhooks:write", projects=[f"{name}-other"])
        problem(sidecar.post(PLURAL, started, token), 403, "not_allowed")
        mine = started | {"project": f"{name}-other"}
        assert sidecar.post(PLURAL, mine, token).status_code == 200
        assert name not in [item["name"] for item in sidecar.get("/api/projects").json()["items"]]

    def test_the_first_project_owns_an_id(self, sidecar, started, name):
        """Protects a deployment from posts that name its id under another project: never a merge."""
        sidecar.post(PLURAL, started)
        other = f"{name}-other"
        foreign = sidecar.new_token("webhooks:write", projects=[other])
        both = sidecar.new_token("webhooks:write", projects=[other, name])
        body = {"type": "deployment_completed", "status": "failed", "project": other, "deployment_id": name}
        problem(sidecar.post(PLURAL, body, foreign), 403, "not_allowed")
        problem(sidecar.post(PLURAL, body, both), 409, "conflict")
        found = detail(sidecar, name)
        assert (found["project"], found["status"]) == (name, "running")
        assert len(events(sidecar, name)) == 1

    @pytest.mark.parametrize("path", PATHS)
    @pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
    def test_other_methods(self, sidecar, path, method):
        answer = sidecar.request(method, path)
        problem(answer, 405, "method_not_allowed")
        assert "POST" in answer.headers["Allow"]

    @pytest.mark.parametrize("path", ["/api/webhooks/deployments", "/api/webhooks", "/api/webhooks/deployment/x"])
    def test_other_paths(self, sidecar, path):
        problem(sidecar.post(path, {}), 404, "not_found")

    @pytest.mark.parametrize("content_type", ["application/xml", "multipart/form-data; boundary=x", "text/html"])
    def test_other_media_types(self, sidecar, started, content_type):
        raw = json.dumps(started).encode()
        problem(sidecar.post(PLURAL, content=raw, headers={"Content-Type": content_type}), 415, "unsupported_media")

    def test_a_body_over_the_limit(self, sidecar, started, name):
        large = started | {"x": "x" * 2**20}
        problem(sidecar.post(PLURAL, large), 413, "too_large")
        assert events(sidecar, name) == []
        fits = started | {"x": "x" * (2**20 - len(json.dumps(started)) - 20)}
        assert sidecar.post(PLURAL, fits).status_code == 200

    def test_too_many(self, start_sidecar, started):
        server = start_sidecar(SIDECAR_RATE_LIMIT="1/second, burst 3", SIDECAR_OPEN="webhooks")
        token = server.new_token("webhooks:write")
        answers = [server.post(PLURAL, started, token) for _ in range(10)]
        limited = [answer for answer in answers if answer.status_code != 200]
        assert limited
        for answer in limited:
            problem(answer, 429, "rate_limited")
            assert int(answer.headers["Retry-After"]) >= 1
        # Another caller has a bucket of its own.
        assert server.post(PLURAL, started, "").status_code == 200


class TestOpen:
    @pytest.mark.parametrize(("open", "reads"), [("true", 200), ("webhooks", 401)])
    def test_no_token_is_needed(self, start_sidecar, started, name, open, reads):
        server = start_sidecar(SIDECAR_OPEN=open)
        assert server.post(PLURAL, started, "").status_code == 200
        assert server.get(f"/api/deployments/{name}", "").status_code == reads
        # Nothing else is open, and a wrong token does not become a stranger.
        assert server.get("/api/deliveries", "").status_code == 401
        assert server.post("/api/tokens/connection", {}, "").status_code == 401
        assert server.post(PLURAL, started, "nonsense").status_code == 401
        # The first project owns an id, also here.
        problem(server.post(PLURAL, started | {"project": "other"}, ""), 409, "conflict")
        # Keys count for the sender.
        headers = {"Idempotency-Key": "k"}
        assert server.post(PLURAL, started, "", headers=headers).json()["duplicate"] is False
        assert server.post(PLURAL, started, "", headers=headers).json()["duplicate"] is True
        assert server.post(PLURAL, started, headers=headers).json()["duplicate"] is False

    def test_only_some_networks_may_post(self, start_sidecar, started):
        """The peer (loopback) is a trusted proxy here, so that what it says of the client counts."""
        server = start_sidecar(SIDECAR_OPEN="webhooks", SIDECAR_WEBHOOK_NETWORKS="10.1.0.0/16, 2001:db8::/32")
        for client, status in (
            (None, 401),
            ("10.1.2.3", 200),
            ("10.2.2.3", 401),
            ("2001:db8::7", 200),
            ("2001:db9::7", 401),
            ("10.1.2.3, 10.2.2.3", 401),
            ("10.2.2.3, 10.1.2.3", 200),
            ("10.1.2.3, 127.0.0.1", 200),
            ("nonsense", 401),
            ("10.1.2.3, nonsense", 401),
        ):
            headers = {} if client is None else {"X-Forwarded-For": client}
            assert server.post(PLURAL, started, "", headers=headers).status_code == status, client
        assert server.post(PLURAL, started).status_code == 200

    def test_what_an_untrusted_peer_says_of_its_client_does_not_count(self, start_sidecar, started):
        """Protects the networks from anybody who writes the header."""
        server = start_sidecar(
            SIDECAR_OPEN="true", SIDECAR_WEBHOOK_NETWORKS="10.1.0.0/16", SIDECAR_TRUSTED_PROXIES="10.9.9.9"
        )
        for header in ("X-Forwarded-For", "X-Real-IP", "Forwarded"):
            assert server.post(PLURAL, started, "", headers={header: "10.1.2.3"}).status_code == 401
        assert server.get("/api/projects", "").status_code == 200


class TestRealSenders:
    """The bodies of deployed workflows, rebuilt from what they were seen to send; 200 is all that they take."""

    @pytest.fixture
    def post(self, sidecar: RunningSidecar) -> Callable[..., httpx.Response]:
        def post(path: str, text: str) -> httpx.Response:
            headers = {"Content-Type": "application/json", "User-Agent": AGENT}
            answer = sidecar.post(PREFIX + path, content=text.encode(), headers=headers)
            assert (answer.status_code, answer.json()["success"]) == (200, True), answer.text
            return answer

        return post

    def test_a_run_watched_by_the_guide_s_workflow(self, sidecar, post, name):
        def place(project: str, deployment_id: str) -> str:
            return f'"project": "{project}", "deployment_id": "{deployment_id}", "timestamp": "{AT}"'

        post(PLURAL, f'{{"type": "step_started", {place(name, name)}, "step_name": "notify", "duration": 0}}')
        jobs = {"build": "success", "deploy 👨‍💻": "failure", "still running": "null", "waits": "", "y": "cancelled"}
        for job, conclusion in jobs.items():
            post(
                PLURAL,
                f'{{"type": "step_completed", {place(name, name)}, "step_name": "{job}", "logs": "{job} ended",'
                f' "step_status": "{conclusion}", "duration": {-2 if job == "y" else 20},'
                f' "started_at": "null", "completed_at": "null"}}',
            )
        lines = ["plain", "", 'with "quotes"', "back\\slash", "tab\there", "成功 ✅", "[" * 60, "{" * 60, "\x1b[1mbold"]
        for line in lines:
            quoted = json.dumps(f"{line}\n", ensure_ascii=False)
            stream = f'"log_stream_id": "deployment_{name}_1704110400"'
            post(PLURAL, f'{{"type": "log_entry", {place("", "")}, {stream}, "level": "info", "message": "{quoted}"}}')
        post(
            PLURAL,
            f'{{"type": "deployment_completed", {place(name, name)}, "status": "failure", "duration": 90,'
            f' "started_at": "2026-11-21T04:58:30Z", "completed_at": "{AT}"}}',
        )
        answer = post(
            PLURAL,
            f'{{"type": "metrics_update", {place("", "")}, "metrics": {{"total_duration": 0, "steps_count": 0,'
            f' "start_time": "2026-11-21T04:58:30Z", "end_time": "{AT}", "status": ""}}}}',
        )
        assert answer.json()["deployment_id"] == name
        found = detail(sidecar, name)
        assert (found["status"], found["duration_seconds"], found["metrics"]["steps_count"]) == ("failed", 90, 0)
        assert {step["name"]: step["status"] for step in found["steps"]} == {
            "notify": "running",
            "build": "success",
            "deploy 👨‍💻": "failed",
            "still running": "unknown",
            "waits": "unknown",
            "y": "cancelled",
        }
        logged = sidecar.get(f"/api/deployments/{name}/logs").json()["items"]
        assert [line["message"] for line in logged] == lines
        assert len(events(sidecar, name)) == 1 + len(jobs) + len(lines) + 2

    @pytest.mark.parametrize("run", ["", "77"])
    def test_the_notify_script(self, sidecar, post, name, run):
        run = run and f"{name}-{run}"
        answer = post(
            PLURAL,
            f'{{\n"project": "{name}",\n"status": "failed",\n"duration": 3,\n"timestamp": "{AT}",\n"runId": "{run}",\n'
            '"sourceRepo": "o/r",\n"deployType": "",\n"logs": "one\n\ttwo\n",\n"errorMessage": "boom\nagain"\n}',
        )
        found = detail(sidecar, answer.json()["deployment_id"])
        assert (found["status"], found["logs"], found["error_message"]) == ("failed", "one\n\ttwo\n", "boom\nagain")
        assert not run or found["id"] == run
        assert len(events(sidecar, found["id"])) == 1

    def test_steps_and_summary_without_a_run_s_id(self, sidecar, post, name):
        numbers = itertools.count(1)

        def step(status: str) -> str:
            return post(
                STEP,
                f'{{"project": "{name}", "status": "{status}", "step_name": "build", "step_duration": "12",'
                f' "step_logs": "one\ntwo", "error_message": "", "timestamp": "2026-11-21T05:00:0{next(numbers)}Z"}}',
            ).json()["deployment_id"]

        assert step("running") == step("success")
        deployment_id = post(
            SINGULAR,
            f'{{"project": "{name}", "repository": "o/r", "status": "success", "message": "部署成功",'
            f' "timestamp": "{AT}", "step_details": {{"build": "success", "init": "skipped", "test": ""}}}}',
        ).json()["deployment_id"]
        found = detail(sidecar, deployment_id)
        assert (found["status"], found["title"]) == ("success", "部署成功")
        statuses = {step["name"]: step["status"] for step in found["steps"]}
        assert statuses == {"build": "success", "init": "skipped", "test": "unknown"}
        assert len(events(sidecar, deployment_id)) == 3

    def test_a_lost_start_time_makes_no_duration(self, sidecar, post, name):
        post(
            PLURAL,
            f'{{"project": "{name}", "run_id": "{name}", "deploy_success": false, "deploy_duration": 1795241344,'
            f' "status": "❌ 失败", "error": "boom", "timestamp": "{AT}"}}',
        )
        found = detail(sidecar, name)
        assert (found["status"], found["reported_status"]) == ("failed", "❌ 失败")
        assert (found["duration_seconds"], found["error_message"]) == (None, "boom")


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=30)
    | st.sampled_from(
        ["null", "...", "", "\x00", "a\ud800b", "x" * 300, "success", "❌ 失败", AT, "fuzz", "-1", "1e999"]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FIELDS = (
    "project deployment_id run_id runId attempt timestamp status duration logs error_message started_at completed_at"
    " step step_id step_name step_status step_duration step_logs step_details log_stream_id level message source"
    " metrics url environment deploy_success deploy_duration"
)
bodies = st.fixed_dictionaries(
    {"type": st.sampled_from([*TYPES, "", "nope", None]) | values},
    optional=dict.fromkeys(FIELDS.split(), values)
    | {"project": st.just("fuzz") | values, "deployment_id": st.sampled_from(["f1", "f2", ""]) | values},
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """JSON with a few bytes cut out or put in."""
    raw = json.dumps(draw(bodies), ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(raw)))
        raw = (
            raw[:place]
            + draw(
                st.sampled_from([b"", b'"', b"\\", b"\x00", b"\n", b"{", b"]", b"\xff", b'""']) | st.binary(max_size=3)
            )
            + raw[place + draw(st.integers(0, 2)) :]
        )
    return raw


content_types = st.sampled_from(
    ["application/json", "application/x-www-form-urlencoded", "text/plain", "application/xml", "a/b; c=\xff", "", ";"]
)
header_characters = st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f")
keys = st.none() | st.sampled_from(["k1", "k2"]) | st.text(header_characters, min_size=1)


@settings(max_examples=100)
@given(st.data())
def test_whatever_is_posted_gets_an_answer_and_harms_nothing(sidecar, data):
    """No input makes a 500; what is refused is a whole problem, what is taken can be read back, and the next good
    request works."""
    raw = data.draw(st.one_of(bodies.map(lambda body: json.dumps(body).encode()), damaged(), st.binary(max_size=64)))
    headers = {"Content-Type": data.draw(content_types).encode("latin-1")}
    key = data.draw(keys)
    if key is not None:
        headers["Idempotency-Key"] = key.encode("latin-1")
    answer = sidecar.post(data.draw(st.sampled_from(PATHS)), content=raw, headers=headers)
    assert answer.status_code in (200, 400, 409, 415), answer.text
    body = answer.json()
    if answer.status_code != 200:
        problem(answer, answer.status_code, body["code"])
    elif body["deployment_id"] in ("f1", "f2") and not body["duplicate"]:
        page = sidecar.get(f"/api/deployments/{body['deployment_id']}/events?after={int(body['event_id']) - 1}&limit=1")
        assert [str(event["seq"]) for event in page.json()["items"]] == [body["event_id"]]
    good = {"type": "log_entry", "project": "fuzz-good", "deployment_id": "fuzz-good", "message": "still here"}
    assert sidecar.post(PLURAL, good).status_code == 200
