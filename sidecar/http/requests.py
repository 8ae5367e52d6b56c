"""What every request passes through: an id, the host check, the rate limit, CORS, metrics and the security headers;
and who the caller is. A handler asks `Caller` and never reads a credential itself."""

from __future__ import annotations

import re
import secrets
import time
from typing import Any

import structlog
from flask import Flask, Response, g, request
from flask.globals import request_ctx
from structlog.typing import FilteringBoundLogger
from werkzeug.exceptions import ClientDisconnected

from sidecar.domain.access import Identity
from sidecar.domain.errors import BadHost, NotAllowed, SidecarError, TooLarge, Unauthenticated
from sidecar.observability.metrics import Metrics
from sidecar.services.access import LOGIN_COOKIE, Access, require
from sidecar.services.connections import Connections
from sidecar.services.idempotency import KeyedRequest
from sidecar.services.limits import RateLimit, bucket_of
from sidecar.wire.bodies import parse_body
from sidecar.wire.origins import Origins
from sidecar.wire.proxies import PUBLIC_PREFIX
from sidecar.wire.signatures import SIGNATURE_HEADER

CSRF_HEADER = "X-CSRF-Token"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
METHODS = (*SAFE_METHODS, "POST", "PUT", "PATCH", "DELETE")
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
UNLIMITED = ("/healthz", "/readyz", "/metrics")
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; style-src 'self'; script-src 'self'; "
    "object-src 'none'; base-uri 'self'; frame-ancestors 'self'; form-action 'self'"
)


class Caller:
    """Who sends the request being handled."""

    def __init__(self, access: Access, connections: Connections, origins: Origins):
        self._access = access
        self._connections = connections
        self._origins = origins

    def identity(self) -> Identity:
        """Found once a request. Raises Unauthenticated for a credential that doesn't hold, NotAllowed for a write
        that rests on the login cookie without its CSRF token."""
        if "identity" not in g:
            g.identity = self._identify()
        found: Identity = g.identity
        return found

    def poster(self, body: bytes) -> Identity:
        """Who posts this body: the holder of a token, or of the secret that it was signed with. Raises what `identity`
        raises, and SignatureMismatch."""
        identity = self.identity()
        asked = request_ctx.request
        signature = asked.headers.get(SIGNATURE_HEADER)
        if signature is None:
            return identity
        return self._access.signed(identity, signature, body, asked.remote_addr or "")

    def require(self, scope: str) -> Identity:
        """The caller, who has this scope. Raises Unauthenticated or NotAllowed."""
        identity = self.identity()
        require(identity, scope)
        return identity

    def _identify(self) -> Identity:
        credential = _credential()
        if credential is not None:
            return self._access.by_credential(credential)
        address = request.remote_addr or ""
        cookie = request.cookies.get(LOGIN_COOKIE) if "Cookie" in request.headers else None
        if cookie is None:
            return self._access.stranger(address)
        identity = self._access.by_cookie(cookie, address)
        if identity.authenticated and request.method not in SAFE_METHODS:
            given = request.headers.get(CSRF_HEADER, "")
            if not self._origins.same_origin(request.environ) or not self._connections.csrf_holds(cookie, given):
                raise NotAllowed(f"A write by the login cookie needs the header {CSRF_HEADER} (GET /api/session).")
        return identity


def _credential() -> str | None:
    headers = request.headers
    header = headers.get("Authorization")
    if header is not None:
        scheme, _, rest = header.partition(" ")
        if scheme.lower() not in ("token", "bearer") or not rest.strip():
            raise Unauthenticated("Authorization must be `Token <token>` or `Bearer <token>`.")
        return rest.strip()
    return headers.get("X-API-Key") or headers.get("X-Webhook-Token")


def raw_body() -> bytes:
    """The request's body. Raises TooLarge; ClientDisconnected for one that ends early or whose chunks can't be read.
    (Werkzeug cuts a chunked body at the limit without a word, and stacks two streams upon ours where a length is
    given.)"""
    asked = request_ctx.request
    length, source = asked.content_length, asked.environ["wsgi.input"]
    try:
        if length is None:
            body: bytes = asked.get_data(cache=False)
            too_large = bool(source.read(1))
        else:
            too_large = length > (asked.max_content_length or length)
            body = b"" if too_large else source.read(length)
    except OSError:
        raise ClientDisconnected from None
    if too_large:
        raise TooLarge("The body is larger than this server takes.")
    if len(body) < (length or 0):
        raise ClientDisconnected
    return body


