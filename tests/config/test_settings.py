"""Settings: what is taken, what is refused, and how it is told. Nothing here starts a server."""

from __future__ import annotations

import base64
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from config.settings import (
    OLD_NAMES,
    ROOT,
    Settings,
    SettingsProblem,
    load_settings,
    old_variables,
    parse_networks,
    settings_table,
    unknown_variables,
)


@pytest.fixture
def load(monkeypatch):
    """`load(SIDECAR_PORT="1")`: the settings of exactly this environment."""

    def given(**environment: str) -> Settings:
        for name in [*Settings.model_fields]:
            monkeypatch.delenv(f"SIDECAR_{name.upper()}", raising=False)
        for name in ("PORT", *OLD_NAMES):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return load_settings()

    return given


def problems(load, **environment: str) -> list[str]:
    with pytest.raises(SettingsProblem) as caught:
        load(**environment)
    return caught.value.problems


DEFAULTS = {
    "host": "127.0.0.1",
    "port": 8091,
    "instance_dir": ROOT / "instance",
    "database_url": None,
    "redis_url": None,
    "redis_list": "deployment_notifications",
    "secret_key": None,
    "open": "false",
    "webhook_networks": "",
    "anonymous_read": False,
    "public_badges": "",
    "allowed_origins": "",
    "prefix": "/project-dashboard",
    "max_connections": 20_000,
    "max_body_bytes": 1_048_576,
    "rate_limit": "200/second, burst 1000",
    "trusted_proxies": "loopback",
    "public_url": None,
    "outbox_bytes": 4_194_304,
    "outbox_total_bytes": 268_435_456,
    "handshake_rate": "1000/second, burst 5000",
    "drain_seconds": 2,
    "drain_announce_seconds": 0,
    "recovery_seconds": 600,
    "retention_days": 30,
    "stale_after_hours": 24,
    "deliveries_bytes": 268_435_456,
    "max_rooms": 200,
    "live_sources": "",
    "maim_hooks": "",
    "maim_connection_log": True,
    "maim_message_log": False,
    "maim_queue_seconds": 86_400,
    "maim_queue_messages": 1_000,
    "lark_app_id": None,
    "lark_app_secret": None,
    "lark_verification_token": None,
    "lark_encrypt_key": None,
    "lark_api_url": "https://open.feishu.cn",
    "lark_accounts_url": None,
    "lark_redirect_uri": None,
    "lark_scopes": "offline_access",
    "lark_encryption_keys": None,
    "lark_session_seconds": 600,
    "lark_refresh_threshold": 0.1,
    "lark_user_rate_per_minute": 5,
    "lark_card_description": True,
    "lark_card_template_id": None,
    "lark_language": "zh",
    "lark_timeout_seconds": 5,
    "lark_user_info_sync": False,
    "lark_user_info_sync_schedule": "0 2 * * *",
    "lark_reconnect_retries": 10,
    "lark_heartbeat_seconds": 30,
    "lark_fallback_to_http": True,
    "lark_handlers": "",
    "tls_cert": None,
    "tls_key": None,
    "tls_client_ca": None,
    "log_level": "info",
    "log_format": "console",
}


def test_defaults_are_those_that_other_peoples_scripts_rely_on(load):
    settings = load()
    assert {name: getattr(settings, name) for name in Settings.model_fields} == DEFAULTS


FERNET = (base64.urlsafe_b64encode(b"1" * 32).decode(), base64.urlsafe_b64encode(b"2" * 32).decode())

