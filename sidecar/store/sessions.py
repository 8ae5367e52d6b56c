"""Rows of sessions: what a Socket.IO client that reconnects is given back, whichever process it comes to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, and_, bindparam, delete, insert, select, update

from sidecar.store.statements import Statement
from sidecar.store.tables import nodes, sessions

_THIS = and_(sessions.c.pid_hash == bindparam("of_pid"), sessions.c.generation == bindparam("of_generation"))

_INSERT = Statement(insert(sessions), ["pid_hash", "sid", "namespace", "holder", "state", "owner", "generation"])
_FIND = Statement(
    select(
        sessions.c.sid,
        sessions.c.namespace,
        sessions.c.holder,
        sessions.c.state,
        sessions.c.owner,
        sessions.c.generation,
        sessions.c.ended_at,
        nodes.c.seen_at,
    )
    .select_from(sessions.outerjoin(nodes, nodes.c.id == sessions.c.owner))
    .where(sessions.c.pid_hash == bindparam("pid_hash"))
)
_TAKE = Statement(update(sessions).where(_THIS), ["owner", "generation", "ended_at"])
_SAVE = Statement(update(sessions).where(_THIS), ["holder", "state"])
_END = Statement(update(sessions).where(_THIS), ["ended_at"])
_FORGET = Statement(delete(sessions).where(_THIS))


@dataclass(frozen=True, slots=True)
class SessionRow:
    """`ended_at` is None while the connection lives, or if its process died; `seen_at` is when that process last said
    that it lives, None if it is not known (any more)."""

    sid: str
    namespace: str
    holder: str
    state: str
    owner: str
    generation: int
    ended_at: str | None
    seen_at: str | None


def insert_session(
    connection: Connection, pid_hash: bytes, sid: str, namespace: str, holder: str, state: str, owner: str
) -> None:
    """A new session, of generation 1."""
    values = {"pid_hash": pid_hash, "sid": sid, "namespace": namespace, "holder": holder, "state": state}
    _INSERT.run(connection, values | {"owner": owner, "generation": 1})


def find_session(connection: Connection, pid_hash: bytes) -> SessionRow | None:
    row = _FIND.first(connection, {"pid_hash": pid_hash})
    return None if row is None else SessionRow(*row)


def take_session(connection: Connection, pid_hash: bytes, generation: int, owner: str) -> None:
    """From here on the session is this owner's, under the next generation."""
    values = {"owner": owner, "generation": generation + 1, "ended_at": None}
    _TAKE.run(connection, _key(pid_hash, generation) | values)


def save_session(connection: Connection, pid_hash: bytes, generation: int, holder: str, state: str) -> bool:
    """False if the session is gone, or another connection's by now."""
    return _SAVE.run(connection, _key(pid_hash, generation) | {"holder": holder, "state": state}) > 0


def end_sessions(connection: Connection, ended: Iterable[tuple[bytes, int]], at: str) -> None:
    """Their connections have ended; they may come back for a while."""
    _END.run_many(connection, [_key(*session) | {"ended_at": at} for session in ended])


def forget_sessions(connection: Connection, over: Iterable[tuple[bytes, int]]) -> None:
    """They won't come back."""
    _FORGET.run_many(connection, [_key(*session) for session in over])


def retire_sessions(connection: Connection, before: str, limit: int) -> int:
    """Delete sessions that ended before this time, at most `limit`; how many they were."""
    old = select(sessions.c.pid_hash).where(sessions.c.ended_at < before).limit(limit)
    return connection.execute(delete(sessions).where(sessions.c.pid_hash.in_(old))).rowcount


def end_orphans(connection: Connection, at: str, limit: int) -> int:
    """Sessions whose process is known no more count as ended now, at most `limit`; how many they were."""
    orphans = (
        select(sessions.c.pid_hash)
        .where(sessions.c.ended_at.is_(None), sessions.c.owner.not_in(select(nodes.c.id)))
        .limit(limit)
    )
    return connection.execute(update(sessions).where(sessions.c.pid_hash.in_(orphans)).values(ended_at=at)).rowcount


def _key(pid_hash: bytes, generation: int) -> dict[str, object]:
    return {"of_pid": pid_hash, "of_generation": generation}
