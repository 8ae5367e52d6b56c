"""What editors send to change the menu: one item, or the whole tree."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from sidecar.domain.errors import FieldError
from sidecar.domain.menu import CONTENT, MAX_ITEMS, RESERVED_KEYS, Level
from sidecar.wire.checks import Model, StrictBody, field_errors, invalid, read, text, word

MAX_KEY_CHARACTERS = 50
MAX_NAME_CHARACTERS = 100
MAX_URL_CHARACTERS = 200
MAX_ICON_CHARACTERS = 100
MAX_DESCRIPTION_CHARACTERS = 1_000
MAX_REASON_CHARACTERS = 500

UNKEYED = frozenset("/*\ufffd")
"""A slash ends a key in a path, a star is a pattern's, and the last stands for what was no text."""

_SCRIPT = re.compile(r"[\s\x00-\x1f]*(javascript|data|vbscript)\s*:", re.IGNORECASE)


def clean_key(value: Any) -> str:
    """Raises ValueError for what no item can be called."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError("must be a string")
    found = str(value).strip()
    if not found or len(found) > MAX_KEY_CHARACTERS or not found.isprintable() or set(found) & UNKEYED:
        raise ValueError(f"must be 1 to {MAX_KEY_CHARACTERS} printable characters without / and *")
    if found in RESERVED_KEYS:
        raise ValueError(f"must be none of {' '.join(sorted(RESERVED_KEYS))}")
    return found


def _parent(value: Any) -> str | None:
    return None if value is None or value == "" else clean_key(value)


def _url(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_URL_CHARACTERS or not value.isprintable():
        raise ValueError(f"must be a string of at most {MAX_URL_CHARACTERS} printable characters")
    if _SCRIPT.match(value):
        raise ValueError("must be no script")
    return value.strip()


Key = Annotated[
    str,
    BeforeValidator(
        clean_key,
        json_schema_input_type=Annotated[str, Field(min_length=1, max_length=MAX_KEY_CHARACTERS)] | int,
    ),
]
Parent = Annotated[str | None, BeforeValidator(_parent, json_schema_input_type=str | int | None)]
Url = Annotated[str, BeforeValidator(_url, json_schema_input_type=Annotated[str, Field(max_length=MAX_URL_CHARACTERS)])]


class ItemBody(StrictBody):
    """The fields of an item that somebody chose; `model_fields_set` says which. Those that the server writes
    may be there, as they are read, and are not looked at."""

    key: Key = ""
    name: Annotated[str, word(MAX_NAME_CHARACTERS)] = ""
    menu_level: Level | None = None
    icon: Annotated[str, text(MAX_ICON_CHARACTERS)] = ""
    url: Url = ""
    sort_order: Annotated[int, Field(strict=True, ge=-(2**31), lt=2**31)] = 0
    is_active: Annotated[bool, Field(strict=True)] = True
    description: Annotated[str, text(MAX_DESCRIPTION_CHARACTERS)] = ""
    parent: Parent = None
    created_at: Any = None
    updated_at: Any = None
    version: Any = None

    @property
    def given(self) -> dict[str, Any]:
        """What it says about an item's content."""
        found = {name: getattr(self, name) for name in CONTENT if name in self.model_fields_set}
        if found.get("menu_level", "") is None:
            del found["menu_level"]
        return found


class EditBody(ItemBody):
    """What is to be changed of the item that the address names."""

    reason: Annotated[str, text(MAX_REASON_CHARACTERS)] = ""


class ItemPutBody(EditBody):
    """All of the item that the address names: what is not said is as in a new one."""

    name: Annotated[str, word(MAX_NAME_CHARACTERS)]


class TreeItemBody(ItemBody):
    """An item of a whole menu. (Each is read by itself, so that every bad field is told with its place.)"""

    key: Key
    name: Annotated[str, word(MAX_NAME_CHARACTERS)]
    children: list[TreeItemBody] | None = None


