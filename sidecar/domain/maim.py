"""The maim_message protocol (docs/maim.md): what its envelopes are, whom a message is for, and why it may reach
nobody. Bots go by an API key and a platform; a key belongs to a user of a tenant."""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.domain.errors import BadName
from sidecar.domain.rooms import clean_name

STANDARD, ACK, CUSTOM = "sys_std", "sys_ack", "custom_"
"""Types of frames; a custom one goes on with its name."""
PARTS = ("message_info", "message_segment", "message_dim")
VERSION = 1
SERVER = "server"
DEFAULT_TENANT = "default"
UNKNOWN_PLATFORM = "unknown"
DUPLICATE_SECONDS = 3_600
"""For so long the msg_id of a key is known."""

REASONS = (
    "no_key",
    "no_platform",
    "unknown_receiver",
    "offline",
    "foreign_tenant",
    "invalid",
    "queue_full",
    "unavailable",
    "slow",
)
"""Why a message reached nobody (docs/maim.md says what each means)."""

_ADDRESS = re.compile(r"sma_([0-9a-f]{12})")


@dataclass(frozen=True, slots=True)
class Account:
    """Whose a key is. `platforms` None means any; `key_id` None that an embedder's hook knows it, not our table."""

    tenant: str
    user: str
    platforms: tuple[str, ...] | None = None
    key_id: str | None = None

    def may_use(self, platform: str) -> bool:
        return self.platforms is None or platform in self.platforms


def address_of(key_id: str) -> str:
    """What others may be told in place of the key: messages can be sent to it, nobody can connect with it."""
    return f"sma_{key_id}"


def id_of(address: str) -> str | None:
    """Of the key that this is the address of; None for what is no address."""
    match = _ADDRESS.fullmatch(address)
    return None if match is None else match[1]


@dataclass(frozen=True, slots=True)
class Place:
    """Where messages go: to every connection of this user on this platform."""

    tenant: str
    user: str
    platform: str


class Undelivered(Exception):
    """It reaches nobody; `reason` is one of REASONS."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


def destination(
    payload: Any,
    target_platform: str | None,
    find: Callable[[str], Account | None],
    may_reach: Callable[[str], bool],
) -> Place:
    """Whom the `message_dim` of a payload names; `target_platform` stands before its platform. `find` knows whose a key
    or address is, `may_reach` which tenants the sender may reach. Raises Undelivered."""
    dim = payload.get("message_dim") if isinstance(payload, Mapping) else None
    named: Mapping[str, Any] = dim if isinstance(dim, Mapping) else {}
    return place_of(named.get("api_key"), target_platform or named.get("platform"), find, may_reach)


def place_of(
    key: object, platform: object, find: Callable[[str], Account | None], may_reach: Callable[[str], bool]
) -> Place:
    """As `destination`, of the two names themselves."""
    if not isinstance(key, str) or not key:
        raise Undelivered("no_key")
    if not isinstance(platform, str) or not platform:
        raise Undelivered("no_platform")
    try:
        platform = clean_name(platform)
    except BadName:  # no connection can be there
        raise Undelivered("invalid") from None
    account = find(key)
    if account is None:
        raise Undelivered("unknown_receiver")
    if not may_reach(account.tenant):
        raise Undelivered("foreign_tenant")
    return Place(account.tenant, account.user, platform)


def is_message(payload: Any) -> bool:
    """Are a message's parts of the types that every receiver takes for granted? (A client of either generation raises
    on others.)"""
    if not isinstance(payload, Mapping):
        return False
    info, segment, dim = (payload.get(part) for part in PARTS)
    return (
        isinstance(info, Mapping)
        and isinstance(info.get("platform"), str)
        and isinstance(info.get("message_id"), str)
        and isinstance(info.get("time"), (int, float))
        and not isinstance(info.get("time"), bool)
        and isinstance(segment, Mapping)
        and isinstance(segment.get("type"), str)
        and "data" in segment
        and isinstance(dim, Mapping)
    )


def wrapped(payload: Any, key: str, platform: str, now: float) -> dict[str, Any]:
    """Something that is no message, as one to its own sender: the original server's answer to it."""
    return {
        "message_info": {"platform": platform, "message_id": str(now), "time": now},
        "message_segment": {"type": "text", "data": str(payload)},
        "message_dim": {"api_key": key, "platform": platform},
    }


def envelope(type: str, payload: Any, meta: Mapping[str, Any], now: float) -> dict[str, Any]:
    """A frame from the server, with a msg_id of its own."""
    kind = "custom" if type.startswith(CUSTOM) else "msg"
    return {
        "ver": VERSION,
        "msg_id": f"{kind}_{secrets.token_hex(6)}_{int(now)}",
        "type": type,
        "meta": {"sender_user": SERVER, **meta, "timestamp": now},
        "payload": payload,
    }


def ack(connection_uuid: str, msg_id: object, now: float) -> dict[str, Any]:
    """The receipt of a frame."""
    return {
        "ver": VERSION,
        "msg_id": str(uuid.uuid4()),
        "type": ACK,
        "meta": {"uuid": connection_uuid, "acked_msg_id": msg_id, "timestamp": now},
        "payload": {"status": "received", "server_timestamp": now},
    }
