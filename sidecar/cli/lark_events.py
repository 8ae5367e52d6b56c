"""`lark-events`: hear a Lark app's long connection, in a program of its own that this command becomes."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

import click

from config.settings import OLD_NAMES, ROOT, Settings
from sidecar.cli.addresses import local_url
from sidecar.cli.installation import with_core
from sidecar.cli.instance import locked, read_secret, write_secret
from sidecar.cli.settings import give_up, read_settings
from sidecar.core import Core
from sidecar.domain.authorizations import App
from sidecar.domain.errors import NotFound, Unauthenticated

SDK_VERSION = "1.7.5"
INSTALL = "pip install -r config/requirements-lark.txt"
PROGRAM = "sidecar.client.lark_events"
TOKEN_FILE = "lark-token"  # noqa: S105 - a file's name
IDLE = """
import signal, sys
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: sys.exit(0))
while True:
    signal.pause()
"""
"""A small program in place of a large one that has nothing to do."""

Found = TypeVar("Found")


@click.command(name="lark-events", help="Hear a Lark app's events over its long connection (docs/lark.md).")
@click.option("--app", "app_id", help="Of this app. Default: the default one.")
@click.option(
    "--stay",
    is_flag=True,
    help="Don't end when there is no app, when Lark refuses or can't be reached: wait. "
    "For managers that end all processes with one.",
)
def lark_events(app_id: str | None, stay: bool) -> None:
    settings = read_settings()
    app = _app(settings, app_id)
    if app is None:
        which = "No Lark app is configured" if app_id is None else f"There is no Lark app {app_id}"
        _nothing_to_do(f"{which}: SIDECAR_LARK_APP_ID, or `python -m sidecar lark app add` (docs/lark.md).", stay)
    try:
        version = importlib.metadata.version("lark-oapi")
    except importlib.metadata.PackageNotFoundError:
        _nothing_to_do(f"lark-oapi is not installed, which lark-events needs: {INSTALL}", stay)
    if version != SDK_VERSION:
        click.echo(f"Warning: lark-events was made for lark-oapi {SDK_VERSION}, not {version}: {INSTALL}", err=True)
    arguments = [sys.executable, "-m", PROGRAM, *(["--stay"] if stay else [])]
    _become(arguments, _environment(settings, app, _token(settings)))


def _app(settings: Settings, app_id: str | None) -> App | None:
    """That of the settings needs no store: the sidecar may be on another host."""
    if settings.lark_app_id and settings.lark_app_secret and app_id in (None, settings.lark_app_id):
        return App(settings.lark_app_id, settings.lark_app_secret.get_secret_value())

    def find(core: Core) -> App | None:
        try:
            return core.apps.named(app_id)
        except NotFound:
            return None

    return _from_core(find)


def _token(settings: Settings) -> str:
    """SIDECAR_TOKEN, else this installation's own for the purpose, which can do nothing else."""
    given = os.environ.get("SIDECAR_TOKEN")
    if given:
        return given
    path = settings.instance_path / TOKEN_FILE

    def find(core: Core) -> str:
        with locked(settings):
            text = read_secret(path)
            try:
                core.tokens.verify(text or "")
            except Unauthenticated:
                text = core.tokens.create("lark-events", ["authorizations:write"]).text
                write_secret(path, text)
        return text or ""

    return _from_core(find)


def _from_core(find: Callable[[Core], Found]) -> Found:
    found: list[Found] = []
    with_core(lambda core, _settings: found.append(find(core)))
    return found[0]


def _environment(settings: Settings, app: App, token: str) -> dict[str, str]:
    """What the program is told: of the sidecar's own settings, secrets above all, only what it needs."""
    kept = {name: value for name, value in os.environ.items() if not _is_setting(name)}
    path = os.pathsep.join([str(ROOT), *filter(None, [kept.get("PYTHONPATH")])])
    return kept | {
        "PYTHONPATH": path,
        "SIDECAR_URL": os.environ.get("SIDECAR_URL") or local_url(settings, settings.port),
        "SIDECAR_TOKEN": token,
        "SIDECAR_LARK_APP_ID": app.id,
        "SIDECAR_LARK_APP_SECRET": app.secret,
        "SIDECAR_LARK_API_URL": settings.lark_api_url,
        "SIDECAR_LARK_RECONNECT_RETRIES": str(settings.lark_reconnect_retries),
        "SIDECAR_LARK_HEARTBEAT_SECONDS": str(settings.lark_heartbeat_seconds),
        "SIDECAR_LOG_LEVEL": settings.log_level,
        "SIDECAR_LOG_FORMAT": settings.log_format,
    }


def _is_setting(name: str) -> bool:
    return name.startswith("SIDECAR_") or name in OLD_NAMES


def _nothing_to_do(why: str, stay: bool) -> NoReturn:
    if not stay:
        give_up(why)
    click.echo(f"lark-events: {why} Nothing is heard until it is started again.", err=True)
    kept = {name: value for name, value in os.environ.items() if not _is_setting(name)}
    _become([sys.executable, "-c", IDLE], kept)


def _become(arguments: list[str], environment: dict[str, str]) -> NoReturn:
    """No secret is among the arguments, which every user of the machine may see."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(arguments[0], arguments, environment)  # noqa: S606 - no shell is wanted
