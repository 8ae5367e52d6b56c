"""Events: facts that happened, in the one order of the journal, and the offsets that point between them."""

from __future__ import annotations

import re
from dataclasses import dataclass

CONTROL = "control."
"""Types that begin so are for the sidecar's own processes and never leave for a browser."""


class Control(str):
    """Such a type."""


@dataclass(frozen=True, slots=True)
class Event:
    """One fact of the journal. `payload` is JSON text, encoded once when the event was made; `at` is the time
    at which we stored it (ISO 8601, UTC); `mark` is random and tells this row from one of a restored backup. With a
    `target` it is for this user alone: nobody else in its rooms gets it."""

    seq: int
    mark: int
    type: str
    payload: str
    rooms: tuple[str, ...]
    at: str
    target: str | None = None

    @property
    def offset(self) -> str:
        return Offset(self.seq, self.mark).text

    @property
    def control(self) -> bool:
        return self.type.startswith(CONTROL)


@dataclass(frozen=True, slots=True)
class Volatile:
    """Something that holds only now (a gauge, a position on its way): it is in no journal, whoever is away misses it,
    and of several that wait for a slow reader only the newest is sent. Otherwise as an Event. One with a `mark` of its
    own is not replaced by a newer one: it says what happened, not how things stand."""

    type: str
    payload: str
    room: str
    at: str
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Offset:
    """A place in the journal: everything up to `seq` is known. Without a `mark` (a bare number was given) it is
    taken at its word; with one it holds only if the journal's row still has that mark.

    In the middle of a replay it also names the session's `replay` and how far that has `reached`: the replays before
    it are whole, those behind it have not begun (docs/design/recovery.md)."""

    seq: int
    mark: int | None = None
    replay: int | None = None
    reached: int = 0

    @property
    def text(self) -> str:
        place = str(self.seq) if self.mark is None else f"{self.seq}.{self.mark:08x}"
        return place if self.replay is None else f"{place}~{self.replay}.{self.reached}"

    @property
    def known(self) -> int:
        """Up to where a room is known to somebody who can't tell which replay was meant."""
        return self.seq if self.replay is None else min(self.seq, self.reached)


_NUMBER = "[0-9]{1,19}"
_OFFSET = re.compile(rf"({_NUMBER})(?:\.([0-9a-f]{{8}}))?(?:~({_NUMBER})\.({_NUMBER}))?")


def parse_offset(value: object) -> Offset | None:
    """The offset that a client sent: our opaque string, or a bare seq as number or text. None if it is neither."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return Offset(value) if 0 <= value < 2**63 else None
    match = _OFFSET.fullmatch(value) if isinstance(value, str) else None
    if match is None or any(int(number) >= 2**63 for number in match.group(1, 3, 4) if number):
        return None
    mark = None if match[2] is None else int(match[2], 16)
    if match[3] is None:
        return Offset(int(match[1]), mark)
    return Offset(int(match[1]), mark, int(match[3]), int(match[4]))
