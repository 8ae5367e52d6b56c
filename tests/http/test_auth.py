"""Who may do what over HTTP: tokens in all their forms, projects, connection tokens, open mode, revocation."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx
import pytest

WEBHOOK = "/api/webhooks/deployment"
WAIT_SECONDS = 60


def until(condition: Callable[[], bool], what: str) -> None:
    """Poll for an observable condition."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def step(project: str, deployment_id: str = "") -> dict[str, object]:
    return {"type": "step_started", "project": project, "deployment_id": deployment_id or project, "step_name": "build"}


def line(project: str, text: str = "hello") -> dict[str, object]:
    return {"type": "log_entry", "project": project, "deployment_id": project, "level": "info", "message": text}


def status(answer: httpx.Response) -> int:
    return answer.status_code


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Token {}"},
        {"Authorization": "Bearer {}"},
        {"Authorization": "bearer {}"},
        {"Authorization": "TOKEN   {}"},
        {"X-API-Key": "{}"},
        {"X-Webhook-Token": "{}"},
        {"x-api-key": "{}"},
    ],
)
def test_a_token_is_taken_in_each_of_its_headers(sidecar, headers):
    given = {header: value.format(sidecar.token) for header, value in headers.items()}
    assert status(sidecar.get("/api/projects", token="", headers=given)) == 200


def altered(token: str) -> str:
    return token[:-1] + ("A" if token[-1] != "A" else "B")


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"Token",
        b"Basic YWRtaW46YWRtaW4=",
        b"Digest x",
        b"Token sct_000000000000_" + b"a" * 43,
        b"Token sct_000000000000_short",
        b"Token nonsense",
        "Token sct_déjà_vu".encode(),
        b"Token \xff\xfe\xfd",
        b"Token " + b"a" * 5_000,
        b"Bearer a.b.c",
        b"Bearer eyJhbGciOiJub25lIn0.eyJhdWQiOiJzaWRlY2FyIn0.",
        b"Bearer " + b"W1tb" * 1_200 + b".e30.x",
    ],
)
@pytest.mark.parametrize("path", ["/api/projects", "/api/info"])
def test_a_wrong_token_is_401_and_says_how(sidecar, header, path):
    """Also where a stranger would be let in: a wrong credential is never treated as none."""
    answer = httpx.get(sidecar.url + path, headers={b"Authorization": header})
    assert answer.status_code == 401, answer.text
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="sidecar"'
    assert answer.json()["code"] == "unauthenticated"


def test_one_wrong_character_is_wrong(sidecar):
    assert status(sidecar.get("/api/projects", altered(sidecar.token))) == 401


def test_no_token_is_401_and_a_weak_one_403(sidecar):
    assert status(sidecar.get("/api/projects", token="")) == 401
    assert status(sidecar.get("/api/projects", sidecar.new_token("webhooks:write"))) == 403


def test_an_expired_token_is_told_so(sidecar):
    token = sidecar.new_token("deployments:read", ttl_seconds=1)
    until(lambda: status(sidecar.get("/api/projects", token)) == 401, "the token went on after its end")
    assert sidecar.get("/api/projects", token).json()["code"] == "token_expired"


def id_of(token: str) -> str:
    return token.split("_")[1]


def test_a_revoked_token_ends_at_once(sidecar):
    token = sidecar.new_token("deployments:read")
    assert status(sidecar.get("/api/projects", token)) == 200, "now it lies in the cache"
    assert status(sidecar.request("DELETE", f"/api/tokens/{id_of(token)}")) == 200
    answer = sidecar.get("/api/projects", token)
    assert (answer.status_code, answer.json()["detail"]) == (401, "The token has been revoked.")
    assert status(sidecar.request("DELETE", f"/api/tokens/{id_of(token)}")) == 404


