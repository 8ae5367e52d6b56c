"""A user's tokens got anew before they end, by whoever comes first.

A refresh token can be used once. So whoever renews claims the row first, over all processes; the others wait for what
comes of it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import gevent
import structlog

from sidecar.domain.authorizations import is_expiring
from sidecar.domain.errors import (
    AuthenticationRequired,
    AuthorizationFailed,
    NotFound,
    ProviderUnavailable,
    TokenRefreshFailed,
    Unavailable,
    UserTokenExpired,
)
from sidecar.domain.times import unix_seconds, utc_text
from sidecar.services.authorization_news import REFRESH_FAILED, TOKEN_EXPIRED, tell
from sidecar.services.authorization_parts import PartOf, Parts
from sidecar.services.authorization_steps import sealed_tokens
from sidecar.services.vault import Unreadable
from sidecar.store.authorizations import (
    NO_TOKENS,
    SessionRow,
    change_session,
    find_session,
    last_session,
    session_with_tokens,
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


class Renewal(PartOf):
    """`threshold` is the part of a token's life that is left when it is renewed. Every method that asks the database
    may raise Unavailable."""

    def __init__(self, parts: Parts, threshold: float):
        super().__init__(parts)
        self._threshold = threshold
        self._saving: dict[str, gevent.Greenlet] = {}
        """By session, who stores what the platform has given for its refresh token."""

    def holder(self, app_id: str, user: str) -> SessionRow:
        """The row with the user's tokens. Raises AuthenticationRequired, UserTokenExpired."""
        row = self._database.read(lambda connection: session_with_tokens(connection, app_id, user))
        if row is not None:
            return row
        last = self._database.read(lambda connection: last_session(connection, app_id, user))
        if last is not None and last.reason in (REFRESH_FAILED, TOKEN_EXPIRED):
            raise UserTokenExpired("The user's token has expired and can't be renewed; they have to authorize again.")
        raise AuthenticationRequired("The user has not authorized this app, or no longer (POST /api/authorizations).")

    def left(self, row: SessionRow) -> float:
        """Seconds for which the access token holds."""
        return unix_seconds(row.token_expires_at or row.created_at) - self._clock()

    def ends_soon(self, row: SessionRow) -> bool:
        if row.token_expires_at is None or row.token_issued_at is None:
            return True
        lifetime = unix_seconds(row.token_expires_at) - unix_seconds(row.token_issued_at)
        return is_expiring(lifetime, self.left(row), self._threshold)

    def open(self, row: SessionRow, kind: str, sealed: str | None) -> str:
        """The token of this kind (`access`, `refresh`) that is sealed. Raises AuthenticationRequired."""
        try:
            return self._vault.open(sealed or "", kind, row.session_id)
        except Unreadable:
            log.error("authorizations.token_unreadable", kind=kind)
            raise AuthenticationRequired(
                "The user's token can't be read with the keys of this server; they have to authorize again."
            ) from None

    def renewed_if_possible(self, row: SessionRow) -> SessionRow:
        """Renewed; or as it is, while it holds. Raises what `renewed` does."""
        failed_lately = row.renew_at is not None and row.renew_at > utc_text(self._clock())
        if row.refresh_token is None or (failed_lately and self.left(row) > 0):
            return row
        try:
            return self.renewed(row)
        except AuthenticationRequired:  # revoked meanwhile
            raise
        except (AuthorizationFailed, NotFound):
            if self.left(row) > 0:
                return row
            raise

    def replaced(self, row: SessionRow) -> SessionRow:
        """Renewed, although by our clock it holds. Raises what `renewed` does."""
        try:
            return self.renewed(row)
        except TokenRefreshFailed:
            log.warning("authorizations.token_refused")
            raise AuthenticationRequired(
                "The platform neither takes the user's token any more nor renews it; they have to authorize again."
            ) from None

    def renewed(self, row: SessionRow) -> SessionRow:
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
            tokens = self._provider.refresh(app, self.open(row, "refresh", row.refresh_token))
        except TokenRefreshFailed as error:
            self._metrics.refreshed(row.app_id, False)
            log.warning("authorizations.refresh_refused", provider_code=error.provider_code)
            self._submit(partial(_refresh_refused, row))
            raise
        except (AuthorizationFailed, NotFound):
            self._metrics.refreshed(row.app_id, False)
            self._submit(partial(_postpone, row, max(AGAIN_SECONDS, -self.left(row))))
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
        return self.holder(row.app_id, row.user_id)

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
