"""Calls to Lark as a user: `UserTokenAuth` puts the user's token, which the sidecar keeps fresh, into each of them.

    auth = UserTokenAuth("cli_0123456789abcdef", "ada")
    httpx.get(address, auth=auth)        # or httpx.AsyncClient(auth=auth)
    requests.get(address, auth=auth)     # or session.auth = auth

SIDECAR_URL and SIDECAR_TOKEN say where the sidecar is and who asks; its token needs the scope authorizations:read, and
authorizations:write for the address at which a user authorizes. Needs httpx only.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncGenerator, Generator, Mapping
from datetime import datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx

from sidecar.client.http import ApiError, SidecarClient

CACHE_SECONDS = 300.0
"""So long a token is used without asking for it again: a revoked one no longer than this."""
MARGIN_SECONDS = 60.0
"""So long before its end a token is not used any more."""
RENEW_SECONDS = 60.0
"""So seldom a token is renewed because Lark refuses it: what is sent to the wrong Lark is refused however new it is."""
REUSE_SECONDS = 60.0
"""So long an authorization that was begun must still last to be pointed at again."""
REFUSING = frozenset({400, 401, 403})
TOKEN_CODES = frozenset({99991661, 99991663, 99991664, 99991668, 99991671, 99991677, 20005})
"""What Lark says of a token that it doesn't know, or no longer. (99991672 and 99991679 are of missing permissions.)"""
NEEDED = frozenset({"authentication_required", "user_token_expired", "token_refresh_failed"})
DEFAULT_PORTS = {"http": 80, "https": 443}


class AuthenticationRequired(ApiError):
    """The user has to authorize: send them to `authorize_url`, before `expires_at` (ISO 8601). It is None where this
    program may not begin an authorization, or the user has begun too many; the text says so."""

    def __init__(self, text: str, authorize_url: str | None, session_id: str | None, expires_at: str | None):
        super().__init__(text, 404, "authentication_required")
        self.authorize_url = authorize_url
        self.session_id = session_id
        self.expires_at = expires_at


class Prepared(Protocol):
    """What is used of requests.PreparedRequest."""

    url: str | None
    headers: Any
    body: Any

    def register_hook(self, event: str, hook: Any) -> None: ...

    def copy(self) -> Prepared: ...


class UserTokenAuth(httpx.Auth):
    """Authentication for httpx and for requests. When Lark doesn't take the token, the request is sent once more with a
    newer one, if there is one and its body can be sent again. Raises ApiError where the sidecar can't give a token, of
    which AuthenticationRequired is one. May be shared by threads; one object is one user of one app.

    `open_id`, `scope` and `language` are for the authorization that is begun when one is needed."""

    def __init__(
        self,
        app: str,
        user: str,
        *,
        client: SidecarClient | None = None,
        url: str | None = None,
        token: str | None = None,
        open_id: str | None = None,
        scope: str | None = None,
        language: str | None = None,
    ):
        self.app, self.user = app, user
        self._client = client or SidecarClient(url, token)
        self._begins = {"open_id": open_id, "scope": scope, "language": language}
        self._lock = threading.Lock()
        self._token = ""
        self._until = 0.0
        self._renew_again_at = 0.0
        self._begun: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        return f"UserTokenAuth({self.app!r}, {self.user!r})"

    def close(self) -> None:
        """Close the connections to the sidecar, a given `client`'s too."""
        self._client.close()

    def token(self) -> str:
        """The user's user_access_token."""
        with self._lock:
            if not self._token or time.monotonic() > self._until:
                self._fetch(None)
            return self._token

    def _newer(self, refused: str, code: int) -> str | None:
        """A token in place of this one, which the sidecar renews if Lark has said that it is at fault; None if there is
        none."""
        with self._lock:
            if self._token in ("", refused):
                renew = code in TOKEN_CODES and time.monotonic() > self._renew_again_at
                self._fetch(refused if renew else None)
                if renew:
                    self._renew_again_at = time.monotonic() + RENEW_SECONDS
            return None if self._token == refused else self._token

    def _fetch(self, refused: str | None) -> None:
        self._token = ""
        try:
            found = self._client.user_token(self.app, self.user, refused)
        except ApiError as error:
            if error.code in NEEDED:
                raise self._required(str(error)) from None
            raise
        left = float(found["expires_in"])
        self._token = str(found["user_access_token"])
        self._until = time.monotonic() + min(left - MARGIN_SECONDS, CACHE_SECONDS)

    def _required(self, why: str) -> AuthenticationRequired:
        """One authorization for all calls that need it, as long as it is open."""
        if self._begun is None or not self._open(self._begun):
            self._begun = None
            try:
                self._begun = self._client.start_authorization(self.user, self.app, **self._begins)
            except ApiError as error:
                return AuthenticationRequired(f"{why} No authorization was begun: {error}", None, None, None)
        begun = self._begun
        return AuthenticationRequired(why, begun["authorize_url"], begun["session_id"], begun["expires_at"])

    def _open(self, begun: Mapping[str, Any]) -> bool:
        if datetime.fromisoformat(begun["expires_at"]).timestamp() - time.time() < REUSE_SECONDS:
            return False
        try:
            return bool(self._client.authorization(begun["session_id"])["state"] == "pending")
        except ApiError:
            return False

    # -- httpx

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        token = self.token()
        request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        if not _judged(response.status_code, str(response.request.url), str(request.url)):
            return
        response.read()
        if (code := refusal(response.status_code, response.content)) is None:
            return
        newer = self._newer(token, code)
        if newer is not None and isinstance(request.stream, httpx.ByteStream):
            request.headers["Authorization"] = f"Bearer {newer}"
            yield request

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        token = await asyncio.to_thread(self.token)
        request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        if not _judged(response.status_code, str(response.request.url), str(request.url)):
            return
        await response.aread()
        if (code := refusal(response.status_code, response.content)) is None:
            return
        newer = await asyncio.to_thread(self._newer, token, code)
        if newer is not None and isinstance(request.stream, httpx.ByteStream):
            request.headers["Authorization"] = f"Bearer {newer}"
            yield request

    # -- requests

    def __call__(self, request: Prepared) -> Prepared:
        token = self.token()
        request.headers["Authorization"] = f"Bearer {token}"
        asked = str(request.url)

        def again(response: Any, **options: Any) -> Any:
            if not _judged(response.status_code, response.request.url, asked):
                return response
            if (code := refusal(response.status_code, response.content)) is None:
                return response
            newer = self._newer(token, code)
            if newer is None or not isinstance(response.request.body, (bytes, str, type(None))):
                return response
            response.close()
            repeated = response.request.copy()
            repeated.headers["Authorization"] = f"Bearer {newer}"
            answer = response.connection.send(repeated, **options)
            answer.history.append(response)
            answer.request = repeated
            return answer

        request.register_hook("response", again)
        return request


def refusal(status: int, content: bytes) -> int | None:
    """The code of an answer that may mean that the token holds no more: Lark's, else the status 401; else None."""
    try:
        body = json.loads(content)
        code = body.get("code")
    except (ValueError, AttributeError):
        code = None
    if code in TOKEN_CODES:
        return int(code)
    return 401 if status == 401 else None


def _judged(status: int, answered: str, asked: str) -> bool:
    """May this be a refusal of the token by whom it was sent to? After a redirect somebody else may have answered, who
    must not be given it."""
    return status in REFUSING and _origin(answered) == _origin(asked)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or DEFAULT_PORTS.get(parts.scheme)
