"""Who is in a free room, over Socket.IO: a list as the answer, and the news that goes on from it."""

from __future__ import annotations

import json

from sidecar.domain import rooms
from sidecar.domain.access import may_watch_presence
from sidecar.domain.errors import NotAllowed, Unavailable
from sidecar.domain.events import Event, Volatile
from sidecar.fanout.hub import Hub, Subscriber
from sidecar.services.rooms import Rooms
from sidecar.sockets.handlers import Answer, Handlers
from sidecar.sockets.session import Session
from sidecar.sockets.subscriptions import Subscriptions
from sidecar.wire.news import PRESENCE_JOINED
from sidecar.wire.told import SUBSCRIBE_PRESENCE, UNSUBSCRIBE_PRESENCE


class PresenceSubscriptions:
    """The handlers of `subscribe_presence` and `unsubscribe_presence`."""

    def __init__(self, handlers: Handlers, subscriptions: Subscriptions, hub: Hub, service: Rooms):
        self._subscriptions = subscriptions
        self._hub = hub
        self._rooms = service
        handlers.on(SUBSCRIBE_PRESENCE, self._subscribe)
        handlers.on(UNSUBSCRIBE_PRESENCE, self._unsubscribe)

    def _subscribe(self, session: Session, *args: object) -> Answer:
        """The list is read after the room was joined, so nothing lies between them; what was told while it was read
        is put into it, because the client has heard that before."""
        name = _name(args)
        room = rooms.presence(name)
        if not may_watch_presence(session.identity, name):
            raise NotAllowed("The token does not give the right to see who is in this room.")
        fresh = room not in session.subscriber.rooms
        meanwhile = Meanwhile()
        listening = Subscriber(meanwhile, meanwhile, 0)
        self._hub.join(listening, room, 0)
        try:
            self._subscriptions.join(session, room)
            users = dict(self._rooms.told(name).users)
        except Unavailable:
            if fresh:
                self._subscriptions.lose(session, room)
            raise
        finally:
            self._hub.drop(listening)
        if room not in session.subscriber.rooms:
            raise NotAllowed("The token does not give the right to see who is in this room.")
        meanwhile.put_into(users)
        anonymous = users.pop("", 0)
        listed = [{"user": user, "connections": count} for user, count in sorted(users.items())]
        return {"ok": True, "room": room, "users": listed, "anonymous": anonymous}

    def _unsubscribe(self, session: Session, *args: object) -> Answer:
        room = rooms.presence(_name(args))
        self._subscriptions.leave(session, room)
        return {"ok": True, "room": room}


class Meanwhile:
    """Recipient and codec of a subscriber that keeps the news for the moment in which a list is read."""

    def __init__(self) -> None:
        self._news: list[tuple[bool, list[str]]] = []

    def put_into(self, users: dict[str, int]) -> None:
        """Make the list what it is after the news."""
        for joined, names in self._news:
            for user in names:
                if joined:
                    users.setdefault(user, 1)
                else:
                    users.pop(user, None)

    def frame(self, event: Event, place: str | None = None) -> bytes:
        return b""

    def volatile_frame(self, news: Volatile) -> bytes:
        self._news.append((news.type == PRESENCE_JOINED, json.loads(news.payload)["users"]))
        return b""

    def offer(self, frame: bytes) -> bool:
        return True

    def offer_latest(self, kind: str, frame: bytes) -> bool:
        return True

    def cut_off(self) -> None: ...

    def wait_drained(self, entirely: bool = False) -> bool:
        return True


def _name(args: tuple[object, ...]) -> str:
    return rooms.clean_name(args[0] if args else None, "the room's name")
