"""Authorizations within this process, with a platform that does what a test tells it to."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import gevent
from cryptography.fernet import Fernet
from gevent.event import Event as Gate
from prometheus_client import CollectorRegistry
from sqlalchemy import insert, select, update

from sidecar.domain.access import Identity
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
from sidecar.domain.errors import Invalid, SidecarError, TokenRefreshFailed, Unauthenticated, Unavailable
from sidecar.jobs.authorizations import AuthorizationUpkeep
from sidecar.observability.lark_metrics import LarkMetrics
from sidecar.services.authorization_cards import Cards
from sidecar.services.authorization_parts import Parts
from sidecar.services.authorization_upkeep import CleanUp
from sidecar.services.authorizations import Authorizations, Options, Outcome, Started
from sidecar.services.lark_apps import Apps
from sidecar.services.lark_callbacks import Callbacks
from sidecar.services.lark_handlers import EventHandlers
from sidecar.services.user_tokens import TokenStore, UserToken
from sidecar.services.vault import Vault
from sidecar.store.authorizations import SessionRow, UseRow
from sidecar.store.tables import authorization_uses, user_auth_sessions
from sidecar.store.writer import Command, Writer
from sidecar.wire.authorizations import CardBody, EventBody, StartBody
from sidecar.wire.checks import read
from tests.store.stores import Place, open_journal

APP = App("cli_a", "the-secret-of-a")
KEY = Fernet.generate_key()
ALICE, BOB = Person("ou_alice", name="Alice"), Person("ou_bob", name="Bob")
LIFE_SECONDS = 7_200.0
SCOPES = frozenset({"authorizations:read", "authorizations:write"})
SHOP = Identity(kind="token", name="shop", scopes=SCOPES, projects=None, token_id="t1", number=1)
_numbers = itertools.count(1)


def browser(user: str) -> Identity:
    """Who holds a connection token of this user, with all the scopes that it can have."""
    return Identity(kind="connection", name=user, scopes=SCOPES, projects=None, user=user)


class Clock:
    """Unix seconds, `ahead` of the time of day by as much as a test says."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class Platform:
    """Implements providers.Provider. `who` is signed in there; `failing` are errors by call, raised until they are
    taken out; `closed` are gates by call, at which it waits. `calls` are the names of those over the network."""

    def __init__(self) -> None:
        self.who = ALICE
        self.calls: list[str] = []
        self.failing: dict[str, Exception] = {}
        self.closed: dict[str, Gate] = {}
        self.refresh_tokens: set[str] = set()
        self.people: dict[str, Person] = {}
        self.cards: list[tuple[str, str, Card]] = []
        self.given: dict[str, Any] = {"refresh_expires_in": 604_800.0}
        self.renewable = True

    @contextmanager
    def held(self, call: str) -> Iterator[Gate]:
        """Such calls wait at the gate until it is set, which the end does."""
        gate = self.closed[call] = Gate()
        try:
            yield gate
        finally:
            gate.set()
            self.closed.pop(call, None)

    def count(self, call: str) -> int:
        return self.calls.count(call)

    def _call(self, name: str) -> None:
        self.calls.append(name)
        gevent.sleep(0)
        if name in self.closed:
            self.closed[name].wait()
        if name in self.failing:
            raise self.failing[name]

    def _tokens(self) -> UserTokens:
        number = next(_numbers)
        access, refresh = f"access-{number}-of-{self.who.open_id}", f"refresh-{number}-of-{self.who.open_id}"
        self.people[access] = self.who
        self.refresh_tokens.add(refresh)
        more = {"refresh": refresh, **self.given} if self.renewable else {}
        return UserTokens(access, **{"expires_in": LIFE_SECONDS, "scope": "offline_access", **more})

    def authorize_url(self, app: App, redirect_uri: str, scope: str, state: str, challenge: str) -> str:
        query = {"client_id": app.id, "redirect_uri": redirect_uri, "scope": scope, "state": state, "c": challenge}
        return f"https://platform.example/authorize?{urlencode(query)}"

    def exchange(self, app: App, code: str, redirect_uri: str, verifier: str) -> UserTokens:
        self._call("exchange")
        return self._tokens()

    def refresh(self, app: App, refresh_token: str) -> UserTokens:
        self._call("refresh")
        if refresh_token not in self.refresh_tokens:
            raise TokenRefreshFailed("Lark does not renew it.", provider_code=20073)
        self.refresh_tokens.discard(refresh_token)
        return self._tokens()

    def person(self, access_token: str) -> Person:
        self._call("person")
        return self.people[access_token]

    def app_token(self, app: App, kind: AppTokenKind) -> AppToken:
        self._call("app_token")
        return AppToken(f"{kind}-of-{app.id}", 7_000)

    def send_card(self, app: App, to: ReceiverKind, receiver: str, card: Card) -> str:
        self._call("send_card")
        self.cards.append(("sent", receiver, card))
        return f"om_{card.session_id}"

    def update_card(self, app: App, message_id: str, card: Card) -> None:
        self._call("update_card")
        self.cards.append(("changed", message_id, card))

    def callback(self, app: App, headers: Mapping[str, str], raw: bytes, now: float) -> Callback:
        """Proved by naming the app's secret."""
        body = json.loads(raw)
        if body["secret"] != app.secret:
            raise Unauthenticated("It is for another app.")
        if "challenge" in body:
            return Callback("url_verification", challenge=body["challenge"])
        return Callback(body["type"], body["event_id"], body["event"], body.get("nonce"))

    def event(self, body: Mapping[str, Any]) -> Callback:
        if "event_id" not in body:
            raise Invalid("It is no event.")
        return Callback(body["type"], body["event_id"], body["event"])

    def click(self, event: Mapping[str, Any]) -> CardClick | None:
        return CardClick(**event["click"]) if "click" in event else None

    def answer(self, toast: Toast, language: Language, card: Card | None = None) -> dict[str, Any]:
        return {"toast": toast, "card": card and card.state}

    def advice(self, code: int | None, language: Language) -> str | None:
        return None if code is None else f"advice on {code}"


