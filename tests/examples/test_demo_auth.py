"""examples/demo_auth.py: the whole walk, with Chromium and without, and nothing of it left running."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.chromium import installed
from tests.lark.stage import HTTP, require_sdk
from tests.programs import ROOT, listening, wait_until

DEMO = [sys.executable, str(ROOT / "examples" / "demo_auth.py")]


def addresses(output: str) -> list[str]:
    """Of the platform and of the sidecar."""
    return re.findall(r"(?:platform|sidecar)  +(http://[\w.:]+)", output)


def all_ended(output: str) -> bool:
    ports = [urlsplit(address).port for address in addresses(output)]
    return len(ports) == 2 and not any(listening(port) for port in ports if port)


@pytest.mark.parametrize("arguments", [[], ["--language", "zh", "--long-connection"]], ids=["http", "long connection"])
def test_in_chromium(tmp_path: Path, arguments: list[str]):
    if installed() is None:
        pytest.skip("Chromium is not installed (make services)")
    if arguments:
        require_sdk()
    done = subprocess.run(
        [*DEMO, "--folder", str(tmp_path), *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr + "".join(path.read_text() for path in tmp_path.glob("*.log"))
    assert "changed by patch" in done.stdout
    assert "completed by 李爱达 Ada Li" in done.stdout
    pictures = sorted(path for path in tmp_path.glob("*.png"))
    assert [path.name.partition("-")[2] for path in pictures] == [
        "card.png",
        "waiting.png",
        "clicked.png",
        "consent.png",
        "done.png",
        "followed.png",
        "card-changed.png",
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    assert all_ended(done.stdout)
    assert "Traceback" not in "".join(path.read_text() for path in tmp_path.glob("*.log"))


def without_chromium(tmp_path: Path) -> subprocess.Popen[str]:
    (tmp_path / "bin").mkdir()
    return subprocess.Popen(
        [*DEMO, "--folder", str(tmp_path / "demo")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PATH": str(tmp_path / "bin")},
    )


def read_until(process: subprocess.Popen[str], pattern: str) -> str:
    """Its output up to a line that holds this."""
    assert process.stdout is not None
    read = ""
    for line in process.stdout:
        read += line
        if re.search(pattern, line):
            return read
    pytest.fail(f"no {pattern}: {read}")


def test_without_chromium_a_person_does_it(tmp_path: Path):
    with without_chromium(tmp_path) as process:
        output = read_until(process, "what becomes of it")
        lark = addresses(output)[0]
        (message,) = HTTP.get(f"{lark}/chat/messages?user=ou_ada").json()
        granted = HTTP.post(message["buttons"][0]["url"], data={"open_id": "ou_ada", "decision": "allow"})
        assert HTTP.get(granted.headers["location"]).status_code == 200
        output += process.stdout.read() if process.stdout else ""
    assert process.returncode == 0, output
    assert "SUCCESS" in output
    assert all_ended(output)


def test_ctrl_c_ends_all_of_it(tmp_path: Path):
    with without_chromium(tmp_path) as process:
        output = read_until(process, "what becomes of it")
        assert not list((tmp_path / "bin").iterdir())
        process.send_signal(signal.SIGINT)
        output += process.stdout.read() if process.stdout else ""
    assert process.returncode == 130, output
    assert "Traceback" not in output
    wait_until(lambda: all_ended(output), "nothing of it runs")


def test_what_fails_is_said(tmp_path: Path):
    """A folder that can't hold an installation."""
    (tmp_path / "instance").write_text("a file")
    done = subprocess.run([*DEMO, "--folder", str(tmp_path)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "FAILED: sidecar has ended" in done.stderr
    assert "SUCCESS" not in done.stdout
