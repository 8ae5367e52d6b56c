"""Offsets: what we gave out comes back; anything else a client sends is refused, never guessed."""

from __future__ import annotations

import pytest

from sidecar.domain.events import Event, Offset, parse_offset

pytest.importorskip("hypothesis", reason="hypothesis is not installed (tests/requirements.txt)")

from hypothesis import given
from hypothesis import strategies as st


@given(st.integers(0, 2**63 - 1), st.none() | st.integers(0, 2**32 - 1))
def test_an_offset_comes_back_as_it_was_given(seq, mark):
    offset = Offset(seq, mark)
    assert parse_offset(offset.text) == offset


@pytest.mark.parametrize(("value", "seq"), [(0, 0), (7, 7), ("7", 7), ("007", 7), (2**63 - 1, 2**63 - 1)])
def test_a_bare_seq_is_an_offset_without_a_mark(value, seq):
    assert parse_offset(value) == Offset(seq)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        -1,
        1.0,
        2**63,
        str(2**63),
        "",
        " 7",
        "-7",
        "+7",
        "７",
        "²",
        "7.",
        ".00000001",
        "7.1",
        "7.000000001",
        "7.0x123456",
        "7.-1234567",
        "7.+1234567",
        "7.1234_567",
        "7. 1234567",
        "7.0000000g",
        "7.00000001.",
        "7\n",
        "9" * 41,
        [7],
        {"seq": 7},
    ],
)
def test_what_we_did_not_give_out_is_no_offset(value):
    assert parse_offset(value) is None


@given(st.one_of(st.text(), st.integers(), st.floats(), st.binary()))
def test_nothing_makes_it_fail(value):
    assert parse_offset(value) is None or isinstance(parse_offset(value), Offset)


def test_an_event_knows_its_offset_and_whether_it_may_leave():
    event = Event(7, 0xAB, "step_started", "{}", ("project:p",), "2026-11-21T12:00:00.000Z")
    assert (event.offset, event.control) == ("7.000000ab", False)
    assert Event(8, 1, "control.revoked", "{}", (), event.at).control
