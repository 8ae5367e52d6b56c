"""A project's figures: over which time they are taken, and what counts as success."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sidecar.domain.errors import FieldError, Invalid

DAYS = 30
"""How many there are where nobody asks for a time; the last of them is today."""
MAX_DAYS = 366
FAILURES = ("failed", "timed_out")


@dataclass(frozen=True, slots=True)
class Period:
    """since <= time < until, both as `utc_text` writes them."""

    since: str
    until: str

    @property
    def days(self) -> list[str]:
        """Every day (in UTC) of which the period has a part, such as `2026-11-21`."""
        first, last = _day(self.since), _day_before(self.until)
        return [(first + timedelta(days=number)).isoformat() for number in range((last - first).days + 1)]


def period(since: str | None, until: str | None, now: str) -> Period:
    """The period that is asked for; without an `until` up to now, without a `since` the 30 days that end with it.
    Raises Invalid for one that has no length, or too much."""
    until = until or now
    if since is None:
        first = max(_day_before(until) - timedelta(days=DAYS - 1), date(1970, 1, 1))
        since = f"{first.isoformat()}T00:00:00.000Z"
    if since >= until:
        raise _unusable("since", "must be before until")
    if datetime.fromisoformat(until) - datetime.fromisoformat(since) > timedelta(days=MAX_DAYS):
        raise _unusable("since", f"must be no more than {MAX_DAYS} days before until")
    return Period(since, until)


def success_rate(succeeded: int, failed: int) -> float | None:
    """Of those that ended well or badly; None if none did. (Who was cancelled or skipped tells nothing of quality.)"""
    ended = succeeded + failed
    return round(succeeded / ended, 4) if ended else None


def _day(time: str) -> date:
    return date.fromisoformat(time[:10])


def _day_before(time: str) -> date:
    """The day of the last instant before it."""
    return (datetime.fromisoformat(time) - timedelta(milliseconds=1)).date()


def _unusable(field: str, message: str) -> Invalid:
    return Invalid(f"The query can't be used: {field} {message}.", (FieldError(field, message),))
