"""Which browsers may talk to us: the Host that they think we are, and the Origin that their page came from."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Origins:
    """`allowed` are extra origins (`*` = any); with `public_url` only its host, those of the allowed origins and
    loopback names are answered, and it counts as the same origin."""

    def __init__(self, allowed: frozenset[str], public_url: str | None):
        self._allowed = allowed
        self._public = public_url
        self._hosts = None
        if public_url is not None:
            self._hosts = {urlsplit(item).netloc for item in (public_url, *allowed) if item != "*"}

    def host_known(self, environ: WSGIEnvironment) -> bool:
        host = environ.get("HTTP_HOST", "").lower()
        if self._hosts is None or host in self._hosts:
            return True
        return (host if host.endswith("]") else host.rpartition(":")[0] or host) in LOOPBACK_HOSTS

    def allows(self, environ: WSGIEnvironment) -> bool:
        """May the page that sends this request read the answer? No Origin: not a page of another site."""
        origin = environ.get("HTTP_ORIGIN", "").lower()
        return not origin or origin in self._allowed or "*" in self._allowed or origin in self._own(environ)

    def cross_origin(self, environ: WSGIEnvironment) -> str | None:
        """The Origin to name in CORS headers: another, allowed one; None otherwise."""
        origin: str = environ.get("HTTP_ORIGIN", "")
        if not origin or origin.lower() in self._own(environ) or not self.allows(environ):
            return None
        return origin

    def same_origin(self, environ: WSGIEnvironment) -> bool:
        """Strictly our own page: what a request that rests on a cookie must come from."""
        origin = environ.get("HTTP_ORIGIN", "").lower()
        return not origin or origin in self._own(environ)

    def _own(self, environ: WSGIEnvironment) -> tuple[str, ...]:
        own = f"{environ.get('wsgi.url_scheme', 'http')}://{environ.get('HTTP_HOST', '')}".lower()
        return (own,) if self._public is None else (own, self._public)
