"""`user`: users of the browsers."""

from __future__ import annotations

import click

from sidecar.cli.installation import with_core


@click.group(help="Users of the browsers, by the `sub` of their connection tokens.")
def user() -> None:
    """Group."""


@user.command(name="disconnect", help="End a user's connections; nothing is revoked.")
@click.argument("id")
def disconnect_user(id: str) -> None:
    with_core(lambda core, _settings: core.users.disconnect(id))
    click.echo(f"User {id} is disconnected.")
