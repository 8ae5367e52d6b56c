"""WebSocket frames as a server reads and writes them (RFC 6455): bytes in, messages out, no I/O.

Refuses what the RFC forbids, what is larger than agreed before it is buffered, and text that is not UTF-8. Knows no
handshake, no extension and no answer: whoever owns the socket sends the pongs and the Close frames.
"""

from __future__ import annotations

from codecs import utf_8_decode
from dataclasses import dataclass

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

MAX_CONTROL_BYTES = 125
NO_CODE = 1005
"""Stands for a Close frame that holds no code; never on the wire (RFC 6455, 7.4.1)."""

PROTOCOL_ERROR, NOT_UTF8, TOO_BIG = 1002, 1007, 1009

_FINAL, _RESERVED_BITS, _MASKED = 0x80, 0x70, 0x80
_KEY_BYTES = 4
_UNMASK_BYTES = 8192
"""Unmasked at once: integers of this size stay in the processor's cache, much larger ones cost twice as much a byte."""


@dataclass(frozen=True, slots=True)
class Fault:
    """How the peer broke the protocol; `code` is the one to close with: 1002, 1007 or 1009."""

    code: int
    reason: str


def frame(opcode: int, payload: bytes) -> bytes:
    """One unmasked, final frame. Raises ValueError when a control frame's payload is over 125 bytes."""
    length = len(payload)
    if length <= MAX_CONTROL_BYTES:
        return bytes((_FINAL | opcode, length)) + payload
    if opcode >= CLOSE:
        raise ValueError(f"a control frame holds at most {MAX_CONTROL_BYTES} bytes")
    if length < 1 << 16:
        return bytes((_FINAL | opcode, 126)) + length.to_bytes(2) + payload
    return bytes((_FINAL | opcode, 127)) + length.to_bytes(8) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """A Close frame; the reason is cut between characters so that the payload is at most 125 bytes. 1005 gives an empty
    payload, so that the code of a (CLOSE, code) event can be sent back as it is. Raises ValueError for a code that must
    not be sent."""
    if code == NO_CODE:
        return frame(CLOSE, b"")
    if not _is_close_code(code):
        raise ValueError(f"{code} is not a close code for the wire")
    text = reason.encode(errors="replace")[: MAX_CONTROL_BYTES - 2].decode(errors="ignore")
    return frame(CLOSE, code.to_bytes(2) + text.encode())


class FrameReader:
    """The frames of one client, from bytes in any portions.

    Payload is unmasked, checked and counted as it comes, so time is linear in the bytes fed, however they are cut. What
    is kept is at most the message that is half received, within `max_message_bytes`, and 130 bytes of a frame's start;
    between messages it is nothing. `max_message_bytes` bounds the payload of a text or binary message over all of
    its fragments, before decoding.
    """

    __slots__ = ("_max_message_bytes", "_message", "_start", "closed", "fault")

    fault: Fault | None
    """Set once the peer has broken the protocol; from then on feed() ignores everything."""
    closed: bool
    """Set once a Close frame came; what follows it is ignored."""

    def __init__(self, max_message_bytes: int) -> None:
        self.fault = None
        self.closed = False
        self._max_message_bytes = max_message_bytes
        self._message: _Message | None = None
        self._start = b""

    @property
    def held_bytes(self) -> int:
        """Bytes buffered now: of a frame's start, and of a half-received message."""
        return len(self._start) + (len(self._message.payload) if self._message is not None else 0)

    def feed(self, data: bytes) -> list[tuple[int, str | bytes | int]]:
        """What became complete, in order: (TEXT, str), (BINARY, bytes), (PING, bytes), (PONG, bytes), (CLOSE, code)
        with 1005 for a Close without a code. Raises nothing: what was complete before a fault is returned, and
        `fault` tells the rest."""
        if self.fault is not None or self.closed:
            return []
        events: list[tuple[int, str | bytes | int]] = []
        try:
            length = len(data) - 6
            if (
                0 <= length <= MAX_CONTROL_BYTES
                and data[0] == _FINAL | TEXT
                and data[1] == _MASKED | length
                and self._message is None
                and not self._start
                and length <= self._max_message_bytes
            ):  # nearly all that browsers send: one short text, alone
                events.append((TEXT, _unmask(data[6:], data[2:6]).decode()))
            else:
                self._read(data, events)
        except _Broken as broken:
            self._stop(Fault(broken.code, broken.reason))
        except UnicodeDecodeError:
            self._stop(Fault(NOT_UTF8, "text is not UTF-8"))
        return events

    def _stop(self, fault: Fault | None) -> None:
        self.fault = fault
        self._message = None
        self._start = b""

    def _read(self, data: bytes, events: list[tuple[int, str | bytes | int]]) -> None:
        """Raises _Broken or UnicodeDecodeError."""
        at = 0
        if self._message is not None and self._message.missing:
            at = self._take(data, 0, events)
        elif self._start:
            data = self._start + data
        while (header := self._header(data, at)) is not None:
            opcode, final, length, payload_at = header
            end = payload_at + length
            key = data[payload_at - _KEY_BYTES : payload_at]
            if opcode >= CLOSE:
                if end > len(data):
                    break
                events.append(_control(opcode, _unmask(data[payload_at:end], key)))
                if opcode == CLOSE:
                    self.closed = True
                    self._stop(None)
                    return
                at = end
            elif final and opcode != CONTINUATION and end <= len(data):
                events.append((opcode, _content(opcode, _unmask(data[payload_at:end], key))))
                at = end
            else:
                if self._message is None:
                    self._message = _Message(opcode)
                self._message.expect(length, final, key)
                at = self._take(data, payload_at, events)
        self._start = data[at:]

    def _header(self, data: bytes, at: int) -> tuple[int, bool, int, int] | None:
        """Opcode, final, payload length and where the payload begins; None while the header is not whole. Each byte is
        judged as soon as its header field is there, in one order, so that cutting the bytes elsewhere changes no
        verdict. Raises _Broken."""
        if len(data) - at < 2:
            return None
        opcode, final = data[at] & 0x0F, data[at] >= _FINAL
        length = data[at + 1] & 0x7F
        self._check_kind(data[at], opcode, final)
        if data[at + 1] < _MASKED:
            raise _Broken(PROTOCOL_ERROR, "frame is not masked")
        payload_at = at + 2 + _KEY_BYTES
        if length > MAX_CONTROL_BYTES:
            if opcode >= CLOSE:
                raise _Broken(PROTOCOL_ERROR, "control frame is too long")
            width = 2 if length == 126 else 8
            if len(data) - at < 2 + width:
                return None
            length = _long_length(data[at + 2 : at + 2 + width])
            payload_at += width
        if opcode < CLOSE:
            held = len(self._message.payload) if self._message is not None else 0
            if held + length > self._max_message_bytes:
                raise _Broken(TOO_BIG, f"message is over {self._max_message_bytes} bytes")
        return (opcode, final, length, payload_at) if payload_at <= len(data) else None

    def _check_kind(self, first: int, opcode: int, final: bool) -> None:
        """Raises _Broken for a first byte that can't stand here."""
        if first & _RESERVED_BITS:
            raise _Broken(PROTOCOL_ERROR, "reserved bit is set")
        if opcode > PONG or BINARY < opcode < CLOSE:
            raise _Broken(PROTOCOL_ERROR, "opcode is reserved")
        if opcode >= CLOSE:
            if not final:
                raise _Broken(PROTOCOL_ERROR, "control frame is fragmented")
        elif opcode == CONTINUATION:
            if self._message is None:
                raise _Broken(PROTOCOL_ERROR, "continuation of no message")
        elif self._message is not None:
            raise _Broken(PROTOCOL_ERROR, "new message inside a fragmented one")

    def _take(self, data: bytes, at: int, events: list[tuple[int, str | bytes | int]]) -> int:
        """Gives the message what is its own from `at` on; where the next frame begins. Raises UnicodeDecodeError."""
        message = self._message
        assert message is not None
        piece = data[at : at + message.missing]
        message.add(piece)
        if message.final and not message.missing:
            self._message = None
            events.append((message.opcode, _content(message.opcode, message.payload)))
        return at + len(piece)


