"""Files of an installation's folder that commands make and read."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from config.settings import Settings

START_LOCK_FILE = "start.lock"


@contextmanager
def locked(settings: Settings) -> Iterator[None]:
    """One process at a time makes what is made once."""
    descriptor = os.open(settings.instance_path / START_LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_secret(path: Path, text: str) -> None:
    """A file that only its owner can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")


def read_secret(path: Path) -> str | None:
    """None without such a file."""
    try:
        return path.read_text().strip()
    except OSError:
        return None
