"""What kind of message a frame holds, told without its content: for the debug log. Names from outside are given only
where they look like names; all else is a word of ours in brackets."""

from __future__ import annotations

import json
import re

from sidecar.wire.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT

Outline = dict[str, object]

OPCODES = {CONTINUATION: "continuation", TEXT: "text", BINARY: "binary", CLOSE: "close", PING: "ping", PONG: "pong"}
ENGINE_PACKETS = ("open", "close", "ping", "pong", "message", "upgrade", "noop")
SOCKETIO_PACKETS = ("connect", "disconnect", "event", "ack", "connect_error", "binary_event", "binary_ack")
PARSED_CHARACTERS = 64 * 1024
OTHER = "(other)"

_NAME = re.compile(r"[A-Za-z0-9_:.-]{1,40}")
"""Shorter than any token of ours."""
_EVENT = re.compile(r'4[25](?:[0-9]{1,20}-)?(?:/[^,\[]{0,200},)?[0-9]{0,20}\["([A-Za-z0-9_:.-]{1,40})"')


def engine_outline(packet: str | bytes) -> Outline:
    """Of an Engine.IO packet: its type, that of the Socket.IO packet in it, the event's name."""
    if isinstance(packet, bytes):
        return {"packet": "attachment"}
    kind = _word(ENGINE_PACKETS, packet[:1])
    if kind != "message":
        return {"packet": kind}
    inner = _word(SOCKETIO_PACKETS, packet[1:2])
    if not inner.endswith("event"):
        return {"packet": inner}
    found = _EVENT.match(packet)
    return {"packet": inner, "name": OTHER if found is None else found[1]}


def plain_outline(text: str | bytes, *fields: str) -> Outline:
    """Of a plain WebSocket's JSON message: its type, which is the first of these fields that it has."""
    if isinstance(text, bytes):
        return {}
    if len(text) > PARSED_CHARACTERS:
        return {"type": "(large)"}
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return {"type": "(no JSON)"}
    if not isinstance(body, dict):
        return {"type": "(no object)"}
    found = next((body[field] for field in fields if field in body), None)
    if found is None:
        return {"type": "(none)"}
    return {"type": found if isinstance(found, str) and _NAME.fullmatch(found) else OTHER}


def unframed(frame: bytes) -> tuple[int, bytes]:
    """Opcode and payload of one frame as a server sends it: whole, final and unmasked."""
    start = {126: 4, 127: 10}.get(frame[1], 2)
    return frame[0] & 0x0F, frame[start:]


def _word(words: tuple[str, ...], digit: str) -> str:
    return words[int(digit)] if digit.isascii() and digit.isdigit() and int(digit) < len(words) else OTHER
