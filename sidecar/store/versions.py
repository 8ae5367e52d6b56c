"""Rows of versions: where the menu and the permissions stand, who changed what, and how it was before."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, and_, func, insert, or_, select, update

from sidecar.domain.times import unix_seconds
from sidecar.domain.versions import next_version
from sidecar.store.journal import Transaction
from sidecar.store.tables import changes, revisions, versions

MENU = "menu"
PERMISSIONS = "permissions"

Thing = tuple[str, str]
"""Kind and name of what is versioned: ("role", "editor")."""
Content = dict[str, Any]
"""Such a thing as JSON can hold it."""


@dataclass(frozen=True, slots=True)
class Version:
    """Where a subject stands; `at` is when it got there."""

    version: int
    at: str


@dataclass(frozen=True, slots=True)
class Revision:
    """How a version came about."""

    version: int
    at: str
    action: str
    author: str
    token_id: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Changed:
    """What became of one thing in a revision. `label` is what a person calls it."""

    kind: str
    name: str
    label: str
    before: Content | None
    after: Content | None

    @property
    def type(self) -> str:
        return "create" if self.before is None else "delete" if self.after is None else "update"


@dataclass(frozen=True, slots=True)
class Logged:
    """A change and the revision that it was part of."""

    revision: Revision
    change: Changed


_REVISION = (
    revisions.c.version,
    revisions.c.at,
    revisions.c.action,
    revisions.c.author,
    revisions.c.token_id,
    revisions.c.reason,
)
_CHANGE = (changes.c.kind, changes.c.name, changes.c.label, changes.c.before, changes.c.after)


def read_version(connection: Connection, subject: str) -> Version:
    row = connection.execute(select(versions.c.version, versions.c.at).where(versions.c.subject == subject)).one()
    return Version(*row)


def add_revision(
    transaction: Transaction, subject: str, action: str, author: str, token_id: str | None, reason: str
) -> Revision:
    """Give the subject its next version."""
    connection, now = transaction.connection, transaction.now
    version = next_version(read_version(connection, subject).version, unix_seconds(now))
    connection.execute(update(versions).where(versions.c.subject == subject).values(version=version, at=now))
    made = Revision(version, now, action, author, token_id, reason)
    connection.execute(insert(revisions).values({**asdict(made), "subject": subject}))
    return made


def log_changes(connection: Connection, subject: str, version: int, made: Iterable[Changed]) -> None:
    rows = [
        {
            "subject": subject,
            "version": version,
            "kind": change.kind,
            "name": change.name,
            "label": change.label,
            "before": _text(change.before),
            "after": _text(change.after),
        }
        for change in made
    ]
    if rows:
        connection.execute(insert(changes), rows)


def ever_changed(connection: Connection, subject: str) -> bool:
    return connection.execute(select(changes.c.number).where(changes.c.subject == subject).limit(1)).first() is not None


def newest_changes(
    connection: Connection, subject: str, limit: int, of: Mapping[str, Collection[str]] | None = None
) -> list[Logged]:
    """The last changes, the newest first; with `of` only of these names of each kind."""
    query = (
        select(*_REVISION, *_CHANGE)
        .join(revisions, and_(revisions.c.subject == changes.c.subject, revisions.c.version == changes.c.version))
        .where(changes.c.subject == subject)
        .order_by(changes.c.number.desc())
        .limit(limit)
    )
    if of is not None:
        query = query.where(
            or_(*(and_(changes.c.kind == kind, changes.c.name.in_(names)) for kind, names in of.items()))
        )
    return [_logged(row) for row in connection.execute(query)]


def list_revisions(connection: Connection, subject: str, below: int | None, limit: int) -> list[Revision]:
    """The newest first, from under version `below` on."""
    query = select(*_REVISION).where(revisions.c.subject == subject).order_by(revisions.c.version.desc()).limit(limit)
    if below is not None:
        query = query.where(revisions.c.version < below)
    return [Revision(*row) for row in connection.execute(query)]


def count_changes(connection: Connection, subject: str, wanted: Collection[int]) -> dict[int, int]:
    """How many changes each of these versions made; none for one that made none."""
    query = (
        select(changes.c.version, func.count())
        .where(changes.c.subject == subject, changes.c.version.in_(list(wanted)))
        .group_by(changes.c.version)
    )
    return {int(version): int(count) for version, count in connection.execute(query)}


def changes_of(connection: Connection, subject: str, wanted: Collection[int]) -> dict[int, list[Changed]]:
    """The changes of these versions, in order."""
    found: dict[int, list[Changed]] = {version: [] for version in wanted}
    query = (
        select(changes.c.version, *_CHANGE)
        .where(changes.c.subject == subject, changes.c.version.in_(list(wanted)))
        .order_by(changes.c.number)
    )
    for version, *change in connection.execute(query):
        found[version].append(_changed(change))
    return found


def find_revision(connection: Connection, subject: str, version: int) -> Revision | None:
    query = select(*_REVISION).where(revisions.c.subject == subject, revisions.c.version == version)
    row = connection.execute(query).first()
    return None if row is None else Revision(*row)


def has_version(connection: Connection, subject: str, version: int) -> bool:
    return find_revision(connection, subject, version) is not None


def changed_since(connection: Connection, subject: str, version: int) -> dict[Thing, Content | None]:
    """How each thing was at `version` that has been changed since; None if there was none of it."""
    first = (
        select(func.min(changes.c.number))
        .where(changes.c.subject == subject, changes.c.version > version)
        .group_by(changes.c.kind, changes.c.name)
    )
    rows = connection.execute(
        select(changes.c.kind, changes.c.name, changes.c.before).where(changes.c.number.in_(first))
    )
    return {(kind, name): _content(before) for kind, name, before in rows}


def _text(content: Content | None) -> str | None:
    return None if content is None else json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def _content(text: str | None) -> Content | None:
    return None if text is None else json.loads(text)


def _changed(row: Any) -> Changed:
    kind, name, label, before, after = row
    return Changed(kind, name, label, _content(before), _content(after))


def _logged(row: Any) -> Logged:
    return Logged(Revision(*row[: len(_REVISION)]), _changed(row[len(_REVISION) :]))
