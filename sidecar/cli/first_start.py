"""What the first start of an installation makes, and every start repeats."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from config.settings import Settings
from sidecar.cli.logins import admin_id, login_code
from sidecar.core import ADMIN_TOKEN_FILE, WEBHOOK_TOKEN_FILE, open_core

START_LOCK_FILE = "start.lock"


def first_start(settings: Settings) -> str | None:
    """Make the first tokens of a new installation, each in a file that only its owner can read, once however many
    processes start; every start gets a one-time login code, as long as an admin token holds."""
    core = open_core(settings)
    try:
        with _locked(settings.instance_path / START_LOCK_FILE):
            if not any("admin" in row.scopes for row in core.tokens.list()):
                admin = core.tokens.create("admin", ["admin"])
                _write_secret(settings.instance_path / ADMIN_TOKEN_FILE, admin.text)
                first = core.tokens.create("first webhooks", ["webhooks:write"])
                _write_secret(settings.instance_path / WEBHOOK_TOKEN_FILE, first.text)
        return None if admin_id(core) is None else login_code(core)
    finally:
        core.close()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write_secret(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
