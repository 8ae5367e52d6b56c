"""What a Socket.IO client says and hears on a WebSocket, as bytes, without a socket.

Only what a load generator needs: short masked texts out; unfragmented texts in; and a count of events in raw bytes,
for the many connections whose frames are not parsed one by one.
"""

from __future__ import annotations

import os
import re
import struct
from base64 import b64encode
from collections.abc import Iterator

MARK = b"~mark:"
"""Stands in each event's text exactly once, and nowhere else."""

OVERLAP = len(MARK) - 1
PING = b"\x81\x012"
"""A whole Engine.IO ping with its frame's header. Its bytes can't occur in JSON, which has no control characters, nor
across a header and an event, which begins with `4`."""

STAMP = re.compile(MARK + rb"(\d{10}) (\d{19})")
OPCODES = 0x0F
TEXT = 0x1
CLOSE = 0x8


class BadFrame(Exception):
    """The server sent what no Socket.IO server sends."""


def event_text(number: int, stamp_ns: int) -> str:
    """The text that an event carries: the mark, its number from 0, and when it was due to be posted, in nanoseconds
    of CLOCK_MONOTONIC, which all processes of a machine share."""
    return f"{MARK.decode()}{number:010d} {stamp_ns:019d}"


def handshake(host: str) -> bytes:
    """The request that opens an Engine.IO 4 connection on a WebSocket (RFC 6455, section 4.1)."""
    key = b64encode(os.urandom(16)).decode()
    return (
        f"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\n"
        f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    ).encode()


def client_text(text: bytes) -> bytes:
    """A text frame of at most 125 bytes from a client. The mask is zero, which leaves the text readable; the server's
    work is the same (RFC 6455, section 5.3)."""
    return bytes((0x81, 0x80 | len(text), 0, 0, 0, 0)) + text


def server_text(text: bytes) -> bytes:
    """A text frame of at most 65,535 bytes from a server."""
    if len(text) < 126:
        return bytes((0x81, len(text))) + text
    return struct.pack("!BBH", 0x81, 126, len(text)) + text


PONG = client_text(b"3")


class Frames:
    """Cuts what a server sends into the payloads of its text frames."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[bytes]:
        """The texts that are complete now. Raises BadFrame on a fragment, a mask, a binary or a close frame."""
        pending = self._pending
        pending += data
        begin = 0
        try:
            while (bounds := _bounds(pending, begin)) is not None:
                start, end = bounds
                first = pending[begin]
                begin = end
                if first == 0x80 | TEXT:
                    yield bytes(pending[start:end])
                elif first & OPCODES <= CLOSE:
                    raise BadFrame(f"a frame of another kind: first byte {first:#04x}")
        finally:
            del pending[:begin]


def _bounds(data: bytearray, begin: int) -> tuple[int, int] | None:
    """Where the payload of the frame at `begin` starts and ends; None if it has not come whole."""
    if len(data) < begin + 2:
        return None
    length = data[begin + 1]
    start = begin + 2
    if length > 127:
        raise BadFrame("a server must not mask")
    if length == 126:
        start += 2
        if len(data) < start:
            return None
        (length,) = struct.unpack_from("!H", data, begin + 2)
    elif length == 127:
        start += 8
        if len(data) < start:
            return None
        (length,) = struct.unpack_from("!Q", data, begin + 2)
    return (start, start + length) if len(data) >= start + length else None


class Marks:
    """Counts marks in one connection's bytes without parsing, over one buffer that all connections share.

    The last bytes of each read are put before the next one, so that a mark that a read has cut is counted once.
    """

    __slots__ = ("_tail", "count")

    def __init__(self) -> None:
        self.count = 0
        self._tail = bytes(OVERLAP)

    def take(self, buffer: bytearray, length: int) -> bool:
        """`buffer[OVERLAP : OVERLAP + length]` was read just now; what stands before it is overwritten. Whether a
        ping is in it. Costs two searches through the bytes, whatever the number of events."""
        buffer[:OVERLAP] = self._tail
        end = OVERLAP + length
        self.count += buffer.count(MARK, 0, end)
        self._tail = bytes(buffer[length:end])
        return buffer.find(PING, OVERLAP - len(PING) + 1, end) >= 0
