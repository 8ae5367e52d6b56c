"""examples/rest_to_websocket.py: each of its demos against a real sidecar."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.programs import ROOT
from tests.servers import RunningSidecar

STEPS = (
    "simple message",
    "targeted message",
    "location",
    "live push started and stopped",
    "several messages in sequence",
)


def run(server: RunningSidecar, *arguments: str, token: str | None = None, said: str = "") -> tuple[int, str]:
    environment = {"SIDECAR_URL": server.url, "SIDECAR_TOKEN": token or server.token, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "rest_to_websocket.py"), *arguments],
        env=environment, input=said, capture_output=True, text=True, timeout=90,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


def results(output: str) -> dict[str, str]:
    """What the summary says of each step."""
    lines = output.partition("Summary\n")[2].splitlines()
    return {line[:34].strip(): line[34:].strip() for line in lines if line.startswith("  ") and line[34:]}


def succeeded(output: str) -> bool:
    told = results(output)
    return [told.get(step) for step in STEPS] == ["SUCCESS"] * len(STEPS)


def test_the_main_demo_sees_each_of_its_messages_arrive(start_sidecar):
    code, output = run(start_sidecar(), "1")
    assert code == 0, output
    assert succeeded(output), output


def test_the_location_pusher(sidecar):
    code, output = run(sidecar, "2", "--rounds", "2")
    assert code == 0, output
    assert "2: 39.90729, 116.41691" in output


def test_the_chat_simulation_chosen_from_the_menu(sidecar):
    code, output = run(sidecar, said="5\n3\n")
    assert code == 0, output
    assert output.count("1  main:") == 2, "asked again after what is no choice"
    assert "[4/4] Ada" in output


def test_all_of_them(start_sidecar):
    code, output = run(start_sidecar(), "4", "--rounds", "1")
    assert code == 0, output
    assert succeeded(output), output
    assert "[4/4] Ada" in output
    assert "  1: 39.90420, 116.41740" in output


def test_with_a_wrong_token_all_fails_and_says_why(sidecar):
    code, output = run(sidecar, "1", token="sct_000000000000_wrong")
    assert code == 1
    assert set(results(output).values()) == {"FAILED"}
    assert "The token is not known." in output


@pytest.mark.parametrize("said", ["", "x\n"])
def test_without_a_choice_nothing_runs(sidecar, said: str):
    assert run(sidecar, said=said)[0] == 2