class Desk:
    """One process that serves authorizations. `away` is the set of commands' numbers, counted from the last
    `break_down`, that the store does not take; `lost` those that it takes without saying so."""

    def __init__(self, place: Place, platform: Platform, clock: Clock, **given: Any):
        self.clock, self.platform = clock, platform
        self.database = open_journal(place)
        self.committed: list[Any] = []
        self.writer = Writer(self.database, self.committed.extend, clock)
        self.writer.start()
        self.registry = CollectorRegistry()
        self.away: Callable[[int], bool] = lambda number: False
        self.commands = 0
        metrics = self.metrics = LarkMetrics(self.registry, clock)
        self.vault: Vault = given.get("vault") or Vault([Fernet(KEY)])
        self.apps = Apps(self.database, self.submit, self.vault, given.get("app", APP), clock)
        options = Options(
            "https://x.example/callback", "offline_access", 600.0, given.get("per_minute", 100), "zh", 0.1
        )
        parts = Parts(self.database, self.submit, self.apps, platform, self.vault, metrics, clock)
        self.cards = Cards(parts)
        self.service = Authorizations(parts, self.cards, options)
        self.tokens = TokenStore(parts, 0.1)
        self.handlers = EventHandlers(self.service, platform, metrics, given.get("handlers"))
        self.callbacks = Callbacks(parts, self.handlers, given.get("over_http", True))
        self.cleaning = CleanUp(parts, 30 * 86_400.0)
        self.job = AuthorizationUpkeep(
            self.apps,
            self.service,
            self.cards,
            self.tokens,
            self.callbacks,
            self.cleaning,
            self.submit,
            given.get("node", "one"),
            given.get("schedule"),
            clock,
        )

    def submit(self, command: Command[Any]) -> Any:
        number, self.commands = self.commands, self.commands + 1
        if self.away(number):
            raise Unavailable("The store can't commit now.", retry_after_seconds=2)
        return self.writer.submit(command)

    @contextmanager
    def broken(self, away: Callable[[int], bool] = lambda number: True) -> Iterator[None]:
        """The store does not take these commands, counted from now."""
        self.commands, self.away = 0, away
        try:
            yield
        finally:
            self.away = lambda number: False

    def start(self, user: str = "u1", who: Identity = SHOP, **body: Any) -> Started:
        return self.service.start(who, None, read(StartBody, {"user": user, **body}))

    def come_back(self, started: Started, code: str = "code", error: str = "") -> Outcome:
        return self.service.returned(state_of(started), code, error)

    def authorized(self, user: str = "u1", **body: Any) -> SessionRow:
        """An authorization that the user has completed."""
        outcome = self.come_back(self.start(user, **body))
        assert outcome.error is None
        assert outcome.row is not None
        return outcome.row

    def send_card(self, started: Started, who: Identity = SHOP, **body: Any) -> tuple[str, bool]:
        return self.service.send_card(who, started.row.session_id, read(CardBody, body))

    def token(self, user: str = "u1", app: str = APP.id, who: Identity = SHOP) -> UserToken:
        return self.tokens.token(who, app, user)

    def row(self, session_id: str) -> dict[str, Any]:
        """As it is in the table."""
        query = select(user_auth_sessions).where(user_auth_sessions.c.session_id == session_id)
        return dict(self.database.read(lambda connection: connection.execute(query).one())._mapping)

    def change(self, session_id: str, **values: Any) -> None:
        changed = update(user_auth_sessions).where(user_auth_sessions.c.session_id == session_id).values(values)
        self.writer.submit(lambda transaction: transaction.connection.execute(changed).rowcount)

    def insert(self, values: Mapping[str, Any]) -> None:
        self.writer.submit(
            lambda transaction: transaction.connection.execute(insert(user_auth_sessions).values(values)).rowcount
        )

    def uses(self) -> list[UseRow]:
        return self.tokens.uses(None, None, 100)

    def all_uses(self) -> int:
        return len(self.database.read(lambda connection: connection.execute(select(authorization_uses)).all()))

    def told(self, type: str | None = None) -> list[dict[str, Any]]:
        """What browsers were told, in order."""
        return [json.loads(event.payload) for event in self.committed if type in (None, event.type)]

    def told_types(self) -> list[str]:
        return [event.type for event in self.committed]

    def called(self, type: str, event: Mapping[str, Any], event_id: str | None = None, **more: Any) -> Any:
        """What a callback over HTTP is answered."""
        body = {"secret": APP.secret, "type": type, "event_id": event_id or f"ev{next(_numbers)}", "event": event}
        return self.callbacks.take(None, {}, json.dumps(body | {"nonce": f"n{next(_numbers)}"} | more).encode())

    def clicked(self, started: Started, action: str, open_id: str = ALICE.open_id, **more: Any) -> Any:
        click = {"session_id": started.row.session_id, "action": action, "open_id": open_id}
        return self.called("card.action.trigger", {"click": click}, **more)

    def fed(self, type: str, event: Mapping[str, Any], event_id: str, who: Identity = SHOP, app: str = APP.id) -> Any:
        body = {"app": app, "event": {"type": type, "event_id": event_id, "event": dict(event)}}
        return self.callbacks.fed(who, read(EventBody, body))

    def figure(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    def close(self) -> None:
        self.job.stop()
        self.writer.stop()
        self.database.close()


def state_of(started: Started) -> str:
    """That of its address at the platform."""
    return parse_qs(urlsplit(started.authorize_url).query)["state"][0]


def outcome_of(call: Callable[[], Any]) -> Any:
    """What it returns, or raises."""
    try:
        return call()
    except SidecarError as error:
        return error


def together(*calls: Callable[[], Any]) -> list[Any]:
    """All at once, each in a greenlet of its own; what they return or raise."""
    greenlets = [gevent.spawn(outcome_of, call) for call in calls]
    with gevent.Timeout(60, AssertionError("they do not come back")):
        gevent.joinall(greenlets, raise_error=True)
    return [greenlet.value for greenlet in greenlets]
