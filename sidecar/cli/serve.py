"""`serve`: run a sidecar; app.py does the same."""

from __future__ import annotations

from typing import Any

import click

from config.settings import Settings
from sidecar.cli.addresses import public_url
from sidecar.cli.curls import step_curl
from sidecar.cli.first_start import first_start
from sidecar.cli.installation import told
from sidecar.cli.logins import no_admin
from sidecar.cli.settings import give_up, read_settings
from sidecar.core import WEBHOOK_TOKEN_FILE
from sidecar.domain.errors import SidecarError
from sidecar.drain import Drain
from sidecar.factory import create_app
from sidecar.observability.logs import configure_logs
from sidecar.server import CannotListen, line_buffer_output, listen, reserve, serve
from sidecar.tls import BadCertificate, Certificates, TlsFiles


def run_server(overrides: dict[str, Any] | None = None) -> None:
    """Read the settings, take the port, open the installation, say where it is, serve. Exits with 2 when it can't."""
    line_buffer_output()
    settings = read_settings(**(overrides or {}))
    configure_logs(settings.log_level, settings.log_format)
    try:
        certificates = None if settings.tls_files is None else Certificates(TlsFiles(*settings.tls_files))
        listener = reserve(settings.host, settings.port)
    except (BadCertificate, CannotListen) as error:
        give_up(str(error))
    port = listener.getsockname()[1]
    try:
        code = first_start(settings)
        sidecar = create_app(settings)
    except (SidecarError, OSError) as error:
        give_up(told(error))
    try:
        listen(listener)
    except CannotListen as error:
        give_up(str(error))
    _welcome(settings, port, code)
    drain = Drain(settings.drain_announce_seconds, settings.drain_seconds)
    serve(sidecar, listener, settings.max_connections, drain, certificates)


@click.command(name="serve", help="Run a sidecar (settings: SIDECAR_ variables, docs/settings.md).")
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on.")
def serve_command(host: str | None, port: int | None) -> None:
    given = {"host": host, "SIDECAR_PORT": port}
    run_server({name: value for name, value in given.items() if value is not None})


def _welcome(settings: Settings, port: int, code: str | None) -> None:
    public = public_url(settings, port)
    login = no_admin(settings) if code is None else f"log in once: {public}/login?code={code}"
    click.echo(f"The sidecar serves {public}/ - {login}")
    file = settings.instance_path / WEBHOOK_TOKEN_FILE
    if file.exists():
        click.echo("First curl:\n" + step_curl(public, f"$(cat '{file}')", "my-project"))
    if settings.open != "false":
        what = "post webhooks and watch projects" if settings.open == "true" else "post webhooks"
        click.echo(f"WARNING: SIDECAR_OPEN={settings.open}: anybody who reaches this port may {what} without a token.")
