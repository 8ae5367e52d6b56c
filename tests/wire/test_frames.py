"""RFC 6455 frames without a network: what a client may send, what it may not, and that pieces make no difference."""

from __future__ import annotations

import struct

import pytest

pytest.importorskip("hypothesis", reason="hypothesis is not installed (tests/requirements.txt)")

from hypothesis import given
from hypothesis import strategies as st

from sidecar.wire.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    FrameReader,
    close_frame,
    frame,
)

LIMIT = 100_000
MASK = b"\x11\x00\xfe\x7f"


def client_frame(opcode: int, payload: bytes = b"", final: bool = True, rsv: int = 0, mask: bytes = MASK) -> bytes:
    """As a client sends it, byte by byte: the reference."""
    size = len(payload)
    head = bytes([final << 7 | rsv << 4 | opcode])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65_536:
        head += b"\xfe" + struct.pack("!H", size)
    else:
        head += b"\xff" + struct.pack("!Q", size)
    return head + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))


def read(*pieces: bytes, limit: int = LIMIT) -> tuple[list, FrameReader]:
    reader = FrameReader(limit)
    return [item for piece in pieces for item in reader.feed(piece)], reader


def fault_of(*pieces: bytes, limit: int = LIMIT) -> int | None:
    _, reader = read(*pieces, limit=limit)
    return None if reader.fault is None else reader.fault.code


class TestSending:
    @pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
    def test_the_length_has_its_shortest_form(self, size: int):
        sent = frame(BINARY, b"x" * size)
        head = 2 if size < 126 else 4 if size < 65_536 else 10
        assert sent[0] == 0x82
        assert len(sent) == head + size
        assert sent[1] == (size if head == 2 else 126 if head == 4 else 127)
        assert head == 2 or int.from_bytes(sent[2:head], "big") == size

    def test_a_reason_is_cut_between_characters(self):
        sent = close_frame(1012, "ü" * 100)
        assert sent[1] == 124
        assert sent[2:4] == struct.pack("!H", 1012)
        assert sent[4:].decode() == "ü" * 61


class TestReading:
    def test_messages_come_out_in_order(self):
        stream = client_frame(TEXT, "grüß".encode()) + client_frame(PING, b"p") + client_frame(BINARY, b"\x00\xff")
        assert read(stream)[0] == [(TEXT, "grüß"), (PING, b"p"), (BINARY, b"\x00\xff")]

    @pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, LIMIT])
    def test_each_form_of_length(self, size: int):
        assert read(client_frame(TEXT, b"y" * size))[0] == [(TEXT, "y" * size)]

    def test_control_frames_may_stand_between_fragments(self):
        stream = (
            client_frame(TEXT, b"a", final=False)
            + client_frame(PING, b"1")
            + client_frame(CONTINUATION, b"b", final=False)
            + client_frame(PONG, b"2")
            + client_frame(CONTINUATION, b"c")
        )
        assert read(stream)[0] == [(PING, b"1"), (PONG, b"2"), (TEXT, "abc")]

    def test_fragments_may_be_empty_and_cut_characters(self):
        euro = "€".encode()
        stream = client_frame(TEXT, b"", final=False) + client_frame(CONTINUATION, euro[:1], final=False)
        stream += client_frame(CONTINUATION, b"", final=False) + client_frame(CONTINUATION, euro[1:])
        assert read(stream)[0] == [(TEXT, "€")]

    def test_endless_empty_fragments_cost_nothing(self):
        reader = FrameReader(LIMIT)
        reader.feed(client_frame(TEXT, b"x", final=False))
        for _ in range(2_000):
            assert reader.feed(client_frame(CONTINUATION, b"", final=False)) == []
        assert reader.held_bytes == 1

    def test_what_is_not_complete_is_counted_and_nothing_else_is_kept(self):
        reader = FrameReader(LIMIT)
        assert reader.held_bytes == 0
        reader.feed(client_frame(TEXT, b"z" * 1_000)[:900])
        assert 880 < reader.held_bytes < 900
        reader.feed(client_frame(TEXT, b"z" * 1_000)[900:])
        assert reader.held_bytes == 0

    @pytest.mark.parametrize(
        ("payload", "code"), [(b"", 1005), (struct.pack("!H", 1000), 1000), (struct.pack("!H", 4999) + b"bye", 4999)]
    )
    def test_close_is_the_last_that_is_read(self, payload: bytes, code: int):
        received, reader = read(client_frame(CLOSE, payload) + client_frame(TEXT, b"late"), client_frame(TEXT, b"x"))
        assert received == [(CLOSE, code)]
        assert reader.closed
        assert reader.fault is None

    @given(st.lists(st.one_of(st.text(max_size=300), st.binary(max_size=300)), max_size=6), st.data())
    def test_pieces_and_fragments_make_no_difference(self, messages: list[str | bytes], data: st.DataObject):
        stream, expected = b"", []
        for message in messages:
            opcode = TEXT if isinstance(message, str) else BINARY
            body = message.encode() if isinstance(message, str) else message
            cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=4)))
            parts = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
            for place, part in enumerate(parts):
                mask = data.draw(st.binary(min_size=4, max_size=4))
                last = place == len(parts) - 1
                stream += client_frame(opcode if place == 0 else CONTINUATION, part, final=last, mask=mask)
                if data.draw(st.booleans()):
                    stream += client_frame(PING, b"between")
                    expected.append((PING, b"between"))
            expected.append((opcode, message))
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
        pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        received, reader = read(*pieces)
        assert reader.fault is None
        assert [item for item in received if item[0] != PING] == [item for item in expected if item[0] != PING]
        assert received.count((PING, b"between")) == expected.count((PING, b"between"))
        assert read(*(stream[n : n + 1] for n in range(len(stream))))[0] == received


