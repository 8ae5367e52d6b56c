"""Menus and permissions as files that people write, in YAML (JSON is YAML too): read, with every fault told, and
written so that reading gives the same again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from sidecar.domain.errors import FieldError, Invalid, Unparsable
from sidecar.domain.menu import level_at

BOOL = "tag:yaml.org,2002:bool"
PARTS = ("menu", "roles", "users")
_WRITTEN = ("key", "name", "menu_level", "icon", "url", "sort_order", "is_active", "description")
_NEW = {"icon": "", "url": "", "is_active": True, "description": ""}


@dataclass(frozen=True, slots=True)
class MenuFile:
    """Each part as it is posted; None for one that the file does not have."""

    menu: list[Any] | None = None
    roles: list[Any] | None = None
    users: dict[str, Any] | None = None


class _Loader(yaml.SafeLoader):
    """Only true and false are truth values and nothing is a date, so that `no` and `2026-01-01` are what they look like
    (PyYAML is for YAML 1.1); no mapping names a key twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for name, _ in node.value:
            if name.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{name.value!r} is there twice", name.start_mark)
            seen.add(name.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    letter: [found for found in resolvers if found[0] not in (BOOL, "tag:yaml.org,2002:timestamp")]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(BOOL, re.compile("true|false"), ["t", "f"])


def read_file(text: str) -> MenuFile:
    """A file with `menu` (a tree as for a sync), `roles` and `users`, each optional; or the tree alone.
    Raises Unparsable or Invalid."""
    try:
        value = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" in line {mark.line + 1}, column {mark.column + 1}"
        raise Unparsable(f"The file is not YAML: {getattr(error, 'problem', None) or 'unreadable'}{where}.") from None
    if isinstance(value, list):
        return MenuFile(menu=value)
    if not isinstance(value, dict):
        raise Invalid("The file must hold a menu: a list of items, or `menu:`, `roles:` and `users:`.")
    problems = [FieldError(str(name), f"is none of {' '.join(PARTS)}") for name in value if name not in PARTS]
    for name, kind in (("menu", list), ("roles", list), ("users", dict)):
        if value.get(name) is not None and not isinstance(value[name], kind):
            problems.append(FieldError(name, "must be a list" if kind is list else "must name users"))
    if problems:
        raise Invalid("The file can't be used.", tuple(problems))
    users = value.get("users")
    return MenuFile(
        value.get("menu"), value.get("roles"), None if users is None else {str(name): users[name] for name in users}
    )


def written_file(content: MenuFile) -> str:
    """The text of a file. The menu's items are as the API shows them; what follows from their place is left out."""
    said: dict[str, Any] = {}
    if content.menu is not None:
        said["menu"] = _items(content.menu, 0)
    if content.roles is not None:
        said["roles"] = [{name: role[name] for name in role if role[name] != []} for role in content.roles]
    if content.users is not None:
        said["users"] = content.users
    text: str = yaml.safe_dump(said, sort_keys=False, allow_unicode=True, width=120)
    return text


def _items(items: list[Any], depth: int) -> list[dict[str, Any]]:
    return [_item(item, depth, place + 1) for place, item in enumerate(items)]


def _item(item: Mapping[str, Any], depth: int, place: int) -> dict[str, Any]:
    follows = {**_NEW, "menu_level": level_at(depth), "sort_order": place}
    said = {name: item[name] for name in _WRITTEN if name not in follows or item[name] != follows[name]}
    if item.get("children"):
        said["children"] = _items(item["children"], depth + 1)
    return said
