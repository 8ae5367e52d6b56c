"""Saying something in a free room, over Socket.IO."""

from __future__ import annotations

from collections.abc import Mapping

from sidecar.domain.errors import FieldError, Invalid
from sidecar.domain.rooms import clean_name
from sidecar.services.limits import RateLimit, bucket_of
from sidecar.services.messages import Messages
from sidecar.sockets.session import Session
from sidecar.wire.checks import read
from sidecar.wire.messages import ChatBody


class Chat:
    """The handler of the event `chat` (room, message or `{"message","username"}`). `limit` bounds what each caller may
    say."""

    def __init__(self, messages: Messages, limit: RateLimit | None):
        self._messages = messages
        self._limit = limit

    def __call__(self, session: Session, *args: object) -> dict[str, object]:
        """Raises SidecarError."""
        if len(args) < 2:
            raise Invalid("chat needs a room and a message.", (FieldError("message", "is missing"),))
        room, said = clean_name(args[0], "the room"), args[1]
        body = read(ChatBody, said if isinstance(said, Mapping) else {"message": said})
        if self._limit is not None:
            self._limit.take(bucket_of(session.identity, f"socket:{session.engine_sid}"))
        sent = self._messages.chat(session.identity, room, body)
        return {"ok": True, "room": sent.room, "event_id": str(sent.seq)}