class _Broken(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class _Message:
    """A message that is not whole yet, and the state of its newest frame. One flat buffer, because a list of fragments
    would cost a hundred times their bytes when they hold a byte each."""

    __slots__ = ("checked", "final", "key", "missing", "opcode", "payload")

    def __init__(self, opcode: int) -> None:
        self.opcode = opcode
        self.payload = bytearray()
        self.checked = 0
        """The payload up to here is good UTF-8; at most three bytes of an unfinished character follow."""
        self.expect(0, False, b"")

    def expect(self, length: int, final: bool, key: bytes) -> None:
        """A frame begins, `length` bytes of it are still to come."""
        self.missing = length
        self.final = final
        self.key = key

    def add(self, piece: bytes) -> None:
        """Takes masked payload of the frame, at most what is missing. Raises UnicodeDecodeError."""
        self.payload += _unmask(piece, self.key)
        self.missing -= len(piece)
        turn = len(piece) % _KEY_BYTES
        self.key = self.key[turn:] + self.key[:turn]
        if self.opcode == TEXT:
            self.checked += utf_8_decode(self.payload[self.checked :], "strict", False)[1]


def _long_length(field: bytes) -> int:
    """The length in a field of 2 or 8 bytes. Raises _Broken."""
    length = int.from_bytes(field)
    if length >> 63:
        raise _Broken(PROTOCOL_ERROR, "length is over 63 bits")
    if length < (126 if len(field) == 2 else 1 << 16):
        raise _Broken(PROTOCOL_ERROR, "length is not in its shortest form")
    return length


def _control(opcode: int, payload: bytes) -> tuple[int, bytes | int]:
    """Raises _Broken or, for the reason of a Close, UnicodeDecodeError."""
    if opcode != CLOSE:
        return opcode, payload
    if not payload:
        return CLOSE, NO_CODE
    code = int.from_bytes(payload[:2])
    if not _is_close_code(code):  # nor is it when there is but one byte
        raise _Broken(PROTOCOL_ERROR, "close code is not valid")
    payload[2:].decode()
    return CLOSE, code


def _is_close_code(code: int) -> bool:
    """May it be sent? RFC 6455, 7.4, and 1012 to 1014 of the IANA registry."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def _content(opcode: int, payload: bytes | bytearray) -> str | bytes:
    """Raises UnicodeDecodeError."""
    return payload.decode() if opcode == TEXT else bytes(payload)


def _unmask(data: bytes, key: bytes) -> bytes:
    """XOR with the repeated key, as whole integers (RFC 6455, 5.3)."""
    length = len(data)
    if length <= _UNMASK_BYTES:
        mask = (key * (length // _KEY_BYTES + 1))[:length]
        return (int.from_bytes(data) ^ int.from_bytes(mask)).to_bytes(length)
    return b"".join([_unmask(data[at : at + _UNMASK_BYTES], key) for at in range(0, length, _UNMASK_BYTES)])
