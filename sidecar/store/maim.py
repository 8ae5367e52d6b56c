"""Rows of bots: their keys, which of them are connected to which process, what has been seen, what waits."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Row, and_, bindparam, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from sidecar.domain.maim import Account, Place
from sidecar.store.journal import Transaction
from sidecar.store.tables import maim_connections, maim_keys, maim_queue, maim_seen, nodes

PAGE, PAGE_CHARACTERS = 50, 4 * 1024 * 1024
"""What is read at once for a receiver who was away."""


@dataclass(frozen=True, slots=True)
class KeyRow:
    id: str
    tenant: str
    user: str
    platforms: tuple[str, ...] | None
    name: str
    created_at: str
    revoked_at: str | None

    @property
    def account(self) -> Account:
        return Account(self.tenant, self.user, self.platforms, self.id)


@dataclass(frozen=True, slots=True)
class ConnectionRow:
    """A bot's connection. `line` is what it speaks, `websocket` or `socketio`."""

    uuid: str
    node: str
    key_id: str | None
    tenant: str
    user: str
    platform: str
    line: str
    opened_at: str

    @property
    def place(self) -> Place:
        return Place(self.tenant, self.user, self.platform)


@dataclass(frozen=True, slots=True)
class QueuedRow:
    seq: int
    msg_id: str
    sealed: str


def insert_key(connection: Connection, key: KeyRow, key_hash: bytes) -> bool:
    """False if there is this key already, revoked or not."""
    if connection.execute(select(maim_keys.c.id).where(maim_keys.c.key_hash == key_hash)).first() is not None:
        return False
    connection.execute(
        insert(maim_keys).values(
            id=key.id,
            key_hash=key_hash,
            tenant=key.tenant,
            user_id=key.user,
            platforms=None if key.platforms is None else json.dumps(key.platforms, ensure_ascii=False),
            name=key.name,
            created_at=key.created_at,
        )
    )
    return True


def find_key(connection: Connection, key_hash: bytes) -> KeyRow | None:
    return _key(connection.execute(select(maim_keys).where(maim_keys.c.key_hash == key_hash)).first())


def find_key_by_id(connection: Connection, id: str) -> KeyRow | None:
    return _key(connection.execute(select(maim_keys).where(maim_keys.c.id == id)).first())


def list_keys(connection: Connection) -> list[KeyRow]:
    rows = connection.execute(select(maim_keys).order_by(maim_keys.c.created_at, maim_keys.c.id))
    return [key for key in map(_key, rows) if key is not None]


def mark_key_revoked(connection: Connection, id: str, at: str) -> None:
    connection.execute(update(maim_keys).where(maim_keys.c.id == id).values(revoked_at=at))


def _key(row: Row[tuple[object, ...]] | None) -> KeyRow | None:
    if row is None:
        return None
    platforms = None if row.platforms is None else tuple(json.loads(row.platforms))
    return KeyRow(row.id, row.tenant, row.user_id, platforms, row.name, row.created_at, row.revoked_at)


def put_connection(connection: Connection, row: ConnectionRow) -> None:
    """It is connected now; a former connection of the same uuid is not any more."""
    connection.execute(delete(maim_connections).where(maim_connections.c.uuid == row.uuid))
    connection.execute(
        insert(maim_connections).values(
            uuid=row.uuid,
            node=row.node,
            key_id=row.key_id,
            tenant=row.tenant,
            user_id=row.user,
            platform=row.platform,
            line=row.line,
            opened_at=row.opened_at,
        )
    )


def remove_connections(connection: Connection, node: str, uuids: Iterable[str]) -> None:
    """Those that this process still holds."""
    for uuid in uuids:
        mine = and_(maim_connections.c.uuid == uuid, maim_connections.c.node == node)
        connection.execute(delete(maim_connections).where(mine))


def holder_of(connection: Connection, uuid: str, since: str) -> ConnectionRow | None:
    """The connection that goes by this uuid at a process that has said since then that it lives."""
    found = _connections(connection, maim_connections.c.uuid == uuid, since)
    return found[0] if found else None


def connections_of_others(connection: Connection, node: str, since: str) -> list[ConnectionRow]:
    """Of the processes that have said since then that they live, without this one."""
    return _connections(connection, maim_connections.c.node != node, since)


