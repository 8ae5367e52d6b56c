"""Secrets never reach a log: a server at debug level is given many, in every place where one may stand."""

from __future__ import annotations

import json
import re
import socket

import pytest

WEBHOOK = "/api/webhooks/deployment"
ENGINE = "/project-dashboard/ws/?EIO=4&transport=polling"


def raw(port: int, request: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request)
        connection.recv(4_096)


@pytest.mark.parametrize("format", ["console", "json"])
def test_no_secret_is_ever_logged(start_sidecar, format):
    server = start_sidecar(SIDECAR_LOG_LEVEL="debug", SIDECAR_LOG_FORMAT=format, SIDECAR_SECRET_KEY="m" * 40)
    token = server.new_token("webhooks:write", "deployments:read", "tokens:issue")
    wrong = f"sct_{'0' * 12}_{'w' * 43}"
    connection = server.connection_token(sub="anna")
    code = re.search(r"code=([\w-]+)", server.cli("login").stdout)[1]
    cookie = server.post("/login", token="", data={"code": code}).cookies["sidecar_login"]
    csrf = server.get("/api/session", token="", headers={"Cookie": f"sidecar_login={cookie}"}).json()["csrf_token"]
    secrets = [server.token, token, wrong, connection, code, cookie, csrf, "m" * 40]
    secrets += [secret.split("_", 2)[2] for secret in (server.token, token, wrong)]
    secrets += [part for text in (connection, cookie) for part in text.split(".")[1:]]

    body = {"type": "log_entry", "project": "p", "deployment_id": "1", "message": f"token is {token}"}
    for secret in (server.token, token, wrong, connection, cookie, code):
        for headers in (
            {"Authorization": f"Token {secret}"},
            {"Authorization": f"Basic {secret}"},
            {"X-API-Key": secret},
            {"X-Webhook-Token": secret},
            {"Cookie": f"sidecar_login={secret}"},
            {"X-CSRF-Token": secret},
            {"User-Agent": secret, "Referer": f"http://x/?token={secret}", "Origin": f"http://{secret[:60]}"},
        ):
            server.post(WEBHOOK, body, token="", headers=headers)
            server.get("/api/projects", token="", headers=headers)
        for path in (
            f"{ENGINE}&token={secret}",
            f"{ENGINE}&api_key={secret}",
            f"/api/projects?token={secret}&access_token={secret}",
            f"/login?code={secret}",
            f"/api/deployments/{secret}",
            f"/nothing/{secret}",
            f"/api/tokens/{secret}",
        ):
            server.get(path, token="")
            server.request("DELETE", path)
        server.post("/api/tokens", {"name": secret, "scopes": [secret], "projects": [secret], "ttl_seconds": secret})
        server.post("/login", token="", data={"code": secret})
        line = f"GET /login?code={secret}&token={secret}".encode()
        raw(server.port, line + b" HTTP/1.1 extra\r\n\r\n")
        raw(server.port, line + b" HTTP/7\r\n\r\n")
        raw(server.port, f"{secret} / HTTP/1.1\r\n\r\n".encode())
        raw(server.port, f"POST / HTTP/1.1\r\nContent-Length: {secret}\r\n\r\n".encode())
        raw(server.port, f"GET / HTTP/1.1\r\n{secret}\r\n\r\n".encode())
        raw(server.port, line + b"&sid=x HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
    assert server.stop() == 0

    output = server.output()
    first = re.search(r"login\?code=([\w-]+)", output)[1]
    printed = output.replace(f"login?code={first}", "")  # the one that the operator is meant to see
    assert printed.count("http.request") > 100, "the server did log"
    assert "server.bad_request" in printed
    assert "Traceback" not in printed
    for secret in [*secrets, first]:
        assert secret not in printed


def test_json_logs_are_one_object_a_line_with_the_requests_id(start_sidecar):
    server = start_sidecar(SIDECAR_LOG_LEVEL="debug", SIDECAR_LOG_FORMAT="json")
    server.get("/api/projects?q=%0Aforged", headers={"X-Request-Id": "my-request"})
    server.stop()
    lines = [json.loads(line) for line in server.output().splitlines() if line.startswith("{")]
    assert lines
    for line in lines:
        assert {"event", "level", "timestamp"} <= set(line)
    (mine,) = [line for line in lines if line.get("request_id") == "my-request"]
    assert (mine["event"], mine["method"], mine["route"], mine["status"]) == (
        "http.request",
        "GET",
        "/api/projects",
        400,
    )


def test_what_is_kept_of_a_delivery_holds_no_token(sidecar, name):
    """Headers are kept to tell senders apart; credentials are not among them."""
    token = sidecar.new_token("webhooks:write")
    body = {"type": "log_entry", "project": name, "deployment_id": name, "message": f"leaked {token}"}
    sidecar.post(WEBHOOK, body, token=token, headers={"User-Agent": f"curl {token}", "X-API-Key": token})
    kept = next(item for item in sidecar.get("/api/deliveries").json()["items"] if item["project"] == name)
    assert token not in json.dumps({**kept, "body": ""})
    assert token not in sidecar.get(f"/api/deployments/{name}/logs").text
    assert token not in sidecar.get(f"/api/deployments/{name}/events").text
