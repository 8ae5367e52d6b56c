"""The program that holds Lark's long connection: the real SDK against the local platform, and a sidecar that answers as
the test says."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from examples.fake_lark import Console, FakeLark, Frame, encode_frame
from tests.client.lark_sidecar import TOKEN, StandIn, stand_in
from tests.programs import DEADLINE_SECONDS, running, wait_until

if importlib.util.find_spec("lark_oapi") is None:
    pytest.skip("lark-oapi is not installed (config/requirements-lark.txt)", allow_module_level=True)

APP_ID, APP_SECRET = "cli_0123456789abcdef", "app-secret-of-the-test"
EVENTS, LINK = "POST /api/authorizations/events", "POST /api/authorizations/events/link"
TOAST = {"toast": {"type": "info", "content": "已取消授权"}}
START_SECONDS = 60.0


def environment(lark_url: str, sidecar_url: str, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")}
    given = {
        "URL": sidecar_url,
        "TOKEN": TOKEN,
        "LARK_APP_ID": APP_ID,
        "LARK_APP_SECRET": APP_SECRET,
        "LARK_API_URL": lark_url,
        "LARK_RECONNECT_RETRIES": "2",
        "LARK_HEARTBEAT_SECONDS": "1",
        "LOG_LEVEL": "debug",
    }
    return kept | {f"SIDECAR_{name}": value for name, value in (given | more).items()}


PROGRAM = [sys.executable, "-m", "sidecar.client.lark_events"]


class Stage:
    """The platform, the sidecar, and the program between them."""

    def __init__(self, lark: FakeLark, sidecar: StandIn, output: Path):
        self.lark, self.sidecar, self.output = lark, sidecar, output
        self.process: subprocess.Popen[bytes]

    def push(self, event: dict[str, Any], kind: str = "im.message.receive_v1") -> list[dict[str, Any]]:
        """Have the platform send an event until it is answered; how its attempts went."""
        event_id = self.lark.push(kind, event)
        delivery = self.lark.platform.deliveries[event_id]
        wait_until(lambda: bool(delivery.attempts) and "error" not in delivery.attempts[-1], "it was taken")
        return delivery.attempts

    def reported(self) -> dict[str, Any]:
        last: dict[str, Any] = self.sidecar.bodies(LINK)[-1]
        return last

    def wait_connected(self) -> None:
        wait_until(
            lambda: bool(self.sidecar.bodies(LINK)) and self.reported()["connected"],
            f"it is connected, see {self.output}",
        )


@contextmanager
def platform() -> Iterator[FakeLark]:
    console = Console(APP_ID, APP_SECRET, delivery="websocket", retry_seconds=(0.1,) * 50, part_bytes=2_000)
    with FakeLark(console) as lark:
        yield lark


@pytest.fixture(scope="module")
def running_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One for all tests that don't end it: the SDK takes seconds to import."""
    output = tmp_path_factory.mktemp("lark-events") / "output"
    with platform() as lark, stand_in() as sidecar:
        stage = Stage(lark, sidecar, output)
        sidecar.says(LINK, (503, {}), (200, {"success": True}))
        with running(PROGRAM, output, environment(lark.url, sidecar.url)) as stage.process:
            stage.wait_connected()
            yield stage
            reconnects = stage.reported()["reconnects"]
            stage.process.send_signal(signal.SIGTERM)
            assert stage.process.wait(DEADLINE_SECONDS) == 0
        assert stage.reported()["connected"] is False
        assert stage.reported()["reconnects"] == reconnects
        assert set(sidecar.tokens) == {f"Token {TOKEN}"}
        said = output.read_text()
        assert "Waiting for the sidecar" in said
        assert f"the events of app {APP_ID} are heard" in said
        for secret in (APP_SECRET, TOKEN, "access_key", "ticket", "geheim"):
            assert secret not in said
        assert "Traceback" not in said


@pytest.fixture
def stage(running_stage: Stage) -> Stage:
    running_stage.sidecar.says(EVENTS, (200, {}))
    return running_stage


