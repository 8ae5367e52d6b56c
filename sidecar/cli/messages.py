"""`send`, `tail` and `demo`: what goes into a running sidecar, and what comes out live."""

from __future__ import annotations

import json
from typing import Any

import click

from sidecar.cli.installation import with_client
from sidecar.client.demo import play
from sidecar.client.listener import follow
from sidecar.domain.deployments import LEVELS


@click.command(help="Send a message to a free room, or a log line of a deployment.")
@click.option("--room", help="To this free room.")
@click.option("--user", help="With --room: only to this user's connections in it.")
@click.option("--data", help="With --room: more fields of the message, a JSON object.")
@click.option("--project", help="With --deployment: a log line of this project.")
@click.option("--deployment", help="The deployment's id.")
@click.option("--level", default="info", type=click.Choice(LEVELS), help="Of a log line.")
@click.argument("message")
def send(
    room: str | None,
    user: str | None,
    data: str | None,
    project: str | None,
    deployment: str | None,
    level: str,
    message: str,
) -> None:
    if (room is None) == (project is None or deployment is None):
        raise click.UsageError("Name a --room, or a --project and a --deployment.")
    if room is not None:
        fields = _object(data)
        with_client(lambda client: _sent(client.send(room, message, fields, target_user=user)))
        return
    body = {
        "type": "log_entry",
        "project": project,
        "deployment_id": deployment,
        "level": level,
        "message": message,
        "source": "sidecar send",
    }
    with_client(lambda client: click.echo(f"Stored as event {client.webhook(body)['event_id']}."))


def _sent(answer: dict[str, Any]) -> None:
    click.echo(f"Stored as event {answer['event_id']}; {answer['recipients']} connections get it now.")


def _object(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text) if text else {}
    except ValueError as error:
        raise click.UsageError(f"--data is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise click.UsageError("--data must be a JSON object.")
    return value


@click.command(help="Print live events of projects, deployments and free rooms, a line each; ends with Ctrl+C.")
@click.option("--project", "projects", multiple=True)
@click.option("--deployment", "deployments", multiple=True)
@click.option("--room", "free_rooms", multiple=True)
@click.option("--since", help="Begin after this seq or offset; 0 is everything kept.")
@click.option("--json", "as_json", is_flag=True, help="Whole events as JSON lines.")
def tail(
    projects: tuple[str, ...],
    deployments: tuple[str, ...],
    free_rooms: tuple[str, ...],
    since: str | None,
    as_json: bool,
) -> None:
    kinds = {"project": projects, "deployment": deployments, "room": free_rooms}
    rooms = [(kind, name) for kind, names in kinds.items() for name in names]
    if not rooms:
        raise click.UsageError("Name at least one --project, --deployment or --room.")
    with_client(lambda client: follow(client, rooms, since, as_json, click.echo))


@click.command(help="Play a realistic deployment into a running sidecar.")
@click.option("--project", default="demo-shop")
@click.option("--fail", is_flag=True, help="Let a step fail.")
@click.option("--speed", type=click.FloatRange(0.1, 1000), default=1.0, help="2 is twice as fast.")
def demo(project: str, fail: bool, speed: float) -> None:
    with_client(lambda client: play(client, project, fail, speed, click.echo))
