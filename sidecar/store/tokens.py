"""Rows of API tokens and login links. Secrets arrive here hashed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, insert, select, update

from sidecar.store.tables import login_links, tokens


@dataclass(frozen=True, slots=True)
class TokenRow:
    number: int
    id: str
    name: str
    secret_hash: bytes
    scopes: tuple[str, ...]
    projects: tuple[str, ...] | None
    created_at: str
    expires_at: str | None
    revoked_at: str | None


def insert_token(
    connection: Connection,
    id: str,
    name: str,
    secret_hash: bytes,
    scopes: tuple[str, ...],
    projects: tuple[str, ...] | None,
    created_at: str,
    expires_at: str | None,
) -> None:
    connection.execute(
        insert(tokens).values(
            id=id,
            name=name,
            secret_hash=secret_hash,
            scopes=json.dumps(scopes),
            projects=None if projects is None else json.dumps(projects, ensure_ascii=False),
            created_at=created_at,
            expires_at=expires_at,
        )
    )


def find_token(connection: Connection, id: str) -> TokenRow | None:
    row = connection.execute(select(tokens).where(tokens.c.id == id)).mappings().first()
    return None if row is None else _token(row)


def list_tokens(connection: Connection) -> list[TokenRow]:
    return [_token(row) for row in connection.execute(select(tokens).order_by(tokens.c.number)).mappings()]


def mark_revoked(connection: Connection, id: str, at: str) -> bool:
    """False if there is no such token or it was revoked before."""
    changed = connection.execute(
        update(tokens).where(tokens.c.id == id, tokens.c.revoked_at.is_(None)).values(revoked_at=at)
    )
    return changed.rowcount > 0


def insert_login_link(connection: Connection, code_hash: bytes, token_id: str, expires_at: str) -> None:
    connection.execute(insert(login_links).values(code_hash=code_hash, token_id=token_id, expires_at=expires_at))


def spend_login_link(connection: Connection, code_hash: bytes, now: str) -> str | None:
    """The id of the token behind an unspent, unexpired link, which is spent by this; None otherwise."""
    link = login_links.c
    changed = connection.execute(
        update(login_links)
        .where(link.code_hash == code_hash, link.used_at.is_(None), link.expires_at > now)
        .values(used_at=now)
    )
    if changed.rowcount == 0:
        return None
    token_id: str = connection.execute(select(link.token_id).where(link.code_hash == code_hash)).scalar_one()
    return token_id


def _token(row: RowMapping) -> TokenRow:
    values: dict[str, Any] = dict(row)
    values["scopes"] = tuple(json.loads(row["scopes"]))
    values["projects"] = None if row["projects"] is None else tuple(json.loads(row["projects"]))
    return TokenRow(**values)
