"""What tests of the menu and the permissions do as an admin's back end, and how they read what sockets are told."""

from __future__ import annotations

import itertools
from typing import Any
from urllib.parse import quote

from tests.servers import RunningSidecar
from tests.sockets.clients import Plain

Answer = dict[str, Any]
_numbers = itertools.count(1)

NEWS = ("role_updated", "permission_changed", "menu_access_changed", "cache_invalidation")
"""What a change of permissions is told by, in this order."""


def short_name() -> str:
    """For users, roles and items; no other test of this process uses it."""
    return f"gov{next(_numbers)}"


def written(server: RunningSidecar, method: str, path: str, body: Any = None) -> Answer:
    options = {} if body is None else {"json": body}
    answer = server.request(method, path, **options)
    assert answer.status_code == 200, answer.text
    told: Answer = answer.json()
    return told


def allow(resource: str, action: str) -> Answer:
    return {"resource": resource, "action": action}


def deny(resource: str, action: str) -> Answer:
    return {"resource": resource, "action": action, "effect": "deny"}


def put_role(server: RunningSidecar, role: str, *grants: Answer, **more: Any) -> Answer:
    """`more` are menus and inherits."""
    return written(server, "PUT", f"/api/roles/{role}", {"grants": grants, **more})


def give(server: RunningSidecar, user: str, *roles: str) -> Answer:
    return written(server, "PUT", f"/api/users/{quote(user, safe='')}/roles", {"roles": roles})


def put_item(server: RunningSidecar, key: str, **fields: Any) -> Answer:
    return written(server, "PUT", f"/api/menu/{key}", {"name": key, **fields})


def notify(server: RunningSidecar, to: Any, type: str = "system_notification", **data: Any) -> int:
    return int(written(server, "POST", "/api/permissions/notify", {"type": type, "to": to, "data": data})["event_id"])


def until(one: Plain, seq: int) -> list[Answer]:
    """What a plain socket is told before the event of this seq, which must come."""
    frames: list[Answer] = []
    while True:
        frame = one.next()
        assert frame.get("seq", 0) <= seq, frame
        if frame.get("seq") == seq:
            return frames
        frames.append(frame)


def keys(items: list[Answer]) -> set[str]:
    """Of a menu's tree."""
    return {item["key"] for item in items} | {key for item in items for key in keys(item["children"])}


def seen(server: RunningSidecar, token: str) -> set[str]:
    """The keys of the menu that this caller sees."""
    return keys(server.get("/api/menu", token).json()["items"])
