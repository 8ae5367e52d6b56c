"""Frames of the maim_message protocol as its clients write and read them: one JSON object each."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

Frame = dict[str, Any]

STANDARD = "sys_std"
ACK = "sys_ack"
CUSTOM = "custom_"


def custom_type(name: str) -> str:
    """`custom_<name>`, whether it was given with that prefix or without."""
    return name if name.startswith(CUSTOM) else CUSTOM + name


def new_frame(type: str, payload: object, sender_key: str, platform: str, meta: Frame) -> Frame:
    """What a client of this key and platform sends; `meta` says more than who and when."""
    prefix = "msg" if type == STANDARD else "custom"
    now = time.time()
    return {
        "ver": 1,
        "msg_id": f"{prefix}_{uuid.uuid4().hex[:12]}_{int(now)}",
        "type": type,
        "meta": {"sender_user": sender_key, "platform": platform, "timestamp": now, **meta},
        "payload": payload,
    }


def new_meta(target_platform: str | None, queue: bool, ttl_seconds: float | None) -> Frame:
    """What the sender wants of the server: another platform, keeping it for who is away (for so long)."""
    meta: Frame = {}
    if target_platform is not None:
        meta["target_platform"] = target_platform
    if ttl_seconds is not None:
        meta["queue"] = {"ttl_seconds": ttl_seconds}
    elif queue:
        meta["queue"] = True
    return meta


def new_ack(msg_id: str | int, connection_uuid: str) -> Frame:
    now = time.time()
    return {
        "ver": 1,
        "msg_id": str(uuid.uuid4()),
        "type": ACK,
        "meta": {"uuid": connection_uuid, "acked_msg_id": msg_id, "timestamp": now},
        "payload": {"status": "received", "client_timestamp": now},
    }


def write(frame: Frame) -> str:
    """Raises ValueError if the payload is not JSON."""
    try:
        return json.dumps(frame, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"The message can't be written as JSON: {error}") from None


def read(text: str | bytes) -> Frame | None:
    """None if it is no JSON object."""
    try:
        frame = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return frame if isinstance(frame, dict) else None


def message_id(frame: Frame) -> str | int | None:
    """That under which it is acknowledged, if it wants to be."""
    given = frame.get("msg_id")
    return given if isinstance(given, (str, int)) and not isinstance(given, bool) and given != "" else None


def acked_id(frame: Frame) -> object:
    meta = frame.get("meta")
    return meta.get("acked_msg_id") if isinstance(meta, dict) else None
