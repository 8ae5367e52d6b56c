"""Names with stars."""

from __future__ import annotations


def fits(text: str, pattern: str) -> bool:
    """Only `*` means something in a pattern: any text, also none. Linear in the text's length for each star."""
    first, *rest = pattern.split("*")
    if not rest:
        return text == pattern
    if not text.startswith(first):
        return False
    at = len(first)
    for part in rest[:-1]:
        at = text.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return len(text) - at >= len(rest[-1]) and text.endswith(rest[-1])
