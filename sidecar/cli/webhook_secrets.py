"""`secret`: what webhooks are signed with, instead of a token."""

from __future__ import annotations

import sys

import click

from config.settings import Settings
from sidecar.cli.addresses import public_url
from sidecar.cli.curls import signed_curl
from sidecar.cli.installation import with_core
from sidecar.core import Core
from sidecar.domain.errors import NotFound
from sidecar.wire.checks import read
from sidecar.wire.webhook_secrets import WebhookSecretBody


@click.group(help="Secrets that webhooks are signed with (X-Hub-Signature-256), instead of tokens.")
def secret() -> None:
    """Group."""


@secret.command(name="create", help="Make a secret; it is shown this once.")
@click.option("--project", "projects", multiple=True, help="What is signed with it may write to this; repeatable.")
@click.option("--all-projects", is_flag=True, help="It may write to every project.")
@click.option("--name", help="What it is called in lists. Default: the first project.")
@click.option("--secret-stdin", is_flag=True, help="Take over one that senders have: its text on standard input.")
def create_secret(projects: tuple[str, ...], all_projects: bool, name: str | None, secret_stdin: bool) -> None:
    if all_projects == bool(projects):
        raise click.UsageError("Name one or more with --project, or say --all-projects.")
    text = sys.stdin.readline().strip() if secret_stdin else None
    given = {"name": name, "projects": list(projects) or None} | ({"secret": text} if secret_stdin else {})

    def create(core: Core, settings: Settings) -> None:
        made = core.webhook_secrets.create(read(WebhookSecretBody, given))
        if text is None:
            click.echo(made.secret)
        click.echo(f"Secret {made.row.id}, for {_projects(made.row.projects)}.", err=True)
        if text is None:
            example = signed_curl(public_url(settings, settings.port), made.secret, (projects or ("my-project",))[0])
            click.echo("\nTry it:\n" + example, err=True)

    with_core(create)


@secret.command(name="list", help="All secrets, without their text.")
@click.option("--project", help="Those that may write to it.")
def list_secrets(project: str | None) -> None:
    def show(core: Core, _settings: Settings) -> None:
        for row in core.webhook_secrets.list(project):
            state = "revoked" if row.revoked_at else "active"
            click.echo(f"{row.id}  {row.name}  {_projects(row.projects)}  since {row.created_at}  {state}")

    with_core(show)


@secret.command(name="revoke", help="Revoke a secret by its id.")
@click.argument("id")
@click.option("--project", help="Only if it may write to this one.")
def revoke_secret(id: str, project: str | None) -> None:
    def revoke(core: Core, _settings: Settings) -> None:
        if project is not None and all(row.id != id for row in core.webhook_secrets.list(project)):
            raise NotFound("There is no such webhook secret of this project.")
        core.webhook_secrets.revoke(id)

    with_core(revoke)
    click.echo(f"Secret {id} is revoked.")


def _projects(names: tuple[str, ...] | None) -> str:
    return "all projects" if names is None else " ".join(names)
