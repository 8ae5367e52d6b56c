"""The command line: `python -m sidecar`. `serve` runs a sidecar; most others work on its installation or talk to it.

The commands of a noun are in the module beside this one that is named so.
"""

from __future__ import annotations

import click
from flask import Flask

from sidecar.cli.bots import maim
from sidecar.cli.database import db
from sidecar.cli.deliveries import deliveries
from sidecar.cli.lark import lark
from sidecar.cli.lark_events import lark_events
from sidecar.cli.logins import login
from sidecar.cli.menu import menu
from sidecar.cli.messages import demo, send, tail
from sidecar.cli.projects import project
from sidecar.cli.serve import serve_command
from sidecar.cli.settings import read_settings, settings
from sidecar.cli.tokens import token
from sidecar.cli.users import user
from sidecar.cli.webhook_secrets import secret
from sidecar.factory import create_app
from sidecar.version import VERSION


@click.group(
    help="The sidecar: deploy webhooks in, live rooms out.",
    commands=[
        serve_command,
        token,
        secret,
        login,
        user,
        maim,
        lark,
        lark_events,
        menu,
        send,
        tail,
        demo,
        deliveries,
        project,
        db,
        settings,
    ],
)
@click.version_option(VERSION)
def cli() -> None:
    """Entry of `python -m sidecar`."""


def flask_app() -> Flask:
    """For `flask --app app`: the app of this environment's settings, not started, with the command `sidecar`."""
    app = create_app(read_settings()).app
    app.cli.add_command(cli, "sidecar")
    return app