def test_a_token_revoked_by_another_process_ends(sidecar):
    """The command line writes to the journal; the running server hears of it from the tail, long before its cache
    of half a minute ends."""
    token = sidecar.new_token("deployments:read", "tokens:issue")
    issued = sidecar.post("/api/tokens/connection", {}, token=token).json()["token"]
    assert status(sidecar.get("/api/projects", token)) == status(sidecar.get("/api/projects", issued)) == 200
    done = sidecar.cli("token", "revoke", id_of(token))
    assert done.returncode == 0, done.stderr
    until(lambda: status(sidecar.get("/api/projects", token)) == 401, "the cached token went on")
    assert status(sidecar.get("/api/projects", issued)) == 401


NEEDS = [
    ("GET", "/api/projects", "deployments:read"),
    ("GET", "/api/deployments", "deployments:read"),
    ("GET", "/api/deployments/x", "deployments:read"),
    ("GET", "/api/deployments/x/logs", "deployments:read"),
    ("GET", "/api/deployments/x/logs?format=text", "deployments:read"),
    ("GET", "/api/deployments/x/events", "deployments:read"),
    ("POST", WEBHOOK, "webhooks:write"),
    ("POST", "/api/webhook/deployment", "webhooks:write"),
    ("POST", "/api/webhook/step", "webhooks:write"),
    ("POST", "/api/tokens/connection", "tokens:issue"),
    ("GET", "/api/tokens", "admin"),
    ("POST", "/api/tokens", "admin"),
    ("DELETE", "/api/tokens/x", "admin"),
    ("GET", "/api/deliveries", "admin"),
    ("GET", "/api/deliveries/1", "admin"),
    ("POST", "/api/deliveries/1/replay", "admin"),
    ("GET", "/api/first-steps", "admin"),
]
SCOPES = ("webhooks:write", "deployments:read", "rooms:read", "tokens:issue", "messages:send", "menu:write")


@pytest.mark.parametrize(("method", "path", "scope"), NEEDS)
def test_each_scope_opens_its_routes_only(sidecar, method, path, scope):
    options = {"content": b"{}"} if method == "POST" else {}
    others = sidecar.new_token(*[other for other in SCOPES if other != scope])
    assert status(sidecar.request(method, path, others, **options)) == 403
    assert status(sidecar.request(method, path, "", **options)) == 401
    assert status(sidecar.request(method, path, sidecar.new_token(scope), **options)) in (200, 400, 404)


def test_a_token_of_a_project_sees_nothing_of_others(sidecar, name):
    mine, theirs = f"{name}-mine", f"{name}-theirs"
    for project in (mine, theirs):
        assert status(sidecar.post(WEBHOOK, step(project))) == 200
        assert status(sidecar.post(WEBHOOK, line(project))) == 200
    token = sidecar.new_token("deployments:read", "webhooks:write", projects=[mine])

    def items(path: str) -> list[dict]:
        return sidecar.get(path, token).json()["items"]

    assert [item["name"] for item in items("/api/projects")] == [mine]
    assert [item["project"] for item in items("/api/deployments")] == [mine]
    assert items(f"/api/deployments?project={theirs}") == []
    assert [item["project"] for item in items(f"/api/deployments?project={theirs}&project={mine}")] == [mine]
    assert sidecar.get("/api/deployments?page=1", token).json()["pagination"]["total"] == 1
    for tail in ("", "/logs", "/logs?format=text", "/events"):
        seen, hidden, absent = (
            sidecar.get(f"/api/deployments/{id}{tail}", token) for id in (mine, theirs, f"{name}-absent")
        )
        assert (status(seen), status(hidden), status(absent)) == (200, 404, 404)
        told = [answer.json() | {"request_id": ""} for answer in (hidden, absent)]
        assert told[0] == told[1], "an id that is hidden answers as one that is not there"
    assert status(sidecar.post(WEBHOOK, step(theirs, f"{name}-new"), token=token)) == 403
    assert status(sidecar.post(WEBHOOK, step(mine, theirs), token=token)) == 403, "the id belongs to the other project"
    assert status(sidecar.get(f"/api/deployments/{name}-new")) == 404


# Connection tokens


def issue(sidecar, token: str | None = None, **body: object) -> httpx.Response:
    return sidecar.post("/api/tokens/connection", body, token=token)


