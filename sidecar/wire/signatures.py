"""Signed bodies: `X-Hub-Signature-256: sha256=<hex of HMAC-SHA256(secret, raw body)>`, as GitHub, Gitea and Forgejo
send it."""

from __future__ import annotations

import hashlib
import hmac
import re

from sidecar.domain.errors import SignatureMismatch

SIGNATURE_HEADER = "X-Hub-Signature-256"

_SIGNATURE = re.compile(r"sha256=([0-9a-fA-F]{64})")


def read_signature(header: str) -> bytes:
    """The digest that a signature header names. Raises SignatureMismatch for one that was cut, repeated, or that no
    sender writes."""
    match = _SIGNATURE.fullmatch(header)
    if match is None:
        raise SignatureMismatch(f"{SIGNATURE_HEADER} must be `sha256=` and 64 hexadecimal digits, once.")
    return bytes.fromhex(match[1])


def signed_with(secret: bytes, body: bytes, digest: bytes) -> bool:
    """Is this the digest of the body under the secret? (Compared in constant time.)"""
    return hmac.compare_digest(hmac.new(secret, body, hashlib.sha256).digest(), digest)
