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
from sidecar.services.access import require
from sidecar.services.idempotency import KeyedRequest, answered, remember
from sidecar.store.database import Database
from sidecar.store.journal import Transaction
from sidecar.store.versions import (
    Changed,
    Content,
    Logged,
    Revision,
    Thing,
    add_revision,
    changed_since,
    changes_of,
    count_changes,
    find_revision,
    has_version,
    list_revisions,
    read_version,
)
from sidecar.store.writer import Submit

DESCRIPTIONS = {"menu": "菜单配置版本信息", "permissions": "权限配置版本信息"}
"""What a version is of, in the words of the older server; its clients show it."""
SHOWN_CHANGES = 10
SYSTEM = "system"
RETRY_SECONDS = 1.0
MAX_VERSION = 2**63 - 1
MAX_PAGE_CHANGES = 2_000


class HasVersion(Protocol):
    @property
    def version(self) -> int: ...


class Planned(Protocol):
    """What a write comes to, worked out at a `version`; `logged` is what it changes, nothing if there is nothing to
    change."""

    @property
    def version(self) -> int: ...
    @property
    def logged(self) -> list[Changed]: ...


State = TypeVar("State", bound=HasVersion)
Plan = TypeVar("Plan", bound=Planned)


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


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a write: the version now, its `revision` and `changes` (none: there was nothing to change, or it
    was only tried), the seq of its last event, and what is `said` of it besides."""

    version: int
    revision: Revision | None
    changes: list[Changed]
    seq: int | None
    said: Mapping[str, Any]
    duplicate: bool = False


class Versioned(Generic[State, Plan]):
    """A subject that is versioned: its newest state, and writes, each of which is one version or none.

    `submit` runs a command in the writer; `read_scope` is what who looks into its past needs, `write_scope` what a
    writer does. `load` reads the state, `carry_out` stores a
    plan under a new version and tells it. `say` gives what is said of a plan that was carried out, as JSON can hold it,
    and `say_tried` of one that was not."""

    def __init__(
        self,
        database: Database,
        submit: Submit,
        subject: str,
        read_scope: str,
        write_scope: str,
        load: Callable[[Connection], State],
        carry_out: Callable[[Transaction, Plan, int], Plan],
        say: Callable[[Plan], Mapping[str, Any]] = lambda _plan: {},
        say_tried: Callable[[Plan], Mapping[str, Any]] = lambda _plan: {},
    ):
        self._database = database
        self._submit = submit
        self.subject = subject
        self.read_scope = read_scope
        self.write_scope = write_scope
        self._latest = Latest(database, load)
        self._carry_out = carry_out
        self._say = say
        self._say_tried = say_tried

    def heard(self, version: int) -> None:
        """It has come to this version. Never yields."""
        self._latest.heard(version)

    def doubt(self) -> None:
        """It may have changed without our hearing of it. Never yields."""
        self._latest.doubt()

    @property
    def state(self) -> State:
        """The newest there is, from memory unless it has changed. Raises Unavailable if it was never read."""
        return self._latest.get()

    def history(self, identity: Identity, below: int | None, limit: int) -> HistoryPage:
        """Its revisions below this version. Raises Unauthenticated or NotAllowed for who may not, and Unavailable."""
        require(identity, self.read_scope)
        return self._database.read(lambda c: history(c, self.subject, below, limit))

    def _write(
        self,
        identity: Identity,
        edit: Edit,
        plan: Callable[[Connection, str], Plan],
        request: KeyedRequest | None = None,
        dry_run: bool = False,
    ) -> Written:
        """Carry out what `plan` makes of what there is, at this time. With `dry_run` only say what it would change.
        Raises Unauthenticated or NotAllowed for who may not, what `plan` raises, Conflict for a key that was used with
        another body, and Unavailable."""
        require(identity, self.write_scope)

        def command(transaction: Transaction) -> Written:
            connection = transaction.connection
            first = answered(transaction, request)
            if first is not None:
                found = revised(connection, self.subject, first)
                return Written(first["version"], *found, first["seq"], first["said"], duplicate=True)
            planned = plan(connection, transaction.now)
            if planned.logged:
                revision = revise(transaction, self.subject, edit)
                planned = self._carry_out(transaction, planned, revision.version)
                seq, said = transaction.seq, self._say(planned)
                written = Written(revision.version, revision, planned.logged, seq, said)
            else:
                written = Written(planned.version, None, [], None, self._say(planned))
            kept = {"version": written.version, "seq": written.seq, "said": dict(written.said)}
            remember(transaction, request, kept)
            return written

        if dry_run:
            planned = self._database.read(lambda c: plan(c, read_version(c, self.subject).at))
            return Written(planned.version, None, planned.logged, None, self._say_tried(planned))
        written = self._submit(command)
        self.heard(written.version)
        return written


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


def named_change(change: Changed) -> dict[str, object]:
    return {"type": change.type, "target": change.kind, "targetId": change.name, "targetName": change.label}


def shown_change(revision: Revision, change: Changed, full: bool = True) -> dict[str, object]:
    """With when it was, and with `full` who did it and why."""
    return named_change(change) | {
        "timestamp": int(unix_seconds(revision.at)),
        "author": revision.author if full else SYSTEM,
        "reason": revision.reason if full else "",
    }


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Revisions, the newest first, with what each changed; `next` is the version under which it goes on."""

    revisions: list[tuple[Revision, list[Changed]]]
    next: int | None


def history(connection: Connection, subject: str, below: int | None, limit: int) -> HistoryPage:
    found = list_revisions(connection, subject, below, limit + 1)
    page = _bounded(found[:limit], count_changes(connection, subject, [revision.version for revision in found]))
    made = changes_of(connection, subject, [revision.version for revision in page])
    return HistoryPage(
        [(revision, made[revision.version]) for revision in page], page[-1].version if len(found) > len(page) else None
    )


def _bounded(page: list[Revision], counts: Mapping[int, int]) -> list[Revision]:
    """The first of them, with no more than MAX_PAGE_CHANGES together unless the first alone has more."""
    total = 0
    for number, revision in enumerate(page):
        total += counts.get(revision.version, 0)
        if number and total > MAX_PAGE_CHANGES:
            return page[:number]
    return page


def state_at(connection: Connection, subject: str, version: int, now: Mapping[Thing, Content]) -> dict[Thing, Content]:
    """How all things were at `version`, given how they are. Raises NotFound."""
    if version > MAX_VERSION or not has_version(connection, subject, version):
        raise NotFound("There was no such version.")
    found: dict[Thing, Content] = dict(now)
    for thing, before in changed_since(connection, subject, version).items():
        if before is None:
            found.pop(thing, None)
        else:
            found[thing] = before
    return found


def shown_history(page: HistoryPage) -> dict[str, Any]:
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
            for revision, made in page.revisions
        ],
        "next": None if page.next is None else str(page.next),
    }