GOOD = [
    ("SIDECAR_PORT", "0", "port", 0),
    ("SIDECAR_PORT", "65535", "port", 65535),
    ("SIDECAR_OPEN", "webhooks", "open", "webhooks"),
    ("SIDECAR_ANONYMOUS_READ", "true", "anonymous_read", True),
    ("SIDECAR_ANONYMOUS_READ", "1", "anonymous_read", True),
    ("SIDECAR_PUBLIC_BADGES", " shop, axi-* ,", "public_badge_patterns", ("shop", "axi-*")),
    ("SIDECAR_ALLOWED_ORIGINS", "*", "origins", frozenset({"*"})),
    (
        "SIDECAR_ALLOWED_ORIGINS",
        "https://A.example, http://b.example:81/",
        "origins",
        frozenset({"https://a.example", "http://b.example:81"}),
    ),
    ("SIDECAR_ALLOWED_ORIGINS", "https://a.example:443", "origins", frozenset({"https://a.example"})),
    ("SIDECAR_PUBLIC_URL", "HTTPS://Dash.Example.com:443/", "public_url", "https://dash.example.com"),
    ("SIDECAR_PUBLIC_URL", "http://[::1]:8080", "public_url", "http://[::1]:8080"),
    ("SIDECAR_PREFIX", "/", "prefix", ""),
    ("SIDECAR_PREFIX", "dash/board/", "prefix", "/dash/board"),
    ("SIDECAR_RATE_LIMIT", "OFF", "rate", None),
    ("SIDECAR_RATE_LIMIT", "5/second", "rate", (5.0, 25)),
    ("SIDECAR_RATE_LIMIT", " 5/second , burst 7 ", "rate", (5.0, 7)),
    (
        "SIDECAR_LIVE_SOURCES",
        "sales=shop.figures:today, room-7.x=rooms:seven",
        "live_source_paths",
        {"sales": "shop.figures:today", "room-7.x": "rooms:seven"},
    ),
    ("SIDECAR_RETENTION_DAYS", "0.5", "retention_days", 0.5),
    ("SIDECAR_LARK_API_URL", "https://open.larksuite.com/", "lark_accounts", "https://accounts.larksuite.com"),
    ("SIDECAR_LARK_API_URL", "http://127.0.0.1:9000", "lark_accounts", "http://127.0.0.1:9000"),
    ("SIDECAR_LARK_ACCOUNTS_URL", "https://sso.example/", "lark_accounts", "https://sso.example"),
    ("SIDECAR_LARK_REDIRECT_URI", "https://x.example/back", "lark_redirect", "https://x.example/back"),
    (
        "SIDECAR_PUBLIC_URL",
        "https://x.example",
        "lark_redirect",
        "https://x.example/project-dashboard/api/authorizations/callback",
    ),
    ("SIDECAR_PORT", "9001", "lark_redirect", "http://localhost:9001/callback"),
    ("SIDECAR_LARK_REFRESH_THRESHOLD", "0.25", "lark_refresh_threshold", 0.25),
    ("SIDECAR_LARK_REFRESH_THRESHOLD", "0.8", "lark_refresh_threshold", 0.2),
    ("SIDECAR_LARK_ENCRYPTION_KEYS", f"{FERNET[0]}, {FERNET[1]}", "lark_fernet_keys", FERNET),
    ("SIDECAR_LARK_ENCRYPTION_KEYS", " ,", "lark_fernet_keys", ()),
    ("SIDECAR_LARK_FALLBACK_TO_HTTP", "false", "lark_fallback_to_http", False),
    ("SIDECAR_LARK_HANDLERS", "shop.lark:handlers", "lark_handlers", "shop.lark:handlers"),
    ("SIDECAR_DATABASE_URL", "sqlite:////srv/x.db", "resolved_database_url", "sqlite:////srv/x.db"),
    (
        "SIDECAR_DATABASE_URL",
        "postgresql+psycopg://me:pw@db/sidecar",
        "resolved_database_url",
        "postgresql+psycopg://me:pw@db/sidecar",
    ),
    (
        "SIDECAR_DATABASE_URL",
        "postgresql://me:p%40w@db:5433/sidecar?sslmode=require",
        "resolved_database_url",
        "postgresql+psycopg://me:p%40w@db:5433/sidecar?sslmode=require",
    ),
    ("SIDECAR_DATABASE_URL", "postgres://db/x", "resolved_database_url", "postgresql+psycopg://db/x"),
]


@pytest.mark.parametrize(("variable", "text", "name", "value"), GOOD)
def test_taken(load, variable, text, name, value):
    assert getattr(load(**{variable: text}), name) == value


