"""The Procfile under a real honcho and the ecosystem file under pm2: up, answering, and cleanly gone."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.fake_lark import FakeLark
from tests.lark.stage import APP_ID, APP_SECRET, console
from tests.programs import (
    DEADLINE_SECONDS,
    ROOT,
    free_pair,
    free_port,
    listening,
    require,
    require_node_program,
    running,
    wait_until,
)

START_SECONDS = 60.0
Pm2 = Callable[..., str]


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def environment(tmp_path: Path, port: int) -> dict[str, str]:
    """A sidecar of its own: PORT, as managers say it, and a folder; no setting of the tests' caller."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SIDECAR_", "LARK_"))}
    return kept | {
        "PORT": str(port),
        "SIDECAR_INSTANCE_DIR": str(tmp_path / "instance"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "PM2_HOME": str(tmp_path / "pm2"),
        "PM2_DISABLE_VERSION_CHECK": "true",
    }


def healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def admin_tokens(instance: Path) -> int:
    """How many admin tokens the installation has."""
    with sqlite3.connect(instance / "sidecar.db") as connection:
        count: int = connection.execute("SELECT count(*) FROM tokens WHERE name = 'admin'").fetchone()[0]
    connection.close()
    return count


def assert_one_installation(ports: list[int], instance: Path) -> None:
    """What is posted to one process is read at the other, with the one token that the first start has made."""
    headers = {"Authorization": f"Token {(instance / 'admin-token').read_text().strip()}"}
    line = {"type": "log_entry", "project": "p", "deployment_id": "d", "message": "hello"}
    posted = httpx.post(f"http://127.0.0.1:{ports[0]}/api/webhooks/deployment", json=line, headers=headers)
    assert posted.status_code == 200
    read = httpx.get(f"http://127.0.0.1:{ports[1]}/api/deployments/d/events", headers=headers)
    assert [event["payload"]["message"] for event in read.json()["items"]] == ["hello"]
    assert admin_tokens(instance) == 1


def test_honcho_runs_several_processes(environment: dict[str, str], tmp_path: Path) -> None:
    if importlib.util.find_spec("honcho") is None:
        pytest.skip("honcho is not installed (pip install -r tests/requirements.txt)")
    first, output = free_pair(), tmp_path / "honcho.output"
    procfile = str(ROOT / "Procfile")
    arguments = [sys.executable, "-m", "honcho", "-f", procfile, "start", "-p", str(first), "-c", "web=2", "web"]
    with running(arguments, output, environment) as honcho:
        wait_until(
            lambda: (healthy(first) and healthy(first + 1)) or honcho.poll() is not None,
            f"both answer, see {output}",
        )
        assert honcho.poll() is None, output.read_text()
        assert_one_installation([first, first + 1], tmp_path / "instance")
        honcho.send_signal(signal.SIGTERM)
        honcho.wait(DEADLINE_SECONDS)
    assert not listening(first)
    assert not listening(first + 1)


def test_honcho_runs_the_whole_procfile_without_a_lark_app(
    environment: dict[str, str], port: int, tmp_path: Path
) -> None:
    """honcho ends all processes with the first that ends: the one that has nothing to do must not."""
    if importlib.util.find_spec("honcho") is None:
        pytest.skip("honcho is not installed (pip install -r tests/requirements.txt)")
    output = tmp_path / "honcho.output"
    arguments = [sys.executable, "-m", "honcho", "-f", str(ROOT / "Procfile"), "start", "-p", str(port)]
    with running(arguments, output, environment) as honcho:
        wait_until(
            lambda: (healthy(port) and "Nothing is heard until" in output.read_text()) or honcho.poll() is not None,
            f"the sidecar answers and lark waits, see {output}",
        )
        assert honcho.poll() is None, output.read_text()
        honcho.send_signal(signal.SIGTERM)
        honcho.wait(DEADLINE_SECONDS)
    said = output.read_text()
    # Where sh doesn't replace itself with its command (dash), the code is that of sh, which SIGTERM ends.
    assert "web.1 stopped (rc=0)" in said or "web.1 stopped (rc=-15)" in said
    assert "lark.1 | lark-events: No Lark app is configured" in said
    assert "Traceback" not in said
    assert "SIGKILL" not in said
    assert not listening(port)


def test_honcho_starts_lark_for_the_sidecar_beside_it(environment: dict[str, str], port: int, tmp_path: Path) -> None:
    """Each process of a Procfile is told a PORT of its own."""
    if importlib.util.find_spec("honcho") is None or importlib.util.find_spec("lark_oapi") is None:
        pytest.skip("honcho or lark-oapi is not installed (pip install -r tests/requirements.txt)")
    output = tmp_path / "honcho.output"
    arguments = [sys.executable, "-m", "honcho", "-f", str(ROOT / "Procfile"), "start", "-p", str(port)]
    with FakeLark(console(delivery="websocket")) as lark:
        environment |= {"SIDECAR_LARK_APP_ID": APP_ID, "SIDECAR_LARK_APP_SECRET": APP_SECRET}
        environment |= {"SIDECAR_LARK_API_URL": lark.url}
        with running(arguments, output, environment) as honcho:
            wait_until(
                lambda: len(lark.connections) == 1 or honcho.poll() is not None,
                f"lark has found the sidecar, and connected, see {output}",
            )
            assert honcho.poll() is None, output.read_text()
            honcho.send_signal(signal.SIGTERM)
            honcho.wait(DEADLINE_SECONDS)
    said = output.read_text()
    assert "Traceback" not in said
    assert "SIGKILL" not in said


@pytest.mark.parametrize(("settings", "seconds"), [({}, 12), ({"DRAIN": "60", "DRAIN_ANNOUNCE": "30.5"}, 100.5)])
def test_pm2_waits_as_long_as_the_end_takes(settings: dict[str, str], seconds: float) -> None:
    environment = {f"SIDECAR_{name}_SECONDS": value for name, value in settings.items()}
    file = json.dumps(str(ROOT / "config" / "ecosystem.config.cjs"))
    done = subprocess.run(
        [require("node"), "--print", f"require({file}).apps[0].kill_timeout"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=START_SECONDS,
    )
    assert float(done.stdout) == 1_000 * seconds


@pytest.fixture
def pm2(environment: dict[str, str]) -> Iterator[Pm2]:
    program = require_node_program("pm2")

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [str(program), "--silent", *arguments],
            env=environment,
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
            timeout=START_SECONDS,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    yield run
    run("kill")


def described(pm2: Pm2, name: str = "sidecar") -> dict[str, Any]:
    """What pm2 knows of it."""
    (app,) = (app for app in json.loads(pm2("jlist")) if app["name"] == name)
    state: dict[str, Any] = app["pm2_env"] | {"pid": app["pid"]}
    return state


def given_up(pm2: Pm2, name: str, home: str) -> dict[str, Any]:
    """What pm2 knows of an app once it has left it stopped."""
    log, ended = Path(home) / "pm2.log", re.compile(rf"App \[{name}:\d+\] exited")
    wait_until(lambda: ended.search(log.read_text()) is not None, "it ends")  # asking pm2 is dear
    wait_until(lambda: described(pm2, name)["status"] == "stopped", "pm2 has given up")
    return described(pm2, name)


def test_pm2_starts_restarts_and_stops_what_the_ecosystem_file_says(pm2: Pm2, port: int) -> None:
    pm2("start", str(ROOT / "config" / "ecosystem.config.cjs"))
    wait_until(lambda: healthy(port), "the sidecar answers")

    pm2("restart", "sidecar")
    wait_until(lambda: healthy(port), "the sidecar answers after a restart")

    killed = described(pm2)["pid"]
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: healthy(port), "the sidecar answers again")
    assert described(pm2)["pid"] not in (0, killed)

    pm2("stop", "sidecar")
    state = described(pm2)
    assert state["status"] == "stopped"
    assert state["exit_code"] == 0
    assert not listening(port)


def test_pm2_runs_several_processes(environment: dict[str, str], pm2: Pm2, tmp_path: Path) -> None:
    first = free_pair()
    environment |= {"PORT": str(first), "WEB_CONCURRENCY": "2"}
    pm2("start", str(ROOT / "config" / "ecosystem.config.cjs"))
    wait_until(lambda: healthy(first) and healthy(first + 1), "both answer")
    assert_one_installation([first, first + 1], tmp_path / "instance")
    for app in json.loads(pm2("jlist")):
        pm2("restart", str(app["pm_id"]))
        wait_until(lambda: healthy(first) and healthy(first + 1), "it is back at its port")
    assert [app["pm2_env"]["restart_time"] for app in json.loads(pm2("jlist"))] == [1, 1]
    pm2("stop", "sidecar")
    assert not listening(first)
    assert not listening(first + 1)


def test_pm2_runs_lark_only_where_it_is_wanted_and_leaves_it_when_it_is_refused(
    environment: dict[str, str], pm2: Pm2, port: int
) -> None:
    file = str(ROOT / "config" / "ecosystem.config.cjs")
    environment["LARK_EVENTS"] = "default,cli_other"
    pm2("start", file, "--only", "lark,lark-cli_other")
    for name in ("lark", "lark-cli_other"):
        state = given_up(pm2, name, environment["PM2_HOME"])
        assert (state["exit_code"], state["restart_time"]) == (2, 0)
    del environment["LARK_EVENTS"]
    pm2("delete", "all")
    pm2("start", file)
    assert [app["name"] for app in json.loads(pm2("jlist"))] == ["sidecar"]


def test_pm2_leaves_it_when_the_port_is_taken(environment: dict[str, str], pm2: Pm2, port: int) -> None:
    """The exit code 2 says that another try is no use; without that pm2 would start it again and again."""
    with socket.create_server(("127.0.0.1", port)):
        pm2("start", str(ROOT / "config" / "ecosystem.config.cjs"))
        state = given_up(pm2, "sidecar", environment["PM2_HOME"])
    assert state["exit_code"] == 2
    assert state["restart_time"] == 0
