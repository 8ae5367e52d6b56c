"""What authorizations need from time to time, and their figures. Called by a job, in one of the processes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

from sidecar.domain.authorizations import State
from sidecar.domain.errors import Unavailable
from sidecar.domain.times import unix_seconds, utc_text
from sidecar.services.authorization_news import TOKEN_EXPIRED, tell
from sidecar.services.authorization_parts import PartOf, Parts
from sidecar.store.authorizations import (
    change_session,
    count_sessions,
    retire_authorizations,
    retire_dead_tokens,
    retire_uses,
)
from sidecar.store.journal import Transaction
from sidecar.store.lark_events import list_links, retire_lark_events, retire_links, retire_nonces
from sidecar.wire.news import AUTHORIZATION_REVOKED

CHUNK = 200
NONCE_SECONDS = 900.0
"""A request is fresh for five minutes before and after its time."""
EVENT_SECONDS = 3 * 86_400.0
"""Lark sends an event again for some seven hours."""
LINK_SECONDS = 86_400.0


class CleanUp(PartOf):
    """`retention_seconds` is how long authorizations without tokens and the audit log are kept."""

    def __init__(self, parts: Parts, retention_seconds: float):
        super().__init__(parts)
        self._retention_seconds = retention_seconds

    def run(self) -> int:
        """Delete what nobody needs any more; how many authorizations that were. Raises Unavailable."""
        old = self._ago(self._retention_seconds)
        self._repeat(_end_tokens)
        cleaned = self._repeat(partial(retire_authorizations, before=old, limit=CHUNK))
        self._repeat(partial(retire_uses, before=old, limit=CHUNK))
        self._repeat(partial(retire_nonces, before=self._ago(NONCE_SECONDS), limit=CHUNK))
        self._repeat(partial(retire_lark_events, before=self._ago(EVENT_SECONDS), limit=CHUNK))
        self._submit(partial(retire_links, before=self._ago(LINK_SECONDS)))
        self._metrics.cleaned_up()
        return cleaned

    def measure(self) -> None:
        """Bring the gauges up to date; leaves them as they are while the database can't be read."""
        try:
            apps = [app.id for app in self._apps.all()]
            self._metrics.serve(apps)
            if not apps:
                return
            counts = self._database.read(partial(count_sessions, now=utc_text(self._clock())))
            links = self._database.read(partial(list_links, since=self._ago(LINK_SECONDS)))
        except Unavailable:
            return
        rows = {cast(State, state): count for state, count in counts.rows.items()}
        self._metrics.stock(rows, counts.active, counts.tokens)
        for link in links:
            if link.app_id in apps:
                self._metrics.link(
                    link.app_id,
                    connected=link.connected,
                    reconnects={"attempt": link.attempts, "success": link.successes, "failure": link.failures},
                    started_at=unix_seconds(link.started_at),
                    heard_at=unix_seconds(link.heard_at),
                    heartbeat_seconds=link.heartbeat_seconds,
                )

    def _ago(self, seconds: float) -> str:
        return utc_text(self._clock() - seconds)

    def _repeat(self, retire: Callable[[Transaction], int]) -> int:
        total = 0
        while count := self._submit(retire):
            total += count
        return total


def _end_tokens(transaction: Transaction) -> int:
    """Tokens that have ended and can't be renewed: the user is told, and is to authorize again."""
    ended = retire_dead_tokens(transaction, CHUNK)
    for row in ended:
        if row.reason is None:
            change_session(transaction.connection, row.session_id, reason=TOKEN_EXPIRED)
        tell(transaction, AUTHORIZATION_REVOKED, row, row.state, TOKEN_EXPIRED)
    return len(ended)
