"""Lark (Feishu) as the platform that grants authorizations: implements `providers.Provider`. What goes over the wire
and what it means is said in `wire/lark*.py`; here it is asked for.

Sources (open.feishu.cn/document): "Obtain OAuth code" (accounts host, PKCE), "Get user_access_token" and "Refresh
user_access_token" (v2), "Get user information", "Get tenant_access_token / app_access_token (internal apps)", "Send
message" (`uuid`: at most one message an hour for one value), "Update sent message card".
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from sidecar.domain.authorizations import (
    App,
    AppToken,
    AppTokenKind,
    Callback,
    Card,
    CardClick,
    Language,
    Person,
    ReceiverKind,
    Toast,
    UserTokens,
)
from sidecar.domain.errors import AuthorizationFailed
from sidecar.services.lark_calls import Json, LarkCalls
from sidecar.wire import lark, lark_answers, lark_cards, lark_codes

AUTHORIZE_PATH = "/open-apis/authen/v1/authorize"
TOKEN_PATH = "/open-apis/authen/v2/oauth/token"  # noqa: S105 (an address)
PERSON_PATH = "/open-apis/authen/v1/user_info"
MESSAGES_PATH = "/open-apis/im/v1/messages"

RENEW_SECONDS = 600
"""An app's token is not given out any more when less than this is left of it."""


@dataclass(frozen=True, slots=True)
class _Kept:
    secret: str = field(repr=False)
    text: str = field(repr=False)
    ends_at: float


class Lark:
    """One for all apps. Tokens of apps are kept in memory until shortly before their end."""

    def __init__(
        self,
        api_url: str,
        accounts_url: str,
        timeout_seconds: float,
        template_id: str | None = None,
        with_description: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._accounts_url = accounts_url.rstrip("/")
        self._calls = LarkCalls(api_url, timeout_seconds)
        self._look = lark_cards.Look(template_id or None, with_description)
        self._clock = clock
        self._kept: dict[tuple[str, AppTokenKind], _Kept] = {}

    def close(self) -> None:
        self._calls.close()

    def authorize_url(self, app: App, redirect_uri: str, scope: str, state: str, challenge: str) -> str:
        query = {
            "client_id": app.id,
            "response_type": "code",
            "redirect_uri": redirect_uri,
            "scope": scope,
            "state": state,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        return f"{self._accounts_url}{AUTHORIZE_PATH}?{urlencode(query, quote_via=quote, safe='')}"

    def exchange(self, app: App, code: str, redirect_uri: str, verifier: str) -> UserTokens:
        asked = {"code": code, "redirect_uri": redirect_uri, "code_verifier": verifier}
        return lark_answers.user_tokens(self._token(app, "authorization_code", asked))

    def refresh(self, app: App, refresh_token: str) -> UserTokens:
        return lark_answers.user_tokens(self._token(app, "refresh_token", {"refresh_token": refresh_token}))

    def person(self, access_token: str) -> Person:
        return lark_answers.person(self._calls.call("GET", PERSON_PATH, bearer=access_token, of_user=True))

    def app_token(self, app: App, kind: AppTokenKind) -> AppToken:
        kept = self._kept.get((app.id, kind))
        if kept is None or kept.secret != app.secret or kept.ends_at - self._clock() <= RENEW_SECONDS:
            kept = self._kept[app.id, kind] = self._new_app_token(app, kind)
        return AppToken(kept.text, kept.ends_at - self._clock())

    def send_card(self, app: App, to: ReceiverKind, receiver: str, card: Card) -> str:
        """Sent again to the same receiver for the same authorization, as after a time-out, it is not shown twice."""
        body = {
            "receive_id": receiver,
            "msg_type": "interactive",
            "content": self._content(card),
            "uuid": hashlib.sha256(f"{card.session_id} {to} {receiver}".encode()).hexdigest()[:32],
        }
        return lark_answers.message_id(self._as_bot(app, "POST", MESSAGES_PATH, body, {"receive_id_type": to}))

    def update_card(self, app: App, message_id: str, card: Card) -> None:
        path = f"{MESSAGES_PATH}/{quote(message_id, safe='')}"
        self._as_bot(app, "PATCH", path, {"content": self._content(card)})

    def callback(self, app: App, headers: Mapping[str, str], raw: bytes, now: float) -> Callback:
        return lark.callback(app, headers, raw, now)

    def event(self, body: Mapping[str, Any]) -> Callback:
        return lark.event(body)

    def click(self, event: Mapping[str, Any]) -> CardClick | None:
        return lark.click(event)

    def answer(self, toast: Toast, language: Language, card: Card | None = None) -> dict[str, Any]:
        return lark_cards.answer(toast, language, card, self._look)

    def advice(self, code: int | None, language: Language) -> str | None:
        return lark_codes.advice(code, language)

    def _token(self, app: App, grant_type: str, asked: Mapping[str, str]) -> Json:
        body = {"grant_type": grant_type, "client_id": app.id, "client_secret": app.secret, **asked}
        return self._calls.call("POST", TOKEN_PATH, body)

    def _new_app_token(self, app: App, kind: AppTokenKind) -> _Kept:
        path = f"/open-apis/auth/v3/{kind}_access_token/internal"
        asked_at = self._clock()
        body = self._calls.call("POST", path, {"app_id": app.id, "app_secret": app.secret})
        token = lark_answers.app_token(body, kind)
        return _Kept(app.secret, token.text, asked_at + token.expires_in)

    def _as_bot(self, app: App, method: str, path: str, body: Json, query: Mapping[str, str] | None = None) -> Json:
        """As the app itself; once more with a new token if Lark doesn't take the one we kept."""
        bearer = self.app_token(app, "tenant").text
        try:
            return self._calls.call(method, path, body, query, bearer)
        except AuthorizationFailed as error:
            if error.provider_code not in lark_codes.APP_TOKEN_CODES:
                raise
        self._kept.pop((app.id, "tenant"), None)
        return self._calls.call(method, path, body, query, self.app_token(app, "tenant").text)

    def _content(self, card: Card) -> str:
        return json.dumps(lark_cards.content(card, self._look), ensure_ascii=False, separators=(",", ":"))
