"""`db`: the database."""

from __future__ import annotations

import click

from sidecar.cli.installation import with_core


@click.group(help="The database.")
def db() -> None:
    """Group."""


@db.command(help="Make or upgrade the schema (serve does it by itself).")
def upgrade() -> None:
    with_core(lambda _core, settings: click.echo(f"The database in {settings.instance_path} is up to date."))


@db.command(help="Let the present secret key be that of the database: it was changed on purpose.")
def adopt_secret() -> None:
    with_core(lambda _core, _settings: click.echo("The database is written with the present secret key now."), True)
