"""The command line: `python -m sidecar`. `serve` runs a sidecar; most others work on its installation or talk to it."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, TextIO

import click
import gevent
from flask import Flask

from config.settings import Settings, SettingsProblem, load_settings, settings_table, unknown_variables
from sidecar.client.demo import play
from sidecar.client.http import ApiError, SidecarClient
from sidecar.client.listener import follow
from sidecar.core import ADMIN_TOKEN_FILE, WEBHOOK_TOKEN_FILE, Core, open_core
from sidecar.domain.access import SCOPES
from sidecar.domain.errors import SidecarError
from sidecar.domain.maim import address_of
from sidecar.domain.times import utc_text
from sidecar.factory import create_app
from sidecar.observability.logs import configure_logs
from sidecar.server import CannotListen, line_buffer_output, listen, serve
from sidecar.tls import BadCertificate, Certificates, TlsFiles
from sidecar.version import VERSION
from sidecar.wire.checks import read
from sidecar.wire.maim import MaimKeyBody
from sidecar.wire.menu_files import MenuFile, read_file, written_file

INTERRUPTED = 130
START_LOCK_FILE = "start.lock"
NO_ADMIN = "No admin token is left: make one with `python -m sidecar token create --name admin --scope admin`."


def run_server(overrides: dict[str, Any] | None = None) -> None:
    """Read the settings, listen, open the installation, say where it is, serve. Exits with 2 when it can't."""
    line_buffer_output()
    settings = _settings(**(overrides or {}))
    configure_logs(settings.log_level, settings.log_format)
    try:
        certificates = None if settings.tls_files is None else Certificates(TlsFiles(*settings.tls_files))
        listener = listen(settings.host, settings.port)
    except (BadCertificate, CannotListen) as error:
        _give_up(str(error))
    port = listener.getsockname()[1]
    try:
        code = _first_start(settings)
        sidecar = create_app(settings)
    except (SidecarError, OSError) as error:
        _give_up(_told(error))
    _welcome(settings, port, code)
    serve(sidecar, listener, settings.max_connections, certificates)


def flask_app() -> Flask:
    """For `flask --app app`: the app of this environment's settings, not started, with the command `sidecar`."""
    app = create_app(_settings()).app
    app.cli.add_command(cli, "sidecar")
    return app


@click.group(help="The sidecar: deploy webhooks in, live rooms out.")
@click.version_option(VERSION)
def cli() -> None:
    """Entry of `python -m sidecar`."""


@cli.command(name="serve", help="Run a sidecar (settings: SIDECAR_ variables, docs/settings.md).")
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on.")
def serve_command(host: str | None, port: int | None) -> None:
    given = {"host": host, "SIDECAR_PORT": port}
    run_server({name: value for name, value in given.items() if value is not None})


@cli.group(help="API tokens.")
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


@cli.command(help="Print every setting as the Markdown of docs/settings.md.")
def settings() -> None:
    click.echo(settings_table(), nl=False)


@cli.command(help="Print a new one-time login link of the dashboard.")
def login() -> None:
    with_core(lambda core, settings: click.echo(_login_url(core, settings, settings.port)))


@cli.group(help="Users of the browsers, by the `sub` of their connection tokens.")
def user() -> None:
    """Group."""


@user.command(name="disconnect", help="End a user's connections; nothing is revoked.")
@click.argument("id")
def disconnect_user(id: str) -> None:
    with_core(lambda core, _settings: core.users.disconnect(id))
    click.echo(f"User {id} is disconnected.")


@cli.group(help="Bots (maim_message).")
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


@cli.group(help="The database.")
def db() -> None:
    """Group."""


@db.command(help="Make or upgrade the schema (serve does it by itself).")
def upgrade() -> None:
    with_core(lambda _core, settings: click.echo(f"The database in {settings.instance_path} is up to date."))


@cli.group(help="Posted webhooks as they came.")
def deliveries() -> None:
    """Group."""


@deliveries.command(name="list", help="The newest deliveries.")
@click.option("--verdict", type=click.Choice(["stored", "test", "quarantined", "replayed"]))
@click.option("--limit", type=click.IntRange(1, 100), default=20)
def list_deliveries(verdict: str | None, limit: int) -> None:
    def show(client: SidecarClient) -> None:
        for item in client.deliveries(verdict=verdict, limit=limit):
            reason = (item["reason"] or {}).get("detail", "")
            click.echo(f"{item['number']}  {item['received_at']}  {item['verdict']}  {item['path']}  {reason}")

    with_client(show)


@deliveries.command(name="replay", help="Take a kept delivery once more.")
@click.argument("number", type=int)
def replay_delivery(number: int) -> None:
    with_client(lambda client: click.echo(f"Stored as event {client.replay(number)['seq']}."))


