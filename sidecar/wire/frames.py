"""WebSocket frames (RFC 6455) without I/O: bytes of a client in, messages out; and the frames that we send.

Nothing of a payload is kept before its length has been judged, and an idle reader keeps nothing at all.
"""

from __future__ import annotations

import codecs
import struct
from dataclasses import dataclass

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
OPCODES = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})

NO_STATUS = 1005
PROTOCOL_ERROR, NOT_UTF8, TOO_BIG = 1002, 1007, 1009
CONTROL_BYTES = 125
"""The most that a control frame may carry (section 5.5)."""

Received = tuple[int, str | bytes | int]
"""(TEXT, str), (BINARY, bytes), (PING, bytes), (PONG, bytes) or (CLOSE, code)."""


@dataclass(frozen=True, slots=True)
class Fault:
    """How the peer broke the protocol; `code` is the close code that it is told."""

    code: int
    reason: str


def frame(opcode: int, payload: bytes) -> bytes:
    """One final frame as servers send it: not masked, so that many receivers can share it."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 65_536:
        return struct.pack("!BBH", 0x80 | opcode, 126, size) + payload
    return struct.pack("!BBQ", 0x80 | opcode, 127, size) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """A Close frame; the reason is cut to what fits."""
    text = reason.encode()[: CONTROL_BYTES - 2].decode(errors="ignore")
    return frame(CLOSE, struct.pack("!H", code) + text.encode())


class FrameReader:
    """What one client sends, in pieces as they come. `max_message_bytes` bounds a message, fragments together.
    After a `fault`, or once the client has said Close (`closed`), nothing more is read."""

    __slots__ = ("_begun", "_max_message_bytes", "_partial", "closed", "fault")

    def __init__(self, max_message_bytes: int):
        self._max_message_bytes = max_message_bytes
        self._begun = b""
        """The beginning of a header or of a control frame."""
        self._partial: _Message | None = None
        """The message that is not complete."""
        self.fault: Fault | None = None
        self.closed = False

    @property
    def held_bytes(self) -> int:
        """What is kept of things not complete."""
        return len(self._begun) + (len(self._partial.body) if self._partial is not None else 0)

    def feed(self, data: bytes) -> list[Received]:
        """What these bytes complete, in order; what came before a fault is still among it."""
        received: list[Received] = []
        if self.fault is not None or self.closed:
            return received
        if self._begun:
            data, self._begun = self._begun + data, b""
        try:
            position, end = 0, len(data)
            while position < end and not self.closed:
                message = self._partial
                if message is not None and message.left:
                    position = message.take(data, position)
                    if not message.left:
                        self._end_frame(message, received)
                    continue
                after = self._header(data, position, end, received)
                if after == position:
                    self._begun = data[position:]
                    break
                position = after
        except _Broken as broken:
            self.fault = broken.fault
            self._partial = None
            self._begun = b""
        return received

    def _header(self, data: bytes, start: int, end: int, received: list[Received]) -> int:
        """Read a header, and the payload too if it is a control frame or all there. Gives where to go on; `start`
        if more has to come first."""
        if end - start < 2:
            return start
        first, second = data[start], data[start + 1]
        opcode, size = first & 0x0F, second & 0x7F
        if first & 0x70:
            raise _Broken(PROTOCOL_ERROR, "reserved bits")
        if opcode not in OPCODES:
            raise _Broken(PROTOCOL_ERROR, "reserved opcode")
        if not second & 0x80:
            raise _Broken(PROTOCOL_ERROR, "not masked")
        at = start + 2
        if opcode >= CLOSE:
            if not first & 0x80 or size > CONTROL_BYTES:
                raise _Broken(PROTOCOL_ERROR, "control frame fragmented or too long")
        elif size >= 126:
            width = 2 if size == 126 else 8
            if end - at < width:
                return start
            size = int.from_bytes(data[at : at + width], "big")
            at += width
            if size < (126 if width == 2 else 65_536) or size >> 63:
                raise _Broken(PROTOCOL_ERROR, "length not in its shortest form")
        message = self._partial
        if opcode < CLOSE:
            if (opcode == CONTINUATION) != (message is not None):
                raise _Broken(PROTOCOL_ERROR, "fragments out of order")
            if size + (len(message.body) if message is not None else 0) > self._max_message_bytes:
                raise _Broken(TOO_BIG, "message too big")
        if end - at < 4:
            return start
        mask = data[at : at + 4]
        at += 4
        whole = end - at >= size
        if opcode >= CLOSE:
            if not whole:
                return start
            self._control(opcode, _unmask(data[at : at + size], mask), received)
            return at + size
        if whole and first & 0x80 and message is None:
            payload = _unmask(data[at : at + size], mask)
            received.append((opcode, _text(payload) if opcode == TEXT else payload))
            return at + size
        if message is None:
            message = self._partial = _Message(opcode)
        message.begin(mask, size, final=bool(first & 0x80))
        if not size:
            self._end_frame(message, received)
        return at

    def _end_frame(self, message: _Message, received: list[Received]) -> None:
        if message.final:
            self._partial = None
            received.append((message.opcode, message.whole()))

    def _control(self, opcode: int, payload: bytes, received: list[Received]) -> None:
        if opcode == CLOSE:
            received.append((CLOSE, _close_code(payload)))
            self.closed = True
        else:
            received.append((opcode, payload))


class _Message:
    """A message whose frames or bytes have not all come. Text is checked as it comes."""

    __slots__ = ("_check", "_mask", "_offset", "body", "final", "left", "opcode")

    def __init__(self, opcode: int):
        self.opcode = opcode
        self.body = bytearray()
        self.left = 0
        """Bytes of the present frame that are still to come."""
        self.final = False
        self._mask = b""
        self._offset = 0
        self._check = codecs.getincrementaldecoder("utf-8")() if opcode == TEXT else None

    def begin(self, mask: bytes, size: int, final: bool) -> None:
        self._mask, self.left, self.final = mask, size, final
        self._offset = 0

    def take(self, data: bytes, position: int) -> int:
        piece = data[position : position + self.left]
        turn = self._offset % 4
        clear = _unmask(piece, self._mask[turn:] + self._mask[:turn])
        self._offset += len(piece)
        self.left -= len(piece)
        if self._check is not None:
            try:
                self._check.decode(clear)
            except UnicodeDecodeError:
                raise _Broken(NOT_UTF8, "text is not UTF-8") from None
        self.body += clear
        return position + len(piece)

    def whole(self) -> str | bytes:
        return _text(bytes(self.body)) if self.opcode == TEXT else bytes(self.body)


class _Broken(Exception):
    def __init__(self, code: int, reason: str):
        self.fault = Fault(code, reason)


def _unmask(payload: bytes, mask: bytes) -> bytes:
    """Section 5.3, as one exclusive or of two long integers: as fast as Python gets."""
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")


def _text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise _Broken(NOT_UTF8, "text is not UTF-8") from None


def _close_code(payload: bytes) -> int:
    """The code of a Close frame, 1005 without one (sections 5.5.1 and 7.4)."""
    if not payload:
        return NO_STATUS
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise _Broken(PROTOCOL_ERROR, "close code")
    _text(payload[2:])
    return code
