"""`lark`: the apps at Lark/Feishu whose users authorize, and the keys of what is stored of them."""

from __future__ import annotations

import sys

import click
from cryptography.fernet import Fernet

from config.settings import Settings
from sidecar.cli.installation import with_core
from sidecar.core import Core
from sidecar.wire.authorizations import NewAppBody
from sidecar.wire.checks import read


@click.group(help="Users' authorizations through Lark/Feishu.")
def lark() -> None:
    """Group."""


@lark.group(name="app", help="The apps that users authorize.")
def lark_app() -> None:
    """Group."""


@lark_app.command(
    name="add",
    help="Add an app. Its secret, verification token and encrypt key (either of these may be empty) are asked for, or "
    "read from standard input, a line each: none of them belongs into a command.",
)
@click.argument("app_id")
@click.option("--name", default="", help="What it is called in lists.")
def add_app(app_id: str, name: str) -> None:
    secret, token, key = (_secret(what) for what in ("App secret", "Verification token", "Encrypt key"))
    given = {"app_id": app_id, "name": name, "secret": secret, "verification_token": token, "encrypt_key": key}

    def add(core: Core, _settings: Settings) -> None:
        body = read(NewAppBody, given)
        core.apps.add(body.app, body.name)
        click.echo(f"App {body.app_id} is added.")

    with_core(add)


@lark_app.command(name="list", help="All apps, without their secrets, and what their callbacks are proved by.")
def list_known_apps() -> None:
    def show(core: Core, _settings: Settings) -> None:
        for app in core.apps.listed():
            click.echo(f"{app.id}  {app.name or '-'}  callbacks: {app.proves}  {app.created_at or ''}".rstrip())

    with_core(show)


@lark_app.command(name="remove", help="Remove an app from the table. Its users' tokens stay, unused.")
@click.argument("app_id")
def remove_app(app_id: str) -> None:
    with_core(lambda core, _settings: core.apps.remove(app_id))
    click.echo(f"App {app_id} is removed.")


@lark.command(name="new-key", help="Print a new key for SIDECAR_LARK_ENCRYPTION_KEYS.")
def new_key() -> None:
    click.echo(Fernet.generate_key().decode())


@lark.command(help="Encrypt everything stored anew with the first of SIDECAR_LARK_ENCRYPTION_KEYS.")
def rotate() -> None:
    def reseal(core: Core, _settings: Settings) -> None:
        found = core.reseal()
        click.echo(f"{found.done} values are encrypted with the first key.")
        if found.unreadable:
            raise click.ClickException(f"{found.unreadable} values can't be read with any key of these settings.")

    with_core(reseal)


def _secret(what: str) -> str:
    if sys.stdin.isatty():
        return str(click.prompt(what, default="", hide_input=True, show_default=False)).strip()
    return sys.stdin.readline().strip()
