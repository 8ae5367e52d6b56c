"""What a publishing request is answered of who gets it: how many connections of this process, or of all when asked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sidecar.http.parameters import Anything, Parameters, word
from sidecar.services.counting import NOBODY, Count, Counting

ALL = "all"


def counted() -> Any:
    """The parameter `count`, which a query declares."""
    return word(("node", ALL), "node", "Which `recipients` are counted: those of this process, or of all.")


class CountQuery(Parameters):
    count: str = counted()


class LenientCountQuery(Anything):
    count: str = counted()


class Recipients:
    def __init__(self, counting: Counting):
        self._counting = counting

    def of(self, count: str, rooms: Iterable[str], target: str | None = None) -> dict[str, Any]:
        """The fields that tell of an event for these rooms, and this user alone. For `all` it may take two seconds, and
        does not fail."""
        if count == ALL:
            return _told(self._counting.everywhere(rooms, target))
        return {"recipients": self._counting.here(rooms, target)}

    def none(self, count: str) -> dict[str, Any]:
        """The same where there was no event."""
        return _told(NOBODY) if count == ALL else {"recipients": 0}


def _told(count: Count) -> dict[str, Any]:
    return {"recipients": count.recipients, "nodes": {"asked": count.asked, "answered": count.answered}}
