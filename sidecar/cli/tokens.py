"""`token`: API tokens made, listed and revoked."""

from __future__ import annotations

from collections.abc import Sequence

import click

from config.settings import Settings
from sidecar.cli.addresses import public_url
from sidecar.cli.curls import post_curl, step_curl
from sidecar.cli.installation import with_core
from sidecar.core import Core
from sidecar.domain.access import SCOPES


@click.group(help="API tokens.")
def token() -> None:
    """Group."""


@token.command(name="create", help="Make a token; it is shown this once.")
@click.option("--name", required=True)
@click.option("--scope", "scopes", multiple=True, required=True, help=f"One of {' '.join(sorted(SCOPES))}; repeatable.")
@click.option("--project", "projects", multiple=True, help="Only for these projects; repeatable. Default: all.")
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="Life in days. Default: without end.")
def create_token(name: str, scopes: tuple[str, ...], projects: tuple[str, ...], days: float | None) -> None:
    with_core(lambda core, settings: _create_token(core, settings, name, scopes, projects, days))


@token.command(name="list", help="All tokens, without their secrets.")
def list_tokens() -> None:
    def show(core: Core, _settings: Settings) -> None:
        for row in core.tokens.list():
            state = "revoked" if row.revoked_at else f"until {row.expires_at}" if row.expires_at else "active"
            projects = " ".join(row.projects) if row.projects else "all projects"
            click.echo(f"{row.id}  {row.name}  {' '.join(row.scopes)}  {projects}  {state}")

    with_core(show)


@token.command(name="revoke", help="Revoke a token by its id; its live sockets close.")
@click.argument("id")
def revoke_token(id: str) -> None:
    with_core(lambda core, _settings: core.tokens.revoke(id))
    click.echo(f"Token {id} is revoked.")


def _create_token(
    core: Core,
    settings: Settings,
    name: str,
    scopes: tuple[str, ...],
    projects: tuple[str, ...],
    days: float | None,
) -> None:
    made = core.tokens.create(name, scopes, projects or None, None if days is None else days * 86_400)
    click.echo(made.text)  # alone, so that $(…) takes it
    example = _example(public_url(settings, settings.port), made.text, made.scopes, (projects or ("my-project",))[0])
    if example is not None:
        click.echo("\nTry it:\n" + example, err=True)


def _example(url: str, token_text: str, held: Sequence[str], project: str) -> str | None:
    """A command that shows what a token with these scopes is for."""
    scopes = set(held)
    if "webhooks:write" in scopes:
        return step_curl(url, token_text, project)
    if scopes & {"messages:send", "admin"}:
        return post_curl(f"{url}/api/send-websocket/", token_text, '{"room":"general","message":"Hello"}')
    if "push:manage" in scopes:
        return post_curl(f"{url}/api/start-live-push/", token_text, '{"room":"live_updates","interval":5}')
    if "tokens:issue" in scopes:
        return post_curl(f"{url}/api/tokens/connection", token_text, '{"sub":"ada"}')
    if scopes & {"deployments:read", "rooms:read"}:
        path = "deployments" if "deployments:read" in scopes else "rooms"
        return f'  curl {url}/api/{path} -H "Authorization: Token {token_text}"'
    return None
