"""The door before Engine.IO: which paths are its own, and which handshakes are refused before a 101 is sent.

gevent-websocket answers 101 on any path to any origin before the application is asked, so the server asks
`upgradable` first; what is refused is answered here as plain HTTP.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qs, parse_qsl, urlencode

from sidecar.domain.errors import RateLimited, SidecarError
from sidecar.fanout.transports import SUBPROTOCOL, WEBSOCKET
from sidecar.fanout.websocket import Connection
from sidecar.observability.metrics import Metrics
from sidecar.services.limits import RateLimit
from sidecar.sockets.credentials import BOT_PLATFORM, OFFERED_TOKEN, URL_TOKEN, take_bot
from sidecar.sockets.errors import REFUSALS
from sidecar.wire.origins import Origins
from sidecar.wire.proxies import PUBLIC_PREFIX, Proxies

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

ENGINE_PATH = "/socket.io/"
"""Where Flask-SocketIO listens; the others are led there."""

ENGINE_PATHS = frozenset({"/socket.io", "/socket.io/socket.io", "/ws", "/ws/socket.io"})
"""With the prefix cut and without the last slash: what clients in the wild and nginx rewrites arrive at."""

PLAIN_PATH = "/ws"
"""Without the prefix: for clients that can't take an event's argument more."""

RECOVERS = "sidecar.recovers"
"""Environ key: not empty if the client may be given a pid and offsets (docs/design/recovery.md)."""

OTHER_AGENTS = ("python", "dart")
"""Beginnings of the User-Agents whose Socket.IO clients can't take an event's argument more."""

PYTHON_TIME = re.compile(r"[0-9]+\.[0-9]+")
"""The `t` of python-engineio's handshakes; its WebSockets send no User-Agent. In JavaScript it has no point."""

PLAIN_ROOTS = ("/ws/", "/socket.io/")
"""What stands before a plain WebSocket's own path; the second is what nginx rewrites yield."""

PROTOCOL = "sidecar.v1"

REFUSAL = "sidecar.refusal"
"""Environ key: what `upgradable` found, so that a handshake is judged (and counted) once."""

NO_PROTOCOL = (
    "EIO=4 is missing: speak Socket.IO 3 or later to this path, or open a plain WebSocket at /ws/rooms/<room>/ or "
    "/ws/permissions/<user>; a bot (maim_message) gives its key as x-apikey or ?api_key=."
)
NO_UPGRADE = (
    "transport=websocket needs the headers `Upgrade: websocket` and `Connection: Upgrade`; a proxy in between must "
    "hand them on (docs/nginx.md)."
)
RETRY_SECONDS = 5
RESTART_RETRY_SECONDS = 1


@dataclass(frozen=True, slots=True)
class _Refusal:
    status: str
    code: str
    message: str
    headers: tuple[tuple[str, str], ...] = ()


class Endpoint(Protocol):
    """What plain WebSockets under one word of the path (`rooms`) are for; `name` is what follows it. `protocols` are
    the subprotocols that are answered, beside our own."""

    @property
    def protocols(self) -> tuple[str, ...]: ...

    def admit(self, environ: WSGIEnvironment, name: str) -> None:
        """Before the handshake is answered. Raises a SidecarError for who may not; may block."""

    def open(self, environ: WSGIEnvironment, name: str, connection: Connection) -> None:
        """The handshake has been answered. Raises what `admit` raises."""


