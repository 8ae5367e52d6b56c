"""One event as the frames of different kinds of connections."""

from __future__ import annotations

import json

import pytest

from sidecar.domain.events import Event
from sidecar.fanout.codecs import JsonCodec, SocketIoCodec
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


def test_the_envelope_alone():
    assert json.loads(text_of(JsonCodec("e").frame(EVENT))) == ENVELOPE


class Recipient:
    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def offer(self, frame: bytes) -> bool:
        self.frames.append(frame)
        return True

    def put(self, frame: bytes) -> None:
        self.frames.append(frame)

    def cut_off(self) -> None:
        raise AssertionError("nobody is cut off here")

    def wait_drained(self) -> bool:
        return True


def test_one_frame_a_codec_is_shared_by_a_room_of_several_kinds():
    hub = Hub(lambda subscriber, event: None)
    codecs = [SocketIoCodec("/", "e", True), SocketIoCodec("/", "e", False), JsonCodec("e")]
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