@cli.group(help="The menu and the permissions, as files.")
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
        raise click.ClickException(_told(error)) from None
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


@cli.command(help="Send a message to a free room, or a log line of a deployment.")
@click.option("--room", help="To this free room.")
@click.option("--user", help="With --room: only to this user's connections in it.")
@click.option("--data", help="With --room: more fields of the message, a JSON object.")
@click.option("--project", help="With --deployment: a log line of this project.")
@click.option("--deployment", help="The deployment's id.")
@click.option("--level", default="info", type=click.Choice(["debug", "info", "warn", "error"]), help="Of a log line.")
@click.argument("message")
def send(
    room: str | None,
    user: str | None,
    data: str | None,
    project: str | None,
    deployment: str | None,
    level: str,
    message: str,
) -> None:
    if (room is None) == (project is None or deployment is None):
        raise click.UsageError("Name a --room, or a --project and a --deployment.")
    if room is not None:
        fields = _object(data)
        with_client(lambda client: _sent(client.send(room, message, fields, target_user=user)))
        return
    body = {
        "type": "log_entry",
        "project": project,
        "deployment_id": deployment,
        "level": level,
        "message": message,
        "source": "sidecar send",
    }
    with_client(lambda client: click.echo(f"Stored as event {client.webhook(body)['event_id']}."))


def _sent(answer: dict[str, Any]) -> None:
    click.echo(f"Stored as event {answer['event_id']}; {answer['recipients']} connections get it now.")