class Gate:
    """WSGI middleware around Flask-SocketIO's, the outermost. `endpoints` are the plain WebSockets' by the word of
    their path, `bots` that of those with a bot's key and no such word; `connections` counts the open sockets,
    `is_open` knows the Engine.IO sids among them."""

    def __init__(
        self,
        app: WSGIApplication,
        proxies: Proxies,
        origins: Origins,
        metrics: Metrics,
        endpoints: Mapping[str, Endpoint],
        bots: Endpoint,
        connections: Callable[[], int],
        is_open: Callable[[str], bool],
        max_connections: int,
        handshakes: RateLimit | None,
        max_body_bytes: int,
    ):
        self._app = app
        self._proxies = proxies
        self._origins = origins
        self._metrics = metrics
        metrics.connections_max.set(max_connections)
        self._endpoints = endpoints
        self._bots = bots
        self._connections = connections
        self._is_open = is_open
        self._max_connections = max_connections
        self._handshakes = handshakes
        self._max_body_bytes = max_body_bytes
        self.closing = False
        """Does this process take no socket more, because it stops?"""

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        self._proxies.prepare(environ)
        plain = self._plain(environ)
        path = environ.get("PATH_INFO", "")
        if plain is None and not is_engine_path(environ) and not path.startswith(ENGINE_PATH):
            return self._app(environ, start_response)
        if plain is not None and WEBSOCKET in environ:
            self._open(environ, *plain)
            return []
        refusal = environ[REFUSAL] if REFUSAL in environ else self._judge(environ, plain)
        if refusal is not None:
            self._metrics.handshakes_refused.labels(refusal.code).inc()
            return _answer(refusal, start_response)
        environ["PATH_INFO"] = ENGINE_PATH
        return self._app(environ, start_response)

    def upgradable(self, environ: WSGIEnvironment) -> bool:
        """May this request, if it asks for a WebSocket, be answered 101? Otherwise it is served as plain HTTP."""
        if environ.get("HTTP_UPGRADE", "").lower() != "websocket":
            return False
        self._proxies.prepare(environ)
        plain = self._plain(environ)
        if plain is None and not is_engine_path(environ):
            return False
        refusal = environ[REFUSAL] = self._judge(environ, plain)
        return refusal is None

    def _plain(self, environ: WSGIEnvironment) -> tuple[Endpoint, str] | None:
        """The endpoint of a plain WebSocket, and the name that follows in the path."""
        path = environ.get("PATH_INFO", "")
        if path == PLAIN_PATH:
            take_bot(environ)
            is_bot = BOT_PLATFORM in environ and "EIO" not in parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
            return (self._bots, "") if is_bot else None
        root = next((root for root in PLAIN_ROOTS if path.startswith(root)), None)
        if root is None:
            return None
        word, _, name = path.removeprefix(root).partition("/")
        endpoint = self._endpoints.get(word)
        if endpoint is None:
            return None
        return endpoint, name.removesuffix("/").encode("latin-1").decode("utf-8", "replace")

    def _open(self, environ: WSGIEnvironment, endpoint: Endpoint, name: str) -> None:
        """(Who was admitted and may not any more, a moment later, is closed without a word.)"""
        try:
            endpoint.open(environ, name, environ[WEBSOCKET])
        except SidecarError:
            environ[WEBSOCKET].abort()

    def _judge(self, environ: WSGIEnvironment, plain: tuple[Endpoint, str] | None) -> _Refusal | None:
        return self._refusal(environ) if plain is None else self._plain_refusal(environ, *plain)

    def _plain_refusal(self, environ: WSGIEnvironment, endpoint: Endpoint, name: str) -> _Refusal | None:
        _take_token(environ)
        _take_offer(environ, endpoint.protocols)
        if environ.get("HTTP_UPGRADE", "").lower() != "websocket":
            return _Refusal("426 Upgrade Required", "invalid", "This is a WebSocket.", (("Upgrade", "websocket"),))
        refusal = self._foreign(environ) or _bad_handshake(environ) or self._too_many()
        if refusal is not None:
            return refusal
        try:
            endpoint.admit(environ, name)
        except SidecarError as error:
            found = REFUSALS[type(error)]
            headers = [("WWW-Authenticate", 'Bearer realm="sidecar"')] if found.status.startswith("401") else []
            if error.retry_after_seconds is not None:
                headers.append(("Retry-After", str(error.retry_after_seconds)))
            return _Refusal(found.status, found.code, error.detail, tuple(headers))
        return None

    def _foreign(self, environ: WSGIEnvironment) -> _Refusal | None:
        if not self._origins.host_known(environ):
            return _Refusal("400 Bad Request", "bad_host", "This host name is not ours (SIDECAR_PUBLIC_URL).")
        if not self._origins.allows(environ):
            return _Refusal("403 Forbidden", "bad_origin", "This origin may not connect (SIDECAR_ALLOWED_ORIGINS).")
        return None

    def _refusal(self, environ: WSGIEnvironment) -> _Refusal | None:
        if not is_engine_path(environ):  # Flask-SocketIO would take every path that begins with its own
            return _Refusal("404 Not Found", "not_found", "There is nothing here; the path is /socket.io/.")
        _take_token(environ)
        query = dict(parse_qsl(environ.get("QUERY_STRING", "")))
        environ[RECOVERS] = "1" if recovers(environ, query) else ""
        refusal = self._foreign(environ)
        if refusal is not None:
            return refusal
        if query.get("EIO") != "4":
            return _Refusal("400 Bad Request", "invalid", NO_PROTOCOL)
        if "sid" in query and not self._is_open(query["sid"]):
            return _Refusal("400 Bad Request", "invalid", "This session has ended.")
        if environ["REQUEST_METHOD"] == "POST":
            return self._bad_post(environ)
        if environ.get("HTTP_UPGRADE", "").lower() == "websocket":
            refusal = _bad_handshake(environ)
            if query.get("transport") != "websocket":
                refusal = _Refusal("400 Bad Request", "invalid", "A WebSocket needs transport=websocket in the query.")
            if refusal is not None:
                return refusal
        elif query.get("transport") == "websocket":
            return _Refusal("400 Bad Request", "invalid", NO_UPGRADE)
        return None if "sid" in query else self._too_many()

    def _too_many(self) -> _Refusal | None:
        """Above the bound of connections, or faster than they can be taken, or too late: come back later."""
        if self.closing:
            retry = (("Retry-After", str(RESTART_RETRY_SECONDS)),)
            return _Refusal("503 Service Unavailable", "unavailable", "This process is about to stop.", retry)
        if self._connections() >= self._max_connections:
            retry = (("Retry-After", str(RETRY_SECONDS)),)
            return _Refusal("503 Service Unavailable", "unavailable", "Too many open connections.", retry)
        if self._handshakes is None:
            return None
        try:
            self._handshakes.take("")
        except RateLimited as error:
            retry = (("Retry-After", str(error.retry_after_seconds)),)
            return _Refusal("503 Service Unavailable", "unavailable", "Too many connections at once.", retry)
        return None

    def _bad_post(self, environ: WSGIEnvironment) -> _Refusal | None:
        length = environ.get("CONTENT_LENGTH") or ""
        if not (length.isascii() and length.isdigit()):
            return _Refusal("411 Length Required", "invalid", "Content-Length is missing.")
        if int(length) > self._max_body_bytes:
            return _Refusal(
                "413 Content Too Large", "too_large", "The payload is too large.", (("Connection", "close"),)
            )
        return None


