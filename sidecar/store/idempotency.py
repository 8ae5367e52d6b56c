"""Rows of idempotency keys: what the first request with a key was answered."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select

from sidecar.store.statements import Statement
from sidecar.store.tables import idempotency

_FIRST_ANSWER = Statement(
    select(idempotency.c.body_sha256, idempotency.c.answer).where(
        idempotency.c.scope == bindparam("scope"), idempotency.c.at >= bindparam("since")
    )
)
_FORGET_ANSWER = Statement(delete(idempotency).where(idempotency.c.scope == bindparam("scope")))
_INSERT_ANSWER = Statement(insert(idempotency))


@dataclass(frozen=True, slots=True)
class FirstAnswer:
    """What the first request with a key was answered, and the hash of its body."""

    body_sha256: str
    answer: dict[str, Any]


def first_answer(connection: Connection, scope: str, since: str) -> FirstAnswer | None:
    """The answer stored for this key after `since`; older ones have expired."""
    row = _FIRST_ANSWER.first(connection, {"scope": scope, "since": since})
    return None if row is None else FirstAnswer(row[0], json.loads(row[1]))


def store_answer(connection: Connection, scope: str, body_sha256: str, answer: dict[str, Any], now: str) -> None:
    _FORGET_ANSWER.run(connection, {"scope": scope})
    text = json.dumps(answer, ensure_ascii=False)
    _INSERT_ANSWER.run(connection, {"scope": scope, "body_sha256": body_sha256, "answer": text, "at": now})


def forget_answers(connection: Connection, before: str, limit: int) -> int:
    """Delete expired keys, at most `limit`; how many they were."""
    old = select(idempotency.c.scope).where(idempotency.c.at < before).limit(limit)
    return connection.execute(delete(idempotency).where(idempotency.c.scope.in_(old))).rowcount