BAD = {
    "SIDECAR_PORT": ["-1", "65536", "eighty", "80.5"],
    "SIDECAR_OPEN": ["yes", "True", "public"],
    "SIDECAR_ANONYMOUS_READ": ["maybe"],
    "SIDECAR_PUBLIC_BADGES": ["shop, a\tb", "x" * 201],
    "SIDECAR_ALLOWED_ORIGINS": ["dash.example.com", "https://ok.example, ftp://x", "https://x/path", "https://u:p@x"],
    "SIDECAR_PUBLIC_URL": ["dash.example.com", "https://", "https://x:99999", "https://x/dash", "*", "http://[::1"],
    "SIDECAR_PREFIX": ["/a b", "/a?b", "/ä", "/a//b"],
    "SIDECAR_MAX_CONNECTIONS": ["0", "1000001"],
    "SIDECAR_MAX_BODY_BYTES": ["1023", "104857601"],
    "SIDECAR_RATE_LIMIT": ["5/minute", "0/second", "fast", "-1/second", "5/second, burst 0"],
    "SIDECAR_TRUSTED_PROXIES": ["proxy.example.com", "10.0.0.0/33", "10.0.0.1, nonsense"],
    "SIDECAR_WEBHOOK_NETWORKS": ["somewhere"],
    "SIDECAR_OUTBOX_BYTES": ["4095", "1073741825"],
    "SIDECAR_DRAIN_SECONDS": ["-1", "601", "nan"],
    "SIDECAR_DRAIN_ANNOUNCE_SECONDS": ["-1", "601", "inf"],
    "SIDECAR_RETENTION_DAYS": ["0", "-1", "36501", "nan", "inf"],
    "SIDECAR_STALE_AFTER_HOURS": ["0", "8761"],
    "SIDECAR_DELIVERIES_BYTES": ["1048575"],
    "SIDECAR_MAX_ROOMS": ["0", "10001"],
    "SIDECAR_LIVE_SOURCES": ["sales", "sales=shop", "sales=shop:", "=shop:sales", "a b=shop:sales", "a=b:c, d"],
    "SIDECAR_MAIM_HOOKS": ["shop", "shop:", ":hooks", "shop bots:hooks", "shop.bots:hooks.inner"],
    "SIDECAR_MAIM_CONNECTION_LOG": ["perhaps"],
    "SIDECAR_MAIM_MESSAGE_LOG": ["perhaps"],
    "SIDECAR_MAIM_QUEUE_SECONDS": ["0", "2592001", "nan"],
    "SIDECAR_MAIM_QUEUE_MESSAGES": ["0", "100001"],
    "SIDECAR_LARK_API_URL": ["open.feishu.cn", "https://x/open-apis", "https://u:p@x"],
    "SIDECAR_LARK_ACCOUNTS_URL": ["*", "accounts.feishu.cn", "https://x/accounts"],
    "SIDECAR_LARK_REDIRECT_URI": ["/callback", "ftp://x/back", "https://x/back?a=1", "https://x/back#a", "http://[::1"],
    "SIDECAR_LARK_ENCRYPTION_KEYS": ["0" * 64, "short", f"{FERNET[0]},nonsense"],
    "SIDECAR_LARK_SESSION_SECONDS": ["29", "86401", "nan"],
    "SIDECAR_LARK_REFRESH_THRESHOLD": ["0", "1", "-0.1", "nan", "much"],
    "SIDECAR_LARK_USER_RATE_PER_MINUTE": ["0", "1001"],
    "SIDECAR_LARK_CARD_DESCRIPTION": ["perhaps"],
    "SIDECAR_LARK_LANGUAGE": ["fr", "ZH"],
    "SIDECAR_LARK_TIMEOUT_SECONDS": ["0", "21", "nan"],
    "SIDECAR_LARK_USER_INFO_SYNC": ["perhaps"],
    "SIDECAR_LARK_RECONNECT_RETRIES": ["-1", "1000001"],
    "SIDECAR_LARK_HEARTBEAT_SECONDS": ["0.5", "3601"],
    "SIDECAR_LARK_FALLBACK_TO_HTTP": ["perhaps"],
    "SIDECAR_LARK_HANDLERS": ["shop", "shop:", ":handlers", "shop lark:handlers"],
    "SIDECAR_LARK_USER_INFO_SYNC_SCHEDULE": ["@daily", "0 2 * *", "0 0 2 * * *", "0 2 31 2 *", "61 2 * * *"],
    "SIDECAR_LOG_LEVEL": ["loud", "INFO "],
    "SIDECAR_LOG_FORMAT": ["xml"],
    "SIDECAR_SECRET_KEY": ["fifteen-letters"],
    "SIDECAR_REDIS_URL": ["cache:6379", "http://cache", "redis://", "redis://cache:99999", "redis://cache/x", "unix:"],
    "SIDECAR_REDIS_LIST": [" list", "x" * 201, "a\tb"],
    "SIDECAR_DATABASE_URL": [
        "nonsense",
        "mysql://db/x",
        "sqlite://",
        "sqlite:///:memory:",
        "postgresql+psycopg2://db/x",
    ],
}


