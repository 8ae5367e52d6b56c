"""Rows of the menu: one an item."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict

from sqlalchemy import Connection, delete, insert, select

from sidecar.domain.menu import MenuItem
from sidecar.store.tables import menu_items

_COLUMNS = tuple(menu_items.c[name] for name in MenuItem.__slots__)


def load_menu(connection: Connection) -> dict[str, MenuItem]:
    """All items, by key."""
    return {row.key: MenuItem(*row) for row in connection.execute(select(*_COLUMNS))}


def save_items(connection: Connection, items: Iterable[MenuItem]) -> None:
    """Made or replaced, by their keys."""
    rows = [asdict(item) for item in items]
    if rows:
        delete_items(connection, [row["key"] for row in rows])
        connection.execute(insert(menu_items), rows)


def delete_items(connection: Connection, keys: Collection[str]) -> None:
    if keys:
        connection.execute(delete(menu_items).where(menu_items.c.key.in_(list(keys))))
