"""Messages to free rooms, to users and to everyone: checked, stored as events, and answered once for a key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sidecar.domain import messages, rooms
from sidecar.domain.access import Identity, may_send
from sidecar.domain.errors import NotAllowed
from sidecar.services.access import require
from sidecar.services.idempotency import KeyedRequest, answered, remember
from sidecar.store.devices import save_position
from sidecar.store.journal import Transaction
from sidecar.store.writer import Submit
from sidecar.wire.messages import BroadcastBody, ChatBody, LocationBody, NotifyBody, SendBody
from sidecar.wire.news import API_MESSAGE, CHAT_MESSAGE
from sidecar.wire.spoken import EventType

SCOPE = "messages:send"


@dataclass(frozen=True, slots=True)
class Published:
    """What became of a message: the `room` (whole name) and `target` that it went to, its seq and when it was sent."""

    seq: int
    room: str
    target: str | None
    sent_at: str
    duplicate: bool = False


class Messages:
    """`submit` runs a command in the writer. Every method raises Unauthenticated or NotAllowed for who may not,
    Conflict for a key that was used with another body, and Unavailable."""

    def __init__(self, submit: Submit):
        self._submit = submit

    def send(self, identity: Identity, request: KeyedRequest | None, body: SendBody) -> Published:
        """To a free room; with a target user to that user's sockets in it alone."""

        def payload(transaction: Transaction) -> dict[str, object]:
            return messages.api_message(body.message, messages.sender_of(identity), transaction.now, body.data)

        return self._publish(identity, request, API_MESSAGE, payload, rooms.free(body.room), body.target_user)

    def push_location(self, identity: Identity, request: KeyedRequest | None, body: LocationBody) -> Published:
        """Where a device is, to the room of locations; its last position is kept."""

        def payload(transaction: Transaction) -> dict[str, object]:
            save_position(transaction.connection, body.device_id, body.latitude, body.longitude, transaction.now)
            return messages.api_message(
                f"Location update from device {body.device_id}",
                messages.sender_of(identity),
                transaction.now,
                messages.location(body.latitude, body.longitude, body.device_id),
                type="location_update",
            )

        room = rooms.free(messages.LOCATION_ROOM)
        return self._publish(identity, request, API_MESSAGE, payload, room)

    def broadcast(self, identity: Identity, request: KeyedRequest | None, body: BroadcastBody) -> Published:
        """To every authenticated connection."""
        return self._general(identity, request, body, rooms.EVERYONE)

    def notify(self, identity: Identity, request: KeyedRequest | None, body: NotifyBody) -> Published:
        """To every connection of a user."""
        return self._general(identity, request, body, rooms.user(body.user_id))

    def chat(self, identity: Identity, room: str, body: ChatBody) -> Published:
        """What somebody says in a free room (`room` is its own name)."""

        def payload(_transaction: Transaction) -> dict[str, object]:
            name = body.username.strip() or identity.name
            return messages.chat_message(body.message, name, messages.sender_of(identity))

        return self._publish(identity, None, CHAT_MESSAGE, payload, rooms.free(room))

    def _general(self, identity: Identity, request: KeyedRequest | None, body: BroadcastBody, room: str) -> Published:
        def payload(transaction: Transaction) -> dict[str, object]:
            sender = messages.sender_of(identity)
            return messages.api_message(body.message, sender, transaction.now, body.data, body.type)

        return self._publish(identity, request, API_MESSAGE, payload, room)

    def _publish(
        self,
        identity: Identity,
        request: KeyedRequest | None,
        type: EventType,
        payload: Callable[[Transaction], dict[str, object]],
        room: str,
        target: str | None = None,
    ) -> Published:
        require(identity, SCOPE)
        if not may_send(identity, room):
            raise NotAllowed("The token does not give the right to send there.")

        def command(transaction: Transaction) -> Published:
            first = answered(transaction, request)
            if first is not None:
                return Published(**first, duplicate=True)
            event = transaction.append(type, payload(transaction), [room], target)
            remember(transaction, request, {"seq": event.seq, "room": room, "target": target, "sent_at": event.at})
            return Published(event.seq, room, target, event.at)

        return self._submit(command)
