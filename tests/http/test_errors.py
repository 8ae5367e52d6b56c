"""What goes wrong over HTTP, and how it is told: one shape, the right status, the headers that go with it."""

from __future__ import annotations

import re
import socket
import sqlite3

import httpx
import pytest

from config.settings import load_settings
from sidecar.domain import errors
from sidecar.factory import create_app
from sidecar.http.errors import STATUS
from sidecar.sockets.errors import REFUSALS

PREFIX = "/project-dashboard"
WEBHOOK = "/api/webhooks/deployment"


def tree(base: type = errors.SidecarError) -> set[type]:
    return {base}.union(*(tree(child) for child in base.__subclasses__()))


def test_both_edges_name_every_error():
    """An error without a place in a table would be a KeyError in front of a user."""
    assert set(STATUS) == tree()
    assert set(REFUSALS) == tree()


def test_every_error_has_a_code_of_its_own():
    assert len({error.code for error in tree()}) == len(tree())


FIELDS = {"type", "title", "status", "detail", "code", "errors", "request_id", "success", "message"}


def assert_problem(answer: httpx.Response, status: int, code: str) -> dict:
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json"), answer.text
    body = answer.json()
    assert set(body) == FIELDS
    assert (body["status"], body["code"], body["success"]) == (status, code, False)
    assert body["message"] == body["detail"] != ""
    assert body["type"].endswith(code)
    assert body["request_id"] == answer.headers["X-Request-Id"]
    for item in body["errors"]:
        assert set(item) == {"path", "message"}
    return body


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code"),
    [
        ("GET", "/nothing/here", {}, 404, "not_found"),
        ("GET", "/api/deployments/never-seen", {}, 404, "not_found"),
        ("GET", "/api/deployments/never-seen/logs", {}, 404, "not_found"),
        ("GET", "/api/deployments/never-seen/events", {}, 404, "not_found"),
        ("GET", "/api/deliveries/99999999", {}, 404, "not_found"),
        ("GET", "/api/deliveries/" + "9" * 30, {}, 404, "not_found"),
        ("POST", "/api/deliveries/" + "9" * 30 + "/replay", {}, 404, "not_found"),
        ("DELETE", "/api/tokens/000000000000", {}, 404, "not_found"),
        ("GET", "/static/nothing.js", {}, 404, "not_found"),
        ("GET", "/static/%00", {}, 404, "not_found"),
        ("GET", "/static/..%2f..%2fversion.py", {}, 404, "not_found"),
        ("GET", WEBHOOK, {}, 405, "method_not_allowed"),
        ("BREW", "/healthz", {}, 405, "method_not_allowed"),
        ("POST", WEBHOOK, {"content": b"{}", "headers": {"Content-Type": "image/png"}}, 415, "unsupported_media"),
        ("POST", WEBHOOK, {"content": b"\xff\xfe"}, 400, "unparsable"),
        ("POST", WEBHOOK, {"content": b"[1]"}, 400, "invalid"),
        ("POST", WEBHOOK, {"content": b" " * 1_100_000}, 413, "too_large"),
        ("POST", "/api/tokens", {"content": b'{"name":'}, 400, "unparsable"),
        ("POST", "/api/tokens", {"json": {"name": "x", "scopes": [[]]}}, 400, "invalid"),
        ("POST", "/api/tokens", {"json": {"name": "x", "scopes": [{"a": 1}, None]}}, 400, "invalid"),
        ("POST", "/api/tokens", {"json": {"name": "x", "scopes": "admin"}}, 400, "invalid"),
        ("POST", "/api/tokens", {"json": {"name": "x", "scopes": ["admin"], "ttl_seconds": "9"}}, 400, "invalid"),
        ("POST", "/api/tokens", {"json": {"name": "x", "scopes": ["admin"], "ttl_seconds": 10**400}}, 400, "invalid"),
        ("GET", "/api/projects", {"token": "sct_nonsense"}, 401, "unauthenticated"),
    ],
)
def test_a_problem_is_told_in_one_shape(sidecar, method, path, options, status, code):
    token = options.pop("token", None) if "token" in options else None
    assert_problem(sidecar.request(method, path, token, **options), status, code)


def test_not_allowed_names_the_methods(sidecar):
    assert set(sidecar.get(WEBHOOK).headers["Allow"].split(", ")) == {"POST", "OPTIONS"}
    assert set(sidecar.post("/healthz").headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}


def test_every_bad_field_is_named_at_once(sidecar):
    body = {"name": "", "scopes": ["fly"], "projects": [], "ttl_seconds": 0}
    told = assert_problem(sidecar.post("/api/tokens", body), 400, "invalid")
    assert {item["path"] for item in told["errors"]} == {"name", "scopes", "projects", "ttl_seconds"}


