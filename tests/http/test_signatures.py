"""Signed webhooks: who may post by a secret, for which projects, and everything that is 401."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import subprocess

import pytest

from sidecar.services.webhook_secrets import MAX_ACTIVE
from tests.http.test_errors import assert_problem
from tests.programs import wait_until
from tests.servers import two_processes

WEBHOOK = "/api/webhooks/deployment"
HEADER = "X-Hub-Signature-256"


def message(project: str, deployment_id: str = "1", **fields: object) -> bytes:
    given = {"type": "step_started", "project": project, "deployment_id": deployment_id, "step_name": "build"}
    return json.dumps(given | fields).encode()


def signature(secret: str, body: bytes) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def signed(server, secret: str, body: bytes, **headers: str):
    given = {"Content-Type": "application/json", HEADER: signature(secret, body)} | headers
    return server.request("POST", WEBHOOK, "", content=body, headers=given)


@pytest.fixture
def make(sidecar):
    """`make("project")`: a secret for it. (The table has room for so many: each is revoked after the test.)"""
    made = []

    def make(*projects: str, **fields: object) -> dict:
        answer = sidecar.post("/api/secrets", {"projects": list(projects) or None} | fields)
        assert answer.status_code == 200, answer.text
        made.append(answer.json())
        return made[-1]

    yield make
    for secret in made:
        sidecar.request("DELETE", f"/api/secrets/{secret['id']}")


def test_a_signed_body_is_stored_for_the_projects_of_its_secret(sidecar, make, name):
    secret = make(name)
    answer = signed(sidecar, secret["secret"], message(name, name))
    assert (answer.status_code, answer.json()["project"]) == (200, name)
    (delivery,) = sidecar.get("/api/deliveries", params={"project": name}).json()["items"]
    assert (delivery["token_id"], delivery["headers"][HEADER]) == (secret["id"], "[redacted]")
    assert_problem(signed(sidecar, secret["secret"], message(f"{name}-b", name)), 403, "not_allowed")


def test_a_secret_for_all_projects(sidecar, make, name):
    assert signed(sidecar, make()["secret"], message(name, name)).status_code == 200


def test_of_several_secrets_the_one_that_fits_decides(sidecar, make, name):
    secrets = [make(f"{name}-{number}")["secret"] for number in range(3)]
    for number, secret in enumerate(secrets):
        body = message(f"{name}-{number}", f"{name}-{number}")
        assert signed(sidecar, secret, body).status_code == 200
        others = [other for other in secrets if other != secret]
        assert {signed(sidecar, other, body).status_code for other in others} == {403}


def test_rotation_both_are_taken_until_the_old_one_is_revoked(sidecar, make, name):
    old, new = make(name), make(name)
    for secret in (old, new):
        assert signed(sidecar, secret["secret"], message(name, name)).status_code == 200
    assert sidecar.request("DELETE", f"/api/secrets/{old['id']}").status_code == 200
    assert_problem(signed(sidecar, old["secret"], message(name, name)), 401, "signature_mismatch")
    assert signed(sidecar, new["secret"], message(name, name)).status_code == 200
    listed = {row["id"]: row for row in sidecar.get("/api/secrets", params={"project": name}).json()["items"]}
    assert listed[old["id"]]["revoked_at"] is not None
    assert listed[new["id"]]["revoked_at"] is None


def test_what_another_system_signs_with_already_is_taken_over(sidecar, make, name):
    text = f"It's a Secret to Everybody {name}"
    make(name, secret=text)
    assert signed(sidecar, text, message(name, name)).status_code == 200
    assert_problem(sidecar.post("/api/secrets", {"projects": ["other"], "secret": text}), 409, "conflict")


def forged(secret: str, body: bytes) -> list[str]:
    right = signature(secret, body)
    digits = right.removeprefix("sha256=")
    return [
        signature(secret + "x", body),
        signature(secret, body + b" "),
        right[:-1],
        right + "0",
        right.replace("sha256", "sha1"),
        digits,
        "",
        "sha256=",
        f"{right}, {right}",
        f"{right[:-1]}é",
        "sha256=" + "é" * 64,
        "\xff\xfe",
        "null",
        "x" * 5_000,
    ]


def test_a_forged_cut_or_strange_signature_is_401_and_stores_nothing(sidecar, make, name):
    secret = make(name)["secret"]
    body = message(name, name)
    for header in forged(secret, body):
        headers = {"Content-Type": "application/json", HEADER.encode(): header.encode("latin-1")}
        answer = sidecar.request("POST", WEBHOOK, "", content=body, headers=headers)
        assert_problem(answer, 401, "signature_mismatch")
        assert "WWW-Authenticate" in answer.headers
        assert len(header) < 10 or header not in answer.text
    assert sidecar.get("/api/deliveries", params={"project": name}).json()["items"] == []


@pytest.mark.parametrize("second", ["the same", "another"])
def test_a_repeated_signature_header_is_401(sidecar, make, name, second):
    secret = make(name)["secret"]
    body = message(name, name)
    lines = [signature(secret, body), signature(secret if second == "the same" else "x" * 20, body)]
    head = "".join(f"{HEADER}: {line}\r\n" for line in lines)
    with socket.create_connection(("127.0.0.1", sidecar.port), timeout=30) as connection:
        connection.sendall(
            f"POST {WEBHOOK} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: close\r\n"
            f"{head}Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 401"), answer
    assert b'"code":"signature_mismatch"' in answer.replace(b": ", b":")


def test_a_wrong_signature_beside_a_token_is_401_also_where_posting_is_open(start_sidecar, name):
    server = start_sidecar(SIDECAR_OPEN="true")
    body = message(name)
    wrong = {"Content-Type": "application/json", HEADER: signature("x" * 20, body)}
    for token in (server.token, server.new_token("webhooks:write"), ""):
        assert_problem(server.request("POST", WEBHOOK, token, content=body, headers=wrong), 401, "signature_mismatch")
    assert server.request("POST", WEBHOOK, "", content=body).status_code == 200


def test_token_and_signature_together_give_what_both_give(sidecar, make, name):
    secret = make(name, f"{name}-b")["secret"]
    token = sidecar.new_token("webhooks:write", projects=[name, f"{name}-c"])
    for project, status in ((name, 200), (f"{name}-b", 403), (f"{name}-c", 403)):
        body = message(project, project)
        headers = {"Content-Type": "application/json", HEADER: signature(secret, body)}
        assert sidecar.request("POST", WEBHOOK, token, content=body, headers=headers).status_code == status, project
    reader = sidecar.new_token("deployments:read")
    headers = {"Content-Type": "application/json", HEADER: signature(secret, message(name))}
    assert_problem(sidecar.request("POST", WEBHOOK, reader, content=message(name), headers=headers), 403, "not_allowed")


def test_a_signature_opens_nothing_but_the_webhooks(sidecar, make, name):
    secret = make()["secret"]
    body = b'{"room":"x","message":"m"}'
    headers = {"Content-Type": "application/json", HEADER: signature(secret, body)}
    for method, path in (("POST", "/api/send-websocket/"), ("GET", "/api/projects"), ("POST", "/api/secrets")):
        answer = sidecar.request(method, path, "", content=body, headers=headers)
        assert_problem(answer, 401, "unauthenticated") if path != "/api/send-websocket/" else None
        assert answer.status_code == 401


def test_a_body_in_the_native_thread_is_judged_alike(sidecar, make, name):
    secret = make(name)["secret"]
    body = message(name, name, logs="x" * 900_000)
    assert signed(sidecar, secret, body).status_code == 200
    assert_problem(signed(sidecar, secret + "x", body), 401, "signature_mismatch")


def test_signed_rubbish_is_kept_in_quarantine_and_replayed_with_the_secrets_rights(sidecar, make, name):
    secret = make(name)
    told = assert_problem(signed(sidecar, secret["secret"], b'{"type":'), 400, "unparsable")
    number = int(told["detail"].rsplit(" ", 1)[1].rstrip("."))
    assert sidecar.get(f"/api/deliveries/{number}").json()["token_id"] == secret["id"]
    assert sidecar.post(f"/api/deliveries/{number}/replay").status_code == 400
    body = message(name, f"{name}-kept")
    assert signed(sidecar, secret["secret"], body).status_code == 200
    (kept,) = sidecar.get("/api/deliveries", params={"project": name}).json()["items"]
    assert sidecar.post(f"/api/deliveries/{kept['number']}/replay").status_code == 200
    sidecar.request("DELETE", f"/api/secrets/{secret['id']}")
    assert_problem(sidecar.post(f"/api/deliveries/{kept['number']}/replay"), 401, "unauthenticated")


@pytest.mark.parametrize("header", ["X-GitHub-Delivery", "webhook-id", "Idempotency-Key"])
def test_a_redelivery_is_known_by_the_senders_own_number(sidecar, make, name, header):
    secret = make(name)["secret"]
    body = message(name, name)
    first, again = (signed(sidecar, secret, body, **{header: f"72d3162e-{name}"}).json() for _ in range(2))
    assert (first["duplicate"], again["duplicate"], first["event_id"]) == (False, True, again["event_id"])
    other = signed(sidecar, secret, message(name, f"{name}-b"), **{header: f"72d3162e-{name}"})
    assert_problem(other, 409, "conflict")


def test_what_a_secret_can_not_be(sidecar, name):
    def paths(body: dict) -> set[str]:
        return {item["path"] for item in assert_problem(sidecar.post("/api/secrets", body), 400, "invalid")["errors"]}

    assert paths({"projects": [], "secret": "short", "name": "a\nb", "project": name}) == {
        "projects",
        "secret",
        "name",
        "project",
    }
    assert paths({"projects": [name, ""]}) == {"projects[1]"}
    assert paths({"projects": name}) == {"projects"}
    assert paths({"secret": "line\nbreak" * 3}) == {"secret"}
    assert paths({"secret": "x" * 513}) == {"secret"}
    assert_problem(sidecar.get("/api/secrets", params={"projet": name}), 400, "invalid")
    assert_problem(sidecar.request("DELETE", "/api/secrets/whs_000000000000"), 404, "not_found")


def test_only_admins_manage_secrets(sidecar, name):
    token = sidecar.new_token("webhooks:write", "deployments:read", "tokens:issue")
    for method, path in (("GET", "/api/secrets"), ("POST", "/api/secrets"), ("DELETE", "/api/secrets/x")):
        assert_problem(sidecar.request(method, path, token), 403, "not_allowed")
        assert_problem(sidecar.request(method, path, ""), 401, "unauthenticated")


def test_there_are_64_at_most_and_all_are_tried(start_sidecar, name):
    server = start_sidecar(SIDECAR_LOG_LEVEL="debug")
    made = [server.post("/api/secrets", {"projects": [f"p{number}"]}).json() for number in range(MAX_ACTIVE)]
    told = assert_problem(server.post("/api/secrets", {"projects": ["one-more"]}), 409, "conflict")
    assert "64" in told["detail"]
    for number in (0, MAX_ACTIVE - 1):
        assert signed(server, made[number]["secret"], message(f"p{number}", f"d{number}")).status_code == 200
    server.request("DELETE", f"/api/secrets/{made[5]['id']}")
    more = server.post("/api/secrets", {"projects": ["one-more"]}).json()
    assert signed(server, more["secret"], message("one-more", "d-more")).status_code == 200
    assert server.stop() == 0
    output = server.output()
    assert "Traceback" not in output
    for secret in (*made, more):
        assert secret["secret"] not in output


def test_forging_large_bodies_uses_up_the_addresss_requests(start_sidecar):
    """Each try costs a hash of the body for every secret: it is paid for as the requests that could have been."""
    server = start_sidecar(SIDECAR_RATE_LIMIT="1/second, burst 40")
    for number in range(20):
        server.post("/api/secrets", {"projects": [f"p{number}"]})
    body = b" " * 1_000_000
    assert_problem(signed(server, "x" * 20, body), 401, "signature_mismatch")
    assert_problem(signed(server, "x" * 20, body), 429, "rate_limited")
    assert server.get("/api/secrets").status_code == 200, "a token has its own bucket"


@pytest.mark.parametrize("apart", [False, True], ids=["one host", "two hosts"])
def test_another_process_hears_of_a_secret_made_and_revoked(request, tmp_path, name, apart):
    postgres = request.getfixturevalue("postgres") if apart else None
    url = postgres.url(postgres.new_database()).replace("+psycopg", "") if postgres else None
    with two_processes(tmp_path, url, apart) as (one, two):
        secret = one.post("/api/secrets", {"projects": [name]}).json()
        body = message(name)
        wait_until(lambda: signed(two, secret["secret"], body).status_code == 200, "the secret counts")
        assert one.request("DELETE", f"/api/secrets/{secret['id']}").status_code == 200
        wait_until(lambda: signed(two, secret["secret"], body).status_code == 401, "it is revoked")


def test_the_command_line_makes_lists_and_revokes(start_sidecar, name):
    server = start_sidecar()
    made = server.cli("secret", "create", "--project", name, "--name", "shop's GitHub")
    secret = made.stdout.strip()
    assert secret.startswith("whs_")
    assert signed(server, secret, message(name)).status_code == 200, "a running server knows of it"
    command = made.stderr.split("Try it:\n")[1]
    assert '"success":true' in subprocess.run(["bash", "-c", command], capture_output=True, text=True).stdout
    taken = server.cli("secret", "create", "--all-projects", "--secret-stdin", stdin=b"It's a Secret to Everybody\n")
    assert taken.stdout == ""
    assert signed(server, "It's a Secret to Everybody", message(name, "2")).status_code == 200
    lines = server.cli("secret", "list", "--project", name).stdout.splitlines()
    assert [line.split("  ")[1:3] for line in lines] == [["shop's GitHub", name], ["all projects", "all projects"]]
    assert secret not in server.cli("secret", "list").stdout
    id = lines[0].split("  ")[0]
    assert server.cli("secret", "revoke", id, "--project", f"{name}-other").returncode == 1
    assert server.cli("secret", "revoke", id, "--project", name).returncode == 0
    assert_problem(signed(server, secret, message(name)), 401, "signature_mismatch")
    for arguments in (
        ["create"],
        ["create", "--project", name, "--all-projects"],
        ["revoke", id],
        ["revoke", "nonsense"],
    ):
        assert server.cli("secret", *arguments).returncode != 0
