"""An HTTP client of a running sidecar, for back ends and scripts. Needs httpx only."""

from __future__ import annotations

import hashlib
import os
import random
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx

DEFAULT_URL = "http://127.0.0.1:8091"
TIMEOUT_SECONDS = 15.0
DELETE_SECONDS = 60.0
"""A request that deletes a project goes on with it for 20 s."""
RETRIES = 3
MAX_PAUSE_SECONDS = 30.0
PASSING = frozenset({429, 502, 503, 504})
"""Statuses after which the same request may succeed."""

Json = dict[str, Any]


class ApiError(Exception):
    """The sidecar could not be reached, or refused; the text says what it said. `status` is None if it did not answer;
    `code` and `errors` are those of its answer (docs/protocol.md)."""

    def __init__(
        self, text: str, status: int | None = None, code: str | None = None, errors: Sequence[Json] = ()
    ) -> None:
        super().__init__(text)
        self.status = status
        self.code = code
        self.errors = tuple(errors)


class SidecarClient:
    """`url` is where the sidecar is reached, prefix included (default SIDECAR_URL, else this machine's); `token` goes
    into the Authorization header (default SIDECAR_TOKEN). A request that fails for a passing reason is repeated up to
    `retries` times, a publishing one under one idempotency key, so that it happens once. Every method raises ApiError.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        retries: int = RETRIES,
        transport: httpx.BaseTransport | None = None,
    ):
        self.url = (url or os.environ.get("SIDECAR_URL") or DEFAULT_URL).rstrip("/")
        self.token = token or os.environ.get("SIDECAR_TOKEN") or None
        self._retries = retries
        headers = {b"User-Agent": b"sidecar-client/1.0"}
        if self.token:
            headers[b"Authorization"] = f"Token {self.token}".encode()
        self._http = httpx.Client(headers=headers, timeout=timeout_seconds, transport=transport)

    def __enter__(self) -> SidecarClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # -- Messages to browsers

    def send(
        self,
        room: str,
        message: str = "",
        data: Mapping[str, Any] | None = None,
        target_user: object = None,
        key: str | None = None,
        everywhere: bool = False,
    ) -> Json:
        """A message to a free room; with a `target_user` to that user's sockets in it alone. `data` adds fields. With
        `everywhere` the `recipients` of all processes are counted, else those of the one that answers."""
        body = {"room": room, "message": message, "data": dict(data or {}), "target_user": target_user}
        return self._publish("/api/send-websocket/" + ("?count=all" if everywhere else ""), body, key)

    def push_location(self, latitude: float, longitude: float, device_id: str, key: str | None = None) -> Json:
        """Where a device is, in degrees, to the room location_tracking."""
        body = {"latitude": latitude, "longitude": longitude, "device_id": device_id}
        return self._publish("/api/push-location/", body, key)

    def broadcast(
        self, message: str, data: Mapping[str, Any] | None = None, type: str = "api_message", key: str | None = None
    ) -> Json:
        """A message to every authenticated connection."""
        return self._publish("/api/broadcast/", {"type": type, "message": message, "data": dict(data or {})}, key)

    def notify_user(
        self,
        user_id: object,
        message: str,
        data: Mapping[str, Any] | None = None,
        type: str = "api_message",
        key: str | None = None,
    ) -> Json:
        """A message to every connection of a user, in whatever rooms."""
        body = {"user_id": user_id, "type": type, "message": message, "data": dict(data or {})}
        return self._publish("/api/notify-user/", body, key)

    # -- Live push

    def start_live_push(
        self, room: str = "live_updates", interval: float = 5, source: str = "live_stats", key: str | None = None
    ) -> Json:
        """Have the server tell the room what a source says, every `interval` seconds (0.2 to 3600), until it is
        stopped; or change the push that the room has."""
        body = {"room": room, "interval": interval, "source": source}
        return self._publish("/api/start-live-push/", body, key)

    def stop_live_push(self, room: str | None = None) -> Json:
        """That of the room; without one all that this token has started."""
        return self._call("POST", "/api/stop-live-push/", json={} if room is None else {"room": room})

    def live_pushes(self) -> list[Json]:
        return self._items("/api/live-push")

    # -- Rooms and users

    def rooms(self) -> list[Json]:
        """The free rooms with somebody in them: `{"room","connections","anonymous","users"}`."""
        return self._items("/api/rooms")

    def presence(self, room: str) -> Json:
        """Who is in a free room."""
        return self._call("GET", f"/api/rooms/{quote(room, safe='')}/presence")

    def disconnect_user(self, user_id: str) -> Json:
        """End the user's connections; nothing is revoked."""
        return self._call("POST", f"/api/users/{quote(user_id, safe='')}/disconnect")

    def connection_token(
        self,
        sub: str | None = None,
        rooms: Sequence[str] | None = None,
        scopes: Sequence[str] | None = None,
        ttl_seconds: int | None = None,
    ) -> Json:
        """A token for a browser: `{"token","expires_at","ttl_seconds"}` (needs the scope tokens:issue)."""
        given = {"sub": sub, "rooms": rooms, "scopes": scopes, "ttl_seconds": ttl_seconds}
        body = {name: value for name, value in given.items() if value is not None}
        return self._call("POST", "/api/tokens/connection", json=body)

    # -- Menu and permissions

    def menu(self, all: bool = False) -> Json:
        """`{"version","checksum","items",…}`: the tree that this token sees; with `all` what is not active too."""
        return self._call("GET", "/api/menu", params={"all": "1"} if all else None)

    def sync_menu(self, items: Sequence[Any], reason: str = "", dry_run: bool = False, key: str | None = None) -> Json:
        """Make this tree the menu, in one version; with `dry_run` only say what that would change."""
        return self._publish(_sync("/api/menu/sync", dry_run), {"items": list(items), "reason": reason}, key)

    def permissions(self) -> Json:
        """All roles, and who has which: `{"version","roles","users"}`."""
        version = self._call("GET", "/api/roles")["version"]
        return self._call("GET", f"/api/permissions/versions/{version}")

    def sync_permissions(
        self,
        roles: Sequence[Any],
        users: Mapping[str, Any] | None = None,
        reason: str = "",
        dry_run: bool = False,
        key: str | None = None,
    ) -> Json:
        """Make these all the roles, and give each of the users these of them, in one version."""
        body = {"roles": list(roles), "users": None if users is None else dict(users), "reason": reason}
        return self._publish(_sync("/api/permissions/sync", dry_run), body, key)

    def check_permission(self, resource: str, action: str, user: str | None = None) -> bool:
        """May this user (None: the token's own) do this?"""
        given = {"resource": resource, "action": action, "user": user}
        params = {name: value for name, value in given.items() if value is not None}
        return bool(self._call("GET", "/api/permissions/check", params=params)["has_permission"])

    # -- Authorizations at Lark

    def start_authorization(
        self,
        user: str,
        app: str | None = None,
        open_id: str | None = None,
        scope: str | None = None,
        language: str | None = None,
        method: str | None = None,
        key: str | None = None,
    ) -> Json:
        """Begin one: `{"session_id","authorize_url","expires_at","page",…}`. Not repeated: a user may begin few."""
        given = {"open_id": open_id, "scope": scope, "language": language, "method": method}
        body = {"user": user, "app": app} | given
        sent = {name: value for name, value in body.items() if value is not None}
        headers = {"Idempotency-Key": key or uuid.uuid4().hex}
        return self._call("POST", "/api/authorizations", retries=0, json=sent, headers=headers)

    def authorization(self, session_id: str) -> Json:
        """How far it is: `{"state","reason",…}`."""
        return self._call("GET", f"/api/authorizations/{quote(session_id, safe='')}")

    def send_authorization_card(self, session_id: str, receive_id: str | None = None, kind: str = "open_id") -> Json:
        """Send its card, to the open_id it was begun for or to another receiver: `{"message_id",…}`."""
        body = {} if receive_id is None else {"receive_id": receive_id, "receive_id_type": kind}
        return self._call("POST", f"/api/authorizations/{quote(session_id, safe='')}/card", retries=0, json=body)

    def user_token(self, app: str, user: str, refused: str | None = None) -> Json:
        """A token that holds now: `{"user_access_token","expires_in",…}` (`sidecar.client.lark` puts it into calls).
        `refused` is one that Lark does not take: another than that, or none."""
        params = None if refused is None else {"refused": hashlib.sha256(refused.encode()).hexdigest()}
        return self._call("GET", f"{_user_path(app, user)}/token", params=params)

    def forget_user_token(self, app: str, user: str) -> bool:
        """False if there was none."""
        return bool(self._call("DELETE", f"{_user_path(app, user)}/token")["revoked"])

    def app_token(self, app: str, kind: str = "tenant") -> Json:
        """A token of the app itself: `{"token","kind","expires_in"}`."""
        return self._call("GET", f"/api/authorizations/{quote(app, safe='')}/app-token", params={"kind": kind})

    # -- Deployments

    def webhook(self, body: Mapping[str, Any], key: str | None = None) -> Json:
        """Post a deployment webhook; `key` is its idempotency key."""
        return self._publish("/api/webhooks/deployment", body, key)

    def deliveries(self, verdict: str | None = None, project: str | None = None, limit: int = 20) -> list[Json]:
        """The newest deliveries, without their bodies (needs an admin token)."""
        given = {"limit": str(limit), "verdict": verdict, "project": project}
        return self._items("/api/deliveries", {name: value for name, value in given.items() if value})

    def delivery(self, number: int) -> Json:
        """One, with its body (needs an admin token)."""
        return self._call("GET", f"/api/deliveries/{number}")

    def replay(self, number: int) -> Json:
        """Take a kept delivery again (needs an admin token)."""
        return self._call("POST", f"/api/deliveries/{number}/replay", retries=0)

    def project_metrics(self, project: str, since: str | None = None, until: str | None = None) -> Json:
        """A project's figures; of the last 30 days where no time is given."""
        given = {"since": since, "until": until}
        params = {name: value for name, value in given.items() if value is not None}
        return self._call("GET", f"/api/projects/{quote(project, safe='')}/metrics", params=params)

    def delete_project(self, project: str) -> Json:
        """Forget a project, and wait until that is done (needs an admin token): how much it was."""
        path, total = f"/api/projects/{quote(project, safe='')}", Counter[str]()
        done: Json = {"finished": False}
        while not done["finished"]:
            try:
                done = self._call("DELETE", path, retries=0, timeout=DELETE_SECONDS)
            except ApiError as error:
                if error.status != 404 or not total:
                    raise
                done = {"finished": True}  # by the sidecar itself meanwhile
            total.update({name: value for name, value in done.items() if type(value) is int})
        return {"project": project, **total}

    def info(self) -> Json:
        return self._call("GET", "/api/info")

    def _items(self, path: str, params: Mapping[str, str] | None = None) -> list[Json]:
        items: list[Json] = self._call("GET", path, params=params)["items"]
        return items

    def _publish(self, path: str, body: Mapping[str, Any], key: str | None) -> Json:
        return self._call("POST", path, json=body, headers={"Idempotency-Key": key or uuid.uuid4().hex})

    def _call(self, method: str, path: str, retries: int | None = None, **options: Any) -> Json:
        left = self._retries if retries is None else retries
        for attempt in range(left + 1):
            try:
                response = self._http.request(method, self.url + path, **options)
            except httpx.TransportError as error:
                if attempt == left:
                    raise ApiError(f"{self.url} can't be reached: {error}") from None
                pause = _pause(attempt, None)
            except (httpx.HTTPError, httpx.InvalidURL, TypeError, ValueError) as error:
                raise ApiError(f"The request to {self.url} can't be made: {error}") from None
            else:
                if attempt == left or response.status_code not in PASSING:
                    return _answer(self.url + path, response)
                pause = _pause(attempt, response.headers.get("Retry-After"))
            time.sleep(pause)
        raise AssertionError("unreachable")


def _user_path(app: str, user: str) -> str:
    return f"/api/authorizations/{quote(app, safe='')}/{quote(user, safe='')}"


def _sync(path: str, dry_run: bool) -> str:
    return f"{path}?dry_run=1" if dry_run else path


def _pause(attempt: int, retry_after: str | None) -> float:
    """Seconds: what the server asks for, else longer from time to time, and never the same for two clients."""
    asked = float(retry_after) if retry_after and retry_after.isdigit() else 0.2 * 2**attempt
    return min(asked, MAX_PAUSE_SECONDS) * random.uniform(1.0, 1.25)  # noqa: S311 - a pause, not a secret


def _answer(address: str, response: httpx.Response) -> Json:
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise ApiError(f"{address} answered {response.status_code} without JSON.", response.status_code)
    if response.status_code >= 400:
        raise ApiError(
            f"{response.status_code}: {_sentence(body)}", response.status_code, body.get("code"), body.get("errors", ())
        )
    return body


def _sentence(body: Json) -> str:
    detail = str(body.get("detail") or body.get("message") or "refused")
    fields = [f"{item['path']}: {item['message']}" for item in body.get("errors", []) if item["message"] not in detail]
    return "; ".join([detail, *fields])
