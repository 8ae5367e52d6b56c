"""kill -9 at any moment: what was answered 200 is there, nothing is there twice, and the journal has no hole."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.programs import JsClient, wait_until
from tests.servers import RunningSidecar
from tests.sockets.clients import Page

ROUNDS = 3
POSTERS = 8
POSTS_A_SECOND = 200
PROJECT = "crash"


class Poster:
    """Posts log lines to one deployment, at its share of the rate, whether the server is there or not."""

    def __init__(self, server: RunningSidecar, number: int):
        self.deployment = f"{PROJECT}-{number}"
        self.answered: dict[str, int] = {}
        """The seq that each text was answered with 200."""
        self.tried = 0
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=self.deployment)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        headers = {"Authorization": f"Token {self._server.token}"}
        while not self._stop.is_set():
            with httpx.Client(base_url=self._server.url, headers=headers, timeout=10, verify=self._server.tls) as http:
                while not self._stop.is_set() and self._post(http):
                    pass
            self._stop.wait(0.01)

    def _post(self, http: httpx.Client) -> bool:
        """False when the server was not there."""
        self.tried += 1
        text = f"{self.deployment} line {self.tried}"
        body = {"type": "log_entry", "project": PROJECT, "deployment_id": self.deployment, "message": text}
        began = time.monotonic()
        try:
            answer = http.post("/api/webhooks/deployment", json=body)
        except httpx.HTTPError:
            return False
        if answer.status_code == 200:
            self.answered[text] = int(answer.json()["event_id"])
        else:
            assert answer.status_code == 503, answer.text
        self._stop.wait(max(0.0, POSTERS / POSTS_A_SECOND - (time.monotonic() - began)))
        return True


def stored_events(server: RunningSidecar, deployment: str) -> list[dict]:
    """All of GET /api/deployments/<id>/events, page by page."""
    found: list[dict] = []
    after: str | int = 0
    while True:
        answer = server.get(f"/api/deployments/{deployment}/events?after={after}&limit=500")
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page["items"]
        if page["next"] is None:
            return found
        after = page["next"]


def journal(instance: Path) -> tuple[list[int], list[int]]:
    """The seqs of the whole journal, and those of the project's room."""
    with contextlib.closing(sqlite3.connect(instance / "sidecar.db")) as database:
        everything = [row[0] for row in database.execute("SELECT seq FROM events ORDER BY seq")]
        query = "SELECT seq FROM event_rooms WHERE room = ? ORDER BY seq"
        return everything, [row[0] for row in database.execute(query, [f"project:{PROJECT}"])]


def tell(text: str) -> None:
    """Seen with `pytest -s`, and where the test fails."""
    sys.stdout.write(f"{text}\n")


def reconnect(js: JsClient, server: RunningSidecar, old: Page | None, offset: str | int) -> Page:
    """A page after a lost connection: a new socket that subscribes from the last offset it has seen."""
    if old is not None:
        old.disconnect()
    page = Page(js, server, token=server.token, reconnection=False).connected()
    answer = page.call("subscribe_project", PROJECT, {"since": offset})
    assert answer["ok"], answer
    assert not answer["truncated"], "no offset that was ever sent may be lost by a crash"
    return page


@pytest.mark.parametrize("seed", [20])
def test_killed_under_load_again_and_again_it_loses_and_repeats_nothing(start_sidecar, seed: int):
    """Answered 200 means on the disk; sent to a browser means committed, so that its offset holds afterwards."""
    chooser = random.Random(seed)
    server = start_sidecar(SIDECAR_RATE_LIMIT="off")
    received: list[dict] = []
    with JsClient() as js:
        page = reconnect(js, server, None, 0)
        posters = [Poster(server, number) for number in range(POSTERS)]
        posting_seconds = 0.0
        try:
            for number in range(ROUNDS):
                began = time.monotonic()
                known = sum(len(poster.answered) for poster in posters)
                least = known + chooser.randint(60, 240)
                wait_until(lambda least=least: sum(len(p.answered) for p in posters) > least, "posts answered")
                server.kill()
                posting_seconds += time.monotonic() - began
                page.next("disconnect")
                received += page.events
                server.start()
                page = reconnect(js, server, page, received[-1]["offset"] if received else 0)
                tell(f"round {number + 1}: {len(received)} events received before the crash")
        finally:
            for poster in posters:
                poster.stop()
        seqs, due = journal(server.instance)
        wait_until(lambda: len(received) + len(page.events) >= len(due), "the page has all")
        page.call("heartbeat")
        received += page.events

    answered = {text: seq for poster in posters for text, seq in poster.answered.items()}
    tried = sum(poster.tried for poster in posters)
    tell(
        f"{ROUNDS} crashes; {tried} posts tried, {len(answered)} answered 200"
        f" ({len(answered) / posting_seconds:.0f} a second while it ran), {len(seqs)} events stored,"
        f" {len(received)} received"
    )
    assert seqs == list(range(1, len(seqs) + 1)), "no hole in seq"
    assert [event["seq"] for event in received] == due, "each once and in order, across all crashes"
    for poster in posters:
        events = stored_events(server, poster.deployment)
        assert [e["seq"] for e in events] == sorted(e["seq"] for e in events)
        texts = {e["payload"]["message"]: e["seq"] for e in events}
        assert len(texts) == len(events)
        assert {text: texts.get(text) for text in poster.answered} == poster.answered, "every 200 is stored"
        order = [int(text.rpartition(" ")[2]) for text in texts]
        assert order == sorted(order), "as they were posted"
