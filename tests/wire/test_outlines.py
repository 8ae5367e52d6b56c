"""What the debug log tells of a message: its kind, never its content."""

from __future__ import annotations

import json

import pytest

from sidecar.wire.frames import BINARY, CLOSE, PING, TEXT, close_frame, frame
from sidecar.wire.outlines import OTHER, PARSED_CHARACTERS, engine_outline, plain_outline, unframed

TOKEN = f"sct_{'a' * 12}_{'S' * 43}"


@pytest.mark.parametrize(
    ("packet", "told"),
    [
        ("0{}", {"packet": "open"}),
        ("1", {"packet": "close"}),
        ("2probe", {"packet": "ping"}),
        ("6", {"packet": "noop"}),
        ("", {"packet": OTHER}),
        ("7", {"packet": OTHER}),
        ("²", {"packet": OTHER}),
        ("4", {"packet": OTHER}),
        ("49", {"packet": OTHER}),
        ('40{"token":"x"}', {"packet": "connect"}),
        ("41/x,", {"packet": "disconnect"}),
        ('42["a:b","content"]', {"packet": "event", "name": "a:b"}),
        ('42/a/b,17["chat","content"]', {"packet": "event", "name": "chat"}),
        ('451-["file",{"_placeholder":true,"num":0}]', {"packet": "binary_event", "name": "file"}),
        ('431["content"]', {"packet": "ack"}),
        ('44{"message":"x"}', {"packet": "connect_error"}),
        ("42[]", {"packet": "event", "name": OTHER}),
        ('42["with a space"]', {"packet": "event", "name": OTHER}),
        (f'42["{TOKEN}"]', {"packet": "event", "name": OTHER}),
        ('42["a\\nb"]', {"packet": "event", "name": OTHER}),
        (b"content", {"packet": "attachment"}),
    ],
)
def test_engine_packets(packet: str | bytes, told: dict[str, str]):
    assert engine_outline(packet) == told


@pytest.mark.parametrize(
    ("text", "type"),
    [
        ('{"type":"chat_message","message":"content"}', "chat_message"),
        ('{"type":"b","message_type":"a"}', "a"),
        ('{"message":"content"}', "(none)"),
        ('{"type":null}', "(none)"),
        ('{"type":7}', OTHER),
        ('{"type":"with a space"}', OTHER),
        (json.dumps({"type": TOKEN}), OTHER),
        ("[]", "(no object)"),
        ("content", "(no JSON)"),
        ("[" * 60_000, "(no JSON)"),
        ("1" * 5_000, "(no JSON)"),
        (json.dumps({"type": "a", "message": "x" * PARSED_CHARACTERS}), "(large)"),
    ],
)
def test_plain_messages(text: str, type: str):
    assert plain_outline(text, "message_type", "type") == {"type": type}


@pytest.mark.parametrize("length", [0, 125, 126, 65_535, 65_536])
def test_frames_as_a_server_sends_them(length: int):
    assert unframed(frame(TEXT, b"x" * length)) == (TEXT, b"x" * length)
    assert unframed(frame(BINARY, b"x" * length)) == (BINARY, b"x" * length)


def test_control_frames():
    assert unframed(frame(PING, b"")) == (PING, b"")
    assert unframed(close_frame(1000, "x")) == (CLOSE, b"\x03\xe8x")
