"""Every setting of the sidecar: one frozen object made from the environment, all problems told at once.

Read by `core`, `factory`, `server` and `cli` only; everything below them is given the values it needs.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin
from urllib.parse import urlsplit

from cronsim import CronSim, CronSimError
from cryptography.fernet import Fernet
from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
ROOT = Path(__file__).resolve().parent.parent
DEFAULT_PORTS = {"http": 80, "https": 443}
ORIGIN_NEEDED = "needs an origin such as https://dashboard.example.com"
SECRET_CHARACTERS = 16


class SettingsProblem(Exception):
    """The environment can't be used; `problems` has one line for each bad variable."""

    def __init__(self, problems: list[str]):
        super().__init__("; ".join(problems))
        self.problems = problems


def _items(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


def _patterns(text: str) -> str:
    if any(len(item) > 200 or not item.isprintable() for item in _items(text)):
        raise ValueError("needs names of projects such as shop or axi-*")
    return text


def _redis_url(url: SecretStr | None) -> SecretStr | None:
    """Of the database's number only what every Redis takes."""
    if url is None or not url.get_secret_value():
        return None
    needed = "needs a URL such as redis://:password@host:6379/0, rediss://host or unix:///run/redis.sock"
    try:
        parts = urlsplit(url.get_secret_value())
        place = parts.hostname if parts.port != 0 else None
    except ValueError:
        raise ValueError(needed) from None
    if parts.scheme == "unix":
        place = parts.path
    elif not re.fullmatch(r"/?[0-9]{0,5}", parts.path):
        place = None
    if parts.scheme not in ("redis", "rediss", "unix") or not place:
        raise ValueError(needed)
    return url


def _redis_key(text: str) -> str:
    if not text or len(text) > 200 or not text.isprintable() or text != text.strip():
        raise ValueError("needs a list's name of at most 200 characters, or off")
    return text


def _networks(text: str) -> str:
    for item in _items(text):
        if item != "loopback":
            try:
                ipaddress.ip_network(item, strict=False)
            except ValueError:
                raise ValueError("needs addresses, networks such as 10.0.0.0/8, or loopback") from None
    return text


def _origin(text: str) -> str:
    """As browsers write it: no user, no path, no default port."""
    if text == "*":
        return text
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(ORIGIN_NEEDED) from None
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname or parts.path not in ("", "/"):
        raise ValueError(ORIGIN_NEEDED)
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError(ORIGIN_NEEDED)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + ("" if port in (None, DEFAULT_PORTS[parts.scheme]) else f":{port}")


def _origins(text: str) -> str:
    return ",".join(_origin(item) for item in _items(text))


def _public_url(text: str | None) -> str | None:
    if not text:
        return None
    if text == "*":
        raise ValueError(ORIGIN_NEEDED)
    return _origin(text)


def _prefix(text: str) -> str:
    text = "/" + text.strip("/") if text.strip("/") else ""
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*", text):
        raise ValueError("must be a path such as /project-dashboard")
    return text


def _database_url(text: str | None) -> str | None:
    """A relative SQLite file counts from the working folder (Flask-SQLAlchemy would put it elsewhere). PostgreSQL's
    driver is psycopg, also where a host's URL names none."""
    if not text:
        return None
    needed = "needs a URL such as sqlite:////var/lib/sidecar.db or postgresql+psycopg://user@host/name"
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ValueError(needed) from None
    if url.drivername in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    backend = url.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise ValueError(needed)
    if backend == "postgresql":
        if url.get_driver_name() != "psycopg":
            raise ValueError(f"{needed}; psycopg is the only driver for it here")
        return text
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise ValueError("needs a file: the journal must outlive the process")
    absolute = url.set(database=str(Path(url.database).expanduser().resolve()))
    return absolute.render_as_string(hide_password=False)


def _secret(secret: SecretStr | None) -> SecretStr | None:
    if secret is not None and len(secret.get_secret_value()) < SECRET_CHARACTERS:
        raise ValueError(f"needs {SECRET_CHARACTERS} characters or more")
    return secret


def _rate(text: str) -> str:
    if text.strip().lower() == "off":
        return "off"
    if not re.fullmatch(r"\s*[1-9]\d{0,6}/second(\s*,\s*burst\s+[1-9]\d{0,6})?\s*", text):
        raise ValueError("must be `off` or such as `200/second, burst 1000`")
    return text


def _live_sources(text: str) -> str:
    for item in _items(text):
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,100}=[A-Za-z_][\w.]*:[A-Za-z_]\w*", item):
            raise ValueError("must be such as sales=shop.figures:sales_today")
    return text


