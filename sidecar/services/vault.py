"""Secrets at rest: encrypted and signed, each bound to its place, readable by several keys while they are rotated."""

from __future__ import annotations

import json
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet


class Unreadable(Exception):
    """Sealed by none of our keys, or for another place, or not whole."""


class Vault:
    """The first of the Fernet keys encrypts, each of them decrypts."""

    def __init__(self, keys: Sequence[Fernet]):
        self._keys = MultiFernet(keys)

    def seal(self, text: str, *place: str) -> str:
        """`place` says whose it is: what was moved to another row can't be opened there."""
        return self._keys.encrypt(json.dumps([text, *place]).encode()).decode()

    def open(self, sealed: str, *place: str) -> str:
        """Raises Unreadable."""
        try:
            text, *sealed_for = json.loads(self._keys.decrypt(sealed.encode()))
        except (InvalidToken, TypeError, ValueError):
            raise Unreadable from None
        if sealed_for != list(place):
            raise Unreadable
        return str(text)

    def reseal(self, sealed: str) -> str:
        """The same, encrypted with the first key. Raises Unreadable."""
        try:
            return self._keys.rotate(sealed.encode()).decode()
        except InvalidToken:
            raise Unreadable from None
