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


def no_admin(settings: Settings) -> str:
    """The folder is named, because it may be another installation's than was meant."""
    made = "make one with `python -m sidecar token create --name admin --scope admin`"
    return f"No admin token is left in {settings.instance_path}: {made}."


@click.command(help="Print a new one-time login link of the dashboard.")
def login() -> None:
    with_core(lambda core, settings: click.echo(_login_url(core, settings, settings.port)))


def login_code(core: Core) -> str | None:
    """A new code of the dashboard's login page, in the name of an admin token that holds; None without one."""
    admin = _admin_id(core)
    return None if admin is None else core.connections.login_link(admin)


def _admin_id(core: Core) -> str | None:
    now = utc_text(time.time())
    for row in core.tokens.list():
        if "admin" in row.scopes and row.revoked_at is None and (row.expires_at is None or row.expires_at > now):
            return row.id
    return None


def _login_url(core: Core, settings: Settings, port: int) -> str:
    code = login_code(core)
    if code is None:
        raise SidecarError(no_admin(settings))
    return f"{public_url(settings, port)}/login?code={code}"
