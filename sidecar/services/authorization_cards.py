"""The cards of authorizations: what each shows, and its change in place when that is no longer so.

What a card is to show is in the database (`card_due_at`), so that the change comes also if the process that should have
made it died, or the platform was away."""

from __future__ import annotations

import base64
import hashlib
import json

import gevent
import structlog

from sidecar.domain.authorizations import App, Card
from sidecar.domain.errors import AuthorizationFailed, NotFound, ProviderUnavailable, SidecarError
from sidecar.domain.times import unix_seconds, utc_text
from sidecar.services.authorization_parts import PartOf
from sidecar.store.authorizations import SessionRow, cards_due, change_session, find_session
from sidecar.store.journal import Transaction

log = structlog.get_logger("sidecar.authorizations")

RETRY_SECONDS = 30.0
"""Until a change is tried again; what the platform has refused, later and later."""
GIVE_UP_SECONDS = 86_400.0
CLAIM_SECONDS = 20.0
"""So long nobody else changes a card that somebody has begun to change."""
BATCH = 50


class Cards(PartOf):
    """Every method may raise Unavailable, but `soon`."""

    def flow_url(self, app: App, row: SessionRow) -> str:
        """Where the user of this pending authorization grants. Raises Unreadable."""
        state, verifier = json.loads(self._vault.open(row.sealed or "", "flow", row.session_id))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        return self._provider.authorize_url(app, row.redirect_uri, row.asked_scope, state, challenge)

    def card(self, app: App, row: SessionRow) -> Card:
        """What the card shows by this row. Raises Unreadable."""
        url = self.flow_url(app, row) if row.state == "pending" else None
        return Card(row.session_id, row.state, row.language, url, row.user_name)

    def soon(self, session_id: str) -> None:
        """Change it in a greenlet of its own. What fails is due later."""
        gevent.spawn(self._attempt, session_id).name = "lark-card"

    def change_due(self) -> int:
        """Change those that are due, of whatever process, while the platform answers; how many were tried."""
        rows = self._database.read(lambda connection: cards_due(connection, utc_text(self._clock()), BATCH))
        for count, row in enumerate(rows, 1):
            if not self._attempt(row.session_id):
                return count
        return len(rows)

    def _attempt(self, session_id: str) -> bool:
        """Does the platform answer?"""
        with structlog.contextvars.bound_contextvars(authorization=session_id):
            try:
                return self._change(session_id)
            except (SidecarError, gevent.Timeout) as error:
                log.warning("authorizations.card_postponed", problem=type(error).__name__)
                return True

    def _change(self, session_id: str) -> bool:
        """Does the platform answer? (Whoever dies after the claim leaves it to the next look.)"""
        row = self._submit(lambda transaction: _claim(transaction, session_id))
        if row is None or row.message_id is None:
            return True
        try:
            app = self._apps.named(row.app_id)
            self._provider.update_card(
                app, row.message_id, Card(row.session_id, row.state, row.language, None, row.user_name)
            )
        except (AuthorizationFailed, NotFound) as error:
            self._metrics.card_updated(False)
            code = error.provider_code if isinstance(error, AuthorizationFailed) else None
            age = self._clock() - unix_seconds(row.created_at)
            final = age > GIVE_UP_SECONDS
            log.warning("authorizations.card_not_changed", code=error.code, provider_code=code, given_up=final)
            pause = RETRY_SECONDS if isinstance(error, ProviderUnavailable) else max(RETRY_SECONDS, age)
            due = None if final else utc_text(self._clock() + pause)
            self._submit(lambda transaction: change_session(transaction.connection, session_id, card_due_at=due))
            return not isinstance(error, ProviderUnavailable)
        self._metrics.card_updated(True)
        self._submit(lambda transaction: _shown(transaction, session_id, row.state))
        log.info("authorizations.card_changed", state=row.state)
        return True


def _claim(transaction: Transaction, session_id: str) -> SessionRow | None:
    row = find_session(transaction.connection, session_id)
    if row is None or row.card_due_at is None or row.card_due_at > transaction.now or row.state == "pending":
        return None
    until = utc_text(unix_seconds(transaction.now) + CLAIM_SECONDS)
    change_session(transaction.connection, session_id, card_due_at=until)
    return row


def _shown(transaction: Transaction, session_id: str, state: str) -> None:
    row = find_session(transaction.connection, session_id)
    if row is not None:
        due = None if row.state == state else transaction.now
        change_session(transaction.connection, session_id, card_state=state, card_due_at=due)
