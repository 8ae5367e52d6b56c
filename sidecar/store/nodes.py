"""Rows of nodes: the processes that serve from this database, and when each last said that it lives."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, update

from sidecar.store.tables import nodes


def add_node(connection: Connection, id: str, now: str) -> None:
    connection.execute(insert(nodes).values(id=id, started_at=now, seen_at=now))


def touch_node(connection: Connection, id: str, now: str) -> bool:
    """It lives. False if it is not there (any more): the others took it for dead."""
    return connection.execute(update(nodes).where(nodes.c.id == id).values(seen_at=now)).rowcount > 0


def remove_node(connection: Connection, id: str) -> None:
    connection.execute(delete(nodes).where(nodes.c.id == id))


def forget_nodes(connection: Connection, before: str) -> int:
    """Remove those that have said nothing since; how many they were."""
    return connection.execute(delete(nodes).where(nodes.c.seen_at < before)).rowcount
