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
@click.option("--project", help="Those that were placed in it.")
@click.option("--limit", type=click.IntRange(1, 100), default=20)
def list_deliveries(verdict: str | None, project: str | None, limit: int) -> None:
    def show(client: SidecarClient) -> None:
        for item in client.deliveries(verdict=verdict, project=project, limit=limit):
            told = (item["reason"] or {}).get("detail", "") or item["project"] or ""
            click.echo(f"{item['number']}  {item['received_at']}  {item['verdict']}  {item['path']}  {told}")

    with_client(show)


@deliveries.command(name="show", help="One delivery: who sent what, headers and body, and what became of it.")
@click.argument("number", type=int)
def show_delivery(number: int) -> None:
    def show(client: SidecarClient) -> None:
        item = client.delivery(number)
        body, headers, reason = item.pop("body"), item.pop("headers"), item.pop("reason")
        for name, value in item.items():
            if value is not None:
                click.echo(f"{name}: {value}")
        if reason is not None:
            click.echo(f"reason: {reason['detail']}")
            for field in reason["errors"]:
                click.echo(f"  {field['path']} {field['message']}")
        click.echo("".join(f"\n{name}: {value}" for name, value in headers.items()) + f"\n\n{body}")

    with_client(show)


@deliveries.command(name="replay", help="Take a kept delivery once more.")
@click.argument("number", type=int)
def replay_delivery(number: int) -> None:
    with_client(lambda client: click.echo(f"Stored as event {client.replay(number)['seq']}."))
