"""The one tree of errors. A class a reason, each with a stable `code` that clients may switch on.

    SidecarError
    ├── Invalid                  what came in can't be used
    │   ├── Unparsable           not JSON, even after the bounded repair
    │   ├── BadName              a room's name that no room can have
    │   └── BadHost              the Host header names somebody else
    ├── Refused                  who you are, or what you may
    │   ├── Unauthenticated
    │   │   ├── TokenExpired
    │   │   ├── SignatureMismatch    the request is not from whom it should be
    │   │   ├── StaleRequest         it is too old, or from the future
    │   │   └── ReplayedRequest      it has come before
    │   └── NotAllowed
    ├── NotFound
    ├── Conflict
    ├── PreconditionFailed       it is not (any more) as the request says
    ├── TooLarge
    ├── UnsupportedMedia
    ├── TooMany                  a limit in numbers
    │   ├── RateLimited
    │   └── TooManyRooms
    ├── AuthorizationFailed      a user's authorization at another platform (Lark)
    │   ├── AuthenticationRequired   the user has not authorized, or no longer
    │   ├── UserTokenExpired         their token has run out and can't be renewed
    │   ├── TokenRefreshFailed       the platform did not renew it
    │   ├── AuthorizationNotFound
    │   ├── AuthorizationExpired     the user did not come in time
    │   ├── AuthorizationRejected    the user has said no
    │   ├── AuthorizationCodeExpired the platform's code was too old, or used
    │   ├── AuthorizationCodeMissing the user came back without one
    │   ├── WrongUser                somebody else has authorized
    │   └── ProviderUnavailable      the platform doesn't answer; try again
    └── Unavailable              the store can't take it now; try again

What each becomes on the wire is said in two tables: `http/errors.py` and `sockets/errors.py`; a test fails
until both name every class here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldError:
    """One bad field: where it stands (`metrics.total_duration`, `logs[3].level`) and what is wrong with it."""

    path: str
    message: str


class SidecarError(Exception):
    """Base of all. `detail` is one sentence for a person; it never holds a secret or the sender's input."""

    code: ClassVar[str] = "error"
    title: ClassVar[str] = "Error"

    def __init__(self, detail: str, fields: tuple[FieldError, ...] = (), retry_after_seconds: int | None = None):
        super().__init__(detail)
        self.detail = detail
        self.fields = fields
        self.retry_after_seconds = retry_after_seconds


class Invalid(SidecarError):
    code = "invalid"
    title = "Invalid request"


class Unparsable(Invalid):
    code = "unparsable"
    title = "Unparsable body"


class BadName(Invalid):
    code = "bad_name"
    title = "Bad name"


class BadHost(Invalid):
    code = "bad_host"
    title = "Unknown host"


class Refused(SidecarError):
    code = "refused"
    title = "Refused"


class Unauthenticated(Refused):
    code = "unauthenticated"
    title = "Authentication needed"


class TokenExpired(Unauthenticated):
    code = "token_expired"
    title = "Token expired"


class SignatureMismatch(Unauthenticated):
    code = "signature_mismatch"
    title = "Signature mismatch"


class StaleRequest(Unauthenticated):
    code = "stale_request"
    title = "Stale request"


class ReplayedRequest(Unauthenticated):
    code = "replayed_request"
    title = "Replayed request"


class NotAllowed(Refused):
    code = "not_allowed"
    title = "Not allowed"


class NotFound(SidecarError):
    code = "not_found"
    title = "Not found"


class Conflict(SidecarError):
    code = "conflict"
    title = "Conflict"


class PreconditionFailed(SidecarError):
    code = "precondition_failed"
    title = "Precondition failed"


class TooLarge(SidecarError):
    code = "too_large"
    title = "Too large"


class UnsupportedMedia(SidecarError):
    code = "unsupported_media"
    title = "Unsupported media type"


class TooMany(SidecarError):
    code = "too_many"
    title = "Too many"


class RateLimited(TooMany):
    code = "rate_limited"
    title = "Rate limit reached"


class TooManyRooms(TooMany):
    code = "too_many_rooms"
    title = "Too many rooms"


class Unavailable(SidecarError):
    code = "unavailable"
    title = "Temporarily unavailable"


class AuthorizationFailed(SidecarError):
    """`reason` is one of domain.authorizations.REASONS, `provider_code` the platform's own number if it gave one."""

    code = "authorization_failed"
    title = "Authorization failed"
    reason = "unknown_error"

    def __init__(
        self,
        detail: str,
        *,
        provider_code: int | None = None,
        reason: str | None = None,
        retry_after_seconds: int | None = None,
    ):
        super().__init__(detail, retry_after_seconds=retry_after_seconds)
        self.provider_code = provider_code
        if reason is not None:
            self.reason = reason


class AuthenticationRequired(AuthorizationFailed):
    code = "authentication_required"
    title = "The user has to authorize"


class UserTokenExpired(AuthorizationFailed):
    code = "user_token_expired"
    title = "The user's token has expired"


class TokenRefreshFailed(AuthorizationFailed):
    code = "token_refresh_failed"
    title = "The token could not be renewed"


class AuthorizationNotFound(AuthorizationFailed):
    code = "authorization_not_found"
    title = "No such authorization"


class AuthorizationExpired(AuthorizationFailed):
    code = "authorization_expired"
    title = "The authorization has expired"


class AuthorizationRejected(AuthorizationFailed):
    code = "authorization_rejected"
    title = "The user has declined"
    reason = "user_rejected"


class AuthorizationCodeExpired(AuthorizationFailed):
    code = "authorization_code_expired"
    title = "The code has expired or was used"
    reason = "code_expired"


class AuthorizationCodeMissing(AuthorizationFailed):
    code = "authorization_code_missing"
    title = "The code is missing"
    reason = "missing_code"


class WrongUser(AuthorizationFailed):
    code = "wrong_user"
    title = "Somebody else has authorized"
    reason = "wrong_user"


class ProviderUnavailable(AuthorizationFailed):
    code = "provider_unavailable"
    title = "The platform does not answer"
    reason = "provider_unavailable"
