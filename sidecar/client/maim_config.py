"""How a MaimClient connects: names and defaults of maim_message's own ClientConfig."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

from sidecar.client.maim_frames import custom_type
from sidecar.client.maim_messages import APIMessageBase

HEADERS = frozenset({"x-apikey", "x-platform", "x-uuid"})
"""What the client says itself."""

OnMessage = Callable[[APIMessageBase, dict[str, Any]], object]
Handler = Callable[[Any], object]


@dataclass(repr=False)
class ClientConfig:
    """One connection. `url` begins with ws:// or wss://; wss:// switches `ssl_enabled` on. Callbacks may be plain or
    async functions. `max_reconnect_attempts` 0 is for ever. Raises ValueError that names each bad field. Neither its
    repr nor any log line or error of the client shows the `api_key`.

    on_connect(uuid, config) after each connecting; on_disconnect(uuid, error) when a connection has ended (error None:
    by ourselves); on_message(message, metadata); custom_handlers: {"custom_<name>": handler(payload)}.
    """

    url: str
    api_key: str
    platform: str = "default"
    connection_uuid: str | None = None

    auto_reconnect: bool = True
    max_reconnect_attempts: int = 5
    reconnect_delay: float = 1.0
    max_reconnect_delay: float = 30.0

    ping_interval: float | None = 20
    ping_timeout: float | None = 10
    close_timeout: float | None = 10
    max_size: int | None = 104_857_600

    ssl_enabled: bool = False
    ssl_verify: bool = True
    ssl_ca_certs: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_check_hostname: bool = True

    on_connect: Callable[[str, ClientConfig], object] | None = None
    on_disconnect: Callable[[str, str | None], object] | None = None
    on_message: OnMessage | None = None
    custom_handlers: dict[str, Handler] = field(default_factory=dict)

    enable_connection_log: bool = True
    enable_message_log: bool = True
    log_level: str = "INFO"
    custom_logger: logging.Logger | None = None

    enable_message_cache: bool = True
    message_cache_ttl: float = 300
    message_cache_max_size: int = 1000

    headers: dict[str, str] = field(default_factory=dict)
    key_in_query: bool = False
    """Say key, platform and uuid in the URL as a browser does, for a proxy that lets no unknown headers through."""

    def __post_init__(self) -> None:
        if isinstance(self.url, str) and self.url.startswith("wss://"):
            self.ssl_enabled = True
        problems = _problems(self)
        if problems:
            raise ValueError("The configuration can't be used: " + "; ".join(problems))
        self.custom_handlers = {custom_type(name): handler for name, handler in self.custom_handlers.items()}

    def __repr__(self) -> str:
        return f"ClientConfig({self.shown_url!r}, platform={self.platform!r})"

    @property
    def shown_url(self) -> str:
        """For people: without a query, user name or password."""
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    def without_key(self, text: str) -> str:
        return text.replace(self.api_key, "***")

    def address(self, connection_uuid: str) -> str:
        """What is asked for; it holds the key if that goes into the query."""
        said: dict[str, str] = {}
        if self.key_in_query:
            said = {"api_key": self.api_key, "platform": self.platform, "uuid": connection_uuid}
        elif not self.platform.isascii():  # a header's bytes are read as Latin-1 by many servers
            said = {"platform": self.platform}
        parts = urlsplit(self.url)
        query = "&".join(part for part in (parts.query, urlencode(said)) if part)
        return urlunsplit((parts.scheme, parts.netloc, parts.path or "/", query, ""))

    def handshake_headers(self, connection_uuid: str) -> dict[str, str]:
        if self.key_in_query:
            return dict(self.headers)
        said = {"x-apikey": self.api_key, "x-uuid": connection_uuid}
        if self.platform.isascii():
            said["x-platform"] = self.platform
        return {name: value for name, value in self.headers.items() if name.lower() not in HEADERS} | said

    def ssl_context(self) -> ssl.SSLContext | None:
        """None without TLS. With `ssl_ca_certs` only those are trusted, else the system's; TLS 1.2 or later. Raises
        OSError (ssl.SSLError too) if a file can't be used."""
        if not self.ssl_enabled:
            return None
        context = ssl.create_default_context(cafile=self.ssl_ca_certs)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = self.ssl_verify and self.ssl_check_hostname
        if not self.ssl_verify:
            context.verify_mode = ssl.CERT_NONE
        if self.ssl_certfile:
            context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile)
        return context


def create_client_config(url: str, api_key: str, platform: str = "default", **more: Any) -> ClientConfig:
    """`more` are fields of ClientConfig."""
    return ClientConfig(url=url, api_key=api_key, platform=platform, **more)


def create_ssl_client_config(
    url: str | None = None,
    api_key: str | None = None,
    platform: str = "default",
    *,
    host: str = "localhost",
    port: int = 18044,
    path: str = "/ws",
    ssl_ca_certs: str | None = None,
    **more: Any,
) -> ClientConfig:
    """For wss://, at a `url` or at a `host` and `port` (and `path`)."""
    if api_key is None:
        raise ValueError("api_key is missing")
    address = url or f"wss://{host}:{port}{path}"
    return ClientConfig(address, api_key, platform, **{"ssl_enabled": True, "ssl_ca_certs": ssl_ca_certs, **more})


def _problems(config: ClientConfig) -> list[str]:
    """No value is repeated: a URL may hold a key."""
    found = [_url_problem(config)]
    for name in ("api_key", "platform"):
        value = getattr(config, name)
        if not isinstance(value, str) or not value:
            found.append(f"{name} is missing")
        elif not value.isprintable() or (name == "api_key" and not value.isascii()):
            found.append(f"{name} holds characters that can't be sent")
    for name, least in (("reconnect_delay", 0), ("max_reconnect_delay", 0), ("max_reconnect_attempts", 0)):
        if not _is_number(getattr(config, name), least):
            found.append(f"{name} must be a number from {least} on")
    for name in ("ping_interval", "ping_timeout", "close_timeout", "max_size"):
        if getattr(config, name) is not None and not _is_number(getattr(config, name), 0):
            found.append(f"{name} must be a number from 0 on, or None")
    if not isinstance(config.log_level, str) or config.log_level.upper() not in logging.getLevelNamesMapping():
        found.append("log_level is no level of logging")
    for name in ("on_connect", "on_disconnect", "on_message"):
        if getattr(config, name) is not None and not callable(getattr(config, name)):
            found.append(f"{name} must be a function")
    for name in ("custom_handlers", "headers"):
        if not isinstance(getattr(config, name), Mapping):
            found.append(f"{name} must be a dict")
    said = [config.connection_uuid or ""]
    if isinstance(config.headers, Mapping):
        said += [*config.headers.keys(), *config.headers.values()]
    if not all(isinstance(text, str) and text.isprintable() for text in said):
        found.append("connection_uuid and headers must be strings of printable characters")
    if config.ssl_keyfile and not config.ssl_certfile:
        found.append("ssl_keyfile is of no use without ssl_certfile")
    return [problem for problem in found if problem]


def _url_problem(config: ClientConfig) -> str:
    if not isinstance(config.url, str) or not config.url.startswith(("ws://", "wss://")):
        return "url must begin with ws:// or wss://"
    try:
        parts = urlsplit(config.url)
        good = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good:
        return "url has no host or no valid port"
    if config.ssl_enabled and parts.scheme == "ws":
        return "ssl_enabled needs a url that begins with wss://"
    return ""


def _is_number(value: object, least: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= least
