"""examples/permissions_socket.py, direct and through nginx; examples/menu.yaml, imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import ROOT, running_nginx
from tests.servers import RunningSidecar

SHIPPED = (ROOT / "nginx" / "sidecar.conf").read_text()
SIX = "version timestamp checksum changes author description"


def run(*addresses: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "examples" / "permissions_socket.py"), *addresses],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_it_prints_the_same_direct_and_through_nginx(sidecar: RunningSidecar, tmp_path: Path):
    with running_nginx(tmp_path, SHIPPED, sidecar.port) as nginx:
        addresses = [sidecar.url, f"{nginx.url}/project-dashboard", nginx.url]
        done = run(*addresses)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "SUCCESS"
    for number, address in enumerate(addresses):
        part = lines[number * 11 : number * 11 + 11]
        assert part[:4] == [
            f"GET {address}/api/menu/version",
            f"  200 {SIX}",
            f"GET {address}/api/menu/version/",
            f"  200 {SIX}",
        ]
        assert part[4:6] == [
            f"WebSocket {address.replace('http', 'ws', 1)}/ws/permissions/anonymous",
            "  subprotocol menu-protocol",
        ]
        confirmed, asked, beat, check, answer = (json.loads(line[4:]) for line in part[6:])
        assert [line[2] for line in part[6:]] == ["<", ">", "<", ">", "<"]
        assert (confirmed["type"], confirmed["user_id"], confirmed["data"]["user_id"]) == (
            "connection_confirmed",
            None,
            0,
        )
        assert (asked["type"], beat["type"]) == ("heartbeat", "heartbeat_response")
        assert (check["type"], answer["type"]) == ("permission_check", "permission_check_response")
        assert answer["has_permission"] is False


def test_it_says_that_it_failed():
    done = run("http://127.0.0.1:9")
    assert done.returncode == 1
    assert done.stderr.startswith("FAILED: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("user", "keys"),
    [
        (None, ["home"]),
        ("somebody", ["home", "projects", "deployments"]),
        ("bob", ["home", "projects", "deployments", "metrics", "reports", "reports.daily", "reports.costs"]),
        ("eve", ["home", "projects", "deployments", "metrics", "reports", "reports.daily"]),
        (
            "ada",
            ["home", "projects", "deployments", "metrics", "reports", "reports.daily", "reports.costs", "admin"],
        ),
    ],
)
def test_the_example_menu_shows_each_their_part(imported: RunningSidecar, user: str | None, keys: list[str]):
    token = "" if user is None else imported.connection_token(sub=user)

    def walk(items: list[dict]) -> list[str]:
        return [key for item in items for key in (item["key"], *walk(item["children"]))]

    assert walk(imported.get("/api/menu", token).json()["items"]) == keys


def test_what_the_example_denies_is_denied(imported: RunningSidecar):
    def may(user: str, resource: str, action: str) -> bool:
        query = {"user": user, "resource": resource, "action": action}
        return bool(imported.get("/api/permissions/check", params=query).json()["has_permission"])

    assert may("bob", "report:costs", "read")
    assert not may("eve", "report:costs", "read")
    assert not may("bob", "report:costs", "export")
    assert may("ada", "anything", "at all")


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory):
    server = RunningSidecar(tmp_path_factory.mktemp("menu"), {"SIDECAR_RATE_LIMIT": "off"})
    server.start()
    done = server.cli("menu", "import", str(ROOT / "examples" / "menu.yaml"))
    assert done.returncode == 0, done.stderr
    assert "The menu: 9 changed" in done.stdout
    yield server
    server.stop()
