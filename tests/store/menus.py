"""Menus and permissions on a store of a test, and what of the journal is about them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event, text

from sidecar.domain.access import Identity
from sidecar.domain.menu import Items, content, shown
from sidecar.services.menu import Menu
from sidecar.services.permissions import Permissions
from sidecar.wire.menu import read_whole
from sidecar.wire.permissions import read_all
from tests.store.stores import Store

EDITOR = Identity(
    kind="token",
    name="editor",
    scopes=frozenset({"menu:write", "permissions:write", "permissions:read"}),
    token_id="t1",
)
STRANGER = Identity(kind="anonymous", name="anonymous")


def user(name: str) -> Identity:
    return Identity(kind="connection", name=name, user=name, token_id="t1")


class House:
    """The services on a store, as one process has them."""

    def __init__(self, store: Store):
        self.store = store
        self.permissions = Permissions(store.database, store.writer.submit)
        self.menu = Menu(store.database, store.writer.submit, self.permissions)

    def sync(self, *items: Any, **more: Any):
        """Keys alone, or whole items."""
        given = [{"key": item, "name": item} if isinstance(item, str) else item for item in items]
        return self.menu.sync(EDITOR, None, read_whole({"items": given}), **more)

    def put(self, key: str, **given: Any):
        return self.menu.put(EDITOR, key, {"name": key} | given, "")

    def allow(self, roles: dict[str, Any], users: dict[str, list[str]] | None = None, **more: Any):
        """`allow({"r": {"menus": ["*"]}}, {"ada": ["r"]})`: these are all the roles."""
        body = {"roles": [{"name": name} | said for name, said in roles.items()], "users": users}
        return self.permissions.sync(EDITOR, None, read_all(body), **more)

    def sees(self, identity: Identity) -> set[str]:
        return set(keys_of(self.menu.seen(identity).items))

    def contents(self) -> dict[str, Any]:
        return contents(self.menu.state.items)

    def events(self, after: int = 0) -> list[tuple[str, dict[str, Any], tuple[str, ...]]]:
        """Type, payload and rooms of what was journaled."""
        journal = [made for made in self.store.journal() if made.seq > after]
        return [(made.type, json.loads(made.payload), made.rooms) for made in journal]

    def everything(self) -> list[list[Any]]:
        """Every row that menus, permissions and the journal have."""
        tables = ["versions", "revisions", "changes", "menu_items", "roles", "user_roles", "journal_head", "events"]
        return self.store.database.read(
            lambda c: [sorted(map(repr, c.execute(text(f"SELECT * FROM {table}")).all())) for table in tables]
        )


def contents(items: Items) -> dict[str, Any]:
    return {key: content(item) for key, item in items.items()}


def whole(items: Items) -> dict[str, Any]:
    return {key: shown(item) for key, item in items.items()}


def keys_of(nodes: Any) -> Iterator[str]:
    for node in nodes:
        yield node["key"]
        yield from keys_of(node["children"])


class Broken(Exception):
    """A fault in the middle of a write."""


@contextmanager
def failing(store: Store, statement: str) -> Iterator[None]:
    """Each statement that begins so fails."""

    def fail(_connection: Any, _cursor: Any, said: str, *_: Any) -> None:
        if said.startswith(statement):
            raise Broken

    event.listen(store.database.engine, "before_cursor_execute", fail)
    try:
        yield
    finally:
        event.remove(store.database.engine, "before_cursor_execute", fail)


@contextmanager
def unreadable(store: Store) -> Iterator[None]:
    """The database can't say which version there is."""
    with store.database.engine.begin() as connection:
        connection.execute(text("ALTER TABLE versions RENAME TO gone"))
    try:
        yield
    finally:
        with store.database.engine.begin() as connection:
            connection.execute(text("ALTER TABLE gone RENAME TO versions"))
