"""`maim`: bots and their keys."""

from __future__ import annotations

import sys

import click

from config.settings import Settings
from sidecar.cli.installation import with_core
from sidecar.core import Core
from sidecar.domain.maim import address_of
from sidecar.wire.checks import read
from sidecar.wire.maim import MaimKeyBody


@click.group(help="Bots (maim_message).")
def maim() -> None:
    """Group."""


@maim.group(name="key", help="Bots' API keys.")
def bot_key() -> None:
    """Group."""


@bot_key.command(name="create", help="Make a bot's key; it is shown this once.")
@click.option("--user", required=True, help="Whose it is: messages to the key reach this user's connections.")
@click.option("--tenant", help="Whose bots it may talk to. Default: default.")
@click.option("--platform", "platforms", multiple=True, help="Only on these platforms; repeatable. Default: any.")
@click.option("--name", help="What it is called in lists. Default: the user.")
@click.option(
    "--key-stdin", is_flag=True, help="Take over a key that clients have already: its text on standard input."
)
def create_bot_key(
    user: str, tenant: str | None, platforms: tuple[str, ...], name: str | None, key_stdin: bool
) -> None:
    key = sys.stdin.readline().strip() if key_stdin else None
    given = {"user": user, "tenant": tenant, "platforms": list(platforms) or None, "name": name, "key": key}

    def create(core: Core, _settings: Settings) -> None:
        made = core.bot_keys.create(read(MaimKeyBody, given))
        if key is None:
            click.echo(made.key)
        shown = f"Key {made.row.id} of {made.row.tenant}/{made.row.user}; address {address_of(made.row.id)}"
        click.echo(shown, err=True)

    with_core(create)


@bot_key.command(name="list", help="All keys, without their text.")
def list_bot_keys() -> None:
    def show(core: Core, _settings: Settings) -> None:
        for row in core.bot_keys.list():
            platforms = " ".join(row.platforms) if row.platforms else "any platform"
            state = "revoked" if row.revoked_at else "active"
            click.echo(f"{row.id}  {row.tenant}/{row.user}  {row.name}  {platforms}  {address_of(row.id)}  {state}")

    with_core(show)


@bot_key.command(name="revoke", help="Revoke a key by its id; its live connections close.")
@click.argument("id")
def revoke_bot_key(id: str) -> None:
    with_core(lambda core, _settings: core.bot_keys.revoke(id))
    click.echo(f"Key {id} is revoked.")
