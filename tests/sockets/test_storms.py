"""Crowds and slow readers against a real server: those who are there go on, order holds, all is given back."""

from __future__ import annotations

import json
import socket
import struct
from pathlib import Path

import httpx
import pytest

from tests.programs import wait_until
from tests.servers import RunningSidecar
from tests.sockets.clients import Polling, Posting, RawWebSockets, post_line
from tests.sockets.test_gate import ENGINE, ask

CROWD = 300


def descriptors(server: RunningSidecar) -> int:
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))


def memory_bytes(server: RunningSidecar) -> int:
    return int(Path(f"/proc/{server.pid}/statm").read_text().split()[1]) * 4_096


def subscribed(raw: RawWebSockets, server: RunningSidecar, project: str, **options: object):
    made = raw.joined(server)
    made.send(f"420{json.dumps(['subscribe_project', project, options])}")
    while not str(made.recv()).startswith("430"):
        pass
    return made


def events_until(made, seq: int) -> list[int]:
    """The seqs that come, up to and with this one."""
    seqs: list[int] = []
    while not seqs or seqs[-1] != seq:
        text = str(made.recv())
        if text.startswith('42["event"'):
            seqs.append(json.loads(text[2:])[1]["seq"])
        elif text == "2":
            made.send("3")
    return seqs


def test_a_crowd_that_leaves_at_once_leaves_nothing_behind_and_nobody_behind(start_sidecar, raw, name):
    server = start_sidecar()
    watching = subscribed(raw, server, name)
    before = descriptors(server), server.metric("sidecar_subscribers")
    crowd = RawWebSockets()
    for _ in range(CROWD):
        subscribed(crowd, server, name)
    assert server.metric("sidecar_subscribers") == before[1] + CROWD
    for place, one in enumerate(crowd._sockets):  # half of them without a goodbye
        if place % 2:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    crowd.close()
    last = post_line(server, name, "d")
    assert events_until(watching, last)[-1] == last
    wait_until(lambda: server.metric("sidecar_subscribers") == before[1], "their sessions are gone")
    wait_until(lambda: descriptors(server) <= before[0] + 2, "their descriptors are free")
    assert server.get("/readyz").status_code == 200


def test_every_client_sees_the_same_order_whoever_posts(sidecar, raw, name):
    clients = [subscribed(raw, sidecar, name) for _ in range(12)]
    deployments = [f"{name}-{number}" for number in range(4)]
    with Posting(sidecar, name, deployments) as posting:
        wait_until(lambda: len(posting.all) >= 200, "200 posts")
    seen = [events_until(client, posting.all[-1]) for client in clients]
    assert seen[0] == posting.all
    assert all(seqs == seen[0] for seqs in seen)


def test_one_that_does_not_read_costs_its_bound_and_gets_everything_when_it_reads(start_sidecar, raw, name):
    """It lags behind: what its outbox has no room for comes from the journal later, without a new connection."""
    server = start_sidecar(SIDECAR_MAX_BODY_BYTES="200000", SIDECAR_OUTBOX_BYTES="800000")
    slow, quick = subscribed(raw, server, name), subscribed(raw, server, name)
    post_line(server, name, "d", "warm up" * 1_000)
    before = memory_bytes(server)
    body = {"type": "log_entry", "project": name, "deployment_id": "d", "message": "x" * 30_000}
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Token {server.token}"}) as http:
        seqs = [int(http.post("/api/webhooks/deployment", json=body).json()["event_id"]) for _ in range(400)]  # 12 MB
    assert events_until(quick, seqs[-1])[1:] == seqs, "a slow one delays nobody"
    wait_until(lambda: server.metric("sidecar_subscribers_catching_up") == 1, "it has fallen behind")
    assert memory_bytes(server) - before < 60_000_000  # the ring of recent events holds most of them, once for all
    assert events_until(slow, seqs[-1])[1:] == seqs
    wait_until(lambda: server.metric("sidecar_subscribers_catching_up") == 0, "it is live again")
    last = post_line(server, name, "d")
    assert events_until(slow, last) == [last]


def test_newcomers_above_the_rate_are_asked_to_come_back(start_sidecar):
    server = start_sidecar(SIDECAR_HANDSHAKE_RATE="1/second, burst 3")
    statuses = [ask(server, ENGINE) for _ in range(6)]
    assert [status for status, _ in statuses][:3] == [101] * 3
    refused = [text for status, text in statuses if status == 503]
    assert refused
    assert all("Retry-After: " in text for text in refused)
    wait_until(lambda: ask(server, ENGINE)[0] == 101, "the next is taken")
    assert server.get("/healthz").status_code == 200


def test_a_poll_of_a_session_taken_is_no_newcomer(start_sidecar):
    server = start_sidecar(SIDECAR_HANDSHAKE_RATE="1/second, burst 1")
    polling = Polling(server)
    for _ in range(5):
        assert polling.connect(server.token)[0].startswith("40{") or polling.post("3").status_code == 200
        polling.post("41")
    polling.close()


@pytest.mark.parametrize("target", [ENGINE + "&sid=unknown", "/socket.io/?EIO=4&transport=polling&sid=unknown"])
def test_a_session_that_is_not_open_gets_400_and_no_101(sidecar, target: str):
    status, text = ask(sidecar, target)
    assert status == 400
    assert "session" in text


def test_a_handshake_without_a_host_is_refused(sidecar):
    assert ask(sidecar, ENGINE, {"Host": None})[0] == 400


def test_requests_beside_a_fan_out_are_answered(start_sidecar, raw, name):
    """The loop is given back between sends: other requests get their turns while a crowd is being served."""
    server = start_sidecar()
    crowd = [subscribed(raw, server, name) for _ in range(100)]
    deployments = [f"{name}-{number}" for number in range(3)]
    with Posting(server, name, deployments) as posting, httpx.Client(base_url=server.url) as http:
        for _ in range(50):
            assert http.get("/healthz").status_code == 200
        wait_until(lambda: len(posting.all) >= 100, "100 posts")
    for client in crowd:
        assert events_until(client, posting.all[-1]) == posting.all
