"""What a command works on: this installation's store, or the sidecar that runs."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

import click
import gevent

from config.settings import Settings
from sidecar.cli.addresses import local_url
from sidecar.cli.instance import read_secret
from sidecar.cli.settings import read_settings
from sidecar.client.http import ApiError, SidecarClient
from sidecar.core import ADMIN_TOKEN_FILE, Core, open_core
from sidecar.domain.errors import SidecarError
from sidecar.observability.logs import configure_logs

INTERRUPTED = 130


def with_core(work: Callable[[Core, Settings], object], adopt_secret: bool = False) -> None:
    """Run `work` on this installation's store, beside a running server or without one. `adopt_secret`: the present
    master secret is the database's from now on."""
    settings = read_settings()
    configure_logs("warning", settings.log_format)
    try:
        core = open_core(settings, adopt_secret=adopt_secret)
        try:
            work(core, settings)
        finally:
            core.close()
    except (SidecarError, OSError) as error:
        raise click.ClickException(told(error)) from None


def with_client(work: Callable[[SidecarClient], object]) -> None:
    """Run `work` with a client of the running sidecar: SIDECAR_URL and SIDECAR_TOKEN, else the local one with its
    admin token."""
    settings = read_settings()
    url = os.environ.get("SIDECAR_URL") or local_url(settings, settings.port)
    given = os.environ.get("SIDECAR_TOKEN")
    token_text = given or read_secret(settings.instance_path / ADMIN_TOKEN_FILE)
    with SidecarClient(url, token_text) as client:
        # In the main greenlet. A handler of Python's own would raise wherever we are, also where it is swallowed.
        gevent.signal_handler(signal.SIGINT, sys.exit, INTERRUPTED)
        try:
            work(client)
        except ApiError as error:
            hint = " The token is that of SIDECAR_TOKEN." if given and _about_token(error) else ""
            raise click.ClickException(f"{error}{hint}") from None


def _about_token(error: ApiError) -> bool:
    return error.status in (401, 403) or error.code in ("unauthenticated", "token_expired", "not_allowed")


def told(error: SidecarError | OSError) -> str:
    """What went wrong, in one line."""
    if isinstance(error, OSError):
        return str(error)
    return " ".join([error.detail, *(f"{field.path}: {field.message}" for field in error.fields)])