def test_a_chunked_body_over_the_limit_is_refused_whole(sidecar):
    """Werkzeug hands out the first bytes of such a body as if they were all: half a message must not be judged."""

    def chunks():
        for _ in range(20):
            yield b" " * 65_536

    answer = sidecar.post(WEBHOOK, content=chunks())
    assert_problem(answer, 413, "too_large")


def test_a_chunked_body_under_the_limit_is_taken(sidecar, name):
    def chunks():
        yield b'{"type":"step_started","step_name":"x","project":"p-chunk",'
        yield f'"deployment_id":"{name}"}}'.encode()

    assert sidecar.post(WEBHOOK, content=chunks()).status_code == 200


def test_the_server_answers_the_next_request_after_a_refused_body(sidecar):
    with httpx.Client(base_url=sidecar.url, headers={"Authorization": f"Token {sidecar.token}"}) as client:
        assert client.post(WEBHOOK, content=b"x" * 1_100_000).status_code == 413
        assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("given", ["abc-1.2_3", "A" * 64])
def test_a_request_id_is_echoed(sidecar, given):
    assert sidecar.get("/healthz", headers={"X-Request-Id": given}).headers["X-Request-Id"] == given


@pytest.mark.parametrize("given", ["", "a b", "A" * 65, "x<script>"])
def test_a_bad_request_id_is_replaced(sidecar, given):
    made = sidecar.get("/healthz", headers={"X-Request-Id": given}).headers["X-Request-Id"]
    assert made != given
    assert len(made) == 16


def test_every_answer_carries_the_safe_headers(sidecar):
    for path in ("/healthz", "/nothing", "/", "/static/app.js"):
        headers = sidecar.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
    page = sidecar.get("/").headers["Content-Security-Policy"]
    assert "default-src 'self'" in page
    assert "unsafe" not in page


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/9\r\n\r\n",
        b"GET / HTTP/1\r\n\r\n",
        b"GET / HTTP/x.y\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
def test_what_is_not_http_gets_400_and_no_traceback(sidecar, line):
    """The fixture's teardown fails on a traceback; each of these made one, or could."""
    with socket.create_connection(("127.0.0.1", sidecar.port), timeout=10) as connection:
        connection.sendall(line)
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
    assert "Traceback" not in sidecar.output()


@pytest.mark.parametrize(
    "rest",
    [
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}xx0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n11111111111111111\r\n",
        b"Content-Length: 10\r\n\r\n{}",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\n{}",
    ],
)
def test_a_body_that_can_t_be_read_to_its_end_gets_400_and_ends_the_connection(sidecar, rest):
    """What follows could be the rest of the body or another request: nobody may find out which."""
    with socket.create_connection(("127.0.0.1", sidecar.port), timeout=10) as connection:
        connection.sendall(f"POST {WEBHOOK} HTTP/1.1\r\nHost: x\r\n".encode() + rest)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while received := connection.recv(65_536):
            answer += received
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1


ROUTES = [
    "/",
    "/console",
    "/deliveries",
    "/login",
    "/healthz",
    "/readyz",
    "/metrics",
    "/static/<path:name>",
    "/api/info",
    "/api/asyncapi.json",
    "/api/docs",
    "/api/openapi.json",
    "/api/session",
    "/api/first-steps",
    "/api/projects",
    "/api/projects/<path:project>/metrics",
    "/api/badges/<path:project>.svg",
    "/api/tokens",
    "/api/secrets",
    "/api/deployments",
    "/api/deployments/<path:deployment_id>",
    "/api/deployments/<path:deployment_id>/logs",
    "/api/deployments/<path:deployment_id>/events",
    "/api/live-push",
    "/api/rooms",
    "/api/rooms/<path:name>/presence",
    "/api/maim/connections",
    "/api/maim/keys",
    "/api/maim/stats",
    "/api/menu",
    "/api/menu/version",
    "/api/menu/history",
    "/api/menu/versions/<int(max=9223372036854775807):number>",
    "/api/menu/<key>",
    "/api/permissions",
    "/api/permissions/version",
    "/api/permissions/check",
    "/api/permissions/history",
    "/api/permissions/versions/<int(max=9223372036854775807):number>",
    "/api/roles",
    "/api/roles/<name>",
    "/api/users/<path:id>/roles",
    "/api/deliveries",
    "/api/deliveries/counts",
    "/api/deliveries/<int(max=9223372036854775807):number>",
]
OF_LARK = [
    "/callback",
    "/authorizations/<session_id>",
    "/authorizations/<session_id>/state",
    "/api/authorizations/callback",
    "/api/authorizations/audit",
    "/api/authorizations/<session_id>",
    "/api/authorizations/<app_id>/app-token",
    "/api/authorizations/<app_id>/<path:user>/token",
]
"""404 without an app at Lark (tests/http/test_authorizations.py)."""


