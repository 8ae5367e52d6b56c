"""Rows of nodes: the processes that serve from this database, and when each last said that it lives."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, and_, delete, insert, or_, select, update

from sidecar.store.tables import maim_connections, nodes


def add_node(connection: Connection, id: str, now: str) -> None:
    connection.execute(insert(nodes).values(id=id, started_at=now, seen_at=now))


def touch_node(connection: Connection, id: str, now: str, rooms: str) -> bool:
    """It lives, with these rooms (JSON). False if it is not there (any more): the others took it for dead."""
    return connection.execute(update(nodes).where(nodes.c.id == id).values(seen_at=now, rooms=rooms)).rowcount > 0


def rooms_of_others(connection: Connection, id: str) -> list[str]:
    """What each of the others has said of its rooms."""
    rows = connection.execute(select(nodes.c.rooms).where(nodes.c.id != id, nodes.c.rooms.is_not(None)))
    return [row.rooms for row in rows]


def other_nodes(connection: Connection, id: str) -> dict[str, str]:
    """The others, and when each last said that it lives."""
    rows = connection.execute(select(nodes.c.id, nodes.c.seen_at).where(nodes.c.id != id))
    return {row.id: row.seen_at for row in rows}


def remove_node(connection: Connection, id: str) -> None:
    """With what only lives as long as it does."""
    connection.execute(delete(nodes).where(nodes.c.id == id))
    _clear(connection)


def silent_nodes(connection: Connection, before: str) -> dict[str, str]:
    """Those that have said nothing since, and when each last did."""
    rows = connection.execute(select(nodes.c.id, nodes.c.seen_at).where(nodes.c.seen_at < before))
    return {row.id: row.seen_at for row in rows}


def forget_nodes(connection: Connection, silent: Mapping[str, str]) -> int:
    """Remove these, unless they have said something since; how many they were."""
    if not silent:
        return 0
    same = [and_(nodes.c.id == id, nodes.c.seen_at == seen_at) for id, seen_at in silent.items()]
    forgotten = connection.execute(delete(nodes).where(or_(*same))).rowcount
    _clear(connection)
    return forgotten


def _clear(connection: Connection) -> None:
    """Bots' connections of processes that are gone."""
    connection.execute(delete(maim_connections).where(maim_connections.c.node.not_in(select(nodes.c.id))))