@pytest.mark.parametrize(("variable", "text"), [(name, text) for name, texts in BAD.items() for text in texts])
def test_refused_by_name(load, variable, text):
    told = problems(load, **{variable: text})
    assert len(told) == 1
    assert told[0].startswith(f"{variable}:") or told[0].startswith("SIDECAR_PORT (or PORT):")


def test_every_problem_is_told_at_once(load):
    told = problems(load, **{name: texts[0] for name, texts in BAD.items()})
    assert {line.partition(":")[0].partition(" ")[0] for line in told} == set(BAD)


SECRETS = {
    "SIDECAR_SECRET_KEY": "hunter2",
    "SIDECAR_PUBLIC_URL": "https://admin:hunter2@dash.example.com/x",
    "SIDECAR_ALLOWED_ORIGINS": "https://admin:hunter2@dash.example.com/x",
    "SIDECAR_DATABASE_URL": "hunter2",
    "SIDECAR_REDIS_URL": "http://:hunter2@cache",
    "SIDECAR_TRUSTED_PROXIES": "hunter2",
    "SIDECAR_WEBHOOK_NETWORKS": "hunter2",
    "SIDECAR_PREFIX": "hunter2 ?",
    "SIDECAR_RATE_LIMIT": "hunter2",
    "SIDECAR_PORT": "hunter2",
    "SIDECAR_OPEN": "hunter2",
    "SIDECAR_LOG_LEVEL": "hunter2",
    "SIDECAR_ANONYMOUS_READ": "hunter2",
    "SIDECAR_LARK_ENCRYPTION_KEYS": "hunter2",
    "SIDECAR_LARK_API_URL": "https://admin:hunter2@open.feishu.cn",
    "SIDECAR_LARK_REDIRECT_URI": "https://x/back?password=hunter2",
    "SIDECAR_LARK_HANDLERS": "hunter2",
}


def test_a_problem_never_repeats_a_value(load):
    """A password pasted into the wrong variable must not reach the log of the process manager."""
    told = problems(load, **SECRETS)
    assert len(told) == len(SECRETS)
    assert "hunter2" not in " ".join(told)


def test_a_printed_settings_object_holds_no_secret(load):
    settings = load(
        SIDECAR_SECRET_KEY="a-master-secret-of-24-ch",
        SIDECAR_DATABASE_URL="postgresql+psycopg://me:hunter2@db/sidecar",
        SIDECAR_REDIS_URL="redis://:hunter2@cache",
        SIDECAR_LARK_APP_ID="cli_x",
        SIDECAR_LARK_APP_SECRET="hunter2",
        SIDECAR_LARK_VERIFICATION_TOKEN="hunter2",
        SIDECAR_LARK_ENCRYPT_KEY="hunter2",
        SIDECAR_LARK_ENCRYPTION_KEYS=FERNET[0],
    )
    assert FERNET[0] not in repr(settings)
    assert "hunter2" not in repr(settings)
    assert "a-master-secret" not in repr(settings)


def test_settings_that_do_not_fit_together_are_told_together(load):
    told = problems(load, SIDECAR_OUTBOX_BYTES="4096", SIDECAR_WEBHOOK_NETWORKS="10.0.0.0/8")
    assert "SIDECAR_OUTBOX_BYTES" in told[0]
    assert "SIDECAR_WEBHOOK_NETWORKS" in told[0]


def test_a_certificate_and_its_key_belong_together(load):
    files = {"SIDECAR_TLS_CERT": "cert.pem", "SIDECAR_TLS_KEY": "key.pem"}
    for name in files:
        told = problems(load, **{name: files[name]})
        assert told == ["SIDECAR_TLS_CERT and SIDECAR_TLS_KEY belong together"]
    assert "SIDECAR_TLS_CLIENT_CA needs" in problems(load, SIDECAR_TLS_CLIENT_CA="ca.pem")[0]
    assert load(**files).tls_files == (Path("cert.pem"), Path("key.pem"), None)
    assert (load(**files).scheme, load().scheme) == ("https", "http")


def test_an_app_of_lark_and_its_secret_belong_together(load):
    app = {"SIDECAR_LARK_APP_ID": "cli_x", "SIDECAR_LARK_APP_SECRET": "s"}
    for name in app:
        assert problems(load, **{name: app[name]}) == [
            "SIDECAR_LARK_APP_ID and SIDECAR_LARK_APP_SECRET belong together"
        ]
    assert load(**app).lark_app_id == "cli_x"