def _hooks(text: str) -> str:
    if text and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", text):
        raise ValueError("must be such as shop.bots:hooks")
    return text


def _redirect_uri(text: str | None) -> str | None:
    """A whole address; browsers are sent there with a query of its own."""
    if not text:
        return None
    try:
        parts = urlsplit(text)
        usable = parts.scheme in DEFAULT_PORTS and parts.hostname and not parts.query and not parts.fragment
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("needs an address such as https://dashboard.example.com/callback, without a query")
    return text


def _fernet_keys(keys: SecretStr | None) -> SecretStr | None:
    for key in _items(keys.get_secret_value() if keys is not None else ""):
        try:
            Fernet(key)
        except ValueError:
            raise ValueError(
                "needs Fernet keys (32 bytes as 44 characters of URL-safe base64; not hexadecimal), made by: "
                "python -m sidecar lark new-key"
            ) from None
    return keys


def _threshold(value: object) -> object:
    """Above 0.5 it is what the older service meant: the part of its life after which a token is renewed."""
    try:
        number = float(str(value))
    except ValueError:
        return value
    return round(1 - number, 9) if 0.5 < number < 1 else value


def _schedule(text: str) -> str:
    try:
        if len(text.split()) != 5:  # with a sixth it would begin with seconds
            raise CronSimError
        CronSim(text, datetime(2026, 1, 1, tzinfo=UTC))
    except CronSimError:
        raise ValueError("needs five fields as in cron, such as 0 2 * * *") from None
    return text


