"""A small HTTP client of a running sidecar, for scripts and the command line. Needs httpx only."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import httpx

TIMEOUT_SECONDS = 15.0


class ApiError(Exception):
    """The sidecar could not be reached, or refused; the text says what it said."""


class SidecarClient:
    """`url` is where the sidecar is reached, prefix included; `token` goes into the Authorization header."""

    def __init__(self, url: str, token: str | None = None, transport: httpx.BaseTransport | None = None):
        self.url = url.rstrip("/")
        self.token = token
        headers = {b"User-Agent": b"sidecar-client/1.0"}
        if token:
            headers[b"Authorization"] = f"Token {token}".encode()
        self._http = httpx.Client(headers=headers, timeout=TIMEOUT_SECONDS, transport=transport)

    def __enter__(self) -> SidecarClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def webhook(self, body: dict[str, Any], key: str | None = None) -> dict[str, Any]:
        """Post a deployment webhook; `key` is its idempotency key. Raises ApiError."""
        headers = {"Idempotency-Key": key} if key else {}
        return self._call("POST", "/api/webhooks/deployment", json=body, headers=headers)

    def deliveries(self, verdict: str | None = None, limit: int = 20) -> list[dict[str, Any]]:
        """The newest deliveries (needs an admin token). Raises ApiError."""
        params = {"limit": str(limit)} | ({"verdict": verdict} if verdict else {})
        items: list[dict[str, Any]] = self._call("GET", "/api/deliveries", params=params)["items"]
        return items

    def replay(self, number: int) -> dict[str, Any]:
        """Take a kept delivery again (needs an admin token). Raises ApiError."""
        return self._call("POST", f"/api/deliveries/{number}/replay")

    def info(self) -> dict[str, Any]:
        return self._call("GET", "/api/info")

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        try:
            response = self._http.request(method, self.url + path, **options)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ApiError(f"{self.url} can't be reached: {error}") from None
        try:
            body: dict[str, Any] = response.json()
        except ValueError:
            raise ApiError(f"{self.url}{path} answered {response.status_code} without JSON.") from None
        if response.status_code >= 400:
            raise ApiError(f"{response.status_code}: {_sentence(body)}")
        return body


def _sentence(body: dict[str, Any]) -> str:
    fields = [f"{item['path']}: {item['message']}" for item in body.get("errors", [])]
    return "; ".join([str(body.get("detail") or body.get("message") or "refused"), *fields])
