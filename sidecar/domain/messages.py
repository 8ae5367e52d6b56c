"""Messages of back ends and people to free rooms: their fields, as every receiver gets them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sidecar.domain.access import Identity

API_MESSAGE = "api_message"
CHAT_MESSAGE = "chat_message"
DEFAULT_ROOM = "general"
LOCATION_ROOM = "location_tracking"
LIVE_ROOM = "live_updates"

RESERVED = frozenset({"sender", "sender_id", "timestamp"})
"""Fields that say who sent a message and when: no sender can choose them."""

MIN_INTERVAL_SECONDS = 0.2
MAX_INTERVAL_SECONDS = 3_600.0
DEFAULT_INTERVAL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sends: `name` is the token's (or its user's), `number` the token's."""

    name: str
    number: int


def sender_of(identity: Identity) -> Sender:
    return Sender(identity.name, identity.number)


def api_message(
    content: str, sender: Sender, timestamp: str, data: Mapping[str, object], type: str = API_MESSAGE
) -> dict[str, object]:
    """A message of the REST API. `data` may add fields and name another `content` or `type`, but not who and when."""
    message: dict[str, object] = {"content": content, "sender": sender.name, "sender_id": sender.number, "type": type}
    message.update((name, value) for name, value in data.items() if name not in RESERVED)
    message["timestamp"] = timestamp
    return message


def location(latitude: float, longitude: float, device_id: str) -> dict[str, object]:
    """What an update of a device's position says beside who and when."""
    return {"latitude": latitude, "longitude": longitude, "device_id": device_id}


def chat_message(message: str, username: str, sender: Sender) -> dict[str, object]:
    """What somebody in the room says. `username` is what they call themselves, `sender` who they are."""
    return {
        "message": message,
        "username": username,
        "sender": sender.name,
        "sender_id": sender.number,
        "source": "websocket_chat",
    }
