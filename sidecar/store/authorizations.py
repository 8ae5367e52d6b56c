"""Rows of authorizations: the sessions with their tokens, the apps they are for, and who was given a token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from sidecar.domain.authorizations import Language, Method, State
from sidecar.store.journal import Transaction
from sidecar.store.tables import authorization_uses, lark_apps, user_auth_sessions

_SESSION = user_auth_sessions.c
_HAS_TOKEN = _SESSION.user_access_token.is_not(None)


@dataclass(frozen=True, slots=True)
class AppRow:
    """An app at the platform; `sealed` are its secrets, encrypted."""

    app_id: str
    name: str
    sealed: str = field(repr=False)
    created_at: str


@dataclass(frozen=True, slots=True)
class SessionRow:
    """An authorization (docs of the table: store/tables.py). Tokens and `sealed` are encrypted."""

    session_id: str
    app_id: str
    user_id: str
    state: State
    auth_method: Method
    redirect_uri: str
    asked_scope: str
    language: Language
    state_hash: str
    created_at: str
    expires_at: str
    sealed: str | None = field(default=None, repr=False)
    expected_open_id: str | None = None
    open_id: str | None = None
    union_id: str | None = None
    user_name: str | None = None
    mobile: str | None = None
    email: str | None = None
    message_id: str | None = None
    card_state: str | None = None
    card_due_at: str | None = None
    reason: str | None = None
    exchanging_until: str | None = None
    completed_at: str | None = None
    user_access_token: str | None = field(default=None, repr=False)
    token_issued_at: str | None = None
    token_expires_at: str | None = None
    token_scope: str | None = None
    refresh_token: str | None = field(default=None, repr=False)
    refresh_expires_at: str | None = None
    refreshing_until: str | None = None
    renew_at: str | None = None


@dataclass(frozen=True, slots=True)
class UseRow:
    at: str
    app_id: str
    user_id: str | None
    use: str
    by: str
    token_id: str | None


_COLUMNS = [_SESSION[name] for name in SessionRow.__dataclass_fields__]


def insert_app(connection: Connection, row: AppRow) -> bool:
    """False if there is an app of this id already."""
    if find_app(connection, row.app_id) is not None:
        return False
    connection.execute(
        insert(lark_apps).values(app_id=row.app_id, name=row.name, sealed=row.sealed, created_at=row.created_at)
    )
    return True


def find_app(connection: Connection, app_id: str) -> AppRow | None:
    row = connection.execute(select(lark_apps).where(lark_apps.c.app_id == app_id)).first()
    return None if row is None else AppRow(**row._mapping)


def list_apps(connection: Connection) -> list[AppRow]:
    """The oldest first."""
    rows = connection.execute(select(lark_apps).order_by(lark_apps.c.created_at, lark_apps.c.app_id))
    return [AppRow(**row._mapping) for row in rows]


def reseal_app(connection: Connection, app_id: str, sealed: str) -> None:
    connection.execute(update(lark_apps).where(lark_apps.c.app_id == app_id).values(sealed=sealed))


def delete_app(connection: Connection, app_id: str) -> bool:
    return connection.execute(delete(lark_apps).where(lark_apps.c.app_id == app_id)).rowcount > 0


def insert_session(connection: Connection, row: SessionRow) -> None:
    connection.execute(
        insert(user_auth_sessions).values({name: getattr(row, name) for name in SessionRow.__dataclass_fields__})
    )


def find_session(connection: Connection, session_id: str) -> SessionRow | None:
    return _first(connection.execute(select(*_COLUMNS).where(_SESSION.session_id == session_id)).first())


def session_of_state(connection: Connection, state_hash: str) -> SessionRow | None:
    return _first(connection.execute(select(*_COLUMNS).where(_SESSION.state_hash == state_hash)).first())


def session_with_tokens(connection: Connection, app_id: str, user_id: str) -> SessionRow | None:
    """The one whose tokens are this user's at this app."""
    query = select(*_COLUMNS).where(_SESSION.app_id == app_id, _SESSION.user_id == user_id, _HAS_TOKEN)
    return _first(connection.execute(query).first())


def last_session(connection: Connection, app_id: str, user_id: str) -> SessionRow | None:
    """The one that was completed last, whether or not it has tokens still."""
    query = (
        select(*_COLUMNS)
        .where(_SESSION.app_id == app_id, _SESSION.user_id == user_id, _SESSION.state == "completed")
        .order_by(_SESSION.completed_at.desc(), _SESSION.id.desc())
        .limit(1)
    )
    return _first(connection.execute(query).first())


def begun_since(connection: Connection, app_id: str, user_id: str, since: str) -> list[str]:
    """When this user has begun authorizations since then, the oldest first."""
    query = (
        select(_SESSION.created_at)
        .where(_SESSION.app_id == app_id, _SESSION.user_id == user_id, _SESSION.created_at > since)
        .order_by(_SESSION.created_at)
    )
    return list(connection.execute(query).scalars())


def change_session(connection: Connection, session_id: str, **values: object) -> None:
    connection.execute(update(user_auth_sessions).where(_SESSION.session_id == session_id).values(values))


def drop_tokens(connection: Connection, app_id: str, user_id: str, keep: str = "") -> list[str]:
    """Forget this user's tokens, but for those of the session `keep`; the ids of those that had some."""
    dropped = (
        update(user_auth_sessions)
        .where(_SESSION.app_id == app_id, _SESSION.user_id == user_id, _SESSION.session_id != keep, _HAS_TOKEN)
        .values(NO_TOKENS)
        .returning(_SESSION.session_id)
    )
    return list(connection.execute(dropped).scalars())


