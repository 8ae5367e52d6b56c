"""Authorizations of users at another platform: begun, shown on a card, answered there, completed or not.

The OAuth code flow with PKCE. `state` is random, kept as a hash, and stands for one session of one user; what it needs
to go on (state, verifier) is encrypted while the session is pending and gone with its end."""

from __future__ import annotations

import hashlib
import json
import math
import secrets
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import gevent
import structlog

from sidecar.domain.access import Identity, may_authorize, may_send_cards
from sidecar.domain.authorizations import App, Card, CardClick, Language, Method, Person, UserTokens
from sidecar.domain.errors import (
    AuthorizationCodeMissing,
    AuthorizationExpired,
    AuthorizationFailed,
    AuthorizationNotFound,
    AuthorizationRejected,
    Conflict,
    FieldError,
    Invalid,
    NotAllowed,
    NotFound,
    RateLimited,
    SidecarError,
    Unavailable,
    WrongUser,
)
from sidecar.domain.times import unix_seconds, utc_text
from sidecar.services.access import require
from sidecar.services.authorization_cards import Cards
from sidecar.services.authorization_news import tell
from sidecar.services.authorization_parts import PartOf, Parts
from sidecar.services.authorization_steps import (
    card_sent,
    check_pending,
    claim_exchange,
    click_card,
    exchanging,
    expected_open_id,
    expire,
    note_failure,
    reject,
    sealed_tokens,
)
from sidecar.services.idempotency import KeyedRequest, answered, remember
from sidecar.services.vault import Unreadable
from sidecar.store.authorizations import (
    SessionRow,
    begun_since,
    change_session,
    drop_tokens,
    find_session,
    insert_session,
    overdue_sessions,
    session_of_state,
)
from sidecar.store.journal import Transaction
from sidecar.wire.authorizations import CardBody, StartBody
from sidecar.wire.news import AUTHORIZATION_COMPLETED

log = structlog.get_logger("sidecar.authorizations")

WRITE = "authorizations:write"
READ = "authorizations:read"
OFFLINE = "offline_access"
"""The scope without which a token can't be renewed."""

MAX_SCOPES = 50
"""Lark takes no more at once."""
MINUTE = 60.0
SAVES, SAVE_PAUSE_SECONDS = 5, 1.0
BATCH = 100


@dataclass(frozen=True, slots=True)
class Options:
    """From the settings."""

    redirect_uri: str
    scope: str
    session_seconds: float
    per_minute: int
    language: Language
    threshold: float
    """The part of a token's life that is left when it is renewed."""


