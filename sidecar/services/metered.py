"""A provider whose calls over the network are counted and timed. It changes nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
from sidecar.observability.lark_metrics import LarkMetrics
from sidecar.services.providers import Provider


class Metered:
    """`inner`, with `metrics` told of each call that goes over the network."""

    def __init__(self, inner: Provider, metrics: LarkMetrics):
        self._inner = inner
        self._metrics = metrics

    def authorize_url(self, app: App, redirect_uri: str, scope: str, state: str, challenge: str) -> str:
        return self._inner.authorize_url(app, redirect_uri, scope, state, challenge)

    def exchange(self, app: App, code: str, redirect_uri: str, verifier: str) -> UserTokens:
        with self._metrics.call("exchange"):
            return self._inner.exchange(app, code, redirect_uri, verifier)

    def refresh(self, app: App, refresh_token: str) -> UserTokens:
        with self._metrics.call("refresh"):
            return self._inner.refresh(app, refresh_token)

    def person(self, access_token: str) -> Person:
        with self._metrics.call("person"):
            return self._inner.person(access_token)

    def app_token(self, app: App, kind: AppTokenKind) -> AppToken:
        with self._metrics.call("app_token"):
            return self._inner.app_token(app, kind)

    def send_card(self, app: App, to: ReceiverKind, receiver: str, card: Card) -> str:
        with self._metrics.call("send_card"):
            return self._inner.send_card(app, to, receiver, card)

    def update_card(self, app: App, message_id: str, card: Card) -> None:
        with self._metrics.call("update_card"):
            self._inner.update_card(app, message_id, card)

    def callback(self, app: App, headers: Mapping[str, str], raw: bytes, now: float) -> Callback:
        return self._inner.callback(app, headers, raw, now)

    def event(self, body: Mapping[str, Any]) -> Callback:
        return self._inner.event(body)

    def click(self, event: Mapping[str, Any]) -> CardClick | None:
        return self._inner.click(event)

    def answer(self, toast: Toast, language: Language, card: Card | None = None) -> dict[str, Any]:
        return self._inner.answer(toast, language, card)

    def advice(self, code: int | None, language: Language) -> str | None:
        return self._inner.advice(code, language)