def test_a_connection_token_reads_what_its_issuer_reads(sidecar, name):
    sidecar.post(WEBHOOK, step(name))
    issued = issue(sidecar, sub="anna").json()
    assert issued["ttl_seconds"] == 300
    session = sidecar.get("/api/session", issued["token"]).json()
    assert (session["name"], session["kind"], session["csrf_token"]) == ("anna", "connection", None)
    assert set(session["scopes"]) == {"deployments:read", "rooms:read"}
    assert status(sidecar.get(f"/api/deployments/{name}", issued["token"])) == 200
    assert status(sidecar.post(WEBHOOK, step(name), token=issued["token"])) == 403


def test_it_is_never_wider_than_its_issuer(sidecar, name):
    mine, theirs = f"{name}-mine", f"{name}-theirs"
    for project in (mine, theirs):
        sidecar.post(WEBHOOK, step(project))
    issuer = sidecar.new_token("tokens:issue", "deployments:read", projects=[mine])
    token = issue(sidecar, issuer, scopes=["admin", "deployments:read", "webhooks:write"], rooms=["project:*"]).json()[
        "token"
    ]
    assert sidecar.get("/api/session", token).json()["scopes"] == ["deployments:read"]
    assert [item["name"] for item in sidecar.get("/api/projects", token).json()["items"]] == [mine]
    assert status(sidecar.get(f"/api/deployments/{theirs}", token)) == 404


def test_an_admin_can_not_pass_on_being_admin(sidecar):
    token = issue(sidecar, scopes=["admin", "tokens:issue", "deployments:read"]).json()["token"]
    assert sidecar.get("/api/session", token).json()["scopes"] == ["deployments:read"]
    assert status(issue(sidecar, token)) == 403
    assert status(sidecar.get("/api/tokens", token)) == 403


def test_its_patterns_limit_what_it_reads(sidecar, name):
    for project in (f"{name}-a", f"{name}-b"):
        sidecar.post(WEBHOOK, step(project))
    # fnmatch reads [ ] as a class, so the pattern stands for the rest of the name.
    token = issue(sidecar, rooms=[f"project:*-{name.rsplit('-', 1)[1]}-a"]).json()["token"]
    assert [item["name"] for item in sidecar.get("/api/projects", token).json()["items"]] == [f"{name}-a"]
    assert [item["project"] for item in sidecar.get("/api/deployments", token).json()["items"]] == [f"{name}-a"]
    assert status(sidecar.get(f"/api/deployments/{name}-b", token)) == 404
    assert sidecar.get("/api/projects", issue(sidecar, rooms=[]).json()["token"]).json()["items"] == []


def test_a_deployment_pattern_opens_that_deployment_alone(sidecar):
    for deployment in ("only-this-1", "only-this-2"):
        sidecar.post(WEBHOOK, step("patterns", deployment))
    token = issue(sidecar, rooms=["deployment:only-this-1"]).json()["token"]
    assert status(sidecar.get("/api/deployments/only-this-1", token)) == 200
    assert status(sidecar.get("/api/deployments/only-this-2", token)) == 404
    assert sidecar.get("/api/projects", token).json()["items"] == []


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"ttl_seconds": 0}, "ttl_seconds"),
        ({"ttl_seconds": 86_401}, "ttl_seconds"),
        ({"ttl_seconds": True}, "ttl_seconds"),
        ({"ttl_seconds": 1.5}, "ttl_seconds"),
        ({"ttl_seconds": "60"}, "ttl_seconds"),
        ({"sub": ""}, "sub"),
        ({"sub": "a\nb"}, "sub"),
        ({"sub": ["x"]}, "sub"),
        ({"rooms": "project:x"}, "rooms"),
        ({"rooms": ["user:boss"]}, "rooms[0]"),
        ({"rooms": ["project:x", "permissions:x"]}, "rooms[1]"),
        ({"rooms": ["*"]}, "rooms[0]"),
        ({"rooms": [7]}, "rooms[0]"),
        ({"rooms": ["project:" + "x" * 300]}, "rooms[0]"),
        ({"rooms": ["project:x"] * 101}, "rooms"),
        ({"scopes": ["fly"]}, "scopes"),
        ({"scopes": [[]]}, "scopes"),
    ],
)
def test_a_connection_token_that_can_not_be_made_so(sidecar, body, path):
    answer = issue(sidecar, **body)
    assert (answer.status_code, [item["path"] for item in answer.json()["errors"]]) == (400, [path])


