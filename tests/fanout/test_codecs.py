"""One event as the frames of different kinds of connections."""

from __future__ import annotations

import json

import pytest

from sidecar.domain.events import Event, Volatile
from sidecar.fanout.codecs import BareCodec, SocketIoCodec
from sidecar.fanout.hub import Hub, Subscriber
from sidecar.wire.frames import PING, TEXT, FrameReader, frame

EVENT = Event(7, 0xABC, "step_started", '{"name":"Bauen für 部署"}', ("project:p",), "2026-11-21T12:00:00.000Z")
ENVELOPE = {
    "type": "step_started",
    "payload": {"name": "Bauen für 部署"},
    "timestamp": "2026-11-21T12:00:00.000Z",
    "seq": 7,
    "epoch": "e",
    "offset": "7.00000abc",
}


def text_of(sent: bytes) -> str:
    """What a client reads, for lengths of less than 64 KiB."""
    assert sent[0] == 0x80 | TEXT
    return sent[4 if sent[1] == 126 else 2 :].decode()


@pytest.mark.parametrize(("namespace", "head"), [("/", "42"), ("/project-dashboard/ws", "42/project-dashboard/ws,")])
def test_socket_io_s_event_in_any_namespace(namespace: str, head: str):
    text = text_of(SocketIoCodec(namespace, "e", offsets=False).frame(EVENT, "9.00000def~1.7"))
    assert text.startswith(head + "[")
    assert json.loads(text.removeprefix(head)) == ["event", ENVELOPE]


@pytest.mark.parametrize("place", [None, "9.00000def~1.7"])
def test_who_recovers_is_told_the_place_as_the_last_argument(place: str | None):
    """The envelope keeps the event's own."""
    text = text_of(SocketIoCodec("/", "e", offsets=True).frame(EVENT, place))
    assert json.loads(text.removeprefix("42")) == ["event", ENVELOPE, place or "7.00000abc"]


MESSAGE = Event(8, 0xDEF, "api_message", '{"content":"für alle"}', ("room:r",), "2026-11-21T12:00:00.000Z")
CHAT = Event(9, 0xDEF, "chat_message", '{"message":"hi","source":"websocket_chat"}', ("room:r",), MESSAGE.at)
NEWS = Volatile("api_message", '{"type":"live_stats"}', "room:r", MESSAGE.at)


@pytest.mark.parametrize("offsets", [False, True])
def test_a_message_as_plain_websockets_get_it(offsets: bool):
    """In the shape that the guide shows; its place only for who asked for it."""
    bare = {
        "type": "api_message",
        "message": {"content": "für alle"},
        "timestamp": "2026-11-21T12:00:00.000Z",
        "source": "rest_api",
    }
    told = json.loads(text_of(BareCodec(offsets).frame(MESSAGE)))
    assert told == bare | ({"offset": "8.00000def"} if offsets else {})


@pytest.mark.parametrize("offsets", [False, True])
def test_a_chat_message_as_plain_websockets_get_it(offsets: bool):
    bare = {"type": "chat_message", "message": "hi", "source": "websocket_chat", "timestamp": MESSAGE.at}
    told = json.loads(text_of(BareCodec(offsets).frame(CHAT)))
    assert told == bare | ({"offset": "9.00000def"} if offsets else {})


def test_an_event_without_fields_as_plain_websockets_get_it():
    told = json.loads(text_of(BareCodec(False).frame(Event(1, 1, "any", "{}", ("room:r",), MESSAGE.at))))
    assert told == {"type": "any", "timestamp": MESSAGE.at}


@pytest.mark.parametrize("offsets", [False, True])
def test_volatile_news_has_no_place_and_says_so(offsets: bool):
    """As the last argument a place would be kept by the client, which then missed what came before."""
    name, body = json.loads(text_of(SocketIoCodec("/", "e", offsets).volatile_frame(NEWS)).removeprefix("42"))
    assert name == "event"
    assert body == {"type": "api_message", "payload": {"type": "live_stats"}, "timestamp": NEWS.at, "volatile": True}
    told = json.loads(text_of(BareCodec(offsets).volatile_frame(NEWS)))
    assert told == {
        "type": "api_message",
        "message": {"type": "live_stats"},
        "timestamp": NEWS.at,
        "source": "rest_api",
    }


class Recipient:
    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def offer(self, frame: bytes) -> bool:
        self.frames.append(frame)
        return True

    def cut_off(self) -> None:
        raise AssertionError("nobody is cut off here")

    def wait_drained(self, entirely: bool = False) -> bool:
        return True


def test_one_frame_a_codec_is_shared_by_a_room_of_several_kinds():
    hub = Hub(lambda subscriber, event: None)
    codecs = [SocketIoCodec("/", "e", True), SocketIoCodec("/", "e", False), BareCodec(False)]
    recipients = [Recipient() for _ in range(9)]
    for place, recipient in enumerate(recipients):
        hub.join(Subscriber(recipient, codecs[place % 3], 0), "project:p", 0)
    hub.publish(EVENT)
    for place, recipient in enumerate(recipients):
        assert recipient.frames == [codecs[place % 3].frame(EVENT)]
        assert recipient.frames[0] is recipients[place % 3].frames[0]


def test_a_server_s_frame_is_none_that_a_server_would_take():
    """Frames of ours are not masked: two servers that talk to each other find out at once."""
    reader = FrameReader(1_000)
    reader.feed(frame(PING, b"x"))
    assert reader.fault is not None
