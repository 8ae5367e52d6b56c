"""`project`: deleting one."""

from __future__ import annotations

import click

from sidecar.cli.installation import with_client
from sidecar.client.http import SidecarClient


@click.group(help="Projects.")
def project() -> None:
    """Group."""


@project.command(name="delete", help="Forget a project: its deployments, steps, logs, events and deliveries.")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Don't ask.")
def delete_project(name: str, yes: bool) -> None:
    if not yes:
        click.confirm(f"Forget all of the project {name}? That can't be undone", abort=True)

    def delete(client: SidecarClient) -> None:
        done = client.delete_project(name)
        what = ", ".join(f"{done[kind]} {kind}" for kind in ("deployments", "steps", "lines", "events", "deliveries"))
        click.echo(f"The project is deleted: {what}.")

    with_client(delete)