def test_where_users_come_back_to_must_be_known_before_the_port_is(load):
    app = {"SIDECAR_LARK_APP_ID": "cli_x", "SIDECAR_LARK_APP_SECRET": "s", "SIDECAR_PORT": "0"}
    assert "SIDECAR_LARK_REDIRECT_URI" in problems(load, **app)[0]
    assert load(**app, SIDECAR_LARK_REDIRECT_URI="http://localhost:1/callback").port == 0
    assert load(**app, SIDECAR_PUBLIC_URL="https://x.example").port == 0


OLD = {
    "LARK_APP_ID": ("cli_old", "lark_app_id", "cli_old"),
    "FEISHU_API_BASE_URL": ("https://open.larksuite.com", "lark_api_url", "https://open.larksuite.com"),
    "OAUTH_REDIRECT_URI": ("http://localhost:8000/callback", "lark_redirect", "http://localhost:8000/callback"),
    "LARK_CONFIG_ENCRYPTION_KEY": (FERNET[0], "lark_fernet_keys", FERNET[:1]),
    "AUTH_SESSION_EXPIRY_SECONDS": ("300", "lark_session_seconds", 300),
    "AUTH_TOKEN_REFRESH_THRESHOLD": ("0.8", "lark_refresh_threshold", 0.2),
    "AUTH_REQUEST_RATE_LIMIT": ("7", "lark_user_rate_per_minute", 7),
    "AUTH_CARD_INCLUDE_DESCRIPTION": ("false", "lark_card_description", False),
    "AUTH_CARD_TEMPLATE_ID": ("AAq1", "lark_card_template_id", "AAq1"),
    "USER_INFO_SYNC_ENABLED": ("true", "lark_user_info_sync", True),
    "USER_INFO_SYNC_SCHEDULE": ("30 3 * * 1", "lark_user_info_sync_schedule", "30 3 * * 1"),
    "WEBSOCKET_MAX_RECONNECT_RETRIES": ("3", "lark_reconnect_retries", 3),
    "WEBSOCKET_HEARTBEAT_INTERVAL": ("10", "lark_heartbeat_seconds", 10),
    "WEBSOCKET_FALLBACK_TO_HTTP": ("false", "lark_fallback_to_http", False),
}
OLD_SECRETS = {"LARK_APP_SECRET": "s", "LARK_VERIFICATION_TOKEN": "v", "LARK_ENCRYPT_KEY": "e"}


def test_the_older_service_s_variables_are_read(load):
    environment = {name: text for name, (text, _, _) in OLD.items()} | OLD_SECRETS
    settings = load(**environment)
    for name, (_, field, value) in OLD.items():
        assert getattr(settings, field) == value, name
    for name, value in OLD_SECRETS.items():
        assert getattr(settings, name.lower()).get_secret_value() == value
    assert set(old_variables(environment)) == set(environment) == set(OLD_NAMES)
    assert old_variables(environment)["OAUTH_REDIRECT_URI"] == "SIDECAR_LARK_REDIRECT_URI"


def test_ours_win_over_the_older_names(load):
    environment = {"LARK_APP_ID": "old", "LARK_APP_SECRET": "old", "SIDECAR_LARK_APP_ID": "new"}
    assert load(**environment).lark_app_id == "new"
    assert set(old_variables(environment)) == {"LARK_APP_SECRET"}


def test_general_names_without_an_app_are_somebody_else_s(load):
    environment = {"AUTH_SESSION_EXPIRY_SECONDS": "300", "OAUTH_REDIRECT_URI": "nonsense"}
    assert load(**environment).lark_session_seconds == 600
    assert old_variables(environment) == {}


def test_an_outbox_of_four_bodies_is_enough(load):
    assert load(SIDECAR_MAX_BODY_BYTES="2000", SIDECAR_OUTBOX_BYTES="8000").outbox_bytes == 8000
    assert problems(load, SIDECAR_MAX_BODY_BYTES="2000", SIDECAR_OUTBOX_BYTES="7999")


@pytest.mark.parametrize("open", ["true", "webhooks"])
def test_webhook_networks_belong_to_an_open_webhook(load, open):
    assert load(SIDECAR_OPEN=open, SIDECAR_WEBHOOK_NETWORKS="10.0.0.0/8").webhook_networks == "10.0.0.0/8"


