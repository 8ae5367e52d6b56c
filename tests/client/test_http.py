"""`sidecar.client`: what a back end calls, against a real sidecar, and against a server that fails as it is told to."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

import sidecar.client as package
from sidecar.client import ApiError, LivePusher, SidecarClient, WebSocketPusher, send_websocket_message
from tests.client.following import following
from tests.programs import ROOT

WAIT_SECONDS = 60


@pytest.fixture
def client(sidecar) -> Iterator[SidecarClient]:
    with SidecarClient(sidecar.url, sidecar.token) as client:
        yield client


def test_every_call_reaches_a_real_sidecar(client: SidecarClient, name: str):
    sent = client.send(name, "hello", {"a": 1})
    assert (sent["room"], sent["recipients"], sent["duplicate"]) == (name, 0, False)
    assert client.push_location(0, -180, name)["location"] == {"lat": 0, "lng": -180}
    assert client.broadcast("all", {"a": 1}, type="news")["success"]
    assert client.notify_user(name, "you")["user_id"] == name
    assert client.start_live_push(name, interval=60)["interval"] == 60
    assert name in [push["room"] for push in client.live_pushes()]
    assert client.stop_live_push(name)["stopped"] == [name]
    assert client.presence(f"{name}/ä?#%")["connections"] == 0
    assert name not in [room["room"] for room in client.rooms()]
    assert client.disconnect_user(name)["disconnected"] == 0
    assert client.connection_token(sub=name, rooms=["room:*"])["ttl_seconds"] > 0
    assert client.check_permission("anything", "read") is True
    step = {"type": "step_started", "project": name, "deployment_id": name, "step_name": "build"}
    assert client.webhook(step)["type"] == "step_started"
    assert client.project_metrics(name)["counts"]["running"] == 1
    assert client.info()["name"] == "sidecar"


def test_the_same_key_sends_once(client: SidecarClient, name: str):
    first = client.send(name, "once", key=name)
    again = client.send(name, "once", key=name)
    assert (again["event_id"], again["duplicate"]) == (first["event_id"], True)
    with pytest.raises(ApiError) as refused:
        client.send(name, "another", key=name)
    assert (refused.value.status, refused.value.code) == (409, "conflict")


def test_a_refusal_says_which_field(client: SidecarClient):
    with pytest.raises(ApiError) as refused:
        client.push_location(91, 0, "d")
    assert refused.value.status == 400
    assert [error["path"] for error in refused.value.errors] == ["latitude"]
    assert "latitude must be a number from -90 to 90" in str(refused.value)


def test_where_and_who_come_from_the_environment(sidecar, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SIDECAR_URL", f"{sidecar.url}/project-dashboard/")
    monkeypatch.setenv("SIDECAR_TOKEN", sidecar.token)
    with SidecarClient() as client:
        assert client.url == f"{sidecar.url}/project-dashboard"
        assert client.send("general", "hi")["success"]
    monkeypatch.delenv("SIDECAR_URL")
    with SidecarClient() as client:
        assert client.url == "http://127.0.0.1:8091"


def test_a_message_of_any_fields_comes_to_the_room(client: SidecarClient, name: str):
    order = {"type": "order_update", "order_id": 7, "content": "sent", "timestamp": "never", "sender": "nobody"}
    with following(client, ("room", name)) as room:
        assert send_websocket_message(name, order, client=client) is True
        (payload,) = room.payloads(1)
    event = room.heard[0]
    assert event["type"] == "api_message"
    assert (payload["type"], payload["order_id"], payload["content"]) == ("order_update", 7, "sent")
    assert (payload["sender"], payload["timestamp"]) == ("admin", event["timestamp"])


def test_a_message_that_is_not_sent_says_so(sidecar, monkeypatch: pytest.MonkeyPatch, caplog):
    monkeypatch.setenv("SIDECAR_URL", sidecar.url)
    monkeypatch.setenv("SIDECAR_TOKEN", "sct_000000000000_wrong")
    assert send_websocket_message("general", {"type": "x"}) is False
    assert "Invalid token" in caplog.text
    assert "sct_" not in caplog.text


def test_the_old_names_are_there():
    assert WebSocketPusher is LivePusher
    pusher = WebSocketPusher(client=SidecarClient("http://127.0.0.1:1"))
    assert (pusher.room_name, pusher.interval) == ("live_updates", 5)
    assert set(package.__all__) <= set(dir(package))


def test_the_server_pushes_when_it_is_asked_to(client: SidecarClient, name: str):
    pusher = LivePusher(name, 60, client=client)
    pusher.start_pushing()
    pusher.interval = 30
    pusher.start_pushing()
    assert [push["interval"] for push in client.live_pushes() if push["room"] == name] == [30]
    pusher.stop_pushing()
    assert [push for push in client.live_pushes() if push["room"] == name] == []


def test_this_program_pushes_what_its_function_says(client: SidecarClient, name: str):
    said: list[int] = []

    def function() -> dict[str, object]:
        said.append(len(said))
        if len(said) == 2:
            raise RuntimeError("the second time fails")
        return {"type": "count", "count": said[-1]}

    pusher = LivePusher(name, 0.01, function=function, client=client)
    with following(client, ("room", name)) as room:
        pusher.start_pushing()
        assert [payload["count"] for payload in room.payloads(3)] == [0, 2, 3]
        pusher.stop_pushing()
    count = len(said)
    pusher.stop_pushing()
    assert len(said) == count


def test_a_program_needs_nothing_but_httpx():
    """Everything else that this project installs is hidden from it."""
    code = (
        "import sys\n"
        "for name in ('flask', 'gevent', 'socketio', 'engineio', 'websocket', 'pydantic', 'structlog', 'sqlalchemy'):\n"
        "    sys.modules[name] = None\n"
        "from sidecar.client import SidecarClient, send_websocket_message, LivePusher, ApiError\n"
        "try:\n"
        "    SidecarClient('http://127.0.0.1:1', retries=0).info()\n"
        "except ApiError as error:\n"
        "    print('told', error.status)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "told None\n"


class Failing:
    """A server that answers as the test says; `seen` are the requests that came: method, path, key and body."""

    def __init__(self, answers: list[tuple[int, dict[str, str], bytes] | None]):
        self.answers = answers
        self.seen: list[tuple[str, str, str | None, bytes]] = []


@contextmanager
def failing(*answers: tuple[int, dict[str, str], bytes] | None) -> Iterator[tuple[Failing, str]]:
    """Each request gets the next answer; None breaks the connection instead."""
    script = Failing(list(answers))

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            script.seen.append((self.command, self.path, self.headers.get("Idempotency-Key"), body))
            answer = script.answers.pop(0)
            if answer is None:
                self.connection.close()
                self.close_connection = True
                return
            status, headers, text = answer
            self.send_response(status)
            for name, value in {"Content-Length": str(len(text)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = _any

        def log_message(self, *_arguments: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield script, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(WAIT_SECONDS)
        server.server_close()


GOOD = (200, {}, b'{"success": true, "items": []}')
BUSY = (503, {"Retry-After": "0"}, b'{"message": "busy", "code": "unavailable"}')


@pytest.mark.parametrize("fault", [BUSY, (429, {"Retry-After": "0"}, b"{}"), (502, {}, b"<html>"), None])
def test_what_passes_is_tried_again_under_the_same_key(fault):
    with failing(fault, fault, GOOD) as (server, url), SidecarClient(url, "t") as client:
        assert client.send("general", "once")["success"]
    keys = {key for _, _, key, _ in server.seen}
    assert (len(server.seen), len(keys)) == (3, 1)
    assert None not in keys
    assert len({body for _, _, _, body in server.seen}) == 1


def test_two_messages_have_two_keys():
    with failing(GOOD, GOOD) as (server, url), SidecarClient(url, "t") as client:
        client.send("general", "same")
        client.send("general", "same")
    assert len({key for _, _, key, _ in server.seen}) == 2


def test_after_so_many_tries_it_gives_up_and_says_what_was_said():
    with (
        failing(*[BUSY] * 3) as (server, url),
        SidecarClient(url, "t", retries=2) as client,
        pytest.raises(ApiError) as error,
    ):
        client.rooms()
    assert (error.value.status, error.value.code, str(error.value)) == (503, "unavailable", "503: busy")
    assert server.answers == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 500])
def test_what_will_not_pass_is_not_tried_again(status: int):
    with (
        failing((status, {}, b'{"detail": "no"}')) as (server, url),
        SidecarClient(url, "t") as client,
        pytest.raises(ApiError, match=f"{status}: no"),
    ):
        client.send("general", "x")
    assert len(server.seen) == 1


@pytest.mark.parametrize("text", [b"<html>", b"[]", b""])
def test_what_is_no_answer_of_a_sidecar_is_told(text: bytes):
    with (
        failing((200, {}, text)) as (_, url),
        SidecarClient(url, "t") as client,
        pytest.raises(ApiError, match="answered 200 without JSON"),
    ):
        client.info()


@pytest.mark.parametrize(
    "make",
    [
        lambda: SidecarClient("no url").info(),
        lambda: SidecarClient("http://[").info(),
        lambda: SidecarClient("http://127.0.0.1:1", retries=0).info(),
    ],
    ids=["no scheme", "no host", "nobody listens"],
)  # fmt: skip
def test_an_address_that_leads_nowhere_is_told(make: Callable[[], Any]):
    with pytest.raises(ApiError):
        make()


def test_what_json_can_not_hold_is_told_before_anything_is_sent():
    with failing() as (server, url), SidecarClient(url, "t") as client:
        with pytest.raises(ApiError, match="can't be made"):
            client.send("general", "x", {"when": object()})
        with pytest.raises(ApiError, match="can't be made"):
            client.send("general", "x", {"number": float("nan")})
    assert server.seen == []


def test_the_body_is_what_is_documented():
    with failing(GOOD) as (server, url), SidecarClient(url, "t") as client:
        client.send("general", "x", {"a": 1}, target_user=5)
    assert server.seen[0][:2] == ("POST", "/api/send-websocket/")
    assert json.loads(server.seen[0][3]) == {"room": "general", "message": "x", "data": {"a": 1}, "target_user": 5}