class MenuBody(StrictBody):
    """A whole menu. What else it is answered with may be there and is not looked at."""

    items: Annotated[
        list[Any],
        BeforeValidator(
            lambda items: items,
            json_schema_input_type=Annotated[list[TreeItemBody], Field(max_length=MAX_ITEMS)],
        ),
    ]
    reason: Annotated[str, text(MAX_REASON_CHARACTERS)] = ""
    version: Any = None
    checksum: Any = None
    roles: Any = None
    seq: Any = None
    epoch: Any = None
    offset: Any = None


class ReasonBody(StrictBody):
    reason: Annotated[str, text(MAX_REASON_CHARACTERS)] = ""


@dataclass(frozen=True, slots=True)
class Placed:
    """An item of a tree: where it stands in the request (`items[2].children[0]`), and what is said about it."""

    path: str
    key: str
    given: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class WholeMenu:
    items: tuple[Placed, ...]
    reason: str

    def path(self, key: str) -> str:
        return next((f"{item.path}.parent" for item in self.items if item.key == key), "items")


def read_edit(body: Mapping[str, Any], key: str, whole: bool) -> tuple[str, EditBody]:
    """The item's key, which the address names, and what is to be changed; with `whole` all of it is told.
    Raises Invalid."""
    problems: list[FieldError] = []
    found = field_errors(ItemPutBody if whole else EditBody, body)
    try:
        key = clean_key(key)
    except ValueError as error:
        problems.append(FieldError("key", str(error)))
    if isinstance(found, list):
        raise invalid([*problems, *found])
    if "key" in found.model_fields_set and found.key != key:
        problems.append(FieldError("key", "is not the one in the address"))
    if problems:
        raise invalid(problems)
    return key, found


def read_whole(body: Mapping[str, Any]) -> WholeMenu:
    """A tree, nested by `children` or flat with `parent`. Items without a `sort_order` stay in the order in which they
    are written. Raises Invalid naming every bad field."""
    whole = read(MenuBody, body)
    problems: list[FieldError] = []
    items = tuple(_placed(whole.items, "items", None, problems))
    seen: set[str] = set()
    for item in items:
        if item.key in seen:
            problems.append(FieldError(f"{item.path}.key", "is there twice"))
        seen.add(item.key)
    if len(items) > MAX_ITEMS:
        problems.insert(0, FieldError("items", f"are {len(items)}; a menu holds at most {MAX_ITEMS}"))
    if problems:
        raise invalid(problems)
    return WholeMenu(items, whole.reason)


def _placed(values: list[Any], path: str, parent: str | None, problems: list[FieldError]) -> Iterator[Placed]:
    for number, value in enumerate(values):
        here = f"{path}[{number}]"
        if not isinstance(value, dict):
            problems.append(FieldError(here, "must be an object"))
            continue
        children = value.get("children")
        key = None
        found = located(ItemBody, {name: value[name] for name in value if name != "children"}, here, problems)
        if found is not None:
            given: dict[str, Any] = {"sort_order": number + 1, **found.given}
            missing = [name for name in ("key", "name") if name not in found.model_fields_set]
            problems += [FieldError(f"{here}.{name}", "Field required") for name in missing]
            if parent is not None and given.setdefault("parent", parent) != parent:
                problems.append(FieldError(f"{here}.parent", "is not the item that it is a child of"))
            if not missing:
                yield Placed(here, found.key, given)
            key = found.key or None
        if children is not None and not isinstance(children, list):
            problems.append(FieldError(f"{here}.children", "must be a list"))
        elif children:
            yield from _placed(children, f"{here}.children", key, problems)


def located(kind: type[Model], value: Mapping[str, Any], here: str, problems: list[FieldError]) -> Model | None:
    """A part of a body read; None, with the problems added, if it can't be."""
    found = field_errors(kind, value)
    if isinstance(found, list):
        problems += [FieldError(f"{here}.{problem.path}", problem.message) for problem in found]
        return None
    return found
