"""Frames: what a client may send becomes messages however the bytes are cut, anything else a fault with its close code,
in memory and time that its sender can't blow up."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest

import sidecar.wire.frames as frames_module
from sidecar.wire.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Fault,
    FrameReader,
    close_frame,
    frame,
)
from tests.alarms import alarm

pytest.importorskip("hypothesis", reason="hypothesis is not installed (tests/requirements.txt)")

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

untimed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

KEY = b"\x8a\x03\xf1\x5c"
KIBIBYTE, MEBIBYTE = 2**10, 2**20
LIMIT = MEBIBYTE
SMALLEST_OF_WIDTH = {0: 0, 2: 126, 8: 2**16}
"""Bytes of the extended length field, and the smallest payload that needs it."""


def header(
    opcode: int, length: int, *, final: bool = True, reserved: int = 0, masked: bool = True, width: int | None = None
) -> bytes:
    """The start of a frame up to its key. `width` asks for a length field of 0, 2 or 8 bytes, fitting or not."""
    if width is None:
        width = max(wide for wide, smallest in SMALLEST_OF_WIDTH.items() if length >= smallest)
    short = length if width == 0 else {2: 126, 8: 127}[width]
    first = (0x80 if final else 0) + (reserved << 4) + opcode
    return bytes([first, (0x80 if masked else 0) + short]) + (length.to_bytes(width, "big") if width else b"")


def sent(opcode: int, payload: bytes | str = b"", *, key: bytes = KEY, **head: bool | int | None) -> bytes:
    """A whole frame as a client sends it, masked byte by byte."""
    plain = payload.encode() if isinstance(payload, str) else payload
    start = header(opcode, len(plain), **head)
    if not head.get("masked", True):
        return start + plain
    return start + key + bytes(byte ^ key[index % 4] for index, byte in enumerate(plain))


def part(opcode: int, payload: bytes | str = b"", **head: int) -> bytes:
    """A frame that another one of the same message follows."""
    return sent(opcode, payload, final=False, **head)


def closing(code: int, reason: bytes | str = b"") -> bytes:
    return sent(CLOSE, code.to_bytes(2, "big") + (reason.encode() if isinstance(reason, str) else reason))


def read(data: bytes, limit: int = LIMIT) -> list[tuple[int, str | bytes | int]]:
    """What good bytes hold."""
    reader = FrameReader(limit)
    events = reader.feed(data)
    assert reader.fault is None
    return events


def fault(data: bytes, limit: int = LIMIT) -> int:
    """The close code for bad bytes of which nothing is delivered and nothing kept."""
    reader = FrameReader(limit)
    assert reader.feed(data) == []
    assert reader.fault is not None
    assert reader.fault.reason
    assert reader.held_bytes == 0
    return reader.fault.code


def outcome(pieces: list[bytes], limit: int = LIMIT) -> tuple[list[tuple[int, str | bytes | int]], Fault | None, bool]:
    reader = FrameReader(limit)
    events = [event for piece in pieces for event in reader.feed(piece)]
    return events, reader.fault, reader.closed


def in_pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


# Writing


@pytest.mark.parametrize(
    ("length", "start"),
    [
        (0, b"\x81\x00"),
        (1, b"\x81\x01"),
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (65_535, b"\x81\x7e\xff\xff"),
        (65_536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_a_frame_is_final_unmasked_and_has_the_shortest_length(length, start):
    assert frame(TEXT, b"x" * length) == start + b"x" * length


@pytest.mark.parametrize("opcode", [BINARY, PING, PONG])
def test_a_frame_carries_its_opcode(opcode):
    assert frame(opcode, b"\x00\xff") == bytes([0x80 | opcode, 2]) + b"\x00\xff"


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_no_control_frame_over_125_bytes_is_written(opcode):
    assert len(frame(opcode, b"x" * 125)) == 127
    with pytest.raises(ValueError, match="125"):
        frame(opcode, b"x" * 126)


def test_a_close_frame_holds_code_and_reason():
    assert close_frame(1000) == b"\x88\x02\x03\xe8"
    assert close_frame(1009, "too big") == b"\x88\x09\x03\xf1too big"


def test_the_close_of_a_peer_without_a_code_is_answered_without_a_code():
    [(_, code)] = read(sent(CLOSE))
    assert close_frame(code) == b"\x88\x00"


@pytest.mark.parametrize("code", [-1, 0, 999, 1004, 1006, 1015, 2999, 5000, 65_536])
def test_a_close_code_that_must_not_be_sent_is_not_written(code):
    with pytest.raises(ValueError, match=str(code)):
        close_frame(code)


@untimed
@given(st.text(st.characters(codec=None), max_size=200))
@example("r" * 123)
@example("r" * 124)
@example("r" * 122 + "é")
@example("€" * 50)
@example("😀" * 50)
@example("\ud800")
def test_any_reason_is_cut_between_characters(reason):
    written = close_frame(1011, reason)
    text = written[4:].decode()
    whole = reason.encode(errors="replace").decode()
    assert written[1] == len(written) - 2 <= 125
    assert whole.startswith(text)
    assert text == whole or len(text.encode()) > 123 - 4


# Whole frames


@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 125, 126, 127, 8191, 8192, 8193, 65_535, 65_536, LIMIT])
def test_frames_of_every_length_form(length):
    text, raw = "*" * length, bytes(range(256)) * (length // 256 + 1)
    assert read(sent(TEXT, text)) == [(TEXT, text)]
    assert read(sent(BINARY, raw[:length])) == [(BINARY, raw[:length])]


@pytest.mark.parametrize("key", [b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x00\x00\x00\x01", b"\x80\x00\x00\x00"])
def test_any_masking_key(key):
    assert read(sent(TEXT, "a text", key=key) + sent(BINARY, b"\x00" * 300, key=key)) == [
        (TEXT, "a text"),
        (BINARY, b"\x00" * 300),
    ]


def test_a_binary_message_is_bytes_and_no_view_of_the_buffer():
    [(_, whole)] = read(sent(BINARY, b"\xfe\xff"))
    [(_, joined)] = read(part(BINARY, b"\xfe") + sent(CONTINUATION, b"\xff"))
    assert type(whole) is type(joined) is bytes


def test_many_messages_in_one_portion_keep_their_order():
    data = b"".join(sent(TEXT, f"message {number}") for number in range(20))
    assert read(data) == [(TEXT, f"message {number}") for number in range(20)]


def test_what_follows_in_the_same_portion_is_kept_for_the_next():
    reader = FrameReader(LIMIT)
    data = sent(TEXT, "one") + sent(TEXT, "two")
    assert reader.feed(data[:-2]) == [(TEXT, "one")]
    assert reader.feed(data[-2:] + sent(TEXT, "three")) == [(TEXT, "two"), (TEXT, "three")]


@pytest.mark.parametrize("length", [1, 125, 126, 127])
def test_a_frame_cut_in_two_anywhere(length):
    data = sent(TEXT, "é" * (length // 2) + "e" * (length % 2))
    for at in range(len(data) + 1):
        assert outcome([data[:at], data[at:]]) == (read(data), None, False)


@pytest.mark.parametrize("opcode", [BINARY, PING])
def test_payload_that_arrives_alone_and_looks_like_a_frame_is_payload(opcode):
    data = sent(opcode, b"in front" + sent(TEXT, "inner", key=b"abcd"), key=b"\x00" * 4)
    assert outcome([data[:14], data[14:]]) == (read(data), None, False)
    assert read(data)[0][0] == opcode


def test_a_new_text_that_arrives_alone_inside_a_fragmented_one_is_refused():
    events, found, _ = outcome([part(TEXT, "a"), sent(TEXT, "b")])
    assert events == []
    assert found is not None
    assert found.code == 1002


def test_nothing_fed_is_nothing_read():
    assert FrameReader(LIMIT).feed(b"") == []


# Masking, reserved bits, opcodes


@pytest.mark.parametrize("opcode", [TEXT, BINARY, CLOSE, PING, PONG])
@pytest.mark.parametrize("payload", [b"", b"\x03\xe8", b"\x03\xe8 and on"])
def test_an_unmasked_frame_is_refused(opcode, payload):
    assert fault(sent(opcode, payload, masked=False)) == 1002


def test_an_unmasked_continuation_is_refused():
    assert fault(part(TEXT, "a") + sent(CONTINUATION, "b", masked=False)) == 1002


@pytest.mark.parametrize("reserved", range(1, 8))
@pytest.mark.parametrize("opcode", [TEXT, BINARY, CLOSE, PING, PONG])
def test_a_reserved_bit_is_refused(opcode, reserved):
    assert fault(sent(opcode, b"\x03\xe8", reserved=reserved)) == 1002


def test_a_reserved_bit_of_a_continuation_is_refused():
    assert fault(part(TEXT, "a") + sent(CONTINUATION, "b", reserved=4)) == 1002


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
@pytest.mark.parametrize("payload", [b"", b"hello"])
@pytest.mark.parametrize("final", [True, False])
def test_a_reserved_opcode_is_refused(opcode, payload, final):
    assert fault(sent(opcode, payload, final=final)) == 1002
    assert fault(part(TEXT, "a") + sent(opcode, payload, final=final)) == 1002


# Lengths


@pytest.mark.parametrize(("length", "width"), [(0, 2), (1, 2), (125, 2), (0, 8), (125, 8), (126, 8), (65_535, 8)])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_length_that_is_not_in_its_shortest_form_is_refused(opcode, length, width):
    assert fault(sent(opcode, b"x" * length, width=width)) == 1002


@pytest.mark.parametrize("length", [2**63, 2**64 - 1])
def test_a_length_with_its_top_bit_set_is_refused(length):
    assert fault(header(TEXT, length)) == 1002


@pytest.mark.parametrize("length", [LIMIT + 1, 2 * LIMIT, 2**33, 2**62, 2**63 - 1])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_frame_over_the_limit_is_refused_at_its_length(opcode, length):
    assert fault(header(opcode, length)) == 1009
    assert fault(header(opcode, length, final=False)) == 1009


@pytest.mark.parametrize("limit", [0, 10, 124, 125, 126, 1000, 65_535, 65_536])
def test_the_limit_itself_is_taken_and_one_byte_more_is_not(limit):
    assert read(sent(TEXT, "x" * limit), limit) == [(TEXT, "x" * limit)]
    assert fault(sent(TEXT, "x" * (limit + 1)), limit) == 1009
    assert fault(header(TEXT, limit + 1), limit) == 1009


def test_the_limit_holds_for_all_fragments_together():
    start = part(BINARY, b"x" * 600) + part(CONTINUATION, b"y" * 300)
    assert read(start + sent(CONTINUATION, b"z" * 100), 1000) == [(BINARY, b"x" * 600 + b"y" * 300 + b"z" * 100)]
    assert fault(start + header(CONTINUATION, 101), 1000) == 1009
    assert fault(start + header(CONTINUATION, 101, final=False), 1000) == 1009
    assert fault(start + header(CONTINUATION, 2**62), 1000) == 1009


def test_the_limit_counts_bytes_and_not_characters():
    assert read(sent(TEXT, "é" * 5), 10) == [(TEXT, "é" * 5)]
    assert fault(sent(TEXT, "é" * 5 + "e"), 10) == 1009


def test_the_limit_begins_anew_with_each_message():
    one = part(TEXT, "x" * 5) + sent(CONTINUATION, "y" * 5)
    assert read(one * 3, 10) == [(TEXT, "xxxxxyyyyy")] * 3


def test_control_frames_do_not_count_towards_the_limit():
    data = part(BINARY, b"ab") + sent(PING, b"p" * 125) + sent(CONTINUATION, b"cd")
    assert read(data, 4) == [(PING, b"p" * 125), (BINARY, b"abcd")]


# Ping and pong


@pytest.mark.parametrize("opcode", [PING, PONG])
@pytest.mark.parametrize("payload", [b"", "héllo".encode(), b"\x00\xff\xfe\xc0\x80", b"\xfe" * 125])
def test_a_ping_or_pong_is_given_with_its_payload(opcode, payload):
    assert read(sent(opcode, payload)) == [(opcode, payload)]


def test_pings_in_one_portion_keep_their_order():
    data = b"".join(sent(PING, str(number)) for number in range(10))
    assert read(data) == [(PING, str(number).encode()) for number in range(10)]


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
@pytest.mark.parametrize("length", [126, 1000, 65_536, 2**62])
def test_a_control_frame_over_125_bytes_is_refused_at_its_header(opcode, length):
    assert fault(header(opcode, length)[:2]) == 1002


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
@pytest.mark.parametrize("width", [2, 8])
def test_a_control_frame_with_an_extended_length_is_refused(opcode, width):
    assert fault(sent(opcode, b"\x03\xe8", width=width)) == 1002


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_a_fragmented_control_frame_is_refused(opcode):
    assert fault(part(opcode, b"\x03\xe8")) == 1002
    assert fault(part(TEXT, "a") + part(opcode, b"\x03\xe8")) == 1002


# Fragments


@pytest.mark.parametrize(
    "chunks",
    [
        [b"first ", b"second"],
        [b"", b""],
        [b"", b"", b"x", b"", b""],
        [b"q"] * 200,
        [b"small", b"l" * 70_000, b"", b"m" * 200],
    ],
)
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_fragments_are_one_message(opcode, chunks):
    data = part(opcode, chunks[0]) + b"".join(part(CONTINUATION, chunk) for chunk in chunks[1:-1])
    whole = b"".join(chunks)
    assert read(data + sent(CONTINUATION, chunks[-1])) == [(opcode, whole.decode() if opcode == TEXT else whole)]


def test_each_fragment_has_a_key_of_its_own():
    data = part(TEXT, "one", key=b"1234") + part(CONTINUATION, "two", key=b"\xff" * 4) + sent(CONTINUATION, "three")
    assert read(data) == [(TEXT, "onetwothree")]


def test_control_frames_between_fragments_come_at_once():
    reader = FrameReader(LIMIT)
    assert reader.feed(part(TEXT, "a") + sent(PING, b"mid")) == [(PING, b"mid")]
    assert reader.feed(part(CONTINUATION, "b") + sent(PONG, b"unasked")) == [(PONG, b"unasked")]
    assert reader.feed(sent(CONTINUATION, "c")) == [(TEXT, "abc")]
    assert reader.fault is None


def test_fragmented_messages_in_a_row():
    data = part(TEXT, "1") + sent(CONTINUATION, "2") + part(BINARY, b"3") + sent(CONTINUATION, b"4") + sent(TEXT, "5")
    assert read(data) == [(TEXT, "12"), (BINARY, b"34"), (TEXT, "5")]


@pytest.mark.parametrize("final", [True, False])
def test_a_continuation_of_nothing_is_refused(final):
    assert fault(sent(CONTINUATION, b"x", final=final)) == 1002


@pytest.mark.parametrize("before", [sent(TEXT, "whole"), part(TEXT, "who") + sent(CONTINUATION, "le")])
def test_a_continuation_of_a_finished_message_is_refused(before):
    reader = FrameReader(LIMIT)
    assert reader.feed(before + sent(CONTINUATION, "late")) == [(TEXT, "whole")]
    assert reader.fault is not None
    assert reader.fault.code == 1002


@pytest.mark.parametrize("final", [True, False])
@pytest.mark.parametrize("second", [TEXT, BINARY])
@pytest.mark.parametrize("first", [TEXT, BINARY])
def test_a_new_message_inside_a_fragmented_one_is_refused(first, second, final):
    assert fault(part(first, b"a") + sent(second, b"b", final=final)) == 1002


# UTF-8

GOOD_TEXTS = [
    "κόσμε",
    "\x00",
    "\x7f\x80",
    "\u07ff\u0800",
    "\ud7ff\ue000",
    "\ufffd\ufffe\uffff",
    "\U00010000\U0010ffff",
    "\ufdd0\U0001fffe",
    "\ufeffwith a mark in front",
    "\U0001f469\u200d\U0001f4bb",
    "e\u0301",
]
BAD_TEXTS = [
    pytest.param(bad, id=why)
    for why, bad in {
        "lone continuation byte": b"\x80",
        "two lone continuation bytes": b"\xbf\xbf",
        "overlong NUL": b"\xc0\x80",
        "overlong of two bytes": b"\xc1\xbf",
        "overlong slash of three bytes": b"\xe0\x80\xaf",
        "overlong of three bytes": b"\xe0\x9f\xbf",
        "overlong slash of four bytes": b"\xf0\x80\x80\xaf",
        "overlong of four bytes": b"\xf0\x8f\xbf\xbf",
        "first surrogate": b"\xed\xa0\x80",
        "last surrogate": b"\xed\xbf\xbf",
        "surrogate pair": b"\xed\xa0\xbd\xed\xb8\x80",
        "above U+10FFFF": b"\xf4\x90\x80\x80",
        "byte F5": b"\xf5\x80\x80\x80",
        "form of five bytes": b"\xf8\x88\x80\x80\x80",
        "form of six bytes": b"\xfc\x84\x80\x80\x80\x80",
        "byte FE": b"\xfe",
        "byte FF": b"\xff",
        "no second byte of two": b"\xc3",
        "no third byte": b"\xe2\x82",
        "no fourth byte": b"\xf0\x9f\x98",
        "half a surrogate": b"\xed\xa0",
        "no second byte before the next": b"\xc3\x28",
        "wrong second byte": b"\xe2\x28\xa1",
        "wrong third byte": b"\xe2\x82\x28",
        "wrong byte in the middle": "good κ then ".encode() + b"\xff and on",
    }.items()
]


@pytest.mark.parametrize("text", GOOD_TEXTS)
def test_good_text_survives_any_fragmentation(text):
    raw = text.encode()
    frames = [part(TEXT), *(part(CONTINUATION, raw[at : at + 1]) for at in range(len(raw))), sent(CONTINUATION)]
    assert read(sent(TEXT, raw)) == read(b"".join(frames)) == [(TEXT, text)]


@pytest.mark.parametrize("raw", BAD_TEXTS)
def test_text_that_is_not_utf_8_is_refused(raw):
    assert fault(sent(TEXT, raw)) == 1007
    assert fault(sent(TEXT, b"good " + raw)) == 1007
    assert fault(sent(TEXT, b"long" * 50 + raw)) == 1007
    assert fault(part(TEXT, b"good") + sent(CONTINUATION, raw)) == 1007
    bytewise = [part(TEXT), *(part(CONTINUATION, raw[at : at + 1]) for at in range(len(raw))), sent(CONTINUATION)]
    assert fault(b"".join(bytewise)) == 1007


@pytest.mark.parametrize("raw", BAD_TEXTS)
def test_binary_need_not_be_utf_8(raw):
    assert read(sent(BINARY, raw) + part(BINARY, raw) + sent(CONTINUATION, raw)) == [(BINARY, raw), (BINARY, raw * 2)]


def test_a_character_that_ends_in_no_fragment_is_refused():
    assert fault(part(TEXT, b"good \xf0\x9f") + sent(CONTINUATION, b"\x98")) == 1007
    assert fault(part(TEXT, b"good \xf0\x9f") + sent(CONTINUATION)) == 1007


def test_an_overlong_form_split_over_fragments_is_refused():
    assert fault(part(TEXT, b"\xe0") + part(CONTINUATION, b"\x80")) == 1007


def test_bad_text_is_refused_before_its_fragments_or_its_frame_are_whole():
    assert fault(part(TEXT, b"bad \xff")) == 1007
    assert fault(sent(TEXT, b"bad \xff" + b"x" * 500_000)[:20]) == 1007
    reader = FrameReader(LIMIT)
    data = sent(TEXT, b"x" * 99_999 + b"\xc3" + b"x" * 400_000)
    assert reader.feed(data[:100_014]) == []
    assert reader.fault is None, "the character may still end well"
    assert reader.feed(data[100_014:100_015]) == []
    assert reader.fault is not None
    assert reader.fault.code == 1007


# Closing


@pytest.mark.parametrize("code", [*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999])
def test_a_close_is_given_with_its_code(code):
    assert read(closing(code)) == [(CLOSE, code)]


@pytest.mark.parametrize("reason", ["", "r" * 123, "κό 😀"])
def test_a_close_may_give_a_reason(reason):
    assert read(closing(1000, reason)) == [(CLOSE, 1000)]


def test_a_close_without_a_code_is_1005():
    assert read(sent(CLOSE)) == [(CLOSE, 1005)]


@pytest.mark.parametrize(
    "code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999, 2000, 2999, 5000, 9999, 0xE803, 65_535]
)
def test_a_close_code_that_is_not_for_the_wire_is_refused(code):
    assert fault(closing(code)) == 1002
    assert fault(closing(code, "reason")) == 1002


@pytest.mark.parametrize("byte", [b"\x00", b"\x03", b"\xff"])
def test_a_close_of_one_byte_is_refused(byte):
    assert fault(sent(CLOSE, byte)) == 1002


@pytest.mark.parametrize("reason", BAD_TEXTS)
def test_a_reason_that_is_not_utf_8_is_refused(reason):
    assert fault(closing(1000, reason)) == 1007


def test_a_refused_close_does_not_count_as_closed():
    reader = FrameReader(LIMIT)
    reader.feed(closing(1005))
    assert reader.fault is not None
    assert not reader.closed


def test_what_follows_a_close_is_ignored():
    reader = FrameReader(LIMIT)
    assert reader.feed(closing(1001) + sent(TEXT, "late") + sent(PING) + closing(1000)) == [(CLOSE, 1001)]
    assert reader.feed(sent(TEXT, "later")) == []
    assert reader.feed(part(CLOSE, b"bad", reserved=7)) == []
    assert reader.closed
    assert reader.fault is None
    assert reader.held_bytes == 0


def test_a_close_ends_a_half_received_message():
    reader = FrameReader(LIMIT)
    assert reader.feed(part(TEXT, "part") + closing(1000)) == [(CLOSE, 1000)]
    assert reader.closed
    assert reader.held_bytes == 0


# Faults


@pytest.mark.parametrize(
    ("bad", "code"), [(sent(3), 1002), (sent(TEXT, b"\xff"), 1007), (header(TEXT, LIMIT + 1), 1009)]
)
def test_what_came_before_a_fault_is_given_and_nothing_after_it(bad, code):
    reader = FrameReader(LIMIT)
    good = sent(TEXT, "one") + sent(PING, b"two")
    assert reader.feed(good + bad + sent(PING, b"late")) == [(TEXT, "one"), (PING, b"two")]
    found = reader.fault
    assert found is not None
    assert found.code == code
    assert reader.feed(sent(TEXT, "later")) == []
    assert reader.feed(sent(TEXT, b"\xff") + closing(1000)) == []
    assert (reader.fault, reader.closed, reader.held_bytes) == (found, False, 0)


def test_a_fault_can_be_sent_as_it_is():
    reader = FrameReader(10)
    reader.feed(header(TEXT, 11))
    assert reader.fault is not None
    assert close_frame(reader.fault.code, reader.fault.reason)[4:].decode() == reader.fault.reason


# Memory and time


def test_held_bytes_are_those_of_half_a_frame_and_of_fragments():
    reader = FrameReader(LIMIT)
    seen = [reader.held_bytes]
    for data in (part(TEXT, "abc"), sent(PING, b"pp")[:5], sent(PING, b"pp")[5:], sent(CONTINUATION, "defgh")):
        reader.feed(data)
        seen.append(reader.held_bytes)
    assert seen == [0, 3, 3 + 5, 3, 0]


def test_a_large_frame_is_held_as_it_comes_and_not_as_it_claims():
    reader = FrameReader(LIMIT)
    tracemalloc.start()
    try:
        reader.feed(header(BINARY, LIMIT) + KEY + b"x" * 100)
        assert tracemalloc.get_traced_memory()[1] < 10 * KIBIBYTE
    finally:
        tracemalloc.stop()
    assert reader.held_bytes == 100


@untimed
@given(st.binary(max_size=300), st.integers(0, 400))
def test_never_more_is_held_than_the_limit_and_the_start_of_a_frame(data, limit):
    reader = FrameReader(limit)
    for byte in data:
        reader.feed(bytes([byte]))
        assert reader.held_bytes <= limit + 130


def test_an_idle_reader_is_one_small_object():
    reader = FrameReader(LIMIT)
    used = sent(TEXT, "text") + part(TEXT, "a") + sent(CONTINUATION, "b") + sent(BINARY, b"x" * 70_000)
    with pytest.raises(AttributeError):
        reader.anything = 1
    tracemalloc.start()
    try:
        readers = [FrameReader(LIMIT) for _ in range(1000)]
        for reader in readers:
            reader.feed(used[:13])
            reader.feed(used[13:50])
            reader.feed(used[50:])
        ours = tracemalloc.take_snapshot().filter_traces(
            [tracemalloc.Filter(True, frames_module.__file__), tracemalloc.Filter(True, __file__)]
        )
        assert sum(trace.size for trace in ours.traces) < 1000 * 128
    finally:
        tracemalloc.stop()


def test_fragments_of_a_byte_cost_little_more_than_their_bytes():
    fragments = 50_000
    data = part(TEXT, "ü") + part(CONTINUATION, "x") * fragments
    reader = FrameReader(LIMIT)
    tracemalloc.start()
    try:
        for piece in in_pieces(data, 64 * KIBIBYTE):
            assert reader.feed(piece) == []
        assert tracemalloc.get_traced_memory()[0] < 4 * fragments
    finally:
        tracemalloc.stop()
    assert reader.held_bytes == fragments + 2


def test_endless_empty_fragments_hold_nothing():
    reader = FrameReader(LIMIT)
    reader.feed(part(TEXT, "x"))
    with alarm():
        for _ in range(20):
            assert reader.feed(part(CONTINUATION) * 5000) == []
            assert reader.held_bytes == 1
    assert reader.feed(sent(CONTINUATION, "y")) == [(TEXT, "xy")]


def test_many_small_fragments_are_joined_in_linear_time():
    with alarm():
        data = part(TEXT) + part(CONTINUATION, "é") * 300_000 + sent(CONTINUATION)
        pieces = in_pieces(data, 64 * KIBIBYTE)
        assert outcome(pieces) == ([(TEXT, "é" * 300_000)], None, False)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_slow_drip_of_a_large_frame_is_linear(opcode):
    text = "é" * (LIMIT // 2)
    with alarm():
        events, _, _ = outcome(in_pieces(sent(opcode, text), 3))
    assert events == [(opcode, text if opcode == TEXT else text.encode())]


# Properties

keys = st.binary(min_size=4, max_size=4)
controls = st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125))
texts = st.text(max_size=300) | st.sampled_from(GOOD_TEXTS)
messages = texts.map(lambda text: (TEXT, text)) | st.binary(max_size=300).map(lambda raw: (BINARY, raw))


@st.composite
def cuts(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """The data in random pieces, some of them empty."""
    at = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[start:end] for start, end in pairwise([0, *at, len(data)])]


@st.composite
def conversations(draw: st.DrawFn) -> tuple[bytes, list[tuple[int, str | bytes | int]]]:
    """Bytes of a well-behaved client (messages in random fragments, control frames between them, perhaps a Close) and
    what they mean."""
    data, meaning = b"", []
    for opcode, content in draw(st.lists(messages, max_size=4)):
        raw = content.encode() if isinstance(content, str) else content
        chunks = draw(cuts(raw)) if draw(st.booleans()) else [raw]
        for index, chunk in enumerate(chunks):
            for kind, payload in draw(st.lists(controls, max_size=2)):
                data += sent(kind, payload, key=draw(keys))
                meaning.append((kind, payload))
            kind = CONTINUATION if index else opcode
            data += sent(kind, chunk, final=index == len(chunks) - 1, key=draw(keys))
        meaning.append((opcode, content))
    if draw(st.booleans()):
        data += closing(1000, "bye")
        meaning.append((CLOSE, 1000))
    return data, meaning


@untimed
@given(conversations(), st.data())
def test_a_conversation_means_the_same_however_it_is_cut(conversation, data):
    raw, meaning = conversation
    expected = (meaning, None, any(opcode == CLOSE for opcode, _ in meaning))
    assert outcome([raw]) == expected
    assert outcome(in_pieces(raw, 1)) == expected
    assert outcome(data.draw(cuts(raw))) == expected


frames_of_any_kind = st.builds(
    sent,
    st.sampled_from([CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG]) | st.integers(0, 15),
    st.binary(max_size=20) | texts.map(str.encode) | st.just(b"\x03\xe8") | st.binary(min_size=126, max_size=140),
    key=keys,
    final=st.booleans(),
    reserved=st.just(0) | st.integers(0, 7),
    masked=st.just(True) | st.booleans(),
)


@untimed
@given(st.lists(frames_of_any_kind | st.binary(max_size=20), max_size=8).map(b"".join), st.data())
@example(part(TEXT, b"\xed\xa0") + sent(PING) + sent(CONTINUATION, b"\x80"), None)
def test_the_verdict_on_any_bytes_does_not_depend_on_how_they_are_cut(raw, data):
    whole = outcome([raw], 200)
    assert outcome(in_pieces(raw, 1), 200) == whole
    if data is not None:
        assert outcome(data.draw(cuts(raw)), 200) == whole
    assert whole[1] is None or whole[1].code in (1002, 1007, 1009)


@untimed
@given(st.binary(max_size=40) | texts.map(str.encode), st.data())
def test_text_is_taken_exactly_when_it_decodes(raw, data):
    chunks = data.draw(cuts(raw))
    fragments = [part(CONTINUATION if index else TEXT, chunk) for index, chunk in enumerate(chunks)]
    try:
        expected = [(TEXT, raw.decode())]
    except UnicodeDecodeError:
        expected = []
    for pieces in ([sent(TEXT, raw)], [*fragments, sent(CONTINUATION)], in_pieces(sent(TEXT, raw), 1)):
        events, found, _ = outcome(pieces)
        assert events == expected
        assert (found.code if found else None) == (None if expected else 1007)


@untimed
@given(st.binary(max_size=200))
def test_what_is_written_reads_back(raw):
    written = frame(BINARY, raw)
    start = len(written) - len(raw)
    masked = bytes([written[0], written[1] | 0x80]) + written[2:start] + b"\x00" * 4 + raw
    assert read(masked) == [(BINARY, raw)]
