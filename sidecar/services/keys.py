"""The master secret of an installation and the keys derived from it, one a purpose."""

from __future__ import annotations

import base64
import fcntl
import os
import secrets
from pathlib import Path

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

FILE = "secret_key"


class Keys:
    """Keys by purpose (HKDF-SHA256, RFC 5869); two purposes never share one."""

    def __init__(self, master: bytes):
        self._master = master

    def derive(self, purpose: str) -> bytes:
        """32 bytes, always the same for the same master secret and purpose."""
        return HKDF(algorithm=SHA256(), length=32, salt=None, info=f"sidecar/{purpose}".encode()).derive(self._master)

    @property
    def fingerprint(self) -> str:
        """By which two processes find out whether they have the same secret; it tells nothing of it."""
        return self.derive("fingerprint").hex()[:16]

    def seal(self, purpose: str) -> Fernet:
        """Encrypts and signs what lies in the database (or is on its way through it) and is nobody's to read there."""
        return Fernet(base64.urlsafe_b64encode(self.derive(purpose)))


def load_keys(instance_path: Path, configured: str | None) -> Keys:
    """The configured secret's keys; else those of the one in the instance folder, made there on first use with
    mode 0600. Safe when several processes start at once."""
    if configured:
        return Keys(configured.encode())
    instance_path.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(instance_path / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        text = file.read().strip()
        if not text:
            text = secrets.token_urlsafe(48)
            file.write(text)
    return Keys(text.encode())