def json_body(unique: bool = False) -> dict[str, Any]:
    """The request's body, a JSON object. Raises Unparsable, Invalid, TooLarge or UnsupportedMedia."""
    return parsed(raw_body(), unique)


def parsed(raw: bytes, unique: bool = False) -> dict[str, Any]:
    """A body that was read already; with `unique` no field may be named twice."""
    value: dict[str, Any] = parse_body(raw, request.headers.get("Content-Type"), unique).value
    return value


def keyed_request(identity: Identity, route: str, raw: bytes) -> KeyedRequest:
    """The request being handled, by which its repetition is recognised. Raises Invalid."""
    return KeyedRequest.of(identity, request.remote_addr or "", route, request.headers.get("Idempotency-Key"), raw)


def register_requests(app: Flask, caller: Caller, origins: Origins, metrics: Metrics, limit: RateLimit | None) -> None:
    """Hook the checks and headers into the app."""
    log: FilteringBoundLogger = structlog.get_logger("sidecar.http").bind()

    @app.before_request
    def begin() -> Response | None:
        asked = request_ctx.request
        given = asked.environ.get("HTTP_X_REQUEST_ID", "")
        g.request_id = request_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        g.began = time.perf_counter()
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        if not origins.host_known(asked.environ):
            raise BadHost("This host name is not ours (SIDECAR_PUBLIC_URL).")
        if asked.method == "OPTIONS" and "Access-Control-Request-Method" in asked.headers:
            return Response(status=204)
        if limit is not None and asked.path not in UNLIMITED:
            limit.take(_limited_by(caller))
        return None

    @app.after_request
    def end(response: Response) -> Response:
        asked = request_ctx.request
        response.headers.add("X-Request-Id", g.get("request_id", ""))
        response.headers.add("X-Content-Type-Options", "nosniff")
        response.headers.setdefault("Referrer-Policy", "same-origin")
        if response.mimetype == "text/html":
            response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        if "Cache-Control" not in response.headers:
            response.headers["Cache-Control"] = "no-store"
        _cors(origins, response)
        method = asked.method if asked.method in METHODS else "other"
        route = asked.url_rule.rule if asked.url_rule is not None else "none"
        seconds = time.perf_counter() - g.get("began", time.perf_counter())
        metrics.count_request(method, route, response.status_code, seconds)
        log.debug("http.request", method=method, route=route, status=response.status_code, seconds=round(seconds, 4))
        return response


def _limited_by(caller: Caller) -> str:
    """A token has its own bucket; a stranger, and whoever holds a wrong token, that of the address."""
    address = f"address:{request.remote_addr}"
    try:
        return bucket_of(caller.identity(), address)
    except SidecarError:
        return address


def _cors(origins: Origins, response: Response) -> None:
    origin = origins.cross_origin(request.environ)
    response.headers.add("Vary", "Origin")
    if origin is None:
        return
    response.headers["Access-Control-Allow-Origin"] = origin
    response.headers["Access-Control-Expose-Headers"] = (
        "X-Request-Id, Retry-After, ETag, X-Maim-Undelivered, X-Maim-Queued, X-Maim-Duplicate"
    )
    if request.method == "OPTIONS":
        response.headers["Access-Control-Allow-Methods"] = "GET, POST, PUT, PATCH, DELETE"
        response.headers["Access-Control-Allow-Headers"] = (
            "Authorization, Content-Type, Idempotency-Key, X-API-Key, X-Request-Id, If-Match, If-None-Match"
        )
        response.headers["Access-Control-Max-Age"] = "600"


def public_prefix() -> str:
    """The path prefix under which this caller reaches us, `` or such as `/project-dashboard`."""
    prefix: str = request.environ.get(PUBLIC_PREFIX, "")
    return prefix
