"""The menu: shown to each as far as their grants reach, changed as versions, and told to who watches it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection

from sidecar.domain import menu
from sidecar.domain.access import Identity, may
from sidecar.domain.errors import Conflict, NotFound
from sidecar.domain.menu import Items, MenuItem
from sidecar.domain.permissions import Rights
from sidecar.domain.versions import UNCONDITIONAL, Condition
from sidecar.services.access import require
from sidecar.services.idempotency import KeyedRequest
from sidecar.services.menu_changes import Change, Given, MenuPlan, carry_out_menu, made_item, menu_at, plan_menu
from sidecar.services.permissions import Permissions
from sidecar.services.versions import (
    SHOWN_CHANGES,
    Edit,
    Versioned,
    Written,
    edit_by,
    version_answer,
)
from sidecar.store.database import Database
from sidecar.store.menu import load_menu
from sidecar.store.versions import MENU, Logged, newest_changes, read_version
from sidecar.store.writer import Submit
from sidecar.wire.menu import WholeMenu

NO_ITEM = "There is no such item in the menu."
WRITE = "menu:write"
MAX_REMEMBERED = 1_000


@dataclass(frozen=True, slots=True)
class MenuState:
    """The menu at a version. `public` is the answer about it that everybody gets, as JSON; `seen` remembers what
    holders of these rights see."""

    version: int
    at: str
    items: Items
    checksum: str
    newest: list[Logged]
    public: bytes
    seen: dict[Rights, frozenset[str]] = field(default_factory=dict)

    def seen_with(self, rights: Rights) -> frozenset[str]:
        found = self.seen.get(rights)
        if found is None:
            if len(self.seen) >= MAX_REMEMBERED:
                self.seen.clear()
            found = self.seen[rights] = menu.seen(self.items, rights.menu_verdict())
        return found

    def answer(self, full: bool) -> dict[str, object]:
        return version_answer(MENU, self.version, self.at, self.checksum, self.newest, full)


@dataclass(frozen=True, slots=True)
class Seen:
    """What somebody sees of the menu, as a tree, and by which roles. `tag` differs where that does."""

    state: MenuState
    roles: tuple[str, ...]
    tag: str
    items: list[dict[str, object]]


def load_state(connection: Connection) -> MenuState:
    version = read_version(connection, MENU)
    items = load_menu(connection)
    newest = newest_changes(connection, MENU, SHOWN_CHANGES)
    checksum = menu.checksum(items.values())
    answer = version_answer(MENU, version.version, version.at, checksum, newest, False)
    public = json.dumps(answer, ensure_ascii=False).encode()
    return MenuState(version.version, version.at, items, checksum, newest, public)


class Menu(Versioned[MenuState, MenuPlan]):
    """Writes raise Unauthenticated or NotAllowed for who may not, Invalid, NotFound, PreconditionFailed, Conflict, and
    Unavailable. Of each is said the `checksum` that the menu has then."""

    def __init__(self, database: Database, submit: Submit, permissions: Permissions):
        super().__init__(database, submit, MENU, WRITE, WRITE, load_state, carry_out_menu, _said, _said_of_tried)
        self._permissions = permissions

    def seen(self, identity: Identity, all: bool = False) -> Seen:
        """What this caller sees: who may write the menu sees what is active; with `all` everything.
        Raises NotAllowed for `all` without the right to it; Unavailable."""
        if all:
            require(identity, WRITE)
        state = self.state
        return _seen(state, identity, self._permissions.rights(identity), all)

    def seen_keys(self, rights: Rights) -> list[str]:
        """The keys of the items that the holder of these rights sees, in order."""
        return sorted(self.state.seen_with(rights))

    def snapshot(self, connection: Connection, identity: Identity) -> dict[str, object]:
        """What this caller sees, for one who can't be told what has changed."""
        rights = self._permissions.rights_in(connection, identity)
        found = _seen(load_state(connection), identity, rights, False)
        return {"version": found.state.version, "checksum": found.state.checksum, "items": found.items}

    def item(self, identity: Identity, key: str) -> MenuItem:
        """Raises NotFound for one that isn't there, or that this caller does not see."""
        state = self.state
        item = state.items.get(key)
        if item is None or not (may(identity, WRITE) or key in state.seen_with(self._permissions.rights(identity))):
            raise NotFound(NO_ITEM)
        return item

    def put(
        self, identity: Identity, key: str, given: Given, reason: str, condition: Condition = UNCONDITIONAL
    ) -> Written:
        """Make the item, or make it so: what is not given is as in a new one. Levels follow as in `patch`."""

        def change(_connection: Connection, items: Items, now: str) -> dict[str, MenuItem]:
            moving = menu.below(items, key) & menu.telling_depth(items)
            if "menu_level" not in given:
                moving.add(key)
            return menu.levelled({**items, key: made_item(items, key, given, now)}, moving)

        return self._change(identity, edit_by(identity, "put", reason), change, condition, key)

    def patch(
        self, identity: Identity, key: str, given: Given, reason: str, condition: Condition = UNCONDITIONAL
    ) -> Written:
        """Change what is given of it. The levels of what moves with it follow, as far as they told its depth."""

        def change(_connection: Connection, items: Items, _now: str) -> dict[str, MenuItem]:
            before = items.get(key)
            if before is None:
                raise NotFound(NO_ITEM)
            moving = {key, *menu.below(items, key)} & menu.telling_depth(items) if "parent" in given else set()
            if "menu_level" in given:
                moving.discard(key)
            return menu.levelled({**items, key: replace(before, **given)}, moving)

        return self._change(identity, edit_by(identity, "patch", reason), change, condition, key)

    def delete(
        self,
        identity: Identity,
        key: str,
        reason: str,
        children: bool = False,
        condition: Condition = UNCONDITIONAL,
    ) -> Written:
        """Delete it; with `children` all below it too. Raises Conflict if there is something below it otherwise."""

        def change(_connection: Connection, items: Items, _now: str) -> dict[str, MenuItem]:
            if key not in items:
                raise NotFound(NO_ITEM)
            under = menu.below(items, key)
            if under and not children:
                raise Conflict(f"{len(under)} items lie below it: delete those first, or all of it with ?children=1.")
            return {name: item for name, item in items.items() if name != key and name not in under}

        return self._change(identity, edit_by(identity, "delete", reason), change, condition, key)

    def sync(
        self,
        identity: Identity,
        request: KeyedRequest | None,
        whole: WholeMenu,
        condition: Condition = UNCONDITIONAL,
        dry_run: bool = False,
    ) -> Written:
        """This is the whole menu now, in one version. With `dry_run` only say what that would change."""

        def change(_connection: Connection, items: Items, now: str) -> dict[str, MenuItem]:
            made = {placed.key: made_item(items, placed.key, placed.given, now) for placed in whole.items}
            return menu.levelled(made, {item.key for item in whole.items if "menu_level" not in item.given})

        edit = edit_by(identity, "sync", whole.reason)
        return self._change(identity, edit, change, condition, None, request, dry_run, whole.path)

    def rollback(
        self,
        identity: Identity,
        request: KeyedRequest | None,
        version: int,
        reason: str,
        condition: Condition = UNCONDITIONAL,
        dry_run: bool = False,
    ) -> Written:
        """A new version in which the menu is as it was at that one. Raises NotFound."""

        def change(connection: Connection, items: Items, _now: str) -> dict[str, MenuItem]:
            return menu_at(connection, items, version)

        edit = edit_by(identity, f"rollback to {version}", reason)
        return self._change(identity, edit, change, condition, None, request, dry_run)

    def at(self, identity: Identity, version: int) -> Items:
        """The menu as it was at that version. Raises NotFound."""
        require(identity, WRITE)
        return self._database.read(lambda c: menu_at(c, load_menu(c), version))

    def _change(
        self,
        identity: Identity,
        edit: Edit,
        change: Change,
        condition: Condition,
        key: str | None = None,
        request: KeyedRequest | None = None,
        dry_run: bool = False,
        path: Callable[[str], str] = lambda _key: "parent",
    ) -> Written:
        def plan(connection: Connection, now: str) -> MenuPlan:
            items, version = load_menu(connection), read_version(connection, MENU).version
            own = items[key].version if key in items else None
            condition.check(version, version if key is None else own)
            return plan_menu(version, items, change(connection, items, now), path, key)

        return self._write(identity, edit, plan, request, dry_run)


def _said(plan: MenuPlan) -> dict[str, Any]:
    said: dict[str, Any] = {"checksum": menu.checksum(plan.after.values())}
    if plan.item is not None:
        said["item"] = shown_item(plan.item)
    return said


def _said_of_tried(plan: MenuPlan) -> dict[str, Any]:
    return {"checksum": menu.checksum(plan.before.values())}


def shown_item(item: MenuItem) -> dict[str, object]:
    """An item with the version at which it was last changed."""
    return menu.shown(item) | {"version": item.version}


def _seen(state: MenuState, identity: Identity, rights: Rights, all: bool) -> Seen:
    tag = rights.checksum[:8]
    if all:
        return Seen(state, rights.roles, f"{tag}-all", menu.tree(state.items))
    if may(identity, WRITE):
        return Seen(state, rights.roles, f"{tag}-active", menu.tree(state.items, menu.active(state.items)))
    return Seen(state, rights.roles, tag, menu.tree(state.items, state.seen_with(rights)))
