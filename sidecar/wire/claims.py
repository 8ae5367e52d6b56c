"""Our signed tokens (JWT, HS256, RFC 7519) as bytes and as claims: connection tokens and login cookies."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

import jwt

from sidecar.domain.errors import TokenExpired, Unauthenticated


@dataclass(frozen=True, slots=True)
class Claims:
    """`token_id` is the API token that stands behind; times are Unix seconds; `patterns` None means no limit."""

    audience: str
    token_id: str
    issued_at: int
    expires_at: int
    sub: str | None = None
    patterns: tuple[str, ...] | None = None
    scopes: frozenset[str] = frozenset()


def sign(claims: Claims, key: bytes) -> str:
    body: dict[str, Any] = {
        "aud": claims.audience,
        "tid": claims.token_id,
        "jti": secrets.token_hex(8),
        "iat": claims.issued_at,
        "exp": claims.expires_at,
        "rooms": claims.patterns,
        "scopes": sorted(claims.scopes),
    }
    if claims.sub is not None:
        body["sub"] = claims.sub
    return jwt.encode(body, key, algorithm="HS256")


def read(text: str, key: bytes, audience: str, now: float) -> Claims:
    """The claims of a token that we signed for this audience. Raises Unauthenticated, or TokenExpired."""
    try:
        body: dict[str, Any] = jwt.decode(
            text,
            key,
            algorithms=["HS256"],
            audience=audience,
            options={"require": ["exp", "iat", "tid"], "verify_exp": False, "verify_iat": False, "verify_nbf": False},
        )
    except (jwt.InvalidTokenError, ValueError):
        raise Unauthenticated("The token is not known.") from None
    if body["exp"] <= now:
        raise TokenExpired("The token has expired.")
    patterns = body["rooms"]
    return Claims(
        audience=audience,
        token_id=body["tid"],
        issued_at=body["iat"],
        expires_at=body["exp"],
        sub=body.get("sub"),
        patterns=None if patterns is None else tuple(patterns),
        scopes=frozenset(body["scopes"]),
    )
