"""`deliveries`: posted webhooks as they came, and taken once more."""

from __future__ import annotations

import click

from sidecar.cli.installation import with_client
from sidecar.client.http import SidecarClient


@click.group(help="Posted webhooks as they came.")
def deliveries() -> None:
    """Group."""


@deliveries.command(name="list", help="The newest deliveries.")
@click.option("--verdict", type=click.Choice(["stored", "test", "quarantined", "replayed", "erased"]))
@click.option("--limit", type=click.IntRange(1, 100), default=20)
def list_deliveries(verdict: str | None, limit: int) -> None:
    def show(client: SidecarClient) -> None:
        for item in client.deliveries(verdict=verdict, limit=limit):
            reason = (item["reason"] or {}).get("detail", "")
            click.echo(f"{item['number']}  {item['received_at']}  {item['verdict']}  {item['path']}  {reason}")

    with_client(show)


@deliveries.command(name="replay", help="Take a kept delivery once more.")
@click.argument("number", type=int)
def replay_delivery(number: int) -> None:
    with_client(lambda client: click.echo(f"Stored as event {client.replay(number)['seq']}."))