def _connections(connection: Connection, condition: ColumnElement[bool], since: str) -> list[ConnectionRow]:
    table = maim_connections.c
    rows = connection.execute(
        select(maim_connections)
        .join(nodes, nodes.c.id == table.node)
        .where(condition, nodes.c.seen_at >= since)
        .order_by(table.opened_at, table.uuid)
    )
    return [
        ConnectionRow(row.uuid, row.node, row.key_id, row.tenant, row.user_id, row.platform, row.line, row.opened_at)
        for row in rows
    ]


def first_seen(connection: Connection, message: bytes, now: str, since: str) -> bool:
    """Has this message not come since then? From now on it has."""
    build = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    added = build(maim_seen).values(message=message, at=now)
    changed = connection.execute(
        added.on_conflict_do_update(index_elements=["message"], set_={"at": now}, where=maim_seen.c.at < since),
        execution_options={"preserve_rowcount": True},  # SQLAlchemy does not look at it after an insert by psycopg
    )
    return changed.rowcount > 0


def enqueue(connection: Connection, seq: int, msg_id: str, place: Place, sealed: str, expires_at: str) -> None:
    connection.execute(
        insert(maim_queue).values(
            seq=seq,
            msg_id=msg_id,
            tenant=place.tenant,
            user_id=place.user,
            platform=place.platform,
            sealed=sealed,
            expires_at=expires_at,
        )
    )


def count_queued(connection: Connection, place: Place, now: str) -> int:
    """What waits for the user, on whatever platform: a sender may name any."""
    table = maim_queue.c
    mine = and_(table.tenant == place.tenant, table.user_id == place.user, table.expires_at > now)
    return int(connection.execute(select(func.count()).where(mine)).scalar_one())


def anything_queued(connection: Connection, place: Place, now: str) -> bool:
    query = select(maim_queue.c.seq).where(_at(place), maim_queue.c.expires_at > now).limit(1)
    return connection.execute(query).first() is not None


def queued_after(connection: Connection, place: Place, after: int, now: str) -> list[QueuedRow]:
    """The next messages of this place: a page of them, no larger than so many characters unless the first alone is."""
    table = maim_queue.c
    page = (
        select(table.seq, table.msg_id, table.sealed, func.length(table.sealed).label("size"))
        .where(_at(place), table.seq > after, table.expires_at > now)
        .order_by(table.seq)
        .limit(PAGE)
        .subquery()
    )
    before = (func.sum(page.c.size).over(order_by=page.c.seq) - page.c.size).label("before")
    summed = select(page.c.seq, page.c.msg_id, page.c.sealed, before).subquery()
    query = select(summed.c.seq, summed.c.msg_id, summed.c.sealed).where(summed.c.before < PAGE_CHARACTERS)
    return [QueuedRow(*row) for row in connection.execute(query.order_by(summed.c.seq))]


def remove_queued(connection: Connection, seqs: Iterable[int]) -> None:
    rows = [{"of_seq": seq} for seq in seqs]
    if rows:
        connection.execute(_REMOVE, rows)


_REMOVE = delete(maim_queue).where(maim_queue.c.seq == bindparam("of_seq"))


def _at(place: Place) -> ColumnElement[bool]:
    table = maim_queue.c
    return and_(table.tenant == place.tenant, table.user_id == place.user, table.platform == place.platform)


def retire_queued(transaction: Transaction, chunk: int) -> int:
    """Forget some whose time is over; how many they were."""
    query = select(maim_queue.c.seq).where(maim_queue.c.expires_at <= transaction.now).limit(chunk)
    seqs = list(transaction.connection.execute(query).scalars())
    remove_queued(transaction.connection, seqs)
    return len(seqs)


def retire_seen(transaction: Transaction, before: str, chunk: int) -> int:
    """Forget some messages that came before this time; how many they were."""
    table = maim_seen.c
    query = select(table.message).where(table.at < before).limit(chunk)
    messages = list(transaction.connection.execute(query).scalars())
    if messages:
        transaction.connection.execute(delete(maim_seen).where(table.message.in_(messages)))
    return len(messages)