@pytest.mark.parametrize("ttl", [1, 86_400])
def test_the_life_of_a_connection_token_is_bounded(sidecar, ttl):
    assert issue(sidecar, ttl_seconds=ttl).json()["ttl_seconds"] == ttl


def test_a_connection_token_ends(sidecar):
    token = issue(sidecar, ttl_seconds=1).json()["token"]
    until(lambda: status(sidecar.get("/api/projects", token)) == 401, "the connection token went on after its end")
    assert sidecar.get("/api/projects", token).json()["code"] == "token_expired"


def test_an_altered_connection_token_is_nobody(sidecar):
    head, body, signature = issue(sidecar).json()["token"].split(".")
    for forged in (f"{head}.{body}x.{signature}", f"{head}.{body}.{signature[:-3]}AAA", f"{head}.{body}."):
        assert status(sidecar.get("/api/projects", forged)) == 401


# Open modes


def strangers_may(server, method: str, path: str, body: object = None) -> int:
    options = {"json": body} if body is not None else {}
    return status(server.request(method, path, "", **options))


PRIVATE = [
    ("GET", "/api/tokens"),
    ("POST", "/api/tokens"),
    ("DELETE", "/api/tokens/x"),
    ("POST", "/api/tokens/connection"),
    ("GET", "/api/deliveries"),
    ("GET", "/api/deliveries/1"),
    ("POST", "/api/deliveries/1/replay"),
    ("GET", "/api/first-steps"),
]


@pytest.mark.parametrize(
    ("environment", "posts", "reads"),
    [
        ({}, 401, 401),
        ({"SIDECAR_OPEN": "true"}, 200, 200),
        ({"SIDECAR_OPEN": "webhooks"}, 200, 401),
        ({"SIDECAR_ANONYMOUS_READ": "true"}, 401, 200),
        ({"SIDECAR_OPEN": "webhooks", "SIDECAR_WEBHOOK_NETWORKS": "127.0.0.0/8"}, 200, 401),
        ({"SIDECAR_OPEN": "true", "SIDECAR_WEBHOOK_NETWORKS": "203.0.113.0/24"}, 401, 200),
    ],
)
def test_open_modes_open_posting_and_watching_and_nothing_else(start_sidecar, environment, posts, reads):
    server = start_sidecar(**environment)
    assert status(server.post(WEBHOOK, step("p"))) == 200
    assert strangers_may(server, "POST", WEBHOOK, step("p")) == posts
    for path in ("/api/projects", "/api/deployments", "/api/deployments/p", "/api/deployments/p/logs"):
        assert strangers_may(server, "GET", path) == reads, path
    for method, path in PRIVATE:
        assert strangers_may(server, method, path, {} if method == "POST" else None) == 401, path
    assert status(server.get("/api/projects", "sct_wrong")) == 401, "a wrong token is not a stranger"
    assert ("WARNING: SIDECAR_OPEN" in server.output()) == ("SIDECAR_OPEN" in environment)


def test_webhook_networks_see_through_the_proxy(start_sidecar):
    """The address that counts is the sender's, not that of the proxy in front."""
    server = start_sidecar(SIDECAR_OPEN="webhooks", SIDECAR_WEBHOOK_NETWORKS="203.0.113.0/24")
    for address, expected in (("203.0.113.9", 200), ("198.51.100.1", 401), ("203.0.113.9, 198.51.100.1", 401)):
        answer = server.post(WEBHOOK, step("p"), token="", headers={"X-Forwarded-For": address})
        assert answer.status_code == expected, address