def test_an_event_of_any_type_reaches_the_sidecar_as_it_came(stage: Stage):
    """The SDK's own handler knows a few hundred types, and refuses the others."""
    stage.push({"text": "geheim 你好", "big": 2**70}, kind="drive.file.of_next_year_v9")
    body = stage.sidecar.bodies(EVENTS)[-1]
    assert body["app"] == APP_ID
    assert body["event"]["schema"] == "2.0"
    assert body["event"]["header"]["event_type"] == "drive.file.of_next_year_v9"
    assert body["event"]["event"] == {"text": "geheim 你好", "big": 2**70}


def test_the_sidecars_answer_is_what_lark_is_answered(stage: Stage):
    stage.sidecar.says(EVENTS, (200, TOAST))
    (attempt,) = stage.push({"action": {}}, kind="card.action.trigger")
    assert attempt["answer"] == TOAST


def test_an_event_in_parts_is_put_together(stage: Stage):
    text = "长" * 20_000
    stage.push({"text": text})
    assert stage.sidecar.bodies(EVENTS)[-1]["event"]["event"] == {"text": text}


def test_a_click_that_comes_as_a_frame_of_type_card(stage: Stage):
    """The SDK drops these; the user would be told that the app does not answer."""
    payload = {"schema": "2.0", "header": {"event_type": "card.action.trigger", "event_id": "as-card"}, "event": {}}
    headers = {"type": "card", "message_id": "m-1", "sum": "1", "seq": "0", "trace_id": "t"}
    stage.sidecar.says(EVENTS, (200, TOAST))
    answers = stage.lark.connections._answers["m-1"] = SimpleQueue()
    (connection,) = stage.lark.connections._open
    connection.send(encode_frame(Frame(headers=headers, payload=json.dumps(payload).encode())))
    answer = answers.get(timeout=DEADLINE_SECONDS)
    assert (answer["code"], json.loads(base64.b64decode(answer["data"]))) == (200, TOAST)
    assert stage.sidecar.bodies(EVENTS)[-1] == {"app": APP_ID, "event": payload}


def test_while_the_sidecar_is_restarted_events_wait_for_it(stage: Stage):
    stage.sidecar.says(EVENTS, (503, {}), (503, {}), (200, TOAST))
    (attempt,) = stage.push({}, kind="card.action.trigger")
    assert attempt["answer"] == TOAST


def test_what_the_sidecar_does_not_take_is_sent_again(stage: Stage):
    stage.sidecar.says(EVENTS, (500, {}), (401, {}), (200, {}))
    attempts = stage.push({})
    assert [attempt.get("error", {}).get("code") for attempt in attempts] == [200671, 200671, None]
    ids = [body["event"]["header"]["event_id"] for body in stage.sidecar.bodies(EVENTS)[-3:]]
    assert len(set(ids)) == 1


def test_what_the_sidecar_can_not_use_is_not_sent_again(stage: Stage):
    stage.sidecar.says(EVENTS, (400, {"code": "invalid"}))
    assert len(stage.push({})) == 1


def test_a_sidecar_that_hangs_holds_up_nothing_else(stage: Stage):
    """In the SDK a handler that waits keeps pings and other events waiting."""
    hanging = threading.Event()
    stage.sidecar.says(EVENTS, (200, hanging), (200, TOAST))
    slow = stage.lark.push("im.message.receive_v1", {"first": True})
    wait_until(lambda: stage.sidecar.bodies(EVENTS)[-1]["event"]["event"] == {"first": True}, "the first is there")
    (attempt,) = stage.push({}, kind="card.action.trigger")
    assert attempt["answer"] == TOAST
    attempts = stage.lark.platform.deliveries[slow].attempts
    wait_until(lambda: len(attempts) > 1 and "answer" in attempts[-1], "the first was sent again, and taken")
    assert attempts[0]["error"]["code"] == 200671, "answered, with a failure, before Lark gave up"
    hanging.set()


