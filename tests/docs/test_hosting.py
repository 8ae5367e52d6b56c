"""docs/hosting.md: the units as systemd reads them, the command line of a server, and the checks.
(tests/test_process_managers.py runs the Procfile and pm2, tests/test_tls.py the certificates.)"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.docs import pages
from tests.docs.stranger import Stranger
from tests.programs import free_port, require

PAGE = pages.read("docs/hosting.md")
INSTALL = next(block.text for block in pages.commands(PAGE) if block.section == "systemd")


def installed(tmp_path: Path) -> dict[str, str]:
    """Where the page's paths lie in this test."""
    opt = tmp_path / "opt"
    (opt / ".venv" / "bin").mkdir(parents=True)
    (opt / ".venv" / "bin" / "python").symlink_to(sys.executable)
    return {"/opt/sidecar": str(opt), "/etc/sidecar.env": str(tmp_path / "sidecar.env")}


@pytest.mark.parametrize("unit", ["sidecar.service", "sidecar@.service"])
def test_systemd_has_nothing_against_the_units(tmp_path: Path, unit: str) -> None:
    text = pages.read(f"config/{unit}")
    for path, ours in installed(tmp_path).items():
        text = text.replace(path, ours)
    file = tmp_path / unit
    file.write_text(text)
    done = subprocess.run(
        [require("systemd-analyze"), "verify", "--man=no", str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_units_say_what_the_page_says() -> None:
    for unit in ("sidecar.service", "sidecar@.service"):
        text = pages.read(f"config/{unit}")
        assert "WorkingDirectory=/opt/sidecar\n" in text
        assert "EnvironmentFile=-/etc/sidecar.env\n" in text
        assert "SIDECAR_INSTANCE_DIR=/var/lib/sidecar\n" in text
        assert re.search(r"^User=sidecar$", text, re.MULTILINE)
        assert "TimeoutStopSec=12\n" in text
    for part in ("useradd --system --home /opt/sidecar sidecar", "/etc/sidecar.env", "config/sidecar.service"):
        assert part in INSTALL
    for file in re.findall(r"config/[\w@.]+\w", PAGE):
        assert (pages.ROOT / file).exists(), file


def test_the_settings_of_the_page_are_for_their_owner_alone(tmp_path: Path) -> None:
    (line,) = (line for line in INSTALL.splitlines() if "install -m" in line)
    command = line.replace("sudo ", "").replace("/etc/sidecar.env", str(tmp_path / "sidecar.env"))
    subprocess.run(["sh", "-ec", command], cwd=pages.ROOT, check=True, timeout=30)
    assert stat.S_IMODE((tmp_path / "sidecar.env").stat().st_mode) == 0o600


def test_the_command_line_of_a_server_is_that_of_its_service(stranger: Stranger, tmp_path: Path) -> None:
    """With the settings of /etc/sidecar.env, on the service's data; from anywhere."""
    settings = tmp_path / "sidecar.env"
    settings.write_text(f'SIDECAR_PORT={stranger.sidecar.port}\nSIDECAR_RATE_LIMIT="200/second, burst 1000"\n')
    text = pages.one(PAGE, "sh", "runuser")
    for path, ours in {
        "/opt/sidecar": str(stranger.folder),
        "/etc/sidecar.env": str(settings),
        "/var/lib/sidecar": str(stranger.sidecar.instance),
        "runuser -u sidecar --": "env",
    }.items():
        assert path in text
        text = text.replace(path, ours)
    program = tmp_path / "sidecar"
    program.write_text(text)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")}
    done = subprocess.run(
        ["sh", str(program), "login"], cwd="/", env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    code = done.stdout.strip().partition(f"http://127.0.0.1:{stranger.sidecar.port}/project-dashboard/login?code=")[2]
    assert stranger.sidecar.post("/login", token="", data={"code": code}).status_code == 303


def test_the_checks_answer(stranger: Stranger) -> None:
    told = stranger.follow(*(block.text for block in pages.commands(PAGE) if block.section == "Is it well?"))
    assert '"status":"ok"' in told
    assert '"ready":true' in told


def test_the_restart_of_the_page_waits_for_each_and_ends_at_one_that_fails(sidecar: Any, tmp_path: Path) -> None:
    require("curl")
    script, restarted = tmp_path / "sidecar-restart", tmp_path / "restarted"
    text = pages.one(PAGE, "sh", "systemctl restart")
    assert "--retry 60 --retry-delay 1 " in text
    script.write_text(text.replace("--retry 60 --retry-delay 1 ", "--retry 1 --retry-delay 1 "))
    systemctl = tmp_path / "bin" / "systemctl"
    systemctl.parent.mkdir()
    systemctl.write_text(f'#!/bin/sh\necho "$@" >> {restarted}\n')
    systemctl.chmod(0o755)
    environment = os.environ | {"PATH": f"{systemctl.parent}{os.pathsep}{os.environ['PATH']}"}

    def restart(*ports: int) -> int:
        command = ["sh", str(script), *map(str, ports)]
        return subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60).returncode

    assert restart(sidecar.port, sidecar.port) == 0
    assert restarted.read_text() == 2 * f"restart sidecar@{sidecar.port}\n"
    restarted.unlink()
    nobody = free_port()
    assert restart(sidecar.port, nobody, sidecar.port) != 0
    assert restarted.read_text() == f"restart sidecar@{sidecar.port}\nrestart sidecar@{nobody}\n"
