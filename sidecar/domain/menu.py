"""The menu: a tree of items, what may be wrong with it, what differs between two of it, and what of it is seen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Literal, get_args

from sidecar.domain.errors import FieldError

Level = Literal["root", "level1", "level2"]
LEVELS: tuple[Level, ...] = get_args(Level)
RESERVED_KEYS = frozenset({"version", "history", "sync", "versions"})
"""Words that follow /api/menu/ and are no items."""

MAX_ITEMS = 2_000
MAX_DEPTH = 8

Verdict = Callable[[str], bool | None]
"""What the grants say about seeing the item of this key: allowed, denied, or nothing."""


@dataclass(frozen=True, slots=True)
class MenuItem:
    """Times are ISO 8601 text; `version` is the menu's at which it was last changed."""

    key: str
    name: str
    menu_level: str
    icon: str
    url: str
    sort_order: int
    is_active: bool
    description: str
    parent: str | None
    created_at: str
    updated_at: str
    version: int


CONTENT = tuple(
    field.name for field in fields(MenuItem) if field.name not in ("key", "created_at", "updated_at", "version")
)
"""What a person chooses about an item of a key."""

Items = Mapping[str, MenuItem]
"""By key."""


@dataclass(frozen=True, slots=True)
class ItemChange:
    """An item made (no `before`), changed or deleted (no `after`)."""

    before: MenuItem | None
    after: MenuItem | None

    @property
    def type(self) -> str:
        return "create" if self.before is None else "delete" if self.after is None else "update"

    @property
    def item(self) -> MenuItem:
        """As it is, or was last."""
        item = self.after or self.before
        assert item is not None
        return item


def level_at(depth: int) -> str:
    """The `menu_level` of an item with so many ancestors."""
    return LEVELS[min(depth, len(LEVELS) - 1)]


def in_order(items: Iterable[MenuItem]) -> list[MenuItem]:
    return sorted(items, key=lambda item: (item.sort_order, item.key))


def checksum(items: Iterable[MenuItem]) -> str:
    """MD5, as clients of the older server know it, over what is shown of the active items (docs/menu.md)."""
    rows = [
        {
            "key": item.key,
            "name": item.name,
            "icon": item.icon,
            "url": item.url,
            "sort_order": item.sort_order,
            "updated_at": str(datetime.fromisoformat(item.updated_at)),
        }
        for item in in_order(items)
        if item.is_active
    ]
    return hashlib.md5(json.dumps(rows, sort_keys=True).encode(), usedforsecurity=False).hexdigest()


def problems(items: Items, path: Callable[[str], str]) -> list[FieldError]:
    """What is wrong with the whole; `path` says where the item of a key stands in the request."""
    found = []
    if len(items) > MAX_ITEMS:
        found.append(FieldError("items", f"are {len(items)}; a menu holds at most {MAX_ITEMS}"))
    for item in items.values():
        if item.parent is not None and item.parent not in items:
            found.append(FieldError(path(item.key), "names a parent that does not exist"))
            continue
        above = ancestors(items, item)
        if above is None:
            found.append(FieldError(path(item.key), "leads in a circle"))
        elif len(above) >= MAX_DEPTH:
            found.append(FieldError(path(item.key), f"lies deeper than {MAX_DEPTH} levels"))
    return found


def ancestors(items: Items, item: MenuItem) -> list[str] | None:
    """The keys above it, the nearest first, as far as they exist; None if they lead in a circle."""
    found: dict[str, None] = {}
    parent = item.parent
    while parent is not None and parent in items:
        if parent in found or parent == item.key:
            return None
        found[parent] = None
        parent = items[parent].parent
    return list(found)


def below(items: Items, key: str) -> set[str]:
    """The keys of all items under this one."""
    return {item.key for item in items.values() if key in (ancestors(items, item) or ())}


def levelled(items: Items, keys: Iterable[str]) -> dict[str, MenuItem]:
    """With the `menu_level` of these keys' items telling how deep they lie."""
    found = dict(items)
    for key in keys:
        found[key] = replace(items[key], menu_level=level_at(len(ancestors(items, items[key]) or ())))
    return found


def telling_depth(items: Items) -> set[str]:
    """The keys of the items whose `menu_level` says how deep they lie."""
    return {item.key for item in items.values() if item.menu_level == level_at(len(ancestors(items, item) or ()))}


def diff(before: Items, after: Items) -> list[ItemChange]:
    """What is made, what is changed, what is deleted, each in the menu's order. Times and versions are not compared."""
    made = [ItemChange(None, item) for item in in_order(after.values()) if item.key not in before]
    changed = [
        ItemChange(before[item.key], item)
        for item in in_order(after.values())
        if item.key in before and content(before[item.key]) != content(item)
    ]
    gone = [ItemChange(item, None) for item in in_order(before.values()) if item.key not in after]
    return [*made, *changed, *gone]


def content(item: MenuItem) -> tuple[object, ...]:
    return tuple(getattr(item, name) for name in CONTENT)


def seen(items: Items, verdict: Verdict) -> frozenset[str]:
    """The keys of the items that somebody sees of whom `verdict` tells: active and allowed, with nothing inactive or
    denied above them; and what stands above those, which is the way to them."""
    said = {key: verdict(key) for key in items}
    hidden = {key for key, item in items.items() if not item.is_active or said[key] is False}
    found: set[str] = set()
    for key, item in items.items():
        if said[key] is True:
            way = {key, *(ancestors(items, item) or ())}
            if way.isdisjoint(hidden):
                found |= way
    return frozenset(found)


def active(items: Items) -> frozenset[str]:
    """The keys of the items that are active, and all above them."""
    return seen(items, lambda _key: True)


def tree(items: Items, keys: Iterable[str] | None = None) -> list[dict[str, object]]:
    """The items of these keys (None: all) as nested objects, in order. Keys must come with their ancestors."""
    wanted = set(items if keys is None else keys)
    nodes = {item.key: shown(item) | {"children": []} for item in in_order(items[key] for key in wanted)}
    roots: list[dict[str, object]] = []
    for key, node in nodes.items():
        parent = items[key].parent
        siblings = roots if parent is None else nodes[parent]["children"]
        siblings.append(node)  # type: ignore[attr-defined]
    return roots


def shown(item: MenuItem) -> dict[str, object]:
    """An item's fields as they are sent."""
    return {field.name: getattr(item, field.name) for field in fields(MenuItem) if field.name != "version"}