class TestBroken:
    @pytest.mark.parametrize(
        "stream",
        [
            pytest.param(b"\x81\x01x", id="not masked"),
            pytest.param(b"\x81\x00", id="not masked and empty"),
            pytest.param(client_frame(TEXT, b"x", rsv=4), id="RSV1"),
            pytest.param(client_frame(TEXT, b"x", rsv=2), id="RSV2"),
            pytest.param(client_frame(PING, b"x", rsv=1), id="RSV3"),
            *(pytest.param(client_frame(code, b"x"), id=f"opcode {code}") for code in (3, 4, 5, 6, 7, 11, 13, 15)),
            pytest.param(client_frame(PING, b"x", final=False), id="fragmented ping"),
            pytest.param(client_frame(CLOSE, b"", final=False), id="fragmented close"),
            pytest.param(client_frame(PING, b"x" * 126), id="long ping"),
            pytest.param(client_frame(CLOSE, b"\x03\xe8" + b"x" * 124), id="long close"),
            pytest.param(client_frame(CONTINUATION, b"x"), id="nothing to continue"),
            pytest.param(
                client_frame(TEXT, b"x", final=False) + client_frame(TEXT, b"y"), id="text amid a fragmented message"
            ),
            pytest.param(
                client_frame(TEXT, b"x") + client_frame(CONTINUATION, b"y"), id="continuation of a complete one"
            ),
            pytest.param(b"\x81\xfe\x00\x7d" + MASK, id="125 in 16 bits"),
            pytest.param(b"\x81\xff" + struct.pack("!Q", 65_535) + MASK, id="65535 in 64 bits"),
            pytest.param(b"\x81\xff" + struct.pack("!Q", 2**63 + 70_000) + MASK, id="top bit"),
            pytest.param(client_frame(CLOSE, b"\x03"), id="close with one byte"),
            *(
                pytest.param(client_frame(CLOSE, struct.pack("!H", code)), id=f"close {code}")
                for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
            ),
        ],
    )
    def test_protocol_errors(self, stream: bytes):
        assert fault_of(stream) == 1002
        assert fault_of(*(stream[n : n + 1] for n in range(len(stream)))) == 1002

    @pytest.mark.parametrize(
        "text",
        [b"\xff", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80", b"ab\xe2\x82"],
        ids=["FF", "overlong 2", "overlong 3", "surrogate", "past the last", "continuation", "cut"],
    )
    def test_text_that_is_not_utf8(self, text: bytes):
        assert fault_of(client_frame(TEXT, text)) == 1007
        assert fault_of(client_frame(TEXT, text, final=False), client_frame(CONTINUATION, b"")) == 1007
        assert fault_of(client_frame(CLOSE, b"\x03\xe8" + text)) == 1007
        assert fault_of(client_frame(BINARY, text)) is None

    def test_bad_text_is_found_before_its_frame_has_ended(self):
        """Autobahn's fail-fast cases: a frame of 1,000 bytes of which 10 have come."""
        stream = client_frame(TEXT, b"ok\xff" + b"x" * 1_000)
        assert fault_of(stream[:20]) == 1007

    @pytest.mark.parametrize(
        "claim",
        [b"\x82\xfe" + struct.pack("!H", 1_001), b"\x82\xff" + struct.pack("!Q", 8 << 30)],
        ids=["one more", "8 GiB"],
    )
    def test_a_long_frame_is_refused_by_its_header(self, claim: bytes):
        _, reader = read(claim, limit=1_000)
        assert reader.fault is not None
        assert reader.fault.code == 1009
        assert reader.held_bytes == 0

    def test_a_long_message_is_refused_by_the_header_of_the_fragment_that_is_too_much(self):
        stream = client_frame(BINARY, b"x" * 600, final=False) + client_frame(CONTINUATION, b"y" * 600)
        assert fault_of(stream[:-600], limit=1_000) == 1009

    def test_what_came_before_is_still_given_out_and_nothing_after(self):
        received, reader = read(
            client_frame(TEXT, b"good") + client_frame(3, b"") + client_frame(TEXT, b"late"), client_frame(TEXT, b"x")
        )
        assert received == [(TEXT, "good")]
        assert reader.fault is not None
        assert reader.held_bytes == 0

    @given(st.binary(max_size=400), st.integers(1, 50))
    def test_nothing_raises_whatever_comes(self, noise: bytes, width: int):
        reader = FrameReader(200)
        for start in range(0, len(noise), width):
            reader.feed(noise[start : start + width])
        assert reader.held_bytes <= 200 + 131
