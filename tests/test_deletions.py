"""Deleting a project under the eyes of those who watch it: by another process, with a crash in the middle, and with its
deployment ids taken by another project afterwards."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from config.settings import load_settings
from sidecar.domain.events import Event
from sidecar.factory import create_app
from sidecar.services.projects import DELETED
from tests.conftest import Start
from tests.programs import JsClient, wait_until
from tests.servers import RunningSidecar
from tests.sockets.clients import Page

QUICK = {"reconnectionDelay": 50, "reconnectionDelayMax": 200}


@pytest.fixture
def browser(js: JsClient) -> Iterator[Callable[..., Page]]:
    opened: list[Page] = []

    def connect(server: RunningSidecar, token: str | None = None) -> Page:
        opened.append(Page(js, server, token=token or server.token, **QUICK).connected())
        return opened[-1]

    yield connect
    for page in opened:
        page.disconnect()


def post(server: RunningSidecar, project: str, id: str, text: str = "x") -> int:
    body = {"type": "log_entry", "project": project, "deployment_id": id, "message": text}
    answer = server.post("/api/webhooks/deployment", body)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["event_id"])


def delete(server: RunningSidecar, project: str) -> httpx.Response:
    return server.request("DELETE", f"/api/projects/{project}")


def test_pages_at_every_process_are_told_and_those_of_others_miss_nothing(two_servers, browser, name):
    here, there = two_servers
    gone, other = f"{name}-gone", f"{name}-other"
    watching, everything, bystander = (browser(there) for _ in range(3))
    assert watching.call("subscribe_project", gone)["ok"]
    assert watching.call("subscribe_deployment", gone)["ok"]
    assert everything.call("subscribe_projects")["ok"]
    assert bystander.call("subscribe_project", other)["ok"]
    seqs = []
    for number in range(5):
        post(here, gone, gone)
        seqs.append(post(here, other, other))
        if number == 2:
            assert delete(here, gone).json()["finished"] is True
    watching.wait_for(6)
    deleted = [event for event in watching.events if event["type"] == "project_deleted"]
    assert [event["payload"] for event in deleted] == [{"project": gone}]
    told = [(event["type"], event["payload"]["project"]) for event in everything.events]
    wait_until(lambda: len(everything.events) >= 4, "the news of projects", lambda: told)
    about = [event["type"] for event in everything.events if event["payload"]["project"] == gone]
    assert about == ["project_created", "project_deleted", "project_created"]
    assert bystander.wait_for(5) == seqs

    late = browser(there)
    answer = late.call("subscribe_project", gone, {"since": 0})
    assert (answer["ok"], answer["replayed"], answer["truncated"]) == (True, 3, False)
    late.wait_for(3)
    assert [event["type"] for event in late.events] == ["project_deleted", "log_entry", "log_entry"]
    again = browser(there)
    assert again.call("subscribe_project", other, {"since": 0})["replayed"] == 5
    assert again.wait_for(5) == seqs
    assert "tail.truncated" not in there.output()


def test_who_watched_a_deployment_learns_nothing_of_anothers_with_the_same_id(two_servers, browser, name):
    """The right to a deployment is that of its project, and an id that is free again may be taken by any."""
    here, there = two_servers
    mine, theirs, id = f"{name}-mine", f"{name}-theirs", f"{name}-id"
    first = post(here, mine, id)
    narrow = browser(there, there.connection_token(sub="ada", rooms=[f"project:{mine}"]))
    wide = browser(there)
    for page in (narrow, wide):
        assert page.call("subscribe_deployment", id, {"since": 0})["ok"]
        assert page.wait_for(1) == [first]
    assert delete(here, mine).json()["finished"] is True
    secret = post(here, theirs, id, "secret")
    assert wide.wait_for(2) == [first, secret]
    assert narrow.told("subscription:revoked")["id"] == id
    assert narrow.quiet() == [first]
    refused = narrow.call("subscribe_deployment", id, {"since": 0})
    assert (refused["ok"], refused["code"]) == (False, "not_allowed")


def test_no_process_keeps_recent_events_of_it_in_memory(tmp_path: Path):
    """Who was away for a moment is given what is in memory, and looks into no journal."""
    made = create_app(load_settings(instance_dir=tmp_path))
    made.core.tail.ring.append(Event(1, 1, "log_entry", "{}", ("project:gone",), "t"))
    for act in made.core.controls[DELETED]:
        act({"project": "gone"})
    assert not made.core.tail.ring
    made.core.database.close()


def test_killed_in_the_middle_of_a_deletion_it_goes_on(start_sidecar: Start):
    """What was answered to be deleted, or was begun to be, is gone whatever happens; and nothing else is."""
    server = start_sidecar(SIDECAR_RATE_LIMIT="off")
    lines = [{"message": f"secret {number}"} for number in range(5_000)]
    for number in range(6):
        batch = {"type": "log_batch", "project": "gone", "deployment_id": f"gone-{number % 2}", "logs": lines}
        assert server.post("/api/webhooks/deployment", batch).status_code == 200
        post(server, "kept", "kept", f"line {number}")
    kept = server.get("/api/deployments/kept/events").json()["items"]

    def ask() -> None:
        with contextlib.suppress(httpx.HTTPError):
            delete(server, "gone")

    asking = threading.Thread(target=ask)
    with contextlib.closing(sqlite3.connect(server.instance / "sidecar.db", timeout=10)) as database:

        def count(table: str, where: str = "true") -> int:
            found: int = database.execute(f"SELECT count(*) FROM {table} WHERE {where}").fetchone()[0]
            return found

        asking.start()
        wait_until(lambda: count("log_lines", "deployment_id <> 'kept'") < 30_000, "the deletion to begin")
        server.kill()
        asking.join()
        assert count("projects", "erase_upto IS NOT NULL") == 1, "it was killed in the middle"
        assert count("log_lines", "deployment_id <> 'kept'") > 0
        server.start()
        assert "gone" not in [item["name"] for item in server.get("/api/projects").json()["items"]]
        deadline = time.monotonic() + 60
        body: dict[str, Any] = {"type": "log_entry", "project": "gone", "deployment_id": "gone-0", "message": "new"}
        while (answer := server.post("/api/webhooks/deployment", body)).status_code != 200:
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
            assert "being deleted" in answer.json()["detail"]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert server.get("/api/deployments/kept/events").json()["items"] == kept
        assert count("log_lines", "deployment_id <> 'kept'") == 1
        assert count("events", "payload LIKE '%secret%'") == 0
        assert count("deliveries", "verdict = 'erased'") == 6
        seqs = [row[0] for row in database.execute("SELECT seq FROM events ORDER BY seq")]
        assert seqs == list(range(1, len(seqs) + 1))
