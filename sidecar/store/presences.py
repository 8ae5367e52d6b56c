"""Rows of presences: who is in which free room, as each process has told.

Every function that changes rows changes at most CHUNK of them, or as many as it is given: other commands come between.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    case,
    delete,
    func,
    or_,
    select,
    text,
    tuple_,
    update,
)

from sidecar.store.statements import Statement
from sidecar.store.tables import nodes, presences

CHUNK = 500

Place = tuple[str, str]
"""A room and a user in it."""

_LIVES = Statement(select(nodes.c.id).where(nodes.c.id == bindparam("node")))
_PUT = Statement(
    text(
        "INSERT INTO presences (node, room, user_id, connections) VALUES (:node, :room, :user, :connections)"
        " ON CONFLICT (node, room, user_id) DO UPDATE SET connections = excluded.connections, gone_at = NULL"
    )
)
_THIS = and_(
    presences.c.node == bindparam("of_node"),
    presences.c.room == bindparam("of_room"),
    presences.c.user_id == bindparam("of_user"),
)
_LET_GO = Statement(update(presences).where(_THIS), ["connections", "gone_at"])
_DROP = Statement(delete(presences).where(_THIS))
_STRANGERS = Statement(
    text(
        "WITH RECURSIVE told(node) AS ("
        "SELECT min(node) FROM presences UNION ALL "
        "SELECT (SELECT min(node) FROM presences WHERE node > told.node) FROM told WHERE told.node IS NOT NULL) "
        "SELECT node FROM told WHERE node IS NOT NULL AND node NOT IN (SELECT id FROM nodes)"
    )
)
"""(A look into the index for each process, not one at each row.)"""


def put_presences(connection: Connection, node: str, here: Mapping[Place, int], now: str) -> list[Place] | None:
    """So many connections are at these places of this process from now on; at which of them nobody of this name was,
    at any process. Where 0 are left, the user stays for a while as gone. None, and nothing is changed, if the process
    is not known (any more)."""
    if _LIVES.first(connection, {"node": node}) is None:
        return None
    put = {place: count for place, count in here.items() if count}
    found = taken(connection, [place for place in put if place[1]])
    _PUT.run_many(
        connection,
        [{"node": node, "room": room, "user": user, "connections": count} for (room, user), count in put.items()],
    )
    gone = [{"of_node": node, "of_room": room, "of_user": user} for (room, user), count in here.items() if not count]
    _LET_GO.run_many(connection, [row | {"connections": 0, "gone_at": now} for row in gone if row["of_user"]])
    _DROP.run_many(connection, [row for row in gone if not row["of_user"]])
    return [place for place in put if place[1] and place not in found]


def taken(connection: Connection, places: Collection[Place]) -> set[Place]:
    """Of these places those where the user is, or was until a while ago, at any process."""
    if not places:
        return set()
    given: dict[str, object] = {}
    for number, (room, user) in enumerate(places):
        given |= {f"r{number}": room, f"u{number}": user}
    return {(room, user) for room, user in _taken(len(places)).all(connection, given)}


@lru_cache(maxsize=32)
def _taken(places: int) -> Statement:
    """(SQLite answers `(room, user_id) IN (VALUES …)` by a look at every row.)"""
    wanted = ", ".join(f"(:r{number}, :u{number})" for number in range(places))
    return Statement(
        text(
            f"WITH wanted(room, user_id) AS (VALUES {wanted}) "  # noqa: S608 - names of ours
            "SELECT presences.room, presences.user_id FROM wanted "
            "JOIN presences ON presences.room = wanted.room AND presences.user_id = wanted.user_id"
        )
    )


def present(connection: Connection, room: str | None = None, but: str = "") -> dict[str, dict[str, int]]:
    """By room (all, or this one): who is there over all processes, and with how many connections; 0 for who has gone
    a while ago. The connections of the process `but` are not counted."""
    uncounted = or_(nodes.c.id.is_(None), presences.c.node == but)
    count = func.sum(case((uncounted, 0), else_=presences.c.connections))
    query = (
        select(presences.c.room, presences.c.user_id, count)
        .select_from(presences.outerjoin(nodes, nodes.c.id == presences.c.node))
        .group_by(presences.c.room, presences.c.user_id)
    )
    if room is not None:
        query = query.where(presences.c.room == room)
    found: dict[str, dict[str, int]] = {}
    for name, user, connections in connection.execute(query):
        found.setdefault(name, {})[user] = int(connections)
    return found


def strangers(connection: Connection) -> list[str]:
    """The processes that have presences and are not known (any more)."""
    return [row[0] for row in _STRANGERS.all(connection)]


def retire_presences(connection: Connection, node: str, gone_at: str) -> int:
    """Some presences of a process that is not there any more are gone since then; how many they were. None are left
    when they were fewer than CHUNK."""
    is_gone = and_(presences.c.node == node, presences.c.node.not_in(select(nodes.c.id)))
    some = _places().where(is_gone, presences.c.gone_at.is_(None)).limit(CHUNK)
    change = update(presences).where(_key().in_(some)).values(connections=0, gone_at=gone_at)
    return connection.execute(change).rowcount


def first_gone(connection: Connection, node: str) -> str | None:
    """Since when the first is gone of those that this process is to sweep, None if it has none."""
    first: str | None = connection.execute(select(func.min(presences.c.gone_at)).where(_to_sweep(node))).scalar()
    return first


def sweep_presences(connection: Connection, node: str, before: str) -> tuple[int, list[Place]]:
    """Delete some of those that this process is to sweep and that are gone since before then: how many they were, and
    at which places nobody of this name is left. They were fewer than CHUNK when none are left."""
    some = _places().where(_to_sweep(node), presences.c.gone_at <= before).limit(CHUNK)
    sweep = delete(presences).where(_key().in_(some)).returning(presences.c.room, presences.c.user_id)
    rows = connection.execute(sweep).all()
    places = {(row.room, row.user_id) for row in rows if row.user_id}
    return len(rows), sorted(places - taken(connection, places))


def _to_sweep(node: str) -> ColumnElement[bool]:
    """A process sweeps after itself, and after those that are not there any more."""
    of_whom = or_(presences.c.node == node, presences.c.node.not_in(select(nodes.c.id)))
    return and_(presences.c.gone_at.is_not(None), of_whom)


def _key() -> ColumnElement[Any]:
    return tuple_(presences.c.node, presences.c.room, presences.c.user_id)


def _places() -> Select[Any]:
    return select(presences.c.node, presences.c.room, presences.c.user_id)
