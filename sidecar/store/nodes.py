"""Rows of nodes: the processes that serve from this database, and when each last said that it lives."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, and_, delete, insert, or_, select, update

from sidecar.store.tables import maim_connections, nodes


def add_node(connection: Connection, id: str, now: str) -> None:
    connection.execute(insert(nodes).values(id=id, started_at=now, seen_at=now))


def touch_node(connection: Connection, id: str, now: str) -> bool:
    """It lives. False if it is not there (any more): the others took it for dead."""
    return connection.execute(update(nodes).where(nodes.c.id == id).values(seen_at=now)).rowcount > 0


def other_nodes(connection: Connection, id: str) -> dict[str, str]:
    """The others, and what each last wrote when it said that it lives."""
    rows = connection.execute(select(nodes.c.id, nodes.c.seen_at).where(nodes.c.id != id))
    return {row.id: row.seen_at for row in rows}


def remove_node(connection: Connection, id: str) -> None:
    """With what only lives as long as it does. (Its presences go by and by: store/presences.py.)"""
    connection.execute(delete(nodes).where(nodes.c.id == id))
    _clear(connection)


def forget_nodes(connection: Connection, silent: Mapping[str, str]) -> list[str]:
    """Remove these, unless they have said something since; which they were."""
    if not silent:
        return []
    same = [and_(nodes.c.id == id, nodes.c.seen_at == seen_at) for id, seen_at in silent.items()]
    forgotten = connection.execute(delete(nodes).where(or_(*same)).returning(nodes.c.id)).scalars().all()
    _clear(connection)
    return list(forgotten)


def _clear(connection: Connection) -> None:
    """Bots' connections of processes that are gone."""
    connection.execute(delete(maim_connections).where(maim_connections.c.node.not_in(select(nodes.c.id))))
