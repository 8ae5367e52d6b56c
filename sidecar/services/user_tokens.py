"""Users' tokens of the other platform: handed to back ends, renewed before they end, forgotten when told to.

A refresh token can be used once. So whoever renews claims the row first, over all processes; the others wait for what
comes of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import gevent
import structlog

from sidecar.domain.access import Identity, may_have_tokens
from sidecar.domain.authorizations import AppToken, AppTokenKind, Person, is_expiring
from sidecar.domain.errors import (
    AuthenticationRequired,
    AuthorizationFailed,
    NotAllowed,
    NotFound,
    ProviderUnavailable,
    TokenRefreshFailed,
    Unavailable,
    UserTokenExpired,
)
from sidecar.domain.times import unix_seconds, utc_text
from sidecar.services.access import require
from sidecar.services.authorization_news import REFRESH_FAILED, TOKEN_EXPIRED, tell
from sidecar.services.authorization_parts import PartOf, Parts
from sidecar.services.authorization_steps import sealed_tokens
from sidecar.services.authorizations import READ, WRITE
from sidecar.services.vault import Unreadable
from sidecar.store.authorizations import (
    NO_TOKENS,
    SessionRow,
    UseRow,
    change_session,
    drop_tokens,
    find_session,
    insert_use,
    last_session,
    list_uses,
    session_with_tokens,
    tokens_after,
    tokens_due,
)
from sidecar.store.journal import Transaction
from sidecar.wire.news import AUTHORIZATION_REVOKED

log = structlog.get_logger("sidecar.authorizations")

CLAIM_SECONDS = 30.0
"""So long nobody else renews a token that somebody has begun to renew."""
WAIT_SECONDS, LOOK_SECONDS = 12.0, 0.1
SAVE_SECONDS, SAVE_PAUSE_SECONDS = 600.0, 0.5
AGAIN_SECONDS = 60.0
"""Until a token that could not be renewed ahead is tried again; one that has ended, later and later."""
BATCH = 50


@dataclass(frozen=True, slots=True)
class Handed:
    """A token as a back end gets it; `is_expiring` if it should have been renewed, and could not be."""

    text: str
    expires_at: str
    expires_in: float
    is_expiring: bool
    scope: str
    open_id: str | None


class TokenStore(PartOf):
    """`threshold` is the part of a token's life that is left when it is renewed. Every method may raise Unavailable."""

    def __init__(self, parts: Parts, threshold: float):
        super().__init__(parts)
        self._threshold = threshold
        self._saving: dict[str, gevent.Greenlet] = {}
        """By session, who stores what the platform has given for its refresh token."""

    def token(self, identity: Identity, app_id: str, user: str, refused: str | None = None) -> Handed:
        """A token that holds now, and the use of it in the audit log. If it is the one of this `fingerprint`, which the
        platform does not take, it is renewed first. Raises NotFound, NotAllowed, AuthenticationRequired,
        UserTokenExpired, TokenRefreshFailed, ProviderUnavailable."""
        self._entitled(identity, READ, app_id)
        row = self._holder(app_id, user)
        with structlog.contextvars.bound_contextvars(authorization=row.session_id):
            if refused is not None and fingerprint(self._open(row, "access", row.user_access_token)) == refused:
                row = self._replaced(row)
            elif self._ends_soon(row):
                row = self._renewed_if_possible(row)
            left = self._left(row)
            if left <= 0:
                raise UserTokenExpired(
                    "The user's token has expired and can't be renewed; they have to authorize again."
                )
            text = self._open(row, "access", row.user_access_token)
            self._note(identity, app_id, user, "token")
            self._metrics.token_used()
            log.info("authorizations.token_used", app=app_id, by=identity.name)
            return Handed(
                text, row.token_expires_at or "", left, self._ends_soon(row), row.token_scope or "", row.open_id
            )

    def app_token(self, identity: Identity, app_id: str, kind: AppTokenKind) -> AppToken:
        """A token of the app itself, for what needs no user. Raises NotFound, NotAllowed, AuthorizationFailed."""
        self._entitled(identity, READ, app_id)
        token = self._provider.app_token(self._apps.named(app_id), kind)
        self._note(identity, app_id, None, f"{kind}_token")
        self._metrics.token_used()
        log.info("authorizations.app_token_used", app=app_id, kind=kind, by=identity.name)
        return token

    def revoke(self, identity: Identity, app_id: str, user: str) -> bool:
        """Forget the user's tokens; False if there were none. (The platform has no call to end them there.)"""
        self._entitled(identity, WRITE, app_id)

        def command(transaction: Transaction) -> bool:
            row = session_with_tokens(transaction.connection, app_id, user)
            if row is None:
                return False
            drop_tokens(transaction.connection, app_id, user)
            change_session(transaction.connection, row.session_id, reason=None)
            insert_use(transaction.connection, self._use(identity, app_id, user, "revoke"))
            tell(transaction, AUTHORIZATION_REVOKED, row, row.state, "revoked")
            log.info("authorizations.revoked", authorization=row.session_id, by=identity.name)
            return True

        return self._submit(command)

    def uses(self, app_id: str | None, user: str | None, limit: int) -> list[UseRow]:
        """The audit log, the newest first."""
        return self._database.read(lambda connection: list_uses(connection, app_id, user, limit))

    def renew_ending(self) -> int:
        """Renew what ends soon before anybody asks for it; how many were tried."""
        rows = self._database.read(lambda connection: tokens_due(connection, utc_text(self._clock()), BATCH))
        for count, row in enumerate(rows, 1):
            with structlog.contextvars.bound_contextvars(authorization=row.session_id):
                try:
                    self._renewed(row)
                except (AuthorizationFailed, NotFound) as error:
                    log.warning("authorizations.not_renewed", code=error.code)
                    if isinstance(error, ProviderUnavailable):  # nor would it answer for the next one
                        return count
        return len(rows)

    def sync_people(self) -> int:
        """Ask the platform again who the users with a token are; how many were brought up to date."""
        after, count = "", 0
        while rows := self._database.read(partial(tokens_after, session_id=after, limit=BATCH)):
            for row in rows:
                try:
                    count += self._sync(row)
                except ProviderUnavailable:
                    log.warning("authorizations.sync_ended_early", synced=count)
                    return count
            after = rows[-1].session_id
        self._metrics.people_synced()
        return count

    def _sync(self, row: SessionRow) -> bool:
        """Raises ProviderUnavailable."""
        with structlog.contextvars.bound_contextvars(authorization=row.session_id):
            try:
                if self._ends_soon(row):
                    row = self._renewed_if_possible(row)
                if self._left(row) <= 0:
                    return False
                person = self._provider.person(self._open(row, "access", row.user_access_token))
                if person.open_id == row.open_id:
                    self._submit(partial(_update_person, row.session_id, person))
                    return True
            except ProviderUnavailable:
                raise
            except (AuthorizationFailed, NotFound) as error:
                log.warning("authorizations.not_synced", code=error.code)
            return False

    def _entitled(self, identity: Identity, scope: str, app_id: str) -> None:
        self._apps.named(None)
        require(identity, scope)
        if not may_have_tokens(identity):
            raise NotAllowed("Tokens of the platform are for back ends with an API token.")
        self._apps.reached(app_id, identity)

    def _holder(self, app_id: str, user: str) -> SessionRow:
        row = self._database.read(lambda connection: session_with_tokens(connection, app_id, user))
        if row is not None:
            return row
        last = self._database.read(lambda connection: last_session(connection, app_id, user))
        if last is not None and last.reason in (REFRESH_FAILED, TOKEN_EXPIRED):
            raise UserTokenExpired("The user's token has expired and can't be renewed; they have to authorize again.")
        raise AuthenticationRequired("The user has not authorized this app, or no longer (POST /api/authorizations).")

    def _left(self, row: SessionRow) -> float:
        return unix_seconds(row.token_expires_at or row.created_at) - self._clock()

    def _ends_soon(self, row: SessionRow) -> bool:
        if row.token_expires_at is None or row.token_issued_at is None:
            return True
        lifetime = unix_seconds(row.token_expires_at) - unix_seconds(row.token_issued_at)
        return is_expiring(lifetime, self._left(row), self._threshold)

    def _renewed_if_possible(self, row: SessionRow) -> SessionRow:
        """Renewed; or as it is, while it holds. Raises what `_renewed` does."""
        failed_lately = row.renew_at is not None and row.renew_at > utc_text(self._clock())
        if row.refresh_token is None or (failed_lately and self._left(row) > 0):
            return row
        try:
            return self._renewed(row)
        except AuthenticationRequired:  # revoked meanwhile
            raise
        except (AuthorizationFailed, NotFound):
            if self._left(row) > 0:
                return row
            raise

    def _replaced(self, row: SessionRow) -> SessionRow:
        """Renewed, although by our clock it holds."""
        try:
            return self._renewed(row)
        except TokenRefreshFailed:
            log.warning("authorizations.token_refused")
            raise AuthenticationRequired(
                "The platform neither takes the user's token any more nor renews it; they have to authorize again."
            ) from None

    def _renewed(self, row: SessionRow) -> SessionRow:
        """The row with new tokens, whoever has got them. Raises AuthenticationRequired if it has none any more,
        TokenRefreshFailed, ProviderUnavailable, NotFound."""
        deadline = self._clock() + WAIT_SECONDS
        while True:
            saving = self._saving.get(row.session_id)
            if saving is not None:
                saving.join(max(0.0, deadline - self._clock()))
                if not saving.ready():  # its refresh token is used up: nobody may use it again
                    raise Unavailable("The renewed token can't be stored now; try again.", retry_after_seconds=2)
            claimed, now = self._submit(partial(_claim, row))
            if claimed:
                return self._renew(now)
            if now.token_issued_at != row.token_issued_at:
                return now
            self._wait(now, deadline)

    def _wait(self, row: SessionRow, deadline: float) -> None:
        """Until whoever renews it has come to an end. Raises ProviderUnavailable."""
        now: SessionRow | None = row
        while now is not None and now.refreshing_until == row.refreshing_until:
            at = self._clock()
            if row.refreshing_until is None or row.refreshing_until <= utc_text(at):
                return
            if at > deadline:
                raise ProviderUnavailable("The token is being renewed, and that takes long.", retry_after_seconds=5)
            gevent.sleep(LOOK_SECONDS)
            now = self._database.read(lambda connection: find_session(connection, row.session_id))

    def _renew(self, row: SessionRow) -> SessionRow:
        """(`row` has been claimed.)"""
        began = self._clock()
        try:
            app = self._apps.named(row.app_id)
            tokens = self._provider.refresh(app, self._open(row, "refresh", row.refresh_token))
        except TokenRefreshFailed as error:
            self._metrics.refreshed(row.app_id, False)
            log.warning("authorizations.refresh_refused", provider_code=error.provider_code)
            self._submit(partial(_refresh_refused, row))
            raise
        except (AuthorizationFailed, NotFound):
            self._metrics.refreshed(row.app_id, False)
            self._submit(partial(_postpone, row, max(AGAIN_SECONDS, -self._left(row))))
            raise
        columns = sealed_tokens(self._vault, row.session_id, tokens, began, self._threshold)
        saving = self._saving[row.session_id] = gevent.spawn(self._save, row, columns)
        saving.name = "token-save"
        saving.link(lambda _: self._saving.pop(row.session_id, None))
        try:
            saving.get(timeout=WAIT_SECONDS)
        except gevent.Timeout:
            raise Unavailable("The renewed token can't be stored now; try again.", retry_after_seconds=2) from None
        self._metrics.refreshed(row.app_id, True)
        log.info("authorizations.token_renewed")
        return self._holder(row.app_id, row.user_id)

    def _save(self, row: SessionRow, columns: dict[str, Any]) -> None:
        """The old refresh token is used up: what came for it is held until the store takes it again."""
        until = self._clock() + SAVE_SECONDS
        while True:
            try:
                self._submit(partial(_store, row, columns))
                return
            except Unavailable as error:
                if self._clock() > until:
                    log.error("authorizations.renewed_token_lost", problem=error.detail)
                    return
                log.warning("authorizations.save_postponed")
                gevent.sleep(SAVE_PAUSE_SECONDS)

    def _open(self, row: SessionRow, kind: str, sealed: str | None) -> str:
        try:
            return self._vault.open(sealed or "", kind, row.session_id)
        except Unreadable:
            log.error("authorizations.token_unreadable", kind=kind)
            raise AuthenticationRequired(
                "The user's token can't be read with the keys of this server; they have to authorize again."
            ) from None

    def _note(self, identity: Identity, app_id: str, user: str | None, use: str) -> None:
        self._submit(lambda transaction: insert_use(transaction.connection, self._use(identity, app_id, user, use)))

    def _use(self, identity: Identity, app_id: str, user: str | None, use: str) -> UseRow:
        return UseRow(utc_text(self._clock()), app_id, user, use, identity.name, identity.token_id)


