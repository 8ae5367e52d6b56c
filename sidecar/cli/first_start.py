"""What the first start of an installation makes, and every start repeats."""

from __future__ import annotations

from config.settings import Settings
from sidecar.cli.instance import locked, write_secret
from sidecar.cli.logins import login_code
from sidecar.core import ADMIN_TOKEN_FILE, WEBHOOK_TOKEN_FILE, open_core


def first_start(settings: Settings) -> str | None:
    """Make the first tokens of a new installation, each in a file that only its owner can read, once however many
    processes start; every start gets a one-time login code, as long as an admin token holds."""
    core = open_core(settings)
    try:
        with locked(settings):
            if not any("admin" in row.scopes for row in core.tokens.list()):
                admin = core.tokens.create("admin", ["admin"])
                write_secret(settings.instance_path / ADMIN_TOKEN_FILE, admin.text)
                first = core.tokens.create("first webhooks", ["webhooks:write"])
                write_secret(settings.instance_path / WEBHOOK_TOKEN_FILE, first.text)
        return login_code(core)
    finally:
        core.close()