NO_TOKENS: Mapping[str, None] = {
    "user_access_token": None,
    "token_expires_at": None,
    "token_issued_at": None,
    "token_scope": None,
    "refresh_token": None,
    "refresh_expires_at": None,
    "refreshing_until": None,
    "renew_at": None,
}
"""The columns of a session that has none (any more)."""


def overdue_sessions(connection: Connection, now: str, limit: int) -> list[SessionRow]:
    """Pending ones whose time is over, but for those whose code is being exchanged."""
    query = (
        select(*_COLUMNS)
        .where(_SESSION.state == "pending", _SESSION.expires_at <= now)
        .where(_SESSION.exchanging_until.is_(None) | (_SESSION.exchanging_until <= now))
        .limit(limit)
    )
    return _all(connection, query)


def cards_due(connection: Connection, now: str, limit: int) -> list[SessionRow]:
    """Those whose card shows what is no longer so."""
    return _all(connection, select(*_COLUMNS).where(_SESSION.card_due_at <= now).limit(limit))


def tokens_due(connection: Connection, now: str, limit: int) -> list[SessionRow]:
    """Those whose tokens are to be renewed and that nobody is renewing, the longest due first."""
    query = (
        select(*_COLUMNS)
        .where(_HAS_TOKEN, _SESSION.renew_at <= now)
        .where(_SESSION.refreshing_until.is_(None) | (_SESSION.refreshing_until <= now))
        .order_by(_SESSION.renew_at)
        .limit(limit)
    )
    return _all(connection, query)


def tokens_after(connection: Connection, session_id: str, limit: int) -> list[SessionRow]:
    """Sessions with tokens, in the order of their ids, after this one."""
    query = select(*_COLUMNS).where(_HAS_TOKEN, _SESSION.session_id > session_id).order_by(_SESSION.session_id)
    return _all(connection, query.limit(limit))


def sealed_after(connection: Connection, session_id: str, limit: int) -> list[SessionRow]:
    """Sessions with anything encrypted, in the order of their ids, after this one."""
    query = select(*_COLUMNS).where(_HAS_TOKEN | _SESSION.sealed.is_not(None), _SESSION.session_id > session_id)
    return _all(connection, query.order_by(_SESSION.session_id).limit(limit))


def retire_dead_tokens(transaction: Transaction, limit: int) -> list[SessionRow]:
    """Forget tokens that have ended and can't be renewed; the sessions that had them."""
    query = (
        select(*_COLUMNS)
        .where(_HAS_TOKEN, _SESSION.token_expires_at <= transaction.now)
        .where(_SESSION.refresh_token.is_(None) | (_SESSION.refresh_expires_at <= transaction.now))
        .limit(limit)
    )
    dead = _all(transaction.connection, query)
    for row in dead:
        change_session(transaction.connection, row.session_id, **NO_TOKENS)
    return dead


def retire_authorizations(transaction: Transaction, before: str, limit: int) -> int:
    """Delete sessions that ended before then and have no tokens, at most so many."""
    old = (
        select(_SESSION.id)
        .where(_SESSION.state != "pending", _SESSION.created_at < before, _SESSION.user_access_token.is_(None))
        .limit(limit)
    )
    return transaction.connection.execute(delete(user_auth_sessions).where(_SESSION.id.in_(old))).rowcount


@dataclass(frozen=True, slots=True)
class Counts:
    """By app: authorizations under way, tokens that hold or can be renewed; by state: rows."""

    active: dict[str, int]
    tokens: dict[str, int]
    rows: dict[str, int]


def count_sessions(connection: Connection, now: str) -> Counts:
    def by(column: Any, *where: Any) -> dict[str, int]:
        rows = connection.execute(select(column, func.count()).where(*where).group_by(column))
        return {row[0]: row[1] for row in rows}

    return Counts(
        by(_SESSION.app_id, _SESSION.state == "pending", _SESSION.expires_at > now),
        by(_SESSION.app_id, _HAS_TOKEN, (_SESSION.token_expires_at > now) | _SESSION.refresh_token.is_not(None)),
        by(_SESSION.state),
    )


def insert_use(connection: Connection, row: UseRow) -> None:
    connection.execute(
        insert(authorization_uses).values({name: getattr(row, name) for name in UseRow.__dataclass_fields__})
    )


def list_uses(connection: Connection, app_id: str | None, user_id: str | None, limit: int) -> list[UseRow]:
    """The newest first."""
    columns = authorization_uses.c
    query = select(*(columns[name] for name in UseRow.__dataclass_fields__)).order_by(columns.id.desc()).limit(limit)
    if app_id is not None:
        query = query.where(columns.app_id == app_id)
    if user_id is not None:
        query = query.where(columns.user_id == user_id)
    return [UseRow(**row._mapping) for row in connection.execute(query)]


def retire_uses(transaction: Transaction, before: str, limit: int) -> int:
    old = select(authorization_uses.c.id).where(authorization_uses.c.at < before).limit(limit)
    return transaction.connection.execute(delete(authorization_uses).where(authorization_uses.c.id.in_(old))).rowcount


def _all(connection: Connection, query: Any) -> list[SessionRow]:
    return [SessionRow(**row._mapping) for row in connection.execute(query)]


def _first(row: Row[Any] | None) -> SessionRow | None:
    return None if row is None else SessionRow(**row._mapping)
