"""Times as the project writes them: ISO 8601 text in UTC with milliseconds and `Z`; such texts sort as times."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_text(unix_seconds: float) -> str:
    """`2026-11-21T04:29:00.123Z` for a Unix time in seconds."""
    return datetime.fromtimestamp(unix_seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def unix_seconds(text: str) -> float:
    """The Unix time of a text that `utc_text` wrote. Raises ValueError for other text."""
    return datetime.fromisoformat(text).timestamp()
