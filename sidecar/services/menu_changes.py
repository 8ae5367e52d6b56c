"""A change of the menu: what it comes to, how it is stored, and what those are told who watch the menu."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import Connection

from sidecar.domain import menu, rooms
from sidecar.domain.errors import Invalid
from sidecar.domain.events import Control
from sidecar.domain.menu import ItemChange, Items, MenuItem
from sidecar.domain.permissions import ANONYMOUS, rights_of, rights_of_all
from sidecar.services.role_changes import rules_of
from sidecar.services.versions import state_at
from sidecar.store.journal import Transaction
from sidecar.store.menu import delete_items, save_items
from sidecar.store.permissions import load_roles
from sidecar.store.versions import MENU, Changed, Content, log_changes
from sidecar.wire.news import MENU_UPDATED

CHANGED = Control("control.menu")
"""Type of the control event after which the menu is read again; its payload `{"version"}` says up to where."""

Given = Mapping[str, Any]
"""Fields of an item that somebody chose."""

Change = Callable[[Connection, Items, str], dict[str, MenuItem]]
"""Makes of the items, at this time, what they shall be; times and versions of changed ones are set later. Raises
SidecarError."""


@dataclass(frozen=True, slots=True)
class MenuPlan:
    """What a write changes, at this version. `key` is of the one item that it is about, if it is about one."""

    version: int
    before: Items
    after: Items
    changes: list[ItemChange]
    key: str | None

    @property
    def item(self) -> MenuItem | None:
        """That item as it is after it; None if there is none."""
        return None if self.key is None else self.after.get(self.key)

    @property
    def logged(self) -> list[Changed]:
        return [
            Changed("menu", change.item.key, change.item.name, _content(change.before), _content(change.after))
            for change in self.changes
        ]


def plan_menu(
    version: int, before: Items, after: Items, path: Callable[[str], str], key: str | None = None
) -> MenuPlan:
    """Raises Invalid for what is no tree; `path` says where in the request the item of a key names its parent."""
    problems = list(dict.fromkeys(menu.problems(after, path)))
    if problems:
        told = "; ".join(f"{problem.path} {problem.message}" for problem in problems[:10])
        raise Invalid(f"This can't be a menu: {told}.", tuple(problems))
    changes = menu.diff(before, after)
    return MenuPlan(version, before, after if changes else before, changes, key)


def carry_out_menu(transaction: Transaction, plan: MenuPlan, version: int) -> MenuPlan:
    """Store it and tell it: the plan with the items as they are now. The control event comes first: whoever is told and
    asks finds it done."""
    connection = transaction.connection

    def stamped(item: MenuItem) -> MenuItem:
        return replace(item, updated_at=transaction.now, version=version)

    changes = [
        ItemChange(change.before, None if change.after is None else stamped(change.after)) for change in plan.changes
    ]
    done = replace(plan, version=version, changes=changes)
    changed = {change.item.key: change.item for change in changes if change.after is not None}
    delete_items(connection, [change.item.key for change in changes if change.after is None])
    save_items(connection, changed.values())
    log_changes(connection, MENU, version, done.logged)
    transaction.append(CHANGED, {"version": version}, ())
    done = replace(done, after={key: changed.get(key) or plan.before[key] for key in plan.after})
    _tell(transaction, done)
    return done


def _tell(transaction: Transaction, done: MenuPlan) -> None:
    """Whoever is signed in hears of each change, strangers of what they see or saw; what an item is like is told only
    where all who hear it see it."""
    rules = rules_of(transaction.connection, load_roles(transaction.connection))
    members_see = menu.seen(done.after, rights_of_all(rules).menu_verdict())
    stranger = rights_of((ANONYMOUS,), rules).menu_verdict()
    strangers_see, strangers_saw = menu.seen(done.after, stranger), menu.seen(done.before, stranger)
    for change in done.changes:
        key = change.item.key
        told = {rooms.MENU: key in members_see}
        if key in strangers_see | strangers_saw:
            told[rooms.ANONYMOUS] = key in strangers_see
        for whole in sorted(set(told.values())):
            payload: dict[str, object] = {
                "menuId": key,
                "action": change.type,
                "menuData": menu.shown(change.item) if whole else None,
                "version": done.version,
                "affectedUsers": [],
            }
            transaction.append(MENU_UPDATED, payload, [room for room in told if told[room] == whole])


def made_item(items: Items, key: str, given: Given, now: str) -> MenuItem:
    """An item of which this is known, the rest as in a new one."""
    fresh = MenuItem(key, "", menu.LEVELS[0], "", "", 0, True, "", None, now, now, 0)
    if key in items:
        fresh = replace(fresh, created_at=items[key].created_at)
    return replace(fresh, **given)


def menu_at(connection: Connection, items: Items, version: int) -> dict[str, MenuItem]:
    """The menu as it was at this version, given how it is. Raises NotFound."""
    now = {("menu", key): asdict(item) for key, item in items.items()}
    return {key: MenuItem(**content) for (_, key), content in state_at(connection, MENU, version, now).items()}


def _content(item: MenuItem | None) -> Content | None:
    return None if item is None else asdict(item)