def test_the_connection_is_made_again_and_told(stage: Stage):
    before = stage.reported()
    stage.lark.connections.drop()
    wait_until(lambda: not all(body["connected"] for body in stage.sidecar.bodies(LINK)[3:]), "its end is told")
    wait_until(lambda: len(stage.lark.connections) == 1, "it is made again")
    wait_until(lambda: stage.reported()["reconnects"]["success"] > before["reconnects"]["success"], "and told")
    after = stage.reported()
    assert after["connected"] is True
    assert (after["app"], after["heartbeat_seconds"]) == (APP_ID, 1)
    assert after["reconnects"]["attempt"] == before["reconnects"]["attempt"] + 1
    assert after["started_at"] == before["started_at"]
    assert stage.push({})


def test_a_heartbeat_comes_without_a_change(stage: Stage):
    count = len(stage.sidecar.bodies(LINK))
    wait_until(lambda: len(stage.sidecar.bodies(LINK)) > count + 1, "two heartbeats")


def ended(output: Path, lark_url: str, sidecar_url: str, **more: str) -> tuple[int, str]:
    """Its exit code, when it ends by itself, and what it has said."""
    with running(PROGRAM, output, environment(lark_url, sidecar_url, **more)) as process:
        code = process.wait(START_SECONDS)
    said = output.read_text()
    assert "Traceback" not in said
    assert APP_SECRET not in said
    return code, said


def test_with_stay_it_waits_after_a_refusal(tmp_path: Path):
    """For managers that end all processes with one."""
    output = tmp_path / "output"
    with platform() as lark, stand_in() as sidecar:
        sidecar.says(LINK, (200, {}))
        lark.console.app_secret = "another"
        with running([*PROGRAM, "--stay"], output, environment(lark.url, sidecar.url, LOG_FORMAT="json")) as process:
            wait_until(lambda: "Beginning again" in output.read_text(), "it waits")
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE_SECONDS) == 0
        assert sidecar.bodies(LINK)[-1]["connected"] is False
    refused = json.loads(output.read_text().splitlines()[-3])
    assert refused["event"] == "No long connection: Lark doesn't accept the app's id and secret (code 514)."
    assert refused["level"] == "error"
    assert APP_SECRET not in output.read_text()


def test_a_platform_that_never_answers_does_not_hold_up_the_end(tmp_path: Path):
    """The SDK asks without a limit in time, in its loop: nothing but SIGKILL would end it."""
    output = tmp_path / "output"
    with platform() as lark, stand_in() as sidecar:
        sidecar.says(LINK, (200, {}))
        lark.break_(endpoint="ws_endpoint", slow=60, times=1)
        with running(PROGRAM, output, environment(lark.url, sidecar.url)) as process:
            wait_until(lambda: lark.platform.faults[0].times == 0, "it was asked")
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE_SECONDS) == 0
        assert sidecar.bodies(LINK)[-1]["connected"] is False
    assert "Traceback" not in output.read_text()


def test_after_the_last_attempt_it_ends(tmp_path: Path):
    """A busy platform, a handshake that failed, too many connections."""
    with platform() as lark, stand_in() as sidecar:
        sidecar.says(LINK, (200, {}))
        lark.break_(endpoint="ws_endpoint", code=1, status=200, times=1)
        lark.break_(endpoint="ws_handshake", code=514, times=1)
        lark.break_(endpoint="ws_handshake", code=514, status=1000040350)
        code, said = ended(tmp_path / "output", lark.url, sidecar.url)
        assert code == 1
        assert sidecar.bodies(LINK)[-1]["reconnects"] == {"attempt": 2, "success": 0, "failure": 2}
    assert "Lark is busy (code 1). Attempt 1 of 2 in 1 s." in said
    assert "too many long connections (50) (code 1000040350); gave up after 2 attempts" in said


def test_a_sidecar_that_refuses_ends_it(tmp_path: Path):
    """A token without the scope: every event would be lost, so the connection is not even made."""
    with platform() as lark, stand_in() as sidecar:
        sidecar.says(LINK, (403, {}))
        code, said = ended(tmp_path / "output", lark.url, sidecar.url)
        assert code == 2
        assert lark.connections.opened == 0
    assert "the sidecar refuses: its token lacks the scope authorizations:write, or this app" in said
