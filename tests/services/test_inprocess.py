"""What a program in the sidecar's own process calls: `current_app.extensions["sidecar"]`."""

from __future__ import annotations

import datetime
import decimal
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import current_app

from config.settings import load_settings
from sidecar.domain.errors import Invalid
from sidecar.domain.events import Event, Volatile
from sidecar.factory import Sidecar, create_app
from sidecar.fanout.hub import Subscriber
from sidecar.jobs.live_push import LivePushing
from sidecar.services.inprocess import InProcess
from sidecar.store.journal import events_after
from tests.fanout.stages import wait_until


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[Sidecar]:
    made = create_app(load_settings(instance_dir=tmp_path))
    made.start()
    yield made
    made.stop()
    made.network.stop()


@pytest.fixture
def push(sidecar: Sidecar) -> InProcess:
    with sidecar.app.app_context():
        found: InProcess = current_app.extensions["sidecar"]
    return found


class Listener:
    """A subscriber of a room. `got` are the events and the volatile news, as they are."""

    def __init__(self, sidecar: Sidecar, room: str, user: str | None = None):
        self.got: list[Any] = []
        sidecar.core.hub.join(Subscriber(self, self, 0, user=user), f"room:{room}", 0)

    def frame(self, event: Event, place: str | None = None) -> bytes:
        return event.payload.encode()

    def volatile_frame(self, news: Volatile) -> bytes:
        return news.payload.encode()

    def offer(self, frame: bytes) -> bool:
        self.got.append(json.loads(frame))
        return True

    def offer_latest(self, kind: str, frame: bytes) -> bool:
        return self.offer(frame)

    def put(self, frame: bytes) -> None:
        self.offer(frame)

    def cut_off(self) -> None: ...

    def wait_drained(self) -> bool:
        return True


def stored(sidecar: Sidecar) -> list[Event]:
    return sidecar.core.database.read(lambda connection: events_after(connection, 0, 1_000))


def test_a_message_to_a_room(sidecar, push):
    listener = Listener(sidecar, "r")
    assert push.send_websocket_message("r", {"type": "note", "content": "hello", "level": 3}) is True
    wait_until(lambda: bool(listener.got), "the message")
    (message,) = listener.got
    assert message.pop("timestamp").endswith("Z")
    assert message == {"content": "hello", "sender": "sidecar", "sender_id": 0, "type": "note", "level": 3}


def test_a_message_to_a_user_in_a_room(sidecar, push):
    ada, bob = Listener(sidecar, "r", "ada"), Listener(sidecar, "r", "bob")
    assert push.send_websocket_message("r", {"content": "psst"}, user_id="ada") is True
    assert push.send_websocket_message("r", {"content": "seven"}, user_id=7) is True
    assert push.send_websocket_message("r", {"content": "all"}) is True
    wait_until(lambda: len(bob.got) == 1, "the last")
    assert [message["content"] for message in ada.got] == ["psst", "all"]
    assert [event.target for event in stored(sidecar)] == ["ada", "7", None]


def test_who_and_when_are_not_the_callers_to_say(sidecar, push):
    """Old callers put them in; they are passed over."""
    push.send_websocket_message("r", {"message": "x", "sender": "root", "sender_id": 9, "timestamp": "never"})
    message = json.loads(stored(sidecar)[0].payload)
    assert (message["content"], message["sender"], message["sender_id"]) == ("x", "sidecar", 0)
    assert message["timestamp"] != "never"


@pytest.mark.parametrize(
    ("room", "message", "user"),
    [
        ("", {}, None),
        ("a\nb", {}, None),
        ("\ud800", {}, None),
        (None, {}, None),
        ("r", {}, True),
        ("r", {}, "x" * 201),
        ("r", {"type": 7}, None),
        ("r", {"content": "x" * 65_537}, None),
        ("r", {"x": {1}}, None),
        ("r", {"x": b"x"}, None),
        ("r", {"x": float("nan")}, None),
        ("r", {"x": decimal.Decimal(1)}, None),
        ("r", {"x": datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC)}, None),
        ("r", {("a", "b"): 1}, None),
    ],
)
def test_what_can_not_be_sent_is_refused(sidecar, push, room: Any, message: Any, user: Any):
    with pytest.raises(Invalid):
        push.send_websocket_message(room, message, user)
    assert stored(sidecar) == []


def test_a_message_within_itself_is_refused(sidecar, push):
    message: dict[str, Any] = {}
    message["self"] = message
    with pytest.raises(Invalid):
        push.send_websocket_message("r", message)


@pytest.mark.parametrize("text", ["\ud800", "\x00", "部署 🚀"])
def test_any_text_is_sent(sidecar, push, text: str):
    assert push.send_websocket_message("r", {"content": text, "x": [text], text: 1}) is True
    assert len(stored(sidecar)) == 1


@pytest.mark.parametrize("kind", ["LivePusher", "WebSocketPusher"])
def test_a_live_push(sidecar, push, kind: str):
    pusher = getattr(push, kind)(room_name="live", interval=0.2)
    listener = Listener(sidecar, "live")
    pusher.start_pushing()
    wait_until(lambda: len(listener.got) > 1, "two beats")
    message = listener.got[0]
    assert (message["type"], message["sender"]) == ("live_stats", "sidecar")
    assert {"devices", "dots", "sessions", "connections", "deployments", "timestamp", "formatted_time"} <= set(
        message["stats"]
    )
    pusher.stop_pushing()
    (pushing,) = (job for job in sidecar.jobs if isinstance(job, LivePushing))
    wait_until(lambda: not pushing.rooms, "it stops")
    pusher.stop_pushing()


@pytest.mark.parametrize(("room", "interval"), [("", 5), ("r", 0.1), ("r", 3_601), ("r", "x"), ("r", True)])
def test_a_live_push_that_can_not_be(push, room: str, interval: Any):
    with pytest.raises(Invalid):
        push.LivePusher(room_name=room, interval=interval).start_pushing()


def test_a_source_of_ones_own(sidecar, push):
    listener = Listener(sidecar, "sales")
    with pytest.raises(Invalid, match="source"):
        push.LivePusher("sales").start_pushing("sales")
    push.add_live_source("sales", lambda: {"type": "sales", "content": "today", "sum": 12.5})
    push.LivePusher("sales", 0.2).start_pushing("sales")
    wait_until(lambda: bool(listener.got), "it is asked")
    assert (listener.got[0]["type"], listener.got[0]["sum"]) == ("sales", 12.5)
    assert all(event.control for event in stored(sidecar)), "a push is in no journal"
    push.LivePusher("sales").stop_pushing()


@pytest.mark.parametrize("source", ["live_stats", "system", "all"])
def test_the_sources_that_are_there(sidecar, push, source: str):
    listener = Listener(sidecar, source)
    push.LivePusher(source, 3_600).start_pushing(source)
    wait_until(lambda: bool(listener.got), "it is asked")
    assert listener.got[0]["content"] == "Live system update"
    assert ("cpu_percent" in listener.got[0]["stats"]) is (source != "live_stats")
    assert ("devices" in listener.got[0]["stats"]) is (source != "system")
