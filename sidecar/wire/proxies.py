"""What proxies say about a request counts only if they are ours: X-Forwarded-* of others is dropped here, the
public prefix and a last slash are cut, and everything behind reads plain WSGI values."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from sidecar.domain.networks import Network, within

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

KNOWN_ADDRESSES = 4_096

PUBLIC_PREFIX = "sidecar.prefix"
"""Environ key: the prefix under which the client reached us, `` or such as `/project-dashboard`."""

SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
"""Some proxies (Traefik) name the scheme of a WebSocket handshake so."""

PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")

FORWARDED = (
    "HTTP_FORWARDED",
    "HTTP_X_FORWARDED_FOR",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PORT",
    "HTTP_X_FORWARDED_PREFIX",
    "HTTP_X_REAL_IP",
)


class Proxies:
    """`trusted` are the networks whose word counts; `prefix` is the public one."""

    def __init__(self, trusted: tuple[Network, ...], prefix: str):
        self._trusts = lru_cache(KNOWN_ADDRESSES)(partial(within, networks=trusted))
        self._prefix = prefix

    def prepare(self, environ: WSGIEnvironment) -> None:
        """Do it to this environ; a second time changes nothing."""
        if PUBLIC_PREFIX in environ:
            return
        environ[PUBLIC_PREFIX] = ""
        if self._trusts(environ.get("REMOTE_ADDR", "")):
            self._believe(environ)
        for name in FORWARDED:
            environ.pop(name, None)
        path = environ.get("PATH_INFO", "")
        if self._prefix and (path == self._prefix or path.startswith(self._prefix + "/")):
            environ[PUBLIC_PREFIX] = self._prefix
            path = path[len(self._prefix) :]
        environ["PATH_INFO"] = path.removesuffix("/") or "/"

    def _believe(self, environ: WSGIEnvironment) -> None:
        hops = [hop.strip() for hop in environ.get("HTTP_X_FORWARDED_FOR", "").split(",") if hop.strip()]
        for hop in reversed(hops):
            try:
                address = str(ipaddress.ip_address(hop))
            except ValueError:
                break
            environ["REMOTE_ADDR"] = address
            if not self._trusts(address):
                break
        scheme = environ.get("HTTP_X_FORWARDED_PROTO", "").split(",")[-1].strip().lower()
        if scheme in SCHEMES:
            environ["wsgi.url_scheme"] = SCHEMES[scheme]
        host = environ.get("HTTP_X_FORWARDED_HOST", "").split(",")[-1].strip()
        if host:
            environ["HTTP_HOST"] = host
        prefix = "/" + environ.get("HTTP_X_FORWARDED_PREFIX", "").split(",")[-1].strip().strip("/")
        if PREFIX.fullmatch(prefix):
            environ[PUBLIC_PREFIX] = prefix
