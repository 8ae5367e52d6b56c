"""What is versioned (the menu, the permissions): its newest state kept in memory, its log, and how it was."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from gevent.lock import Semaphore
from sqlalchemy import Connection

from sidecar.domain.access import Identity
from sidecar.domain.errors import NotFound, Unavailable
from sidecar.domain.times import unix_seconds
from sidecar.store.database import Database
from sidecar.store.journal import Transaction
from sidecar.store.versions import (
    Changed,
    Logged,
    Revision,
    Said,
    Thing,
    add_revision,
    changed_since,
    changes_of,
    find_revision,
    has_version,
    list_revisions,
)

DESCRIPTIONS = {"menu": "菜单配置版本信息", "permissions": "权限配置版本信息"}
"""What a version is of, in the words of the older server; its clients show it."""
SHOWN_CHANGES = 10
SYSTEM = "system"
RETRY_SECONDS = 1.0
MAX_VERSION = 2**63 - 1


class Versioned(Protocol):
    @property
    def version(self) -> int: ...


State = TypeVar("State", bound=Versioned)


class Latest(Generic[State]):
    """The newest state, read from the database once and again only after `heard` told of a newer version."""

    def __init__(
        self, database: Database, load: Callable[[Connection], State], clock: Callable[[], float] = time.monotonic
    ):
        self._database = database
        self._load = load
        self._clock = clock
        self._state: State | None = None
        self._known = 0
        self._doubtful = True
        self._retry_at = 0.0
        self._turn = Semaphore()

    def heard(self, version: int) -> None:
        """There is this version. Never yields."""
        self._known = max(self._known, version)

    def doubt(self) -> None:
        """There may be a newer version that nobody told of. Never yields."""
        self._doubtful = True

    def get(self) -> State:
        """The newest state; while the database can't be read, the last one that was. Raises Unavailable if there is
        none."""
        state = self._state
        if state is not None and self._is_newest(state):
            return state
        with self._turn:
            state = self._state
            if state is not None and (self._is_newest(state) or self._clock() < self._retry_at):
                return state
            try:
                self._doubtful = False
                state = self._state = self._database.read(self._load)
            except BaseException as error:  # also for who is killed meanwhile: nothing was read then either
                self._doubtful = True
                if not isinstance(error, Unavailable):
                    raise
                self._retry_at = self._clock() + RETRY_SECONDS
                if state is None:
                    raise
            return state

    def _is_newest(self, state: State) -> bool:
        return state.version >= self._known and not self._doubtful


@dataclass(frozen=True, slots=True)
class Edit:
    """Who changes something, how and why."""

    action: str
    author: str
    token_id: str | None
    reason: str


def edit_by(identity: Identity, action: str, reason: str) -> Edit:
    return Edit(action, identity.name, identity.token_id, reason)


def revise(transaction: Transaction, subject: str, edit: Edit) -> Revision:
    """Give the subject its next version; the changes are logged by `log_changes`."""
    return add_revision(transaction, subject, edit.action, edit.author, edit.token_id, edit.reason)


def revised(connection: Connection, subject: str, first: Mapping[str, Any]) -> tuple[Revision | None, list[Changed]]:
    """The revision of which a keyed request was told `first`, with its changes; nothing if it changed nothing."""
    version = first["version"]
    if first["seq"] is None:
        return None, []
    return find_revision(connection, subject, version), changes_of(connection, subject, [version])[version]


def version_answer(
    subject: str, version: int, at: str, checksum: str, newest: Iterable[Logged], full: bool
) -> dict[str, object]:
    """The six fields that clients of the older server read. Who and why are told with `full` alone."""
    logged = list(newest)
    author = logged[0].revision.author if logged and full else SYSTEM
    return {
        "version": version,
        "timestamp": int(unix_seconds(at)),
        "checksum": checksum,
        "changes": [shown_change(item.revision, item.change, full) for item in logged],
        "author": author,
        "description": DESCRIPTIONS[subject],
    }


def shown_change(revision: Revision, change: Changed, full: bool = True) -> dict[str, object]:
    return {
        "type": change.type,
        "target": change.kind,
        "targetId": change.name,
        "targetName": change.label,
        "timestamp": int(unix_seconds(revision.at)),
        "author": revision.author if full else SYSTEM,
        "reason": revision.reason if full else "",
    }


@dataclass(frozen=True, slots=True)
class Past:
    """Revisions, the newest first, with what each changed; `next` is the version under which it goes on."""

    revisions: list[tuple[Revision, list[Changed]]]
    next: int | None


def history(connection: Connection, subject: str, below: int | None, limit: int) -> Past:
    found = list_revisions(connection, subject, below, limit + 1)
    page = found[:limit]
    made = changes_of(connection, subject, [revision.version for revision in page])
    return Past(
        [(revision, made[revision.version]) for revision in page], page[-1].version if len(found) > limit else None
    )


def then(connection: Connection, subject: str, version: int, now: Mapping[Thing, Said]) -> dict[Thing, Said]:
    """How all things were at `version`, given how they are. Raises NotFound."""
    if version > MAX_VERSION or not has_version(connection, subject, version):
        raise NotFound("There was no such version.")
    found: dict[Thing, Said] = dict(now)
    for thing, before in changed_since(connection, subject, version).items():
        if before is None:
            found.pop(thing, None)
        else:
            found[thing] = before
    return found


def shown_past(past: Past) -> dict[str, Any]:
    return {
        "items": [
            {
                "version": revision.version,
                "at": revision.at,
                "action": revision.action,
                "author": revision.author,
                "reason": revision.reason,
                "changes": [
                    shown_change(revision, change) | {"before": change.before, "after": change.after} for change in made
                ],
            }
            for revision, made in past.revisions
        ],
        "next": None if past.next is None else str(past.next),
    }
