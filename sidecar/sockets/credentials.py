"""Who opens a socket: by the token that it gives, by its handshake's headers, or by the login cookie."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode

from werkzeug.http import parse_cookie

from sidecar.domain.access import Identity, may
from sidecar.domain.errors import Unauthenticated
from sidecar.domain.maim import UNKNOWN_PLATFORM
from sidecar.services.access import LOGIN_COOKIE, Access
from sidecar.wire.origins import Origins

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

URL_TOKEN = "sidecar.url_token"  # noqa: S105 - a key's name
"""Environ key: the `?token=` of the handshake, taken out of the query before anything can log it."""

OFFERED_TOKEN = "sidecar.offered_token"  # noqa: S105 - a key's name
"""Environ key: the token that a browser's plain WebSocket offers among its subprotocols."""

BOT_KEY, BOT_PLATFORM, BOT_UUID = "sidecar.bot_key", "sidecar.bot_platform", "sidecar.bot_uuid"
"""Environ keys of a bot's handshake: the API key, taken out of the query before anything can log it; where it is, which
is never empty; what it calls its connection."""


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


def take_bot(environ: WSGIEnvironment) -> None:
    """If this handshake has a bot's key, in the query or a header, keep what it says of itself."""
    if BOT_PLATFORM in environ:
        return
    pairs = parse_qsl(_utf8(environ.get("QUERY_STRING", "")), keep_blank_values=True)
    asked = dict(reversed(pairs))  # the first of several counts
    key = asked.get("api_key", environ.get("HTTP_X_APIKEY"))
    if key is None:
        return
    environ["QUERY_STRING"] = urlencode([pair for pair in pairs if pair[0] != "api_key"])
    environ[BOT_KEY] = key
    environ[BOT_PLATFORM] = asked.get("platform") or _utf8(environ.get("HTTP_X_PLATFORM", "")) or UNKNOWN_PLATFORM
    environ[BOT_UUID] = asked.get("uuid") or environ.get("HTTP_X_UUID") or ""


def _utf8(text: str) -> str:
    """What WSGI has as Latin-1, in the encoding that clients write."""
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text
