"""Opaque cursors of lists."""

from __future__ import annotations

import base64
import binascii

from sidecar.http.parameters import MAX_NUMBER


def encode_cursor(number: int) -> str:
    return base64.urlsafe_b64encode(f"d{number}".encode()).decode().rstrip("=")


def decode_cursor(text: str) -> int:
    """Raises ValueError for a cursor that we did not make."""
    try:
        plain = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        plain = ""
    if plain[:1] != "d" or not plain[1:].isdigit() or len(plain) > 20 or int(plain[1:]) > MAX_NUMBER:
        raise ValueError("is not a cursor of this server")
    return int(plain[1:])
