"""The socket edge's table of errors: the code a refused client reads, and whether the refusal is final.

A final refusal may be a CONNECT_ERROR, after which socket.io-client never tries again; for a passing fault the
transport is closed instead, and the client comes back by itself (CORE, Offsets and recovery). Who opens a plain
WebSocket is refused by the handshake's status.
"""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.domain import errors


@dataclass(frozen=True, slots=True)
class Refusal:
    code: str
    final: bool
    status: str


REFUSALS: dict[type[errors.SidecarError], Refusal] = {
    errors.SidecarError: Refusal("error", False, "500 Internal Server Error"),
    errors.Invalid: Refusal("invalid", True, "400 Bad Request"),
    errors.Unparsable: Refusal("invalid", True, "400 Bad Request"),
    errors.BadName: Refusal("bad_name", True, "400 Bad Request"),
    errors.BadHost: Refusal("bad_host", True, "400 Bad Request"),
    errors.Refused: Refusal("not_allowed", True, "403 Forbidden"),
    errors.Unauthenticated: Refusal("unauthenticated", True, "401 Unauthorized"),
    errors.TokenExpired: Refusal("token_expired", True, "401 Unauthorized"),
    **dict.fromkeys(
        (errors.SignatureMismatch, errors.StaleRequest, errors.ReplayedRequest),
        Refusal("unauthenticated", True, "401 Unauthorized"),
    ),
    errors.NotAllowed: Refusal("not_allowed", True, "403 Forbidden"),
    errors.NotFound: Refusal("not_found", True, "404 Not Found"),
    errors.Conflict: Refusal("conflict", True, "409 Conflict"),
    errors.PreconditionFailed: Refusal("precondition_failed", True, "412 Precondition Failed"),
    errors.TooLarge: Refusal("too_large", True, "413 Content Too Large"),
    errors.UnsupportedMedia: Refusal("invalid", True, "415 Unsupported Media Type"),
    errors.TooMany: Refusal("too_many", False, "429 Too Many Requests"),
    errors.RateLimited: Refusal("rate_limited", False, "429 Too Many Requests"),
    errors.TooManyRooms: Refusal("too_many_rooms", True, "429 Too Many Requests"),
    errors.Unavailable: Refusal("unavailable", False, "503 Service Unavailable"),
    **dict.fromkeys(
        (errors.AuthorizationFailed, *errors.AuthorizationFailed.__subclasses__()),
        Refusal("error", True, "500 Internal Server Error"),  # no socket asks for one
    ),
}


def refused(error: errors.SidecarError) -> dict[str, object]:
    """The acknowledgement of a request that failed."""
    return {"ok": False, "code": REFUSALS[type(error)].code, "message": error.detail}