def fingerprint(token: str) -> str:
    """Names a token without telling it."""
    return hashlib.sha256(token.encode()).hexdigest()


def _claim(row: SessionRow, transaction: Transaction) -> tuple[bool, SessionRow]:
    """(Is it ours to renew now?, the row as it is). Raises AuthenticationRequired if it has no tokens any more,
    TokenRefreshFailed if the platform has refused, ProviderUnavailable if somebody has tried in vain since `row`."""
    now = find_session(transaction.connection, row.session_id)
    if now is None or (now.user_access_token is None and now.reason != REFRESH_FAILED):
        raise AuthenticationRequired("The user's token was revoked meanwhile.")
    if now.token_issued_at != row.token_issued_at and now.user_access_token is not None:
        return False, now
    if now.refresh_token is None:
        raise TokenRefreshFailed("The platform did not renew the token; the user has to authorize again.")
    if now.refreshing_until is not None and now.refreshing_until > transaction.now:
        return False, now
    if now.renew_at != row.renew_at and now.renew_at is not None and now.renew_at > transaction.now:
        raise ProviderUnavailable("The token could not be renewed just now.", retry_after_seconds=5)
    until = utc_text(unix_seconds(transaction.now) + CLAIM_SECONDS)
    change_session(transaction.connection, row.session_id, refreshing_until=until)
    return True, replace(now, refreshing_until=until)


