"""The seam between authorizations and the platform that grants them. Lark is one implementation (`lark.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

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


class Provider(Protocol):
    """A platform. What goes over the network raises ProviderUnavailable when it doesn't answer (in time), and otherwise
    the class of AuthorizationFailed that fits what it refused with, with its `provider_code`; none holds a secret."""

    def authorize_url(self, app: App, redirect_uri: str, scope: str, state: str, challenge: str) -> str:
        """Where the user grants; `challenge` is that of PKCE (S256), `scope` words with spaces between."""

    def exchange(self, app: App, code: str, redirect_uri: str, verifier: str) -> UserTokens:
        """The tokens for a code."""

    def refresh(self, app: App, refresh_token: str) -> UserTokens:
        """New tokens. The old refresh token holds no longer. Raises TokenRefreshFailed if it held no more before."""

    def person(self, access_token: str) -> Person:
        """Whose token this is."""

    def app_token(self, app: App, kind: AppTokenKind) -> AppToken:
        """A token of the app itself."""

    def send_card(self, app: App, to: ReceiverKind, receiver: str, card: Card) -> str:
        """Send it; the id of the message that holds it."""

    def update_card(self, app: App, message_id: str, card: Card) -> None:
        """Change the card that was sent with this message, in place."""

    def callback(self, app: App, headers: Mapping[str, str], raw: bytes, now: float) -> Callback:
        """What a request says. Raises Unauthenticated if it doesn't prove to come from the platform for this app, just
        now; Unparsable or Invalid if it can't be read."""

    def event(self, body: Mapping[str, Any]) -> Callback:
        """What an event says that came over a connection which needs no proof. Raises Invalid."""

    def click(self, event: Mapping[str, Any]) -> CardClick | None:
        """The click on a card that an event tells of; None if it isn't one on a card of ours."""

    def answer(self, toast: Toast, language: Language, card: Card | None = None) -> dict[str, Any]:
        """What a click is answered: a line, and what the card shows from now on (None: as before)."""

    def advice(self, code: int | None, language: Language) -> str | None:
        """What an error of the platform means and what to do about it, in a sentence or two; None if unknown."""