def parse_networks(text: str) -> tuple[Network, ...]:
    """Networks of a comma list; the word `loopback` stands for 127.0.0.0/8 and ::1."""
    found: list[Network] = []
    for item in _items(text):
        if item == "loopback":
            found += [ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")]
        else:
            found.append(ipaddress.ip_network(item, strict=False))
    return tuple(found)


class Settings(BaseSettings):
    """What one sidecar process is told. Each field is the variable SIDECAR_<NAME> in capitals."""

    model_config = SettingsConfigDict(
        env_prefix="SIDECAR_", frozen=True, env_ignore_empty=True, extra="ignore", hide_input_in_errors=True
    )

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(
        8091,
        ge=0,
        le=65535,
        validation_alias=AliasChoices("SIDECAR_PORT", "PORT"),
        description="Port to listen on; PORT is read when SIDECAR_PORT is unset; 0 takes a free one.",
    )
    instance_dir: Path = Field(
        ROOT / "instance", description="Folder of this installation: database, secret, first tokens."
    )
    database_url: Annotated[str | None, AfterValidator(_database_url)] = Field(
        None,
        repr=False,
        description="SQLAlchemy URL of the database. Default: sidecar.db in the instance folder, in SQLite.",
    )
    redis_url: Annotated[SecretStr | None, AfterValidator(_redis_url)] = Field(
        None, description="redis://, rediss:// or unix:// URL of the Redis that hurries several hosts."
    )
    redis_list: Annotated[str, AfterValidator(_redis_key)] = Field(
        "deployment_notifications", description="With Redis: the list whose items are taken as if posted; off = none."
    )
    secret_key: Annotated[SecretStr | None, AfterValidator(_secret)] = Field(
        None, description="Master secret, 16 characters or more. Default: made in the instance folder."
    )
    open: Literal["false", "true", "webhooks"] = Field(
        "false",
        description="true: posting deployment webhooks and watching projects need no token; webhooks: only posting.",
    )
    webhook_networks: Annotated[str, AfterValidator(_networks)] = Field(
        "", description="With an open webhook: the only networks that may post without a token (comma list)."
    )
    anonymous_read: bool = Field(False, description="true: anyone may watch projects; writing still needs a token.")
    public_badges: Annotated[str, AfterValidator(_patterns)] = Field(
        "", description="Projects whose badges need no token, as image readers send none (comma list; * = any text)."
    )
    allowed_origins: Annotated[str, NoDecode, AfterValidator(_origins)] = Field(
        "", description="Browser origins that may connect, besides the same origin (comma list; * = any)."
    )
    prefix: Annotated[str, AfterValidator(_prefix)] = Field(
        "/project-dashboard", description="Public path prefix; every route answers with and without it."
    )
    max_connections: int = Field(20_000, ge=1, le=1_000_000, description="Open sockets; more handshakes get 503.")
    max_body_bytes: int = Field(1_048_576, ge=1_024, le=104_857_600, description="Larger request bodies get 413.")
    rate_limit: Annotated[str, AfterValidator(_rate)] = Field(
        "200/second, burst 1000", description="Requests of one token, or of one address without one; off = none."
    )
    trusted_proxies: Annotated[str, AfterValidator(_networks)] = Field(
        "loopback", description="Networks whose X-Forwarded-* headers count (comma list; loopback is a word)."
    )
    public_url: Annotated[str | None, AfterValidator(_public_url)] = Field(
        None, description="Origin under which browsers reach us; Host and Origin are checked against it."
    )
    outbox_bytes: int = Field(
        4_194_304, ge=4_096, le=1_073_741_824, description="Bound of one connection's unsent bytes."
    )
    outbox_total_bytes: int = Field(
        268_435_456, ge=1_048_576, description="Bound of what waits unsent for all slow readers together."
    )
    handshake_rate: Annotated[str, AfterValidator(_rate)] = Field(
        "1000/second, burst 5000", description="New connections that are taken; more get 503 and come back; off = all."
    )
    recovery_seconds: float = Field(
        600, ge=0, le=604_800, description="How long a browser that was cut off finds its session again; 0 = never."
    )
    retention_days: float = Field(
        30, gt=0, le=36_500, description="How long events, log lines and deliveries stay; deployments stay."
    )
    stale_after_hours: float = Field(
        24, gt=0, le=8_760, description="A running deployment without news for so long is shown as unknown (stale)."
    )
    deliveries_bytes: int = Field(
        268_435_456, ge=1_048_576, description="Bound of the raw bodies kept of deliveries, quarantine included."
    )
    max_rooms: int = Field(200, ge=1, le=10_000, description="Rooms that one socket may be in.")
    live_sources: Annotated[str, AfterValidator(_live_sources)] = Field(
        "", description="Functions that live pushes can be fed from: name=package.module:function (comma list)."
    )
    maim_hooks: Annotated[str, AfterValidator(_hooks)] = Field(
        "", description="Your code in the traffic of bots: package.module:object (docs/maim.md)."
    )
    maim_connection_log: bool = Field(True, description="true: a log line for each bot that comes and goes.")
    maim_message_log: bool = Field(False, description="true: a log line for each message of a bot, never its content.")
    maim_queue_seconds: float = Field(
        86_400, ge=1, le=2_592_000, description="How long a message waits for a bot that is away, at most."
    )
    maim_queue_messages: int = Field(1_000, ge=1, le=100_000, description="Messages that may wait for one user's bots.")
    lark_app_id: str | None = Field(None, description="Your app at Lark/Feishu, the default one (docs/lark.md).")
    lark_app_secret: SecretStr | None = Field(None, description="Its secret.")
    lark_verification_token: SecretStr | None = Field(
        None, description="What its callbacks are proved by without an encrypt key."
    )
    lark_encrypt_key: SecretStr | None = Field(None, description="What its callbacks are encrypted and signed with.")
    lark_api_url: Annotated[str, AfterValidator(_origin)] = Field(
        "https://open.feishu.cn", description="Where Lark is called; https://open.larksuite.com outside of China."
    )
    lark_accounts_url: Annotated[str | None, AfterValidator(_public_url)] = Field(
        None, description="Where users grant. Default: accounts. in place of open. in SIDECAR_LARK_API_URL."
    )
    lark_redirect_uri: Annotated[str | None, AfterValidator(_redirect_uri)] = Field(
        None,
        description="Where users come back, as in Lark's console. Default: an address of ours (docs/lark.md).",
    )
    lark_scopes: str = Field("offline_access", description="What users are asked to grant: words, spaces between.")
    lark_encryption_keys: Annotated[SecretStr | None, AfterValidator(_fernet_keys)] = Field(
        None,
        description="Fernet keys of stored tokens (comma list; the first encrypts). Default: from the master secret.",
    )
    lark_session_seconds: float = Field(600, ge=30, le=86_400, description="How long a user may take to authorize.")
    lark_refresh_threshold: Annotated[float, BeforeValidator(_threshold)] = Field(
        0.1, gt=0, le=0.5, description="Tokens are renewed when less than this part of their life is left."
    )
    lark_user_rate_per_minute: int = Field(5, ge=1, le=1_000, description="Authorizations that one user may begin.")
    lark_card_description: bool = Field(True, description="true: cards say what authorizing is for.")
    lark_card_template_id: str | None = Field(None, description="A card template of yours in place of our card.")
    lark_language: Literal["zh", "en"] = Field("zh", description="Of cards and pages where nobody asks for another.")
    lark_timeout_seconds: float = Field(5, gt=0, le=20, description="How long a call to Lark may take.")
    lark_user_info_sync: bool = Field(False, description="true: who users are is asked again on a schedule.")
    lark_user_info_sync_schedule: Annotated[str, AfterValidator(_schedule)] = Field(
        "0 2 * * *", description="When: five fields as in cron, in UTC."
    )
    lark_reconnect_retries: int = Field(10, ge=0, le=1_000_000, description="Of lark-events, in a row; then it ends.")
    lark_heartbeat_seconds: float = Field(30, ge=1, le=3_600, description="How often lark-events says that it lives.")
    lark_fallback_to_http: bool = Field(
        True, description="false: callbacks come over the long connection alone; those over HTTP are refused."
    )
    lark_handlers: Annotated[str, AfterValidator(_hooks)] = Field(
        "", description="Your code for Lark's events: package.module:object (docs/lark.md)."
    )
    tls_cert: Path | None = Field(
        None, description="Certificate with its chain, in PEM: the port speaks TLS alone. Read again on SIGHUP."
    )
    tls_key: Path | None = Field(None, description="Its private key, in PEM, not encrypted.")
    tls_client_ca: Path | None = Field(
        None, description="Only clients with a certificate of these authorities (PEM) are let in: mutual TLS."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    log_format: Literal["console", "json"] = Field("console", description="json for machines.")

    @model_validator(mode="after")
    def _fit(self) -> Settings:
        problems = []
        if self.outbox_bytes < 4 * self.max_body_bytes:
            problems.append("SIDECAR_OUTBOX_BYTES must be at least 4 x SIDECAR_MAX_BODY_BYTES")
        if self.recovery_seconds > self.retention_days * 86_400:
            problems.append("SIDECAR_RECOVERY_SECONDS must be no longer than SIDECAR_RETENTION_DAYS")
        if self.webhook_networks and self.open == "false":
            problems.append("SIDECAR_WEBHOOK_NETWORKS needs SIDECAR_OPEN=webhooks or true")
        if (self.tls_cert is None) != (self.tls_key is None):
            problems.append("SIDECAR_TLS_CERT and SIDECAR_TLS_KEY belong together")
        if (self.lark_app_id is None) != (self.lark_app_secret is None):
            problems.append("SIDECAR_LARK_APP_ID and SIDECAR_LARK_APP_SECRET belong together")
        if self.lark_app_id and not self.port and not (self.lark_redirect_uri or self.public_url):
            problems.append("SIDECAR_LARK_REDIRECT_URI (or SIDECAR_PUBLIC_URL) is needed with SIDECAR_PORT=0")
        if self.tls_client_ca is not None and self.tls_cert is None:
            problems.append("SIDECAR_TLS_CLIENT_CA needs SIDECAR_TLS_CERT and SIDECAR_TLS_KEY")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @cached_property
    def instance_path(self) -> Path:
        """The instance folder, absolute; a relative one counts from the working folder."""
        return self.instance_dir.expanduser().resolve()

    @cached_property
    def resolved_database_url(self) -> str:
        return self.database_url or f"sqlite:///{self.instance_path / 'sidecar.db'}"

    @cached_property
    def tls_files(self) -> tuple[Path, Path, Path | None] | None:
        """Certificate, key and the clients' authorities; None without TLS."""
        if self.tls_cert is None or self.tls_key is None:
            return None
        return self.tls_cert, self.tls_key, self.tls_client_ca

    @cached_property
    def scheme(self) -> str:
        """What addresses of our own port begin with."""
        return "http" if self.tls_files is None else "https"

    @cached_property
    def lark_fernet_keys(self) -> tuple[str, ...]:
        """Those of the setting; the first one encrypts."""
        return _items(self.lark_encryption_keys.get_secret_value()) if self.lark_encryption_keys else ()

    @cached_property
    def lark_accounts(self) -> str:
        """The origin of the page on which users grant."""
        return self.lark_accounts_url or self.lark_api_url.replace("://open.", "://accounts.", 1)

    @cached_property
    def lark_redirect(self) -> str:
        """Where users come back from that page."""
        if self.lark_redirect_uri:
            return self.lark_redirect_uri
        if self.public_url:
            return f"{self.public_url}{self.prefix}/api/authorizations/callback"
        return f"{self.scheme}://localhost:{self.port}/callback"

    @cached_property
    def live_source_paths(self) -> dict[str, str]:
        """Where the function of each name is: `package.module:function`."""
        return dict(item.split("=", 1) for item in _items(self.live_sources))

    @cached_property
    def public_badge_patterns(self) -> tuple[str, ...]:
        """Patterns of projects, in which `*` is any text."""
        return _items(self.public_badges)

    @cached_property
    def origins(self) -> frozenset[str]:
        return frozenset(_items(self.allowed_origins))

    @cached_property
    def rate(self) -> tuple[float, int] | None:
        """(requests a second, burst), or None when off."""
        return _parse_rate(self.rate_limit)

    @cached_property
    def handshakes(self) -> tuple[float, int] | None:
        """(new connections a second, burst), or None when off."""
        return _parse_rate(self.handshake_rate)


def _parse_rate(text: str) -> tuple[float, int] | None:
    """The burst defaults to five seconds' worth."""
    if text == "off":
        return None
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    return float(numbers[0]), numbers[1] if len(numbers) > 1 else numbers[0] * 5


CLIENT_VARIABLES = frozenset(
    f"SIDECAR_{name}"
    for name in ("URL", "TOKEN", "PROJECT", "DEPLOYMENT_ID", "STRICT", "RETRY_SECONDS", "GIVE_UP_SECONDS")
)
"""Read by the clients and examples, not by the server."""


def load_settings(**overrides: object) -> Settings:
    """The settings of this process from its environment; `overrides` win (tests, CLI options).
    Raises SettingsProblem naming every bad variable, never its value."""
    named = {field: os.environ[old] for old, field in _old_names(os.environ).items()}
    try:
        return Settings(**(named | overrides))  # type: ignore[arg-type]
    except ValidationError as error:
        raise SettingsProblem([_problem(item["loc"], item["msg"]) for item in error.errors()]) from None


def _problem(location: tuple[int | str, ...], message: str) -> str:
    message = message.removeprefix("Value error, ")
    if not location:
        return message
    name = str(location[0])
    if name in ("SIDECAR_PORT", "PORT"):
        name = "SIDECAR_PORT (or PORT)"
    return f"{name if name[:1].isupper() else 'SIDECAR_' + name.upper()}: {message}"


OLD_NAMES = {
    "LARK_APP_ID": "lark_app_id",
    "LARK_APP_SECRET": "lark_app_secret",
    "LARK_VERIFICATION_TOKEN": "lark_verification_token",
    "LARK_ENCRYPT_KEY": "lark_encrypt_key",
    "LARK_CONFIG_ENCRYPTION_KEY": "lark_encryption_keys",
    "FEISHU_API_BASE_URL": "lark_api_url",
    "OAUTH_REDIRECT_URI": "lark_redirect_uri",
    "AUTH_SESSION_EXPIRY_SECONDS": "lark_session_seconds",
    "AUTH_TOKEN_REFRESH_THRESHOLD": "lark_refresh_threshold",
    "AUTH_REQUEST_RATE_LIMIT": "lark_user_rate_per_minute",
    "AUTH_CARD_INCLUDE_DESCRIPTION": "lark_card_description",
    "AUTH_CARD_TEMPLATE_ID": "lark_card_template_id",
    "USER_INFO_SYNC_ENABLED": "lark_user_info_sync",
    "USER_INFO_SYNC_SCHEDULE": "lark_user_info_sync_schedule",
    "WEBSOCKET_MAX_RECONNECT_RETRIES": "lark_reconnect_retries",
    "WEBSOCKET_HEARTBEAT_INTERVAL": "lark_heartbeat_seconds",
    "WEBSOCKET_FALLBACK_TO_HTTP": "lark_fallback_to_http",
}
"""Variables of the older service for users' authorizations, and our fields."""


def _old_names(environment: Mapping[str, str]) -> dict[str, str]:
    """Those that are set where ours isn't. Without an app of theirs such general names are somebody else's."""
    if not any(environment.get(name) for name in ("LARK_APP_ID", "SIDECAR_LARK_APP_ID")):
        return {}
    return {
        old: field
        for old, field in OLD_NAMES.items()
        if environment.get(old) and not environment.get(f"SIDECAR_{field.upper()}")
    }


def old_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that are read under an older name, and how they are called now."""
    return {old: f"SIDECAR_{field.upper()}" for old, field in _old_names(environment).items()}


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """SIDECAR_ variables that no setting has: most likely a typing error."""
    known = {f"SIDECAR_{name.upper()}" for name in Settings.model_fields} | CLIENT_VARIABLES
    return sorted(name for name in environment if name.startswith("SIDECAR_") and name not in known)


def settings_table() -> str:
    """docs/settings.md: every setting with its default, bounds and meaning, in Markdown."""
    rows = [
        f"| {_variable(name)} | {_default(name, field)} | {_bounds(field)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join([*_TABLE_HEAD, *rows, ""])


_TABLE_HEAD = (
    "# Settings",
    "",
    "Written by `python -m sidecar settings`; a test fails when this page is older than the code. The sidecar reads",
    "these environment variables at its start, tells every bad one at once and exits with 2; an empty variable counts",
    "as unset. An unknown variable that begins with `SIDECAR_` is warned of.",
    "",
    "`SIDECAR_URL` and `SIDECAR_TOKEN` are read by the clients (`python -m sidecar send`, `tail`, `demo`, examples),",
    "not by the server.",
    "",
    "| variable | default | bounds | meaning |",
    "|---|---|---|---|",
)


def _variable(name: str) -> str:
    return "`SIDECAR_PORT`, `PORT`" if name == "port" else f"`SIDECAR_{name.upper()}`"


def _default(name: str, field: FieldInfo) -> str:
    if name == "instance_dir":
        return "`instance`"
    if field.default in (None, ""):
        return "unset"
    shown = field.default
    return f"`{str(shown).lower() if isinstance(shown, bool) else shown}`"


def _bounds(field: FieldInfo) -> str:
    """What the field's type and constraints say: `1 to 10000`, the words it takes, or nothing."""
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{word}`" for word in get_args(field.annotation))
    limits = {type(item).__name__: item for item in field.metadata}
    least = getattr(limits.get("Ge"), "ge", None)
    above = getattr(limits.get("Gt"), "gt", None)
    most = getattr(limits.get("Le"), "le", None)
    if most is None:
        return "" if least is None else f"{least} or more"
    return f"{least} to {most}" if least is not None else f"more than {above}, to {most}"