def _postpone(row: SessionRow, seconds: float, transaction: Transaction) -> None:
    """It could not be renewed. (Not if the claim has ended, and is somebody else's now.)"""
    now = find_session(transaction.connection, row.session_id)
    if now is not None and now.refreshing_until == row.refreshing_until:
        again = utc_text(unix_seconds(transaction.now) + seconds)
        change_session(transaction.connection, row.session_id, refreshing_until=None, renew_at=again)


def _store(row: SessionRow, columns: dict[str, Any], transaction: Transaction) -> None:
    """Not if they were revoked meanwhile, or the user has authorized again."""
    now = find_session(transaction.connection, row.session_id)
    holder = session_with_tokens(transaction.connection, row.app_id, row.user_id)
    held = holder is not None and holder.session_id == row.session_id and holder.token_issued_at == row.token_issued_at
    if held or (holder is None and now is not None and now.reason == REFRESH_FAILED):
        change_session(transaction.connection, row.session_id, **columns, reason=None)


def _refresh_refused(row: SessionRow, transaction: Transaction) -> None:
    """The access token is kept until it ends; there is nothing to renew it with."""
    now = find_session(transaction.connection, row.session_id)
    if now is None or now.refresh_token != row.refresh_token:
        return
    gone = (
        NO_TOKENS
        if (now.token_expires_at or "") <= transaction.now
        else {"refresh_token": None, "refresh_expires_at": None, "refreshing_until": None, "renew_at": None}
    )
    change_session(transaction.connection, row.session_id, **gone, reason=REFRESH_FAILED)
    tell(transaction, AUTHORIZATION_REVOKED, now, now.state, REFRESH_FAILED)


def _update_person(session_id: str, person: Person, transaction: Transaction) -> None:
    change_session(
        transaction.connection,
        session_id,
        union_id=person.union_id,
        user_name=person.name,
        mobile=person.mobile,
        email=person.email,
    )
