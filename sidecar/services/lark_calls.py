"""Calls to Lark's API over HTTP: bounded in time and size, and every way to fail is one of our errors. Nothing that
Lark says is repeated in an error, but its number."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import gevent
import httpx

from sidecar.domain.errors import AuthorizationFailed, Invalid, ProviderUnavailable
from sidecar.wire.bodies import parse_message
from sidecar.wire.lark_codes import refusal

MAX_ANSWER_BYTES = 256 * 1024
MAX_CODE = 10**12
MAX_RETRY_AFTER_SECONDS = 3600

Json = Mapping[str, Any]


class LarkCalls:
    """Connections are kept and shared by all apps. A proxy of the environment is used."""

    def __init__(self, api_url: str, timeout_seconds: float):
        self._api_url = api_url
        self._timeout_seconds = timeout_seconds

    def close(self) -> None:
        if "_http" in self.__dict__:
            self._http.close()

    @cached_property
    def _http(self) -> httpx.Client:
        """Made with the first call: to read the certificates of all authorities takes longer than the rest of a start,
        and many never call."""
        return httpx.Client(
            base_url=self._api_url,
            timeout=self._timeout_seconds,
            follow_redirects=False,
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        )

    def call(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        query: Mapping[str, str] | None = None,
        bearer: str | None = None,
        of_user: bool = False,
    ) -> Json:
        """The answer, if its code is 0; `of_user` tells that `bearer` is a user's token and not the app's. Raises
        ProviderUnavailable, or the class of AuthorizationFailed that fits the code. Takes `timeout_seconds` in all:
        claims on rows are held meanwhile. (httpx's own limit is for each step, be it one byte.)"""
        headers = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
        limit = gevent.Timeout(self._timeout_seconds)
        try:
            with limit, self._http.stream(method, path, json=body, params=query, headers=headers) as response:
                raw = _read(response)
        except (httpx.TimeoutException, gevent.Timeout) as raised:
            if isinstance(raised, gevent.Timeout) and raised is not limit:
                raise
            raise ProviderUnavailable(f"Lark did not answer within {self._timeout_seconds:g} seconds.") from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise ProviderUnavailable(f"Lark can't be reached ({type(error).__name__}).") from None
        return _answer(response.status_code, raw, _retry_after(response.headers), of_user)


def _read(response: httpx.Response) -> bytes:
    raw = b""
    for chunk in response.iter_raw():
        raw += chunk
        if len(raw) > MAX_ANSWER_BYTES:
            raise ProviderUnavailable(f"Lark answers with more than {MAX_ANSWER_BYTES} bytes.")
    return raw


def _answer(status: int, raw: bytes, retry_after_seconds: int | None, of_user: bool) -> Json:
    body = _object(raw)
    if body is None and (status < 300 or status == 429 or status >= 500):
        raise ProviderUnavailable(
            f"Lark answers {status} with something that is no JSON object.", retry_after_seconds=retry_after_seconds
        )
    if body is None:
        raise AuthorizationFailed(
            f"The address of Lark's API answers {status}, and not as Lark does: check SIDECAR_LARK_API_URL.",
            reason="misconfigured",
        )
    code = body.get("code")
    if (
        not isinstance(code, int)
        or isinstance(code, bool)
        or not 0 <= code <= MAX_CODE
        or (code == 0 and status >= 300)
    ):
        raise ProviderUnavailable(
            f"Lark answers {status} without a usable code.", retry_after_seconds=retry_after_seconds
        )
    if code != 0:
        raise refusal(code, status, of_user, retry_after_seconds)
    return body


def _object(raw: bytes) -> Json | None:
    try:
        body = parse_message(raw.decode())
    except (UnicodeDecodeError, Invalid):
        return None
    return body if isinstance(body, dict) else None


def _retry_after(headers: httpx.Headers) -> int | None:
    """What Lark asks to wait (its own header, or the standard one), if that is usable."""
    for name in ("x-ogw-ratelimit-reset", "retry-after"):
        text = headers.get(name, "")
        if text.isascii() and text.isdigit() and len(text) <= 6:
            return min(max(int(text), 1), MAX_RETRY_AFTER_SECONDS)
    return None