def _object(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text) if text else {}
    except ValueError as error:
        raise click.UsageError(f"--data is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise click.UsageError("--data must be a JSON object.")
    return value


@cli.command(help="Print live events of projects, deployments and free rooms, a line each; ends with Ctrl+C.")
@click.option("--project", "projects", multiple=True)
@click.option("--deployment", "deployments", multiple=True)
@click.option("--room", "free_rooms", multiple=True)
@click.option("--since", help="Begin after this seq or offset; 0 is everything kept.")
@click.option("--json", "as_json", is_flag=True, help="Whole events as JSON lines.")
def tail(
    projects: tuple[str, ...],
    deployments: tuple[str, ...],
    free_rooms: tuple[str, ...],
    since: str | None,
    as_json: bool,
) -> None:
    kinds = {"project": projects, "deployment": deployments, "room": free_rooms}
    rooms = [(kind, name) for kind, names in kinds.items() for name in names]
    if not rooms:
        raise click.UsageError("Name at least one --project, --deployment or --room.")
    with_client(lambda client: follow(client, rooms, since, as_json, click.echo))


@cli.command(help="Play a realistic deployment into a running sidecar.")
@click.option("--project", default="demo-shop")
@click.option("--fail", is_flag=True, help="Let a step fail.")
@click.option("--speed", type=click.FloatRange(0.1, 1000), default=1.0, help="2 is twice as fast.")
def demo(project: str, fail: bool, speed: float) -> None:
    with_client(lambda client: play(client, project, fail, speed, click.echo))


def with_core(work: Callable[[Core, Settings], object]) -> None:
    """Run `work` on this installation's store, beside a running server or without one."""
    settings = _settings()
    configure_logs("warning", settings.log_format)
    try:
        core = open_core(settings)
        try:
            work(core, settings)
        finally:
            core.close()
    except (SidecarError, OSError) as error:
        raise click.ClickException(_told(error)) from None


def with_client(work: Callable[[SidecarClient], object]) -> None:
    """Run `work` with a client of the running sidecar: SIDECAR_URL and SIDECAR_TOKEN, else the local one with its
    admin token."""
    settings = _settings()
    local = f"{settings.scheme}://{_reachable(settings.host)}:{settings.port}{settings.prefix}"
    url = os.environ.get("SIDECAR_URL") or local
    token_text = os.environ.get("SIDECAR_TOKEN") or _read(settings.instance_path / ADMIN_TOKEN_FILE)
    with SidecarClient(url, token_text) as client:
        # In the main greenlet. A handler of Python's own would raise wherever we are, also where it is swallowed.
        gevent.signal_handler(signal.SIGINT, sys.exit, INTERRUPTED)
        try:
            work(client)
        except ApiError as error:
            raise click.ClickException(str(error)) from None


def _settings(**overrides: Any) -> Settings:
    try:
        settings = load_settings(**overrides)
    except SettingsProblem as error:
        _give_up(*error.problems)
    for name in unknown_variables(os.environ):
        click.echo(f"Warning: {name} is not a setting of the sidecar.", err=True)
    return settings


def _give_up(*problems: str) -> NoReturn:
    for problem in problems:
        click.echo(f"sidecar: {problem}", err=True)
    sys.exit(2)


def _told(error: SidecarError | OSError) -> str:
    if isinstance(error, OSError):
        return str(error)
    return " ".join([error.detail, *(f"{field.path}: {field.message}" for field in error.fields)])


def _create_token(
    core: Core,
    settings: Settings,
    name: str,
    scopes: tuple[str, ...],
    projects: tuple[str, ...],
    days: float | None,
) -> None:
    made = core.tokens.create(name, scopes, projects or None, None if days is None else days * 86_400)
    click.echo(made.text)
    example = _example(_public(settings, settings.port), made.text, made.scopes, (projects or ("my-project",))[0])
    if example is not None:
        click.echo("\nTry it:\n" + example)


def _example(url: str, token_text: str, held: Sequence[str], project: str) -> str | None:
    """A command that shows what a token with these scopes is for."""
    scopes = set(held)
    if "webhooks:write" in scopes:
        return _curl(url, token_text, project)
    if scopes & {"messages:send", "admin"}:
        return _post(f"{url}/api/send-websocket/", token_text, '{"room":"general","message":"Hello"}')
    if "push:manage" in scopes:
        return _post(f"{url}/api/start-live-push/", token_text, '{"room":"live_updates","interval":5}')
    if "tokens:issue" in scopes:
        return _post(f"{url}/api/tokens/connection", token_text, '{"sub":"ada"}')
    if scopes & {"deployments:read", "rooms:read"}:
        path = "deployments" if "deployments:read" in scopes else "rooms"
        return f'  curl {url}/api/{path} -H "Authorization: Token {token_text}"'
    return None


def _first_start(settings: Settings) -> str | None:
    """Make the first tokens of a new installation, each in a file that only its owner can read, once however many
    processes start; every start gets a one-time login code, as long as an admin token holds."""
    core = open_core(settings)
    try:
        with _locked(settings.instance_path / START_LOCK_FILE):
            if not any("admin" in row.scopes for row in core.tokens.list()):
                admin = core.tokens.create("admin", ["admin"])
                _write_secret(settings.instance_path / ADMIN_TOKEN_FILE, admin.text)
                first = core.tokens.create("first webhooks", ["webhooks:write"])
                _write_secret(settings.instance_path / WEBHOOK_TOKEN_FILE, first.text)
        return None if _admin(core) is None else _login_code(core)
    finally:
        core.close()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _login_code(core: Core) -> str:
    admin = _admin(core)
    if admin is None:
        raise SidecarError(NO_ADMIN)
    return core.connections.login_link(admin)


def _admin(core: Core) -> str | None:
    """The id of an admin token that holds now, None if there is none left."""
    now = utc_text(time.time())
    for row in core.tokens.list():
        if "admin" in row.scopes and row.revoked_at is None and (row.expires_at is None or row.expires_at > now):
            return row.id
    return None


def _login_url(core: Core, settings: Settings, port: int) -> str:
    return f"{_public(settings, port)}/login?code={_login_code(core)}"


def _public(settings: Settings, port: int) -> str:
    return f"{settings.public_url or f'{settings.scheme}://{_reachable(settings.host)}:{port}'}{settings.prefix}"


def _reachable(host: str) -> str:
    """A host to put into an address: the wildcard addresses are reached through loopback."""
    named = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104
    return f"[{named}]" if ":" in named and not named.startswith("[") else named


def _welcome(settings: Settings, port: int, code: str | None) -> None:
    public = _public(settings, port)
    login = NO_ADMIN if code is None else f"log in once: {public}/login?code={code}"
    click.echo(f"The sidecar serves {public}/ - {login}")
    file = settings.instance_path / WEBHOOK_TOKEN_FILE
    if file.exists():
        click.echo("First curl:\n" + _curl(public, f"$(cat '{file}')", "my-project"))
    if settings.open != "false":
        what = "post webhooks and watch projects" if settings.open == "true" else "post webhooks"
        click.echo(f"WARNING: SIDECAR_OPEN={settings.open}: anybody who reaches this port may {what} without a token.")


def _curl(url: str, token_text: str, project: str) -> str:
    fields = {"type": "step_started", "project": project, "deployment_id": "1", "step_name": "build"}
    body = json.dumps(fields | {"step_status": "started"}, ensure_ascii=False, separators=(",", ":"))
    return _post(f"{url}/api/webhooks/deployment", token_text, body)


def _post(address: str, token_text: str, body: str) -> str:
    return (
        f"  curl {address} \\\n"
        f'    -H "Authorization: Token {token_text}" -H "Content-Type: application/json" \\\n'
        f"    -d {shlex.quote(body)}"
    )


def _write_secret(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