def test_the_list_of_routes_is_complete(tmp_path):
    app = create_app(load_settings(instance_dir=tmp_path)).app
    assert sorted(rule.rule for rule in app.url_map.iter_rules() if "GET" in (rule.methods or ())) == sorted(
        ROUTES + OF_LARK
    )


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_answers_with_and_without_prefix_and_slash(sidecar, route):
    body = {"type": "step_started", "project": "routes", "deployment_id": "a/b", "step_name": "x"}
    assert sidecar.post(WEBHOOK, body).status_code == 200
    number = sidecar.get("/api/deliveries?limit=1").json()["items"][0]["number"]
    versioned = re.match("/api/(menu|permissions)/versions", route)
    if versioned:
        number = sidecar.get(f"/api/{versioned[1]}/version").json()["version"]
    assert sidecar.request("PUT", "/api/menu/routes", json={"name": "Routes"}).status_code == 200
    assert sidecar.request("PUT", "/api/roles/routes", json={}).status_code == 200
    path = route.replace("<path:name>", "app.js").replace("<path:deployment_id>", "a/b").replace("<path:id>", "a/b")
    path = path.replace("<path:project>", "routes")
    path = path.replace("<key>", "routes").replace("<name>", "routes")
    path = path.replace("<int(max=9223372036854775807):number>", str(number))
    variants = {
        path,
        path.rstrip("/") + "/",
        PREFIX + path,
        (PREFIX + path).rstrip("/"),
        PREFIX + path.rstrip("/") + "/",
    }
    for variant in variants:
        answer = sidecar.get(variant, params={"resource": "a", "action": "b"} if "check" in variant else None)
        assert (answer.status_code, answer.history) == (200, []), variant


@pytest.mark.parametrize("path", [WEBHOOK, "/api/webhook/deployment", "/api/webhook/step"])
def test_every_webhook_answers_with_and_without_prefix_and_slash(sidecar, name, path):
    body = {"project": name, "deployment_id": name, "step_name": "x", "step_status": "started"}
    for variant in (path, path + "/", PREFIX + path, PREFIX + path + "/"):
        assert sidecar.post(variant, body).status_code == 200, variant


def test_a_prefix_is_a_whole_folder(sidecar):
    assert sidecar.get(PREFIX + "x/healthz").status_code == 404


def test_a_database_that_takes_no_writes_answers_503(start_sidecar):
    """Nothing half written, told when to come back, and well again once the fault is over. The fault is real:
    somebody else holds SQLite's write lock."""
    server = start_sidecar()
    body = {"type": "step_started", "project": "p", "deployment_id": "1", "step_name": "x"}
    other = sqlite3.connect(server.instance / "sidecar.db", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        told = server.post(WEBHOOK, body)
        assert_problem(told, 503, "unavailable")
        assert int(told.headers["Retry-After"]) >= 1
        assert server.get("/readyz").status_code == 503
        assert server.get("/api/projects").json()["items"] == []
    finally:
        other.close()
    assert server.post(WEBHOOK, body).status_code == 200
    assert server.get("/readyz").json() == {"ready": True, "problems": [], "warnings": []}
    assert len(server.get("/api/deployments/1/events").json()["items"]) == 1


def test_a_caller_over_the_rate_is_told_when_to_come_back(start_sidecar):
    server = start_sidecar(SIDECAR_RATE_LIMIT="1/second, burst 5")
    answers = [server.get("/api/session", token="") for _ in range(12)]
    limited = [answer for answer in answers if answer.status_code == 429]
    assert limited
    assert_problem(limited[0], 429, "rate_limited")
    assert int(limited[0].headers["Retry-After"]) >= 1
    assert server.get("/api/session").status_code == 200, "a token has its own bucket"
    for path in ("/healthz", "/readyz", "/metrics", "/healthz/"):
        assert {server.get(path, token="").status_code for _ in range(10)} == {200}


def test_wrong_tokens_share_the_bucket_of_their_address(start_sidecar):
    """Guessing tokens is limited, whatever each guess is."""
    server = start_sidecar(SIDECAR_RATE_LIMIT="1/second, burst 5")
    statuses = [server.get("/api/projects", f"sct_{n:012x}_{'a' * 43}").status_code for n in range(15)]
    assert statuses[0] == 401
    assert 429 in statuses


def test_made_up_methods_do_not_grow_the_metrics(sidecar):
    """A label a client can choose is memory that it can take."""
    for number in range(5):
        sidecar.request(f"BREW{number}", "/healthz")
    assert "BREW" not in sidecar.get("/metrics").text
