"""Who opens a socket: by the token that it gives, by its handshake's headers, or by the login cookie."""

from __future__ import annotations

from typing import TYPE_CHECKING

from werkzeug.http import parse_cookie

from sidecar.domain.access import Identity, may
from sidecar.domain.errors import Unauthenticated
from sidecar.services.access import LOGIN_COOKIE, Access
from sidecar.wire.origins import Origins

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

URL_TOKEN = "sidecar.url_token"  # noqa: S105 - a key's name
"""Environ key: the `?token=` of the handshake, taken out of the query before anything can log it."""

OFFERED_TOKEN = "sidecar.offered_token"  # noqa: S105 - a key's name
"""Environ key: the token that a browser's plain WebSocket offers among its subprotocols."""


def identify(
    access: Access, origins: Origins, environ: WSGIEnvironment, given: str | None, stranger_scope: str | None
) -> Identity:
    """Who it is by the `given` token, else by this handshake. A stranger is let in where strangers have
    `stranger_scope`, and everywhere if that is None. Raises Unauthenticated, or TokenExpired."""
    if given:
        return access.by_credential(given)
    scheme, _, rest = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() in ("token", "bearer") and rest.strip():
        return access.by_credential(rest.strip())
    if environ.get(URL_TOKEN):
        return access.by_credential(environ[URL_TOKEN], in_url=True)
    address = environ.get("REMOTE_ADDR", "")
    cookie = parse_cookie(environ.get("HTTP_COOKIE", "")).get(LOGIN_COOKIE) if origins.same_origin(environ) else None
    identity = access.by_cookie(cookie, address) if cookie else access.stranger(address)
    if not identity.authenticated and stranger_scope is not None and not may(identity, stranger_scope):
        raise Unauthenticated("A token is needed.")
    return identity
