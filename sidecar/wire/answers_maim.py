"""What is answered about bots."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from sidecar.wire.answers import Time

Results = dict[str, bool]
"""By connection: was the message handed to its outbox, or to the process that holds it?"""


class BotRoute(TypedDict):
    """Where a message would go; `reason` says why to nobody."""

    tenant: str | None
    user: str | None
    platform: str | None
    connections: list[str]
    reason: str | None


class BotConnection(TypedDict):
    uuid: str
    tenant: str
    user: str
    platform: str
    node: str
    line: Literal["websocket", "socketio"]
    key_id: str | None
    opened_at: Time


class BotConnectionList(TypedDict):
    items: list[BotConnection]


class NetworkFigures(TypedDict):
    total_connections: int
    current_connections: int
    messages_received: int
    messages_sent: int
    bytes_received: int
    bytes_sent: int


class BotFigures(TypedDict):
    """Of this process, since it began."""

    total_auth_requests: int
    successful_auths: int
    failed_auths: int
    messages_processed: int
    custom_messages_processed: int
    current_users: int
    current_connections: int
    active_handler_tasks: int
    duplicate_messages_ignored: int
    undelivered: dict[str, int]
    network: NetworkFigures


class BotKey(TypedDict):
    """`address` can stand in a message's `api_key` in place of the key, which is not kept."""

    id: str
    tenant: str
    user: str
    platforms: list[str] | None
    name: str
    address: str
    created_at: Time
    revoked_at: Time | None


class BotKeyList(TypedDict):
    items: list[BotKey]


class NewBotKey(BotKey):
    """`key` is shown this once."""

    success: Literal[True]
    key: str
