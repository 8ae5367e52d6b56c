"""Who is behind a credential: connection tokens of browsers (JWT), the login cookie, one-time login links.

A connection token is never wider than the API token that issued it, and dies with it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sidecar.domain.access import ROOM_KINDS, SCOPES, Identity, may, narrower
from sidecar.domain.errors import FieldError, Invalid, NotAllowed, NotFound, Unauthenticated
from sidecar.domain.rooms import clean_name
from sidecar.domain.times import utc_text
from sidecar.services.keys import Keys
from sidecar.services.tokens import Tokens
from sidecar.store.journal import Transaction
from sidecar.store.tokens import insert_login_link, spend_login_link
from sidecar.store.writer import Submit
from sidecar.wire.claims import Claims, read, sign
from sidecar.wire.tokens import MAX_CONNECTION_SECONDS, MAX_PATTERN_CHARACTERS, MAX_PATTERNS

AUDIENCE = "sidecar"
COOKIE_AUDIENCE = "sidecar-cookie"
DEFAULT_TTL_SECONDS = 300
QUERY_TTL_SECONDS = 300
"""The longest life of a token that may stand in a URL."""
LOGIN_LINK_SECONDS = 900
COOKIE_SECONDS = 7 * 86_400
BROWSER_SCOPES = frozenset({"deployments:read", "rooms:read"})
"""What a connection token may do when its issuer names no scopes."""


@dataclass(frozen=True, slots=True)
class ConnectionToken:
    text: str
    expires_at: str
    ttl_seconds: int


class Connections:
    """Issues and reads the signed tokens; `submit` runs a command in the writer."""

    def __init__(
        self,
        keys: Keys,
        tokens: Tokens,
        submit: Submit,
        clock: Callable[[], float] = time.time,
    ):
        self._connection_key = keys.derive("connection-token")
        self._cookie_key = keys.derive("login-cookie")
        self._csrf_key = keys.derive("csrf")
        self._tokens = tokens
        self._submit = submit
        self._clock = clock

    def issue(
        self,
        issuer: Identity,
        sub: object = None,
        patterns: Sequence[object] | None = None,
        scopes: Sequence[object] | None = None,
        ttl_seconds: object = None,
    ) -> ConnectionToken:
        """A connection token for a browser. Without `patterns` all rooms that the issuer may watch. It ends at the
        latest with its issuer, and the answer says so.
        Raises NotAllowed without the scope tokens:issue, Invalid naming every bad field."""
        if not may(issuer, "tokens:issue") or issuer.token_id is None:
            raise NotAllowed("This needs a token with the scope tokens:issue.")
        problems: list[FieldError] = []
        name = None
        if sub is not None:
            try:
                name = clean_name(sub, "sub")
            except Invalid as error:
                problems.append(FieldError("sub", error.detail))
        rooms = _patterns(patterns, problems)
        wanted = BROWSER_SCOPES if scopes is None else frozenset(str(scope) for scope in scopes)
        if wanted - SCOPES:
            problems.append(FieldError("scopes", f"needs some of {' '.join(sorted(SCOPES))}"))
        ttl = DEFAULT_TTL_SECONDS if ttl_seconds is None else ttl_seconds
        if isinstance(ttl, bool) or not isinstance(ttl, int) or not 1 <= ttl <= MAX_CONNECTION_SECONDS:
            problems.append(FieldError("ttl_seconds", f"must be a whole number from 1 to {MAX_CONNECTION_SECONDS}"))
            ttl = 0
        if problems:
            raise Invalid("The connection token can't be made so.", tuple(problems))
        now = int(self._clock())
        granted = narrower(wanted, issuer) - {"admin", "tokens:issue"}
        end = now + ttl if issuer.expires_at is None else min(now + ttl, int(issuer.expires_at))
        claims = Claims(AUDIENCE, issuer.token_id, now, end, name, rooms, granted)
        return ConnectionToken(sign(claims, self._connection_key), utc_text(end), end - now)

    def identify(self, text: str, in_url: bool = False) -> Identity:
        """Whose credential this is: an API token or a connection token; in a URL only a connection token of five
        minutes or less. Raises Unauthenticated, or TokenExpired."""
        if text.startswith("sct_"):
            if in_url:
                raise Unauthenticated("An API token may not stand in a URL.")
            return self._tokens.verify(text)
        return self._connection(text, in_url)

    def _connection(self, text: str, in_url: bool) -> Identity:
        claims = read(text, self._connection_key, AUDIENCE, self._clock())
        if in_url and claims.expires_at - claims.issued_at > QUERY_TTL_SECONDS:
            raise Unauthenticated("A token in a URL may live five minutes at most.")
        issuer = self._tokens.holder(claims.token_id)
        return Identity(
            kind="connection",
            name=claims.sub or issuer.name,
            scopes=narrower(claims.scopes, issuer),
            projects=issuer.projects,
            patterns=claims.patterns,
            user=claims.sub,
            token_id=issuer.token_id,
            number=issuer.number,
            expires_at=_first_end(claims, issuer),
        )

    def login_link(self, token_id: str) -> str:
        """A code that logs its first user in as the holder of this admin token, within a quarter of an hour."""
        code = secrets.token_urlsafe(24)
        expires_at = utc_text(self._clock() + LOGIN_LINK_SECONDS)

        def command(transaction: Transaction) -> None:
            insert_login_link(transaction.connection, _hash(code), token_id, expires_at)

        self._submit(command)
        return code

    def spend_login_link(self, code: str) -> str:
        """The login cookie's value for a fresh code, which is spent by this. Raises NotFound, also when the token
        behind it has ended meanwhile."""

        def command(transaction: Transaction) -> str:
            token_id = spend_login_link(transaction.connection, _hash(code), transaction.now)
            if token_id is None:
                raise NotFound("This login link was used, has expired, or never was.")
            return token_id

        token_id = self._submit(command)
        try:
            self._tokens.holder(token_id)
        except Unauthenticated:
            raise NotFound("The admin token behind this login link has ended.") from None
        now = int(self._clock())
        return sign(Claims(COOKIE_AUDIENCE, token_id, now, now + COOKIE_SECONDS), self._cookie_key)

    def cookie_identity(self, value: str) -> Identity:
        """Who is logged in by this cookie. Raises Unauthenticated, or TokenExpired."""
        claims = read(value, self._cookie_key, COOKIE_AUDIENCE, self._clock())
        holder = self._tokens.holder(claims.token_id)
        return replace(holder, kind="cookie", expires_at=_first_end(claims, holder))

    def csrf_token(self, cookie: str) -> str:
        """What a page must send back as X-CSRF-Token with each write that rests on this cookie."""
        return hmac.new(self._csrf_key, cookie.encode("utf-8", "replace"), hashlib.sha256).hexdigest()

    def csrf_holds(self, cookie: str, given: str) -> bool:
        return hmac.compare_digest(self.csrf_token(cookie).encode(), given.encode("utf-8", "replace"))


def _first_end(claims: Claims, holder: Identity) -> float:
    """When a signed token stops to hold: at its own end or at that of the API token behind it."""
    return float(claims.expires_at) if holder.expires_at is None else min(float(claims.expires_at), holder.expires_at)


def _patterns(patterns: Sequence[object] | None, problems: list[FieldError]) -> tuple[str, ...] | None:
    if patterns is None:
        return None
    if len(patterns) > MAX_PATTERNS:
        problems.append(FieldError("rooms", f"at most {MAX_PATTERNS} patterns"))
        return ()
    found = []
    for index, pattern in enumerate(patterns):
        kind = pattern.partition(":")[0] if isinstance(pattern, str) else ""
        if not isinstance(pattern, str) or len(pattern) > MAX_PATTERN_CHARACTERS or kind not in ROOM_KINDS:
            problems.append(
                FieldError(f"rooms[{index}]", "must begin with project: deployment: room: menu or everyone")
            )
        else:
            found.append(pattern)
    return tuple(found)


def _hash(code: str) -> bytes:
    return hashlib.sha256(code.encode("utf-8", "replace")).digest()
