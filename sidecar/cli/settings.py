"""The settings as commands read them, and `settings`, which prints their page."""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

import click

from config.settings import Settings, SettingsProblem, load_settings, old_variables, settings_table, unknown_variables


@click.command(help="Print every setting as the Markdown of docs/settings.md.")
def settings() -> None:
    click.echo(settings_table(), nl=False)


def read_settings(**overrides: Any) -> Settings:
    """Those of this environment. Exits with 2 when they are wrong; warns of variables that mean nothing."""
    try:
        settings = load_settings(**overrides)
    except SettingsProblem as error:
        give_up(*error.problems)
    for old, name in old_variables(os.environ).items():
        click.echo(f"Warning: {old} is an old name; call it {name}.", err=True)
    for name in unknown_variables(os.environ):
        click.echo(f"Warning: {name} is not a setting of the sidecar.", err=True)
    return settings


def give_up(*problems: str) -> NoReturn:
    """Say them, a line each, and exit with 2."""
    for problem in problems:
        click.echo(f"sidecar: {problem}", err=True)
    sys.exit(2)
