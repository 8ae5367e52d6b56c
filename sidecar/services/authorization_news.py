"""What users' browsers are told of authorizations, in the room of the user. Never a token."""

from __future__ import annotations

from sidecar.domain import rooms
from sidecar.domain.authorizations import State
from sidecar.store.authorizations import SessionRow
from sidecar.store.journal import Transaction
from sidecar.wire.spoken import EventType

REFRESH_FAILED, TOKEN_EXPIRED = "refresh_failed", "token_expired"
"""Why a completed authorization has no tokens any more (or soon): its `reason`. Revoked ones have none."""


def tell(
    transaction: Transaction,
    type: EventType,
    row: SessionRow,
    state: State,
    reason: str | None = None,
    name: str | None = None,
) -> None:
    """In one commit with what it tells of."""
    news = {
        "session_id": row.session_id,
        "app": row.app_id,
        "user": row.user_id,
        "state": state,
        "reason": reason,
        "name": row.user_name if name is None else name,
    }
    transaction.append(type, news, [rooms.user(row.user_id)])
