"""The socket edge's table of errors: the code a refused client reads, and whether the refusal is final.

A final refusal may be a CONNECT_ERROR, after which socket.io-client never tries again; for a passing fault the
transport is closed instead, and the client comes back by itself (CORE, Offsets and recovery).
"""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.domain import errors


@dataclass(frozen=True, slots=True)
class Refusal:
    code: str
    final: bool


REFUSALS: dict[type[errors.SidecarError], Refusal] = {
    errors.SidecarError: Refusal("error", False),
    errors.Invalid: Refusal("invalid", True),
    errors.Unparsable: Refusal("invalid", True),
    errors.BadName: Refusal("bad_name", True),
    errors.BadHost: Refusal("bad_host", True),
    errors.Refused: Refusal("not_allowed", True),
    errors.Unauthenticated: Refusal("unauthenticated", True),
    errors.TokenExpired: Refusal("token_expired", True),
    errors.NotAllowed: Refusal("not_allowed", True),
    errors.NotFound: Refusal("not_found", True),
    errors.Conflict: Refusal("conflict", True),
    errors.TooLarge: Refusal("too_large", True),
    errors.UnsupportedMedia: Refusal("invalid", True),
    errors.TooMany: Refusal("too_many", False),
    errors.RateLimited: Refusal("rate_limited", False),
    errors.TooManyRooms: Refusal("too_many_rooms", True),
    errors.Unavailable: Refusal("unavailable", False),
}


def refused(error: errors.SidecarError) -> dict[str, object]:
    """The acknowledgement of a request that failed."""
    return {"ok": False, "code": REFUSALS[type(error)].code, "message": error.detail}
