"""`python -m sidecar tail`: what it prints is what happened, in the order in which it happened."""

from __future__ import annotations

import json
import queue
import threading
import time
from typing import Any

import engineio
import pytest
from engineio.packet import CLOSE, Packet

from sidecar.client.http import ApiError, SidecarClient
from sidecar.client.listener import InOrder, Listener, follow
from tests.client.following import Following, following
from tests.programs import free_port

EVENTS = 50
WAIT_SECONDS = 60
HEAD_START_SECONDS = 1


def test_events_are_told_in_order_until_the_token_is_revoked(sidecar, name):
    """python-engineio handles each message in a thread of its own: one that took long was overtaken by the next, and
    the place to go on from after a reconnect could go back."""
    for number in range(EVENTS):
        body = {"type": "log_entry", "project": name, "deployment_id": name, "message": str(number)}
        assert sidecar.post("/api/webhooks/deployment", body).status_code == 200
    token = sidecar.post("/api/tokens", {"name": name, "scopes": ["deployments:read"]}).json()
    told: list[str] = []
    ends: list[str] = []
    overtaken = threading.Event()

    def say(line: object) -> None:
        message = json.loads(str(line))["payload"]["message"]
        if message == "0":
            overtaken.wait(HEAD_START_SECONDS)
        else:
            overtaken.set()
        told.append(message)

    def listen() -> None:
        with SidecarClient(f"{sidecar.url}/project-dashboard", token["token"]) as client:
            try:
                follow(client, [("project", name)], "0", True, say)
            except ApiError as error:
                ends.append(str(error))

    listener = threading.Thread(target=listen)
    listener.start()
    deadline = time.monotonic() + WAIT_SECONDS
    while len(told) < EVENTS and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sidecar.request("DELETE", f"/api/tokens/{token['id']}").status_code == 200
    listener.join(WAIT_SECONDS)
    assert told == [str(number) for number in range(EVENTS)]
    assert ends == ["The token has been revoked."]


class Together(queue.Queue[Any]):
    """Hands out the last packet and the end behind it as one, and lets `put` return once more is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self._last: Any = None
        self._ended = False
        self._more = threading.Event()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        if isinstance(item, Packet) and item.packet_type == CLOSE:
            self._last = item
        elif item is None and self._last is not None:
            with self.mutex:
                self.queue.extend([self._last, None])
                self.unfinished_tasks += 2
                self.not_empty.notify()
            self._last = None
            assert self._more.wait(WAIT_SECONDS)
        else:
            super().put(item, block, timeout)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if block and self._ended:
            self._more.set()
        item = super().get(block, timeout)
        self._ended = item is None
        return item


def test_to_end_takes_no_half_minute(sidecar, name, monkeypatch, caplog):
    """python-engineio's thread that writes forgot the end where it came together with the last packet, and nobody
    told it again where the one that reads was just busy."""
    monkeypatch.setattr(engineio.Client, "create_queue", lambda self: Together())
    busy, ending = threading.Event(), threading.Event()

    def answered(answer: dict[str, Any]) -> None:
        busy.set()
        assert ending.wait(WAIT_SECONDS)

    connection = InOrder(handle_sigint=False)
    connection.on("disconnect", lambda reason: ending.set())
    connection.connect(sidecar.url, auth={"token": sidecar.token}, transports=["websocket"])
    connection.emit("subscribe_room", (name,), callback=answered)
    assert busy.wait(WAIT_SECONDS)
    connection.disconnect()
    assert "packet queue is empty" not in caplog.text


def test_two_threads_end_it_one_after_the_other(sidecar, name, monkeypatch):
    """Who closes, and who iterates `events`: the second emptied the queue of what the first's thread waited for."""
    both, begun, inside = threading.Event(), [], [0, 0]
    disconnect, end = InOrder.disconnect, Listener._disconnect

    def count(self: InOrder) -> None:
        inside[0] += 1
        inside[1] = max(inside)
        assert both.wait(WAIT_SECONDS)
        disconnect(self)
        inside[0] -= 1

    def begin(self: Listener) -> None:
        begun.append(threading.current_thread())
        if len(begun) == 2:
            both.set()
        end(self)

    monkeypatch.setattr(InOrder, "disconnect", count)
    monkeypatch.setattr(Listener, "_disconnect", begin)
    with SidecarClient(sidecar.url, sidecar.token) as client, following(client, ("room", name)):
        pass
    assert len(set(begun)) == 2
    assert inside == [0, 1]


def test_a_script_follows_rooms_of_every_kind(sidecar, name):
    with SidecarClient(sidecar.url, sidecar.token) as client:
        rooms = [("room", name), ("project", name), ("deployment", f"{name}-1")]
        with following(client, *rooms) as followed:
            client.send(name, "one")
            client.webhook({"type": "log_entry", "project": name, "deployment_id": f"{name}-1", "message": "two"})
            client.send(name, "three")
            said = [payload.get("content") or payload.get("message") for payload in followed.payloads(3)]
    assert said == ["one", "two", "three"]
    assert [event["type"] for event in followed.heard] == ["api_message", "log_entry", "api_message"]


@pytest.mark.parametrize("others", [0, 2])
def test_over_a_restart_nothing_is_missed_and_nothing_comes_twice(start_sidecar, others: int):
    """An event of a free room does not say of which of several it is."""
    server = start_sidecar(SIDECAR_PORT=str(free_port()))
    rooms = [("room", "r"), *(("room", f"other-{number}") for number in range(others))]
    with SidecarClient(server.url, server.token) as client, following(client, *rooms) as followed:
        for number in range(3):
            client.send("r", str(number))
        followed.payloads(3)
        server.kill()
        server.start()
        for number in range(3, 6):
            client.send("r", str(number))
        assert [payload["content"] for payload in followed.payloads(6)] == ["0", "1", "2", "3", "4", "5"]


def test_a_refused_room_ends_it(sidecar):
    with SidecarClient(sidecar.url, sidecar.new_token("deployments:read")) as client:
        followed = Following(client, ("room", "secret"))
        assert not followed.listener.wait_subscribed(20)
        followed.thread.join(20)
        assert followed.problem == "The token does not give the right to this room."


def test_who_does_not_read_can_still_end(sidecar, name, monkeypatch):
    monkeypatch.setattr("sidecar.client.listener.QUEUE_EVENTS", 2)
    with SidecarClient(sidecar.url, sidecar.token) as client, Listener(client) as listener:
        listener.subscribe("room", name, "0")
        for number in range(10):
            client.send(name, str(number))
        events = listener.events()
        assert next(events)["payload"]["content"] == "0"
        listener.close()
        assert list(events) == []
