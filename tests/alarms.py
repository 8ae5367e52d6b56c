"""A generous bound for work that must stay linear: quadratic work on the same input would take minutes and fails."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

GENEROUS_SECONDS = 20


@contextmanager
def alarm(seconds: int = GENEROUS_SECONDS) -> Iterator[None]:
    """Ends what runs inside with an AssertionError once `seconds` are over."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"still at work after {seconds} s: not linear")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
