"""kill -9 and broken lines: every page has every acknowledged event of its rooms, once and in order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.stage import ROUNDS, Stage
from tests.chaos.tally import check_gapless, connects
from tests.servers import RunningSidecar


def test_one_process_is_killed_again_and_again(start_sidecar):
    """What was committed is sent after the restart to those who lack it, and to nobody else."""
    server: RunningSidecar = start_sidecar(SIDECAR_RATE_LIMIT="off")
    with Stage([server.port], server) as stage:
        stage.send()
        for _ in range(ROUNDS):
            stage.break_lines()
            stage.kill(server)
            server.start()
        stage.break_lines()
        reports = stage.reckon("one process on SQLite")
    recovered, fresh = connects(reports)
    assert recovered > 0
    assert fresh == 0, "every session outlives its process"
    assert not any(page["truncated"] for page in reports.values())
    check_gapless(server.instance / "sidecar.db")
    assert "Traceback" not in server.output()


@pytest.fixture
def two_processes(start_sidecar, tmp_path: Path) -> Iterator[tuple[RunningSidecar, RunningSidecar]]:
    """On one SQLite file, in one instance folder."""
    first = start_sidecar(SIDECAR_RATE_LIMIT="off")
    second = RunningSidecar(
        tmp_path / "second", {"SIDECAR_RATE_LIMIT": "off", "SIDECAR_INSTANCE_DIR": str(first.instance)}
    )
    second.instance = first.instance
    second.start()
    try:
        yield first, second
    finally:
        second.stop()


def test_either_of_two_processes_is_killed(two_processes):
    """Clients go to the other one, or come back; a session is no process's own."""
    first, second = two_processes
    with Stage([first.port, second.port], first) as stage:
        stage.send()
        for number in range(ROUNDS):
            killed = two_processes[number % 2]
            stage.break_lines()
            stage.kill(killed)
            stage.go_on()  # the other one takes what comes
            stage.line.cut(0.2)
            stage.go_on()
            killed.start()
        stage.break_lines()
        reports = stage.reckon("two processes on SQLite")
    recovered, fresh = connects(reports)
    assert recovered > 0
    assert fresh == 0, "every session outlives its process"
    assert not any(page["truncated"] for page in reports.values())
    check_gapless(first.instance / "sidecar.db")
    for server in two_processes:
        assert "Traceback" not in server.output()
