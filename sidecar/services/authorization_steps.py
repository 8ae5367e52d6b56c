"""The steps of an authorization from pending to its end, a transaction each, with what is told and shown of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sidecar.domain.authorizations import CardClick, Method, State, Toast, UserTokens, may_become
from sidecar.domain.errors import AuthorizationExpired, AuthorizationRejected, Conflict
from sidecar.domain.times import unix_seconds, utc_text
from sidecar.services.authorization_news import tell
from sidecar.services.vault import Vault
from sidecar.store.authorizations import SessionRow, change_session, find_session, session_with_tokens
from sidecar.store.journal import Transaction
from sidecar.wire.news import AUTHORIZATION_EXPIRED, AUTHORIZATION_FAILED, AUTHORIZATION_REJECTED

EXCHANGE_SECONDS = 60.0
"""So long nobody else may use the same state while its code is being exchanged: longer than two calls may take."""
CARD_NET_SECONDS = 5.0
"""When a card that a click's answer should have changed is changed in any case."""


def check_pending(row: SessionRow) -> None:
    """Raises what says how it ended."""
    if row.state == "completed":
        raise Conflict("The authorization was completed already.")
    if row.state == "rejected":
        raise AuthorizationRejected("The user has declined.")
    if row.state == "expired":
        raise AuthorizationExpired("The authorization has expired; begin another one.")


def sealed_tokens(vault: Vault, session_id: str, tokens: UserTokens, began: float, threshold: float) -> dict[str, Any]:
    """The columns that hold tokens which were asked for at `began`."""
    refresh = tokens.refresh
    lasts = tokens.refresh_expires_in
    return {
        "user_access_token": vault.seal(tokens.access, "access", session_id),
        "token_issued_at": utc_text(began),
        "token_expires_at": utc_text(began + tokens.expires_in),
        "token_scope": tokens.scope,
        "refresh_token": None if refresh is None else vault.seal(refresh, "refresh", session_id),
        "refresh_expires_at": None if refresh is None or lasts is None else utc_text(began + lasts),
        "refreshing_until": None,
        "renew_at": None if refresh is None else utc_text(began + tokens.expires_in * (1 - threshold)),
    }


def exchanging(row: SessionRow, now: str) -> bool:
    """Is somebody exchanging a code for it? Who came in time is not too late because the platform is slow."""
    return row.exchanging_until is not None and row.exchanging_until > now


def expected_open_id(transaction: Transaction, row: SessionRow) -> str | None:
    """Who must authorize; None if anybody may. Who has authorized once stays the same person, until their tokens are
    revoked or the back end names another."""
    if row.expected_open_id is not None:
        return row.expected_open_id
    former = session_with_tokens(transaction.connection, row.app_id, row.user_id)
    return None if former is None else former.open_id


def claim_exchange(session_id: str, transaction: Transaction) -> None:
    """Raises Conflict while somebody else is exchanging a code for the same session."""
    row = find_session(transaction.connection, session_id)
    if row is None or row.state != "pending":
        raise Conflict("The authorization was ended meanwhile.")
    if exchanging(row, transaction.now):
        raise Conflict("The authorization is being completed now; look again in a moment.")
    until = utc_text(unix_seconds(transaction.now) + EXCHANGE_SECONDS)
    change_session(transaction.connection, session_id, exchanging_until=until)


def note_failure(session_id: str, reason: str, transaction: Transaction) -> None:
    """An attempt failed; it may be tried again."""
    row = find_session(transaction.connection, session_id)
    if row is not None and row.state == "pending":
        change_session(transaction.connection, session_id, reason=reason, exchanging_until=None)
        tell(transaction, AUTHORIZATION_FAILED, row, "pending", reason)


def card_sent(session_id: str, message_id: str, open_id: str | None, transaction: Transaction) -> None:
    """It has a card now, and must be completed by `open_id` if that is known. (It may have ended meanwhile.)"""
    row = find_session(transaction.connection, session_id)
    if row is None:
        return
    change_session(
        transaction.connection,
        session_id,
        message_id=message_id,
        expected_open_id=row.expected_open_id or open_id,
        auth_method="http_callback" if row.auth_method == "oauth" else row.auth_method,
        card_state="pending",
        card_due_at=None if row.state == "pending" else transaction.now,
    )


def reject(session_id: str, transaction: Transaction) -> SessionRow:
    """The user has declined on the platform's page. Raises Conflict."""
    row = find_session(transaction.connection, session_id)
    if row is None or not may_become(row.state, "rejected"):
        raise Conflict("The authorization was ended meanwhile.")
    return _ended(transaction, row, "rejected", transaction.now)


def expire(row: SessionRow, transaction: Transaction) -> bool:
    """Its time is over; False if it is not, or it has ended."""
    found = find_session(transaction.connection, row.session_id)
    if found is None or not may_become(found.state, "expired") or found.expires_at > transaction.now:
        return False
    if exchanging(found, transaction.now):
        return False
    _ended(transaction, found, "expired", transaction.now)
    return True


def _ended(transaction: Transaction, row: SessionRow, state: State, card_due_at: str) -> SessionRow:
    reason = "user_rejected" if state == "rejected" else row.reason
    done = replace(row, state=state, reason=reason, sealed=None, exchanging_until=None)
    change_session(
        transaction.connection,
        row.session_id,
        state=state,
        reason=reason,
        sealed=None,
        exchanging_until=None,
        card_due_at=card_due_at if row.message_id is not None else None,
    )
    tell(transaction, AUTHORIZATION_REJECTED if state == "rejected" else AUTHORIZATION_EXPIRED, done, state, reason)
    return done


def click_card(
    app_id: str, click: CardClick, method: Method, transaction: Transaction
) -> tuple[SessionRow | None, Toast, bool]:
    """(The authorization as it is now, what the one who clicked is told, has this click rejected it?)"""
    row = find_session(transaction.connection, click.session_id)
    if row is None or row.app_id != app_id:
        return None, "failed", False
    if expected_open_id(transaction, row) not in (None, click.open_id):
        return row, "not_yours", False
    if row.state == "completed":
        return row, "completed", False
    if row.state == "rejected":
        return row, "cancelled", False
    if row.state == "expired" or (row.expires_at <= transaction.now and not exchanging(row, transaction.now)):
        return row, "expired", False
    row = replace(
        row, expected_open_id=click.open_id, auth_method=method, message_id=row.message_id or click.message_id
    )
    change_session(
        transaction.connection,
        row.session_id,
        expected_open_id=row.expected_open_id,
        auth_method=row.auth_method,
        message_id=row.message_id,
    )
    if click.action == "authorize":
        return row, "follow_link", False
    later = utc_text(unix_seconds(transaction.now) + CARD_NET_SECONDS)
    return _ended(transaction, row, "rejected", later), "cancelled", True
