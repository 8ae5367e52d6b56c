"""`menu`: the menu and the permissions, from files and into them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TextIO

import click

from sidecar.cli.installation import told, with_client
from sidecar.client.http import SidecarClient
from sidecar.domain.errors import SidecarError
from sidecar.wire.menu_files import MenuFile, read_file, written_file


@click.group(help="The menu and the permissions, as files.")
def menu() -> None:
    """Group."""


@menu.command(name="import", help="Make a file's tree the menu (and its roles the roles), in one version of each.")
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option("--reason", default="", help="Why, for the history.")
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
def import_menu(file: TextIO, reason: str, dry_run: bool) -> None:
    try:
        content = read_file(file.read())
    except UnicodeDecodeError as error:
        raise click.ClickException(f"The file is not UTF-8 (byte {error.start}).") from None
    except SidecarError as error:
        raise click.ClickException(told(error)) from None
    with_client(lambda client: _import(client, content, reason, dry_run))


@menu.command(name="export", help="Print the menu as a file that import takes.")
@click.option("--permissions", is_flag=True, help="With the roles, and who has which.")
def export_menu(permissions: bool) -> None:
    def show(client: SidecarClient) -> None:
        content = MenuFile(menu=client.menu(all=True)["items"])
        if permissions:
            found = client.permissions()
            content = replace(content, roles=found["roles"], users=found["users"])
        click.echo(written_file(content), nl=False)

    with_client(show)


def _import(client: SidecarClient, content: MenuFile, reason: str, dry_run: bool) -> None:
    """Everything is tried before anything is done: a fault in one part leaves the other as it was."""
    parts: list[tuple[str, Callable[[bool], dict[str, Any]]]] = []
    if content.roles is not None:
        roles, users = content.roles, content.users
        parts.append(("permissions", lambda dry: client.sync_permissions(roles, users, reason, dry)))
    elif content.users is not None:
        raise click.ClickException("The file has users, but no roles for them.")
    if content.menu is not None:
        items = content.menu
        parts.append(("menu", lambda dry: client.sync_menu(items, reason, dry)))
    for _, sync in parts:
        sync(True)
    for name, sync in parts:
        answer = sync(dry_run)
        for change in answer["changes"]:
            click.echo(f"{change['type']}  {change['target']}  {change['targetId']}")
        count = len(answer["changes"])
        what = "nothing to change" if not count else f"{count} would change" if dry_run else f"{count} changed"
        click.echo(f"The {name}: {what} (version {answer['version']}).")
