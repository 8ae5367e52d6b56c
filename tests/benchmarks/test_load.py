"""The load generator's eyes: what it counts and parses is what was sent, however the reads have cut it."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from benchmarks import report, servers
from benchmarks.frames import MARK, OVERLAP, STAMP, BadFrame, Frames, Marks, client_text, event_text, server_text

PING = server_text(b"2")
EVENTS = [b'42["event",' + servers.event(number, 7_000_000_000 + number) + b"]" for number in range(5)]
STREAM = PING.join(map(server_text, EVENTS))


def reads(data: bytes, size: int) -> list[bytes]:
    return [data[begin : begin + size] for begin in range(0, len(data), size)]


def count(parts: list[bytes]) -> tuple[int, int]:
    """Marks and reads with a ping, as a connection sees them that shares its buffer with another one."""
    buffer = bytearray(OVERLAP + 65_536)
    marks, other = Marks(), Marks()
    pings = 0
    for part in parts:
        for each, data in ((marks, part), (other, MARK[:-1])):
            buffer[OVERLAP : OVERLAP + len(data)] = data
            pings += each.take(buffer, len(data))
    assert other.count == 0
    return marks.count, pings


@pytest.mark.parametrize("size", [1, 2, 3, 5, OVERLAP, len(MARK), 64, 1_000, 60_000])
def test_a_mark_is_counted_once_wherever_a_read_has_cut_it(size: int) -> None:
    assert count(reads(STREAM, size))[0] == len(EVENTS)


@pytest.mark.parametrize("cut", range(1, len(PING)))
def test_a_ping_is_answered_once_where_a_read_has_cut_it(cut: int) -> None:
    assert count([PING[:cut], PING[cut:], b"later"])[1] == 1


def test_no_ping_is_seen_in_events() -> None:
    assert count([server_text(text) for text in EVENTS])[1] == 0


@pytest.mark.parametrize("size", [1, 2, 3, 7, 129, 1_000, 60_000])
def test_frames_come_out_whole_and_in_order_however_they_were_cut(size: int) -> None:
    long = b"4" + b"x" * 60_000
    stream = STREAM + server_text(b"") + server_text(long)
    frames = Frames()
    heard = [text for part in reads(stream, size) for text in frames.feed(part)]
    assert [text for text in heard if text != b"2"] == [*EVENTS, b"", long]


def test_a_frame_with_a_length_of_eight_bytes_is_read() -> None:
    text = b"x" * 70_000
    frame = struct.pack("!BBQ", 0x81, 127, len(text)) + text
    assert list(Frames().feed(frame)) == [text]


def test_a_frame_that_ends_the_connection_or_is_masked_is_not_taken_for_an_event() -> None:
    with pytest.raises(BadFrame):
        list(Frames().feed(b"\x88\x02\x03\xf4"))
    with pytest.raises(BadFrame):
        list(Frames().feed(client_text(b"2")))


@pytest.mark.parametrize("body", [servers.webhook, servers.event])
def test_a_posted_body_carries_its_mark_number_and_stamp_once(body: servers.Body) -> None:
    text = body(42, 123_456_789)
    json.loads(text)
    assert text.count(MARK) == 1
    assert [tuple(map(int, found)) for found in STAMP.findall(text)] == [(42, 123_456_789)]


def test_both_kinds_of_post_tell_the_same_event() -> None:
    event, webhook = json.loads(servers.event(1, 2)), json.loads(servers.webhook(1, 2))
    assert webhook == {"type": event["type"], **event["payload"]}
    assert event["payload"]["message"] == event_text(1, 2)


def test_each_log_batch_is_another_one_of_the_same_length() -> None:
    body = servers.log_batch(500)
    first, second = json.loads(body(1, 0)), json.loads(body(2, 0))
    assert len(first["logs"]) == len(second["logs"]) == 500
    assert first != second


def test_a_new_table_replaces_the_old_one_and_keeps_what_stands_around_it(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write("first\n", page)
    report.write("second\n", page)
    assert page.read_text() == f"before\n{report.BEGIN}\n\nsecond\n\n{report.END}\nafter\n"


def test_a_page_without_a_place_for_the_table_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text("by hand\n")
    with pytest.raises(ValueError, match="markers"):
        report.write("table\n", page)
    assert page.read_text() == "by hand\n"


def test_the_page_has_a_place_for_the_table() -> None:
    assert report.PAGE.read_text().index(report.BEGIN) < report.PAGE.read_text().index(report.END)
