"""Live pushes over HTTP, and what sockets see of them: answers, rights, restarts, and two processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config.settings import load_settings
from sidecar.factory import create_app
from tests.programs import wait_until
from tests.servers import RunningSidecar
from tests.sockets.clients import Page

START, STOP = "/api/start-live-push/", "/api/stop-live-push/"


@pytest.fixture(autouse=True)
def stopped(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "sidecar" in request.fixturenames:
        server: RunningSidecar = request.getfixturevalue("sidecar")
        for row in server.get("/api/live-push").json()["items"]:
            server.post(STOP, {"room": row["room"]})


def running(server: RunningSidecar, token: str | None = None) -> dict[str, dict[str, Any]]:
    return {row["room"]: row for row in server.get("/api/live-push", token).json()["items"]}


def volatile(page: Page) -> list[dict[str, Any]]:
    return [event for event in page.events if event.get("volatile")]


@pytest.mark.parametrize("path", [START, START.rstrip("/"), "/ashe/start-live-push/", "/project-dashboard" + START])
def test_a_start_is_answered_as_the_old_server_did(sidecar, name, path: str):
    body = sidecar.post(path, {"room": name, "interval": 5}).json()
    assert (body["status"], body["message"]) == ("success", f"Live push started for room: {name}")
    assert body["interval"] == 5
    assert isinstance(body["interval"], int)
    assert set(body) == {
        "success", "status", "message", "room", "interval", "source", "sender", "started_at", "event_id", "epoch",
        "duplicate",
    }  # fmt: skip


@pytest.mark.parametrize("path", [STOP, STOP.rstrip("/"), "/ashe/stop-live-push/", "/project-dashboard" + STOP])
@pytest.mark.parametrize("body", [None, {}, {"room": None}, {"room": "never started"}])
def test_a_stop_is_answered_as_the_old_server_did(sidecar, path: str, body: Any):
    answer = sidecar.post(path, body)
    assert answer.status_code == 200
    said = answer.json()
    assert said == {"success": True, "status": "success", "message": "Live push stopped", "stopped": []}


@pytest.mark.parametrize("body", [None, {}])
def test_a_start_needs_no_field_at_all(sidecar, body: Any):
    said = sidecar.post(START, body).json()
    assert (said["room"], said["interval"], said["source"]) == ("live_updates", 5, "live_stats")


@pytest.mark.parametrize("interval", [0.2, 3_600, "2.5", 1])
def test_intervals(sidecar, name, interval: object):
    assert sidecar.post(START, {"room": name, "interval": interval}).json()["interval"] == float(interval)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        *(
            ({"interval": value}, "interval")
            for value in (0, 0.19, 3_600.1, -1, "", "x", "nan", True, None, [], 10**400)
        ),
        *(({"room": value}, "room") for value in ("", "x" * 201, "a\nb", True, None, [], {}, 1.5)),
        *(({"source": value}, "source") for value in ("", " ", "a\nb", "x" * 101, None, True, 7, [])),
    ],
)
def test_a_bad_field_is_named(sidecar, body: dict[str, Any], field: str):
    answer = sidecar.post(START, content=json.dumps(body))
    assert (answer.status_code, answer.json()["status"]) == (400, "error")
    assert [error["path"] for error in answer.json()["errors"]] == [field]


def test_a_source_that_nobody_knows_names_those_that_are(sidecar, name):
    answer = sidecar.post(START, {"room": name, "source": "weather"})
    assert answer.status_code == 400
    assert answer.json()["errors"] == [{"path": "source", "message": "must be one of all, live_stats, system"}]
    assert sidecar.get("/api/live-push").json()["sources"] == ["all", "live_stats", "system"]


@pytest.mark.parametrize("path", [START, STOP])
def test_it_needs_its_scope(sidecar, name, path: str):
    assert sidecar.post(path, {"room": name}, "").json()["detail"] == "Invalid token."
    assert sidecar.post(path, {"room": name}, sidecar.new_token("messages:send", "rooms:read")).status_code == 403
    assert sidecar.post(path, {"room": name}, sidecar.new_token("push:manage")).status_code == 200


def test_a_browser_pushes_to_its_rooms_alone(sidecar, name):
    token = sidecar.connection_token(rooms=[f"room:{name}"], scopes=["push:manage", "rooms:read"])
    assert sidecar.post(START, {"room": name}, token).status_code == 200
    sidecar.post(START, {"room": f"{name}-other"})
    for path in (START, STOP):
        assert sidecar.post(path, {"room": f"{name}-other"}, token).status_code == 403
    assert list(running(sidecar, token)) == [name]
    assert sidecar.post(STOP, None, token).json()["stopped"] == [name]
    assert f"{name}-other" in running(sidecar)


def test_the_list_is_for_those_who_may(sidecar, name):
    sidecar.post(START, {"room": name, "interval": 0.5})
    row = running(sidecar)[name]
    assert set(row) == {"room", "interval", "source", "sender", "started_at"}
    assert row["interval"] == 0.5
    assert sidecar.get("/api/live-push", "").status_code == 401
    assert sidecar.get("/api/live-push", sidecar.new_token("messages:send")).status_code == 403
    for scope in ("rooms:read", "push:manage"):
        assert name in running(sidecar, sidecar.new_token(scope))


def test_a_key_starts_once(sidecar, name):
    post = {"json": {"room": name}, "headers": {"Idempotency-Key": name}}
    first, again = (sidecar.post(START, **post).json() for _ in range(2))
    assert (first.pop("duplicate"), again.pop("duplicate")) == (False, True)
    assert again == first
    answer = sidecar.post(START, {"room": name, "interval": 1}, headers={"Idempotency-Key": name})
    assert (answer.status_code, answer.json()["status"]) == (409, "error")


def test_starting_again_changes_it_and_stopping_without_a_room_stops_ones_own(sidecar, name):
    token = sidecar.new_token("push:manage")
    sidecar.post(START, {"room": f"{name}-theirs"})
    for interval in (5, 1):
        sidecar.post(START, {"room": name, "interval": interval}, token)
    assert running(sidecar)[name]["interval"] == 1
    assert sidecar.post(STOP, None, token).json()["stopped"] == [name]
    assert list(running(sidecar)) == [f"{name}-theirs"]


def test_too_many_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("sidecar.services.live_push.MAX_PUSHES", 2)
    made = create_app(load_settings(instance_dir=tmp_path))
    made.start()
    try:
        client = made.app.test_client()
        headers = {"Authorization": f"Token {made.core.tokens.create('admin', ['admin']).text}"}
        codes = [client.post(START, json={"room": room}, headers=headers).status_code for room in ("a", "b", "c", "a")]
        assert codes == [200, 200, 429, 200]
    finally:
        made.stop()
        made.network.stop()


class TestFrames:
    def test_they_say_that_they_are_volatile(self, sidecar, browser, name):
        page = browser(name)
        sidecar.post(START, {"room": name, "interval": 0.2})
        wait_until(lambda: len(volatile(page)) >= 3, "three beats")
        event = volatile(page)[0]
        assert set(event) == {"type", "payload", "timestamp", "volatile"}
        assert (event["type"], event["volatile"]) == ("api_message", True)
        assert event["payload"]["type"] == "live_stats"
        assert event["payload"]["stats"]["connections"] >= 1
        lines = [line for line in page.lines() if line.get("event") == "event"]
        assert all(len(line["args"]) == 1 for line in lines), "no offset"

    def test_they_end_with_the_push(self, sidecar, browser, name):
        page, other = browser(name), browser(f"{name}-other")
        for room in (name, f"{name}-other"):
            sidecar.post(START, {"room": room, "interval": 0.2})
        wait_until(lambda: bool(volatile(page)), "a beat")
        sidecar.post(STOP, {"room": name})
        page.call("heartbeat")
        count, others = len(volatile(page)), len(volatile(other))
        wait_until(lambda: len(volatile(other)) >= others + 5, "the other goes on")
        assert len(volatile(page)) <= count + 1, "one may have been on its way"

    def test_they_leave_recovery_alone(self, sidecar, browser, name):
        """The client keeps the offset of the last event that had one, and gets exactly what it missed."""
        page = browser(name)

        def send(text: str) -> int:
            answer = sidecar.post("/api/send-websocket/", {"room": name, "message": text})
            return int(answer.json()["event_id"])

        seqs = [send("first")]
        sidecar.post(START, {"room": name, "interval": 0.2})
        wait_until(lambda: len(volatile(page)) >= 2, "two beats")
        page.drop()
        page.next("disconnect")
        seqs.append(send("missed"))
        assert page.next("connect")["recovered"] is True
        wait_until(lambda: stored(page) == seqs, "exactly what it missed", lambda: stored(page))
        count = len(volatile(page))
        wait_until(lambda: len(volatile(page)) > count, "the beat goes on")
        seqs.append(send("live"))
        wait_until(lambda: stored(page) == seqs, "and what follows", lambda: stored(page))


def stored(page: Page) -> list[int]:
    return [event["seq"] for event in page.events if not event.get("volatile")]


def test_it_goes_on_after_a_restart(start_sidecar, browser, name):
    server = start_sidecar(SIDECAR_RATE_LIMIT="off")
    page = browser(name, server=server)
    server.post(START, {"room": name, "interval": 0.2})
    wait_until(lambda: bool(volatile(page)), "a beat")
    server.stop()
    page.next("disconnect")
    server.start()
    page.next("connect")
    count = len(volatile(page))
    wait_until(lambda: len(volatile(page)) > count, "it beats again")
    assert list(running(server)) == [name]


def test_a_source_of_the_settings(start_sidecar, browser, name, tmp_path: Path):
    (tmp_path / "shop_figures.py").write_text('def today():\n    return {"type": "sales", "sum": 12}\n')
    server = start_sidecar(PYTHONPATH=str(tmp_path), SIDECAR_LIVE_SOURCES="sales=shop_figures:today")
    page = browser(name, server=server)
    assert server.post(START, {"room": name, "source": "sales", "interval": 0.2}).status_code == 200
    wait_until(lambda: bool(volatile(page)), "it is asked")
    assert volatile(page)[0]["payload"]["sum"] == 12
    assert "sales" in server.get("/api/live-push").json()["sources"]


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_one_of_two_processes_runs_it_and_the_other_takes_over(start_sidecar, browser, name, database: str, request):
    """Both processes' sockets get each frame once, whoever runs it; also when the runner is killed."""
    environment = {"SIDECAR_RATE_LIMIT": "off"}
    if database == "postgresql":
        postgres = request.getfixturevalue("postgres")
        environment["SIDECAR_DATABASE_URL"] = postgres.url(postgres.new_database()).replace("+psycopg", "")
    runner = start_sidecar(**environment)
    other = start_sidecar(runner, **environment)
    pages = [browser(name, server=runner), browser(name, server=other)]
    other.post(START, {"room": name, "interval": 0.2})
    for page in pages:
        wait_until(lambda page=page: len(volatile(page)) >= 5, "five beats")
    for page in pages:
        stamps = [event["timestamp"] for event in volatile(page)]
        assert len(set(stamps)) == len(stamps)
    runner.kill()
    count = len(volatile(pages[1]))
    wait_until(lambda: len(volatile(pages[1])) >= count + 5, "the other has taken over")
    stamps = [event["timestamp"] for event in volatile(pages[1])]
    assert len(set(stamps)) == len(stamps)