@dataclass(frozen=True, slots=True)
class Started:
    row: SessionRow
    authorize_url: str
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a user's return from the platform ended: with the session as it is now, or with an error (and the session,
    if it is known)."""

    row: SessionRow | None
    error: AuthorizationFailed | Conflict | Unavailable | None = None


class Authorizations(PartOf):
    """`submit` runs a command in the writer. Every method may raise Unavailable."""

    def __init__(self, parts: Parts, cards: Cards, options: Options):
        super().__init__(parts)
        self._cards = cards
        self._options = options

    def start(self, identity: Identity, request: KeyedRequest | None, body: StartBody) -> Started:
        """Begin one. Raises NotFound without an app, Unauthenticated, NotAllowed, RateLimited."""
        self._apps.named(body.app)
        require(identity, WRITE)
        app = self._apps.reached(body.app, identity)
        if not may_authorize(identity, body.user):
            raise NotAllowed("A connection token may begin authorizations of its own user only.")
        scope = _scope(self._options.scope, body.scope)
        session_id, state, verifier = str(uuid.uuid4()), secrets.token_urlsafe(32), secrets.token_urlsafe(48)
        sealed = self._vault.seal(json.dumps([state, verifier]), "flow", session_id)

        def command(transaction: Transaction) -> tuple[SessionRow, bool]:
            first = answered(transaction, request)
            if first is not None:
                known = find_session(transaction.connection, first["session_id"])
                if known is None:
                    raise Conflict("What was begun with this Idempotency-Key is no longer kept.")
                return known, True
            self._check_rate(transaction, app, body.user)
            row = SessionRow(
                session_id=session_id,
                app_id=app.id,
                user_id=body.user,
                state="pending",
                auth_method=body.method or "oauth",
                redirect_uri=self._options.redirect_uri,
                asked_scope=scope,
                language=body.language or self._options.language,
                state_hash=_hash(state),
                created_at=transaction.now,
                expires_at=utc_text(unix_seconds(transaction.now) + self._options.session_seconds),
                sealed=sealed,
                expected_open_id=body.open_id,
            )
            insert_session(transaction.connection, row)
            remember(transaction, request, {"session_id": session_id})
            return row, False

        row, duplicate = self._submit(command)
        if duplicate:
            check_pending(self._now(row))
        else:
            self._metrics.begun(app.id, row.auth_method)
            log.info("authorizations.begun", authorization=session_id, app=app.id, method=row.auth_method)
        return Started(row, self._flow_url(app, row), duplicate)

    def seen(self, identity: Identity, session_id: str) -> SessionRow:
        """One, as it is now. Raises AuthorizationNotFound also for what others may not see."""
        self._apps.named(None)
        if identity.kind != "connection":
            require(identity, READ)
        row = self.known(session_id)
        if not may_authorize(identity, row.user_id) or not self._reaches(identity, row):
            raise AuthorizationNotFound("There is no such authorization.")
        return row

    def known(self, session_id: str) -> SessionRow:
        """The same for whoever knows its id. Raises AuthorizationNotFound."""
        row = self._database.read(lambda connection: find_session(connection, session_id))
        if row is None:
            raise AuthorizationNotFound("There is no such authorization.")
        return self._now(row)

    def send_card(self, identity: Identity, session_id: str, body: CardBody) -> tuple[str, bool]:
        """Send its card; (the message's id, was it sent before?). Raises what `seen` does, what ended the
        authorization, Invalid without a receiver, AuthorizationFailed."""
        require(identity, WRITE)
        if not may_send_cards(identity):
            raise NotAllowed("Cards are sent by back ends: a browser could have anybody asked in its own user's name.")
        row = self.known(session_id)
        if not self._reaches(identity, row):
            raise AuthorizationNotFound("There is no such authorization.")
        check_pending(row)
        if row.message_id is not None:
            return row.message_id, True
        receiver = body.receive_id or (row.expected_open_id if body.receive_id_type == "open_id" else None)
        if receiver is None:
            raise Invalid(
                "The request has fields that can't be used: receive_id is needed.",
                (FieldError("receive_id", "is needed: the authorization was begun without an open_id"),),
            )
        if body.receive_id_type == "open_id" and row.expected_open_id not in (None, receiver):
            raise Conflict("The authorization was begun for another open_id.")
        app = self._apps.named(row.app_id)
        with structlog.contextvars.bound_contextvars(authorization=session_id):
            card = self._card(app, row)
            message_id = self._provider.send_card(app, body.receive_id_type, receiver, card)
            bound = receiver if body.receive_id_type == "open_id" else row.expected_open_id
            self._submit(partial(card_sent, session_id, message_id, bound))
            log.info("authorizations.card_sent", to=body.receive_id_type)
        return message_id, False

    def returned(self, state: str, code: str, error: str) -> Outcome:
        """The user comes back from the platform with these parameters, empty where one is missing."""
        row = self._database.read(lambda connection: session_of_state(connection, _hash(state))) if state else None
        if row is None:
            return Outcome(None, AuthorizationNotFound("This address belongs to no authorization of ours."))
        with structlog.contextvars.bound_contextvars(authorization=row.session_id):
            try:
                return self._returned(self._now(row), code, error)
            except Unavailable as away:
                return Outcome(row, away)

    def _returned(self, row: SessionRow, code: str, error: str) -> Outcome:
        try:
            check_pending(row)
            if error:
                return self._refused(row, error)
            if not code:
                raise AuthorizationCodeMissing("The platform sent no code.")
            self._submit(partial(claim_exchange, row.session_id))
            return Outcome(self._exchanged(row, code))
        except (AuthorizationExpired, AuthorizationRejected, Conflict) as ended:
            return Outcome(self.known(row.session_id), ended)
        except AuthorizationFailed as failed:
            self._failed(row, failed)
            return Outcome(row, failed)

    def clicked(self, app: App, click: CardClick, method: Method) -> dict[str, Any]:
        """Somebody has clicked on a card; what they are answered."""
        with structlog.contextvars.bound_contextvars(authorization=click.session_id):
            row, toast, rejected = self._submit(partial(click_card, app.id, click, method))
            if row is None:
                return self._provider.answer(toast, self._options.language)
            if rejected:
                self._metrics.failed(app.id, method, "user_rejected")
                log.info("authorizations.rejected", by="card")
            row = self._now(row)
            ended = row.state != "pending" and toast != "not_yours"
            return self._provider.answer(toast, row.language, self._card(app, row) if ended else None)

    def expire(self) -> int:
        """End those whose time is over; how many they were."""
        overdue = self._database.read(lambda connection: overdue_sessions(connection, utc_text(self._clock()), BATCH))
        count = 0
        for row in overdue:
            if self._submit(partial(expire, row)):
                count += 1
                self._metrics.expired(row.app_id)
                log.info("authorizations.expired", authorization=row.session_id)
        return count

    def _exchanged(self, row: SessionRow, code: str) -> SessionRow:
        """The code for tokens, the tokens for a person, and both stored together, or nothing. Raises
        AuthorizationFailed."""
        try:
            app = self._apps.named(row.app_id)
        except NotFound:
            raise AuthorizationFailed("The app is no longer known here.", reason="misconfigured") from None
        _, verifier = json.loads(self._opened(row))
        began = self._clock()
        tokens = self._provider.exchange(app, code, row.redirect_uri, verifier)
        person = self._provider.person(tokens.access)
        command = partial(self._complete, row.session_id, tokens, person, began)
        done = self._saved(command)
        self._metrics.completed(row.app_id, row.auth_method, self._clock() - unix_seconds(row.created_at))
        log.info("authorizations.completed", method=row.auth_method)
        if done.message_id is not None:
            self._cards.soon(row.session_id)
        return done

    def _complete(
        self, session_id: str, tokens: UserTokens, person: Person, began: float, transaction: Transaction
    ) -> SessionRow:
        row = find_session(transaction.connection, session_id)
        if row is None:
            raise AuthorizationNotFound("There is no such authorization.")
        if self._holds(row, tokens):
            return row
        check_pending(row)
        if expected_open_id(transaction, row) not in (None, person.open_id):
            raise WrongUser("Somebody else has authorized than the one who was asked.")
        drop_tokens(transaction.connection, row.app_id, row.user_id)
        done = replace(
            row,
            state="completed",
            completed_at=transaction.now,
            open_id=person.open_id,
            union_id=person.union_id,
            user_name=person.name,
            mobile=person.mobile,
            email=person.email,
            sealed=None,
            reason=None,
            exchanging_until=None,
            card_due_at=transaction.now if row.message_id is not None else None,
            **sealed_tokens(self._vault, session_id, tokens, began, self._options.threshold),
        )
        change_session(
            transaction.connection,
            session_id,
            **{name: getattr(done, name) for name in SessionRow.__dataclass_fields__ if name != "session_id"},
        )
        tell(transaction, AUTHORIZATION_COMPLETED, done, "completed")
        return done

    def _holds(self, row: SessionRow, tokens: UserTokens) -> bool:
        """Was it stored with these tokens, by a commit whose answer was lost?"""
        try:
            return tokens.access == self._vault.open(row.user_access_token or "", "access", row.session_id)
        except Unreadable:
            return False

    def _saved(self, command: Callable[[Transaction], SessionRow]) -> SessionRow:
        """Try it for some seconds: the code is used up by now, and the user would have to come again."""
        for _ in range(SAVES - 1):
            try:
                return self._submit(command)
            except Unavailable:
                log.warning("authorizations.save_postponed")
                gevent.sleep(SAVE_PAUSE_SECONDS)
        return self._submit(command)

    def _refused(self, row: SessionRow, error: str) -> Outcome:
        """The platform has sent the user back with an error instead of a code."""
        if error != "access_denied":
            raise AuthorizationFailed("The platform did not authorize.", reason="unknown_error")
        done = self._submit(partial(reject, row.session_id))
        self._metrics.failed(row.app_id, row.auth_method, "user_rejected")
        log.info("authorizations.rejected", by="page")
        if done.message_id is not None:
            self._cards.soon(row.session_id)
        return Outcome(done, AuthorizationRejected("The user has declined."))

    def _failed(self, row: SessionRow, error: AuthorizationFailed) -> None:
        self._metrics.failed(row.app_id, row.auth_method, error.reason)
        log.warning("authorizations.failed", reason=error.reason, code=error.code, provider_code=error.provider_code)
        with suppress(Unavailable):  # the claim ends by itself
            self._submit(partial(note_failure, row.session_id, error.reason))

    def _check_rate(self, transaction: Transaction, app: App, user: str) -> None:
        """Over all processes. Raises RateLimited."""
        now = unix_seconds(transaction.now)
        begun = begun_since(transaction.connection, app.id, user, utc_text(now - MINUTE))
        if len(begun) >= self._options.per_minute:
            free_at = unix_seconds(begun[-self._options.per_minute]) + MINUTE
            raise RateLimited(
                "Too many authorizations of this user.", retry_after_seconds=max(1, math.ceil(free_at - now))
            )

    def _reaches(self, identity: Identity, row: SessionRow) -> bool:
        try:
            self._apps.reached(row.app_id, identity)
        except SidecarError:
            return False
        return True

    def _now(self, row: SessionRow) -> SessionRow:
        """As it is now: time ends one before the clean-up has come by."""
        now = utc_text(self._clock())
        if row.state == "pending" and row.expires_at <= now and not exchanging(row, now):
            return replace(row, state="expired")
        return row

    def _opened(self, row: SessionRow) -> str:
        try:
            return self._vault.open(row.sealed or "", "flow", row.session_id)
        except Unreadable:
            raise AuthorizationFailed(
                "What was kept of the authorization can't be read.", reason="misconfigured"
            ) from None

    def _flow_url(self, app: App, row: SessionRow) -> str:
        return self._card(app, row).authorize_url or ""

    def _card(self, app: App, row: SessionRow) -> Card:
        try:
            return self._cards.card(app, row)
        except Unreadable:
            raise AuthorizationFailed(
                "What was kept of the authorization can't be read.", reason="misconfigured"
            ) from None


def _scope(*texts: str) -> str:
    """Each word once. Raises Invalid for more than may be asked for at once."""
    words = list(dict.fromkeys([OFFLINE, *" ".join(texts).split()]))
    if len(words) > MAX_SCOPES:
        raise Invalid(
            f"At most {MAX_SCOPES} scopes can be asked for.", (FieldError("scope", f"makes more than {MAX_SCOPES}"),)
        )
    return " ".join(words)


def _hash(state: str) -> str:
    return hashlib.sha256(state.encode("utf-8", "replace")).hexdigest()
