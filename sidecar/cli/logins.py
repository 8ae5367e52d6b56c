"""`login`: the one-time link by which an admin enters the dashboard."""

from __future__ import annotations

import time

import click

from config.settings import Settings
from sidecar.cli.addresses import public_url
from sidecar.cli.installation import with_core
from sidecar.core import Core
from sidecar.domain.errors import SidecarError
from sidecar.domain.times import utc_text

NO_ADMIN = "No admin token is left: make one with `python -m sidecar token create --name admin --scope admin`."


@click.command(help="Print a new one-time login link of the dashboard.")
def login() -> None:
    with_core(lambda core, settings: click.echo(_login_url(core, settings, settings.port)))


def login_code(core: Core) -> str:
    """A new code of the dashboard's login page, in the name of an admin token that holds."""
    admin = admin_id(core)
    if admin is None:
        raise SidecarError(NO_ADMIN)
    return core.connections.login_link(admin)


def admin_id(core: Core) -> str | None:
    """The id of an admin token that holds now, None if there is none left."""
    now = utc_text(time.time())
    for row in core.tokens.list():
        if "admin" in row.scopes and row.revoked_at is None and (row.expires_at is None or row.expires_at > now):
            return row.id
    return None


def _login_url(core: Core, settings: Settings, port: int) -> str:
    return f"{public_url(settings, port)}/login?code={login_code(core)}"
