"""Which of several connections a message goes through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sidecar.client.maim_connection import Connection


def choose(connections: list[Connection], api_key: str | None, platform: str | None, payload: Any) -> Connection | None:
    """That of this key and platform, else of the key, else of the platform. If neither is given, the payload's own
    receiver is looked for so, then the platform from which it comes, then the first is taken."""
    if api_key is not None or platform is not None:
        return _match(connections, api_key, platform)
    dim, info = _part(payload, "message_dim"), _part(payload, "message_info")
    return (
        _match(connections, dim.get("api_key"), dim.get("platform"))
        or _match(connections, None, info.get("platform"))
        or _best(connections)
    )


def _match(connections: list[Connection], api_key: object, platform: object) -> Connection | None:
    """By both, else by the key, else by the platform."""
    of_key = [found for found in connections if found.config.api_key == api_key]
    of_platform = [found for found in connections if found.config.platform == platform]
    both = [found for found in of_key if found in of_platform]
    return _best(both or of_key or of_platform)


def _best(connections: list[Connection]) -> Connection | None:
    """Rather one that is there now."""
    return next((found for found in connections if found.connected), next(iter(connections), None))


def _part(payload: Any, name: str) -> Mapping[str, Any]:
    part = payload.get(name) if isinstance(payload, Mapping) else None
    return part if isinstance(part, Mapping) else {}
