"""`sidecar lark`: apps added, listed and removed under a running server, and the keys of what is stored."""

from __future__ import annotations

import sqlite3
import subprocess

from cryptography.fernet import Fernet

from tests.servers import RunningSidecar

URL = "/api/authorizations"


def run(server: RunningSidecar, *arguments: str, given: bytes = b"", **more: str) -> subprocess.CompletedProcess[str]:
    return server.cli("lark", *arguments, stdin=given, **more)


def test_apps_under_a_running_server(start_sidecar):
    server = start_sidecar(SIDECAR_LARK_REDIRECT_URI="https://x.example/callback")
    assert server.post(URL, {"user": "u1"}).status_code == 404
    added = run(server, "app", "add", "cli_b", "--name", "the shop", given=b"the-secret\nthe-token\nthe-key\n")
    assert (added.returncode, added.stdout) == (0, "App cli_b is added.\n"), added.stderr
    listed = run(server, "app", "list").stdout
    assert listed.startswith("cli_b  the shop  callbacks: signature  ")
    stored = (server.instance / "sidecar.db").read_bytes() + (server.instance / "sidecar.db-wal").read_bytes()
    for secret in (b"the-secret", b"the-token", b"the-key"):
        assert secret not in stored
        assert secret.decode() not in listed + added.stdout + added.stderr
    started = server.post(URL, {"user": "u1"}).json()
    assert (started["app"], started["state"]) == ("cli_b", "pending")
    again = run(server, "app", "add", "cli_b", given=b"another\n")
    assert again.returncode != 0
    assert "another" not in again.stderr
    assert "Traceback" not in again.stderr
    removed = run(server, "app", "remove", "cli_b")
    assert (removed.returncode, removed.stdout) == (0, "App cli_b is removed.\n")
    assert run(server, "app", "remove", "cli_b").returncode != 0
    assert server.get(f"{URL}/{started['session_id']}").status_code == 404


def test_an_app_without_a_secret_is_refused(start_sidecar):
    server = start_sidecar()
    for given in (b"", b"\n\n\n", b"bell\x07\n"):
        refused = run(server, "app", "add", "cli_b", given=given)
        assert refused.returncode != 0
        assert "secret" in refused.stderr
        assert "Traceback" not in refused.stderr
    assert run(server, "app", "list").stdout == ""


def test_keys_are_made_and_changed(start_sidecar):
    server = start_sidecar()
    old, new = (run(server, "new-key").stdout.strip() for _ in range(2))
    Fernet(old)
    assert old != new
    run(server, "app", "add", "cli_b", given=b"the-secret\n\n\n", SIDECAR_LARK_ENCRYPTION_KEYS=old)
    assert "unreadable" in run(server, "app", "list").stdout
    refused = run(server, "rotate", SIDECAR_LARK_ENCRYPTION_KEYS=new)
    assert refused.returncode != 0
    assert "1 values can't be read" in refused.stderr
    done = run(server, "rotate", SIDECAR_LARK_ENCRYPTION_KEYS=f"{new},{old}")
    assert (done.returncode, done.stdout) == (0, "1 values are encrypted with the first key.\n"), done.stderr
    assert "callbacks: nothing" in run(server, "app", "list", SIDECAR_LARK_ENCRYPTION_KEYS=new).stdout
    with sqlite3.connect(server.instance / "sidecar.db") as database:
        (sealed,) = database.execute("SELECT sealed FROM lark_apps").fetchone()
    assert b"the-secret" in Fernet(new).decrypt(sealed.encode())