def recovers(environ: WSGIEnvironment, query: Mapping[str, str]) -> bool:
    """May this client, by its handshake, be one that takes an event's offset as one argument more?"""
    if query.get("recovery") == "0" or PYTHON_TIME.fullmatch(query.get("t", "")):
        return False
    if environ.get("HTTP_USER_AGENT", "").lower().startswith(OTHER_AGENTS):
        return False
    return bool(environ.get(PUBLIC_PREFIX)) or environ.get("PATH_INFO") != PLAIN_PATH


def is_engine_path(environ: WSGIEnvironment) -> bool:
    return environ.get("PATH_INFO", "") in ENGINE_PATHS


def _bad_handshake(environ: WSGIEnvironment) -> _Refusal | None:
    """What RFC 6455, section 4.2.1, asks of the opening request, as far as the server has not looked itself."""
    if environ.get("HTTP_SEC_WEBSOCKET_VERSION") != "13":
        version = (("Sec-WebSocket-Version", "13"),)
        return _Refusal("426 Upgrade Required", "invalid", "Sec-WebSocket-Version must be 13.", version)
    try:
        key = base64.b64decode(environ.get("HTTP_SEC_WEBSOCKET_KEY", ""), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 16:
        return _Refusal("400 Bad Request", "invalid", "Sec-WebSocket-Key must be 16 bytes in base64.")
    connection = [item.strip() for item in environ.get("HTTP_CONNECTION", "").lower().split(",")]
    if not environ.get("HTTP_HOST"):
        return _Refusal("400 Bad Request", "bad_host", "The Host header is missing.")
    if "upgrade" not in connection or environ.get("SERVER_PROTOCOL") != "HTTP/1.1":
        return _Refusal("400 Bad Request", "invalid", "A WebSocket needs HTTP/1.1 and `Connection: Upgrade`.")
    return None


def _take_token(environ: WSGIEnvironment) -> None:
    if URL_TOKEN in environ:
        return
    pairs = parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    environ[URL_TOKEN] = next((value for name, value in pairs if name == "token"), "")
    if environ[URL_TOKEN]:
        environ["QUERY_STRING"] = urlencode([pair for pair in pairs if pair[0] != "token"])


def _take_offer(environ: WSGIEnvironment, known: tuple[str, ...]) -> None:
    """Of `Sec-WebSocket-Protocol: sidecar.v1, bearer.<token>` the token, where nothing logs it; the first that we know
    is answered (a browser drops a connection whose offer is not)."""
    if OFFERED_TOKEN in environ:
        return
    offered = [item.strip() for item in environ.pop("HTTP_SEC_WEBSOCKET_PROTOCOL", "").split(",")]
    tokens = [item.removeprefix("bearer.") for item in offered if item.startswith("bearer.")]
    environ[OFFERED_TOKEN] = tokens[0] if tokens else ""
    answer = next((item for item in offered if item == PROTOCOL or item in known), None)
    if answer is not None:
        environ[SUBPROTOCOL] = answer


def _answer(refusal: _Refusal, start_response: StartResponse) -> Iterable[bytes]:
    body = json.dumps({"code": refusal.code, "message": refusal.message}).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *refusal.headers]
    start_response(refusal.status, headers)
    return [body]
