"""`python -m sidecar lark-events`: what it needs, what it becomes, and the whole way from Lark to a real sidecar."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from examples.fake_lark import FakeLark
from sidecar.cli.lark_events import SDK_VERSION
from sidecar.client import SidecarClient
from tests.conftest import Start
from tests.lark.stage import APP_ID, APP_SECRET, REDIRECT_URI, console, require_sdk
from tests.programs import DEADLINE_SECONDS, ROOT, running, wait_until
from tests.servers import RunningSidecar

COMMAND = [sys.executable, "-m", "sidecar", "lark-events"]
START_SECONDS = 60.0
WITHOUT_SDK = """
import importlib.metadata as metadata
found = metadata.version
def version(name):
    if name == "lark-oapi":
        raise metadata.PackageNotFoundError(name)
    return found(name)
metadata.version = version
"""


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SIDECAR_", "LARK_"))}
    return kept | {"SIDECAR_INSTANCE_DIR": str(tmp_path / "instance")} | more


def refused(environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [*COMMAND, *arguments], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=START_SECONDS
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_without_an_app_it_says_so_and_ends(tmp_path: Path):
    assert "No Lark app is configured: SIDECAR_LARK_APP_ID" in refused(environment(tmp_path))
    assert "There is no Lark app cli_x" in refused(environment(tmp_path), "--app", "cli_x")


def test_without_the_sdk_it_names_the_command_that_installs_it(tmp_path: Path):
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_SDK)
    given = {"SIDECAR_LARK_APP_ID": APP_ID, "SIDECAR_LARK_APP_SECRET": APP_SECRET, "PYTHONPATH": str(tmp_path)}
    assert "pip install -r config/requirements-lark.txt" in refused(environment(tmp_path, **given))


def test_the_version_it_was_made_for_is_the_one_that_is_installed():
    """It calls private methods of the SDK."""
    assert f"lark-oapi=={SDK_VERSION}\n" in (ROOT / "config" / "requirements-lark.txt").read_text()


def test_with_a_token_and_an_app_of_the_environment_it_needs_no_installation(tmp_path: Path):
    """The sidecar may be on another host."""
    require_sdk()
    given = {
        "SIDECAR_LARK_APP_ID": APP_ID,
        "SIDECAR_LARK_APP_SECRET": APP_SECRET,
        "SIDECAR_URL": "http://127.0.0.1:9/prefix",
        "SIDECAR_TOKEN": "sct_elsewhere",
    }
    output = tmp_path / "output"
    with running(COMMAND, output, environment(tmp_path, **given)) as process:
        wait_until(lambda: "Waiting for the sidecar at http://127.0.0.1:9/prefix" in output.read_text(), "it waits")
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_SECONDS) == 0
    assert not (tmp_path / "instance").exists()


def connection_status(sidecar: RunningSidecar) -> str:
    """The metric's value; empty while there is none."""
    text = httpx.get(f"{sidecar.url}/metrics").text
    name = f'lark_service_websocket_connection_status{{app_id="{APP_ID}"}} '
    return next((line.removeprefix(name) for line in text.splitlines() if line.startswith(name)), "")


def test_from_a_click_at_lark_to_the_sidecar_and_back(start_sidecar: Start, tmp_path: Path):
    require_sdk()
    with FakeLark(console(delivery="websocket")) as lark:
        sidecar = start_sidecar(
            SIDECAR_SECRET_KEY="master-secret-of-the-test",
            SIDECAR_LARK_API_URL=lark.url,
            SIDECAR_LARK_REDIRECT_URI=REDIRECT_URI,
            SIDECAR_LARK_HEARTBEAT_SECONDS="1",
            SIDECAR_RATE_LIMIT="off",
        )
        added = sidecar.cli("lark", "app", "add", APP_ID, stdin=f"{APP_SECRET}\nverification-token\n\n".encode())
        assert added.returncode == 0, added.stderr
        output = tmp_path / "output"
        with running([*COMMAND, "--app", APP_ID], output, sidecar._environment) as process:
            wait_until(lambda: connection_status(sidecar) == "1.0", f"it is connected, see {output}")
            check_what_it_knows(process.pid)
            with SidecarClient(sidecar.url, sidecar.token) as client:
                begun = client.start_authorization("ada", open_id="ou_ada", language="en", method="websocket_card")
                message_id = client.send_authorization_card(begun["session_id"])["message_id"]
                shown = lark.click(message_id, "ou_ada", button=1)
                assert "error" not in shown
                assert shown["toast"]["type"] == "info"
                assert client.authorization(begun["session_id"])["state"] == "rejected"
            event_id = lark.push("im.chat.of_another_kind_v7", {"text": "nobody asked for it"})
            attempts = lark.platform.deliveries[event_id].attempts
            wait_until(lambda: bool(attempts), "the event was delivered")
            assert "error" not in attempts[0], attempts
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE_SECONDS) == 0, output.read_text()
        wait_until(lambda: connection_status(sidecar) == "0.0", "its end is told")
    tokens = [line.split("  ")[1:3] for line in sidecar.cli("token", "list").stdout.splitlines()]
    assert ["lark-events", "authorizations:write"] in tokens
    assert "Traceback" not in output.read_text() + sidecar.output()


def check_what_it_knows(pid: int) -> None:
    """Others may see a program's arguments; and this one runs other people's code, so it gets no secret in vain."""
    proc = Path(f"/proc/{pid}")
    if not proc.exists():
        pytest.skip("there is no /proc")
    assert APP_SECRET.encode() not in (proc / "cmdline").read_bytes()
    environ = (proc / "environ").read_bytes()
    assert f"SIDECAR_LARK_APP_SECRET={APP_SECRET}".encode() in environ
    assert b"master-secret-of-the-test" not in environ
