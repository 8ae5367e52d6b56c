"""Rows of webhook secrets. The secrets arrive here encrypted."""

from __future__ import annotations

import json
from dataclasses import dataclass

from sqlalchemy import Connection, Row, func, insert, select, update

from sidecar.store.tables import webhook_secrets


@dataclass(frozen=True, slots=True)
class SecretRow:
    """`projects` None is all."""

    id: str
    name: str
    projects: tuple[str, ...] | None
    sealed: str
    created_at: str
    revoked_at: str | None = None


def insert_secret(connection: Connection, row: SecretRow) -> None:
    connection.execute(
        insert(webhook_secrets).values(
            id=row.id,
            name=row.name,
            projects=None if row.projects is None else json.dumps(row.projects, ensure_ascii=False),
            sealed=row.sealed,
            created_at=row.created_at,
        )
    )


def list_secrets(connection: Connection) -> list[SecretRow]:
    """All, also those that were revoked, in the order in which they were made."""
    rows = connection.execute(select(webhook_secrets).order_by(webhook_secrets.c.created_at, webhook_secrets.c.id))
    return [_secret(row) for row in rows]


def active_secrets(connection: Connection) -> list[SecretRow]:
    """Those that are not revoked, the newest first."""
    columns = webhook_secrets.c
    rows = connection.execute(
        select(webhook_secrets)
        .where(columns.revoked_at.is_(None))
        .order_by(columns.created_at.desc(), columns.id.desc())
    )
    return [_secret(row) for row in rows]


def count_active(connection: Connection) -> int:
    return connection.execute(
        select(func.count()).select_from(webhook_secrets).where(webhook_secrets.c.revoked_at.is_(None))
    ).scalar_one()


def revoke_secret(connection: Connection, id: str, at: str) -> bool:
    """What it was is forgotten. False if there is no such secret or it was revoked before."""
    changed = connection.execute(
        update(webhook_secrets)
        .where(webhook_secrets.c.id == id, webhook_secrets.c.revoked_at.is_(None))
        .values(revoked_at=at, sealed="")
    )
    return changed.rowcount > 0


def _secret(row: Row) -> SecretRow:  # type: ignore[type-arg]
    projects = None if row.projects is None else tuple(json.loads(row.projects))
    return SecretRow(row.id, row.name, projects, row.sealed, row.created_at, row.revoked_at)