@pytest.mark.parametrize(
    ("environment", "port"),
    [
        ({"PORT": "9000"}, 9000),
        ({"PORT": "9000", "SIDECAR_PORT": "9001"}, 9001),
        ({"PORT": "9000", "SIDECAR_PORT": ""}, 9000),
        ({"PORT": ""}, 8091),
    ],
)
def test_port_is_read_when_ours_is_unset(load, environment, port):
    assert load(**environment).port == port


def test_a_bad_port_names_both_variables(load):
    assert problems(load, PORT="eighty")[0].startswith("SIDECAR_PORT (or PORT):")


def test_an_empty_variable_counts_as_unset(load):
    assert load(SIDECAR_MAX_ROOMS="", SIDECAR_PUBLIC_URL="", SIDECAR_DATABASE_URL="").max_rooms == 200


def test_a_relative_instance_folder_counts_from_the_working_folder(load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = load(SIDECAR_INSTANCE_DIR="data/here")
    assert settings.instance_path == tmp_path / "data" / "here"
    assert settings.resolved_database_url == f"sqlite:///{tmp_path}/data/here/sidecar.db"
    assert not (tmp_path / "data").exists()


def test_a_home_instance_folder_is_expanded(load, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert load(SIDECAR_INSTANCE_DIR="~/sidecar").instance_path == Path("/home/somebody/sidecar")


def test_the_default_database_is_absolute(load):
    """Flask-SQLAlchemy puts a relative file into a folder of its own: instance/instance/sidecar.db."""
    assert load().resolved_database_url == f"sqlite:///{ROOT}/instance/sidecar.db"


def test_a_relative_database_counts_from_the_working_folder(load, tmp_path, monkeypatch):
    """Nor may a relative URL that somebody wrote end in Flask's own instance folder."""
    monkeypatch.chdir(tmp_path)
    assert load(SIDECAR_DATABASE_URL="sqlite:///x.db").resolved_database_url == f"sqlite:///{tmp_path}/x.db"


def test_settings_are_frozen(load):
    with pytest.raises(ValueError, match="frozen"):
        load().port = 1


def test_command_line_options_win(load):
    load(SIDECAR_PORT="1", SIDECAR_HOST="::1")
    settings = load_settings(SIDECAR_PORT=2, host="0.0.0.0")
    assert (settings.port, settings.host) == (2, "0.0.0.0")


def test_unknown_variables_are_told():
    environment = {"SIDECAR_PROT": "1", "SIDECAR_PORT": "1", "SIDECAR_URL": "x", "SIDECAR_TOKEN": "x", "PATH": "x"}
    assert unknown_variables(environment) == ["SIDECAR_PROT"]


def test_loopback_is_a_word():
    assert [str(network) for network in parse_networks("loopback, 10.1.2.3/8,")] == [
        "127.0.0.0/8",
        "::1/128",
        "10.0.0.0/8",
    ]


def test_the_page_of_settings_is_the_code(load):
    """docs/settings.md is written by `python -m sidecar settings > docs/settings.md`."""
    assert (ROOT / "docs" / "settings.md").read_text() == settings_table()


def test_every_setting_is_explained(load):
    table = settings_table()
    for name, field in Settings.model_fields.items():
        assert f"`SIDECAR_{name.upper()}`" in table
        assert field.description
        assert field.description.endswith(".")


def test_the_example_names_every_setting():
    path = ROOT / "config" / "example.env"
    if not path.exists():
        pytest.skip("config/example.env is not there yet")
    named = set(re.findall(r"\bSIDECAR_[A-Z_]+", path.read_text()))
    assert {f"SIDECAR_{name.upper()}" for name in Settings.model_fields} <= named


def test_a_shell_reads_the_example_as_it_stands(tmp_path):
    """`set -a; . ./my.env`: an unquoted space would make the rest of its line a command."""
    page = (ROOT / "config" / "example.env").read_text()
    lines = [line[1:] for line in page.splitlines() if line.startswith("#SIDECAR_")]
    file = tmp_path / "my.env"
    file.write_text("\n".join(lines))
    done = subprocess.run(["sh", "-c", f"set -a; . {file}; env"], env={}, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    said = dict(shlex.split(line)[0].split("=", 1) for line in lines)
    assert said.items() <= dict(line.split("=", 1) for line in done.stdout.splitlines()).items()
