"""The HTTP edge's table of errors, and how each is said: RFC 9457 problem+json with the fields old clients read."""

from __future__ import annotations

from dataclasses import asdict

import structlog
from flask import Flask, Response, g, json, request
from werkzeug.exceptions import ClientDisconnected, HTTPException, MethodNotAllowed, RequestEntityTooLarge
from werkzeug.exceptions import NotFound as NoRoute

from sidecar.domain import errors

log = structlog.get_logger("sidecar.http")

STATUS: dict[type[errors.SidecarError], int] = {
    errors.SidecarError: 500,
    errors.Invalid: 400,
    errors.Unparsable: 400,
    errors.BadName: 400,
    errors.BadHost: 400,
    errors.Refused: 403,
    errors.Unauthenticated: 401,
    errors.TokenExpired: 401,
    errors.SignatureMismatch: 401,
    errors.StaleRequest: 401,
    errors.ReplayedRequest: 401,
    errors.NotAllowed: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.PreconditionFailed: 412,
    errors.TooLarge: 413,
    errors.UnsupportedMedia: 415,
    errors.TooMany: 429,
    errors.RateLimited: 429,
    errors.TooManyRooms: 429,
    errors.Unavailable: 503,
    errors.AuthorizationFailed: 502,
    errors.AuthenticationRequired: 404,
    errors.UserTokenExpired: 404,
    errors.TokenRefreshFailed: 502,
    errors.AuthorizationNotFound: 404,
    errors.AuthorizationExpired: 410,
    errors.AuthorizationRejected: 409,
    errors.AuthorizationCodeExpired: 400,
    errors.AuthorizationCodeMissing: 400,
    errors.WrongUser: 403,
    errors.ProviderUnavailable: 503,
}


OLD_PATHS = frozenset({"/api/send-websocket", "/api/push-location", "/api/start-live-push", "/api/stop-live-push"})
"""Their clients were written for another server's errors: there and under /ashe/ `status` is a word."""


def is_old(path: str) -> bool:
    """Is it one of those, given without prefix and last slash?"""
    return path in OLD_PATHS or path.startswith("/ashe/")


def problem(error: errors.SidecarError) -> Response:
    """The answer that tells this error."""
    status = STATUS[type(error)]
    response = _problem(status, error.code, error.title, error.detail, error.fields)
    if error.retry_after_seconds is not None:
        response.headers["Retry-After"] = str(error.retry_after_seconds)
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="sidecar"'
    return response


def register_errors(app: Flask) -> None:
    app.register_error_handler(errors.SidecarError, problem)
    app.register_error_handler(HTTPException, _http_exception)
    app.register_error_handler(Exception, _unexpected)


def _http_exception(error: HTTPException) -> Response:
    """Errors that Flask itself raises: no route, wrong method, a body over the limit, a malformed request."""
    if isinstance(error, NoRoute):
        return problem(errors.NotFound("There is nothing at this address."))
    if isinstance(error, RequestEntityTooLarge):
        return problem(errors.TooLarge("The body is larger than this server takes."))
    if isinstance(error, MethodNotAllowed):
        response = _problem(405, "method_not_allowed", "Method not allowed", "This address takes other methods.", ())
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods or ()))
        return response
    status = error.code or 500
    code = "bad_request" if status < 500 else "error"
    response = _problem(status, code, error.name, "The request can't be served.", ())
    if isinstance(error, ClientDisconnected):  # where the next request begins is unknown
        response.headers["Connection"] = "close"
    return response


def _unexpected(error: Exception) -> Response:
    log.error("http.unexpected", exc_info=error)
    return _problem(500, "error", "Internal error", "This is a fault of the server; it has been logged.", ())


def _problem(status: int, code: str, title: str, detail: str, fields: tuple[errors.FieldError, ...]) -> Response:
    body = {
        "type": f"about:blank#{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "errors": [asdict(field) for field in fields],
        "request_id": g.get("request_id", ""),
        "success": False,
        "message": detail,
    }
    if not is_old(request.path.removesuffix("/")):
        return Response(json.dumps(body, ensure_ascii=False), status, content_type="application/problem+json")
    body["status"] = "error"
    if status == 401:
        body["detail"] = "Invalid token."
    return Response(json.dumps(body, ensure_ascii=False), status, content_type="application/json")
