"""What a user may, over plain WebSockets (`/ws/permissions/<user>`): in the frames of the older server, which its
clients know (docs/menu.md)."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeGuard, cast

import structlog

from sidecar.domain import rooms
from sidecar.domain.access import Identity, may_watch_room
from sidecar.domain.errors import NotAllowed, RateLimited, SidecarError, Unauthenticated, Unavailable, Unparsable
from sidecar.domain.events import Offset
from sidecar.domain.times import utc_text
from sidecar.fanout.codecs import NoticeCodec
from sidecar.fanout.hub import Subscriber
from sidecar.fanout.websocket import Connection
from sidecar.services.permissions import Permissions
from sidecar.sockets.plain import SENT_AWAY, TOKEN_ENDED, PlainEndpoint, PlainSocket, past
from sidecar.wire.news import OF_PERMISSIONS
from sidecar.wire.permissions import MAX_ACTION_CHARACTERS, MAX_RESOURCE_CHARACTERS
from sidecar.wire.spoken import Message
from sidecar.wire.told import (
    CONNECT_AGAIN,
    CONNECTION_CONFIRMED,
    DECLINE_TYPES,
    HEAR_TYPES,
    HEARTBEAT_RESPONSE,
    PERMISSION_CHECK,
    PERMISSION_CHECK_RESPONSE,
    PERMISSIONS_ERROR,
    PERMISSIONS_FRAMES,
    PERMISSIONS_MESSAGES,
    PERMISSIONS_TRUNCATED,
    PLAIN_HEARTBEAT,
    PLAIN_PING,
    TYPES_DECLINED,
    TYPES_HEARD,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

log = structlog.get_logger("sidecar.plain")

ANONYMOUS = "anonymous"
FEATURES = {
    "permission_notifications": True,
    "role_updates": True,
    "menu_access_updates": True,
    "cache_invalidation": True,
    "heartbeat": True,
    "notifications": True,
    "permission_check": True,
}
TYPES = frozenset(OF_PERMISSIONS)
"""What is pushed, and may be declined."""
MAX_TYPES = 100
MAX_TYPE_CHARACTERS = 100


class PlainPermissions(PlainEndpoint):
    """What a user may. Whose socket it is follows from the token alone; a name in the address must be the same."""

    kind = "permissions"
    place = "user"
    word = "type"
    frames = PERMISSIONS_FRAMES
    pushed = OF_PERMISSIONS
    messages = PERMISSIONS_MESSAGES

    protocols: ClassVar[tuple[str, ...]] = ("menu-protocol",)

    def __init__(self, permissions: Permissions, *common: Any):
        super().__init__(*common)
        self.permissions = permissions
        self._codecs: dict[frozenset[str], NoticeCodec] = {}

    def admit(self, environ: WSGIEnvironment, name: str) -> None:
        """Whoever may not come in is told so by a close code, which a browser can read, unlike a status."""
        past(environ)

    def open(self, environ: WSGIEnvironment, name: str, connection: Connection) -> None:
        beginning = self.beginning(environ)
        try:
            identity, given = self.watch.unrevoked(lambda: self._arrive(environ, name))
        except (Unauthenticated, NotAllowed) as error:
            self._refuse(environ, connection, error)
            return
        offset = self.tail.offset if beginning is None else beginning.offset
        subscriber = Subscriber(connection.outbox, self.codec(frozenset()), offset.seq, user=identity.user)
        socket = PermissionSocket(self, connection, subscriber, identity, environ.get("REMOTE_ADDR", ""))
        self.take_in(socket)
        socket.confirm(given, offset)
        if beginning is not None and beginning.truncated:
            socket.say(PERMISSIONS_TRUNCATED, seq=offset.seq, offset=offset.text, epoch=self.tail.epoch)
        connection.open(socket)
        self.enter(socket, _rooms_of(identity), beginning)

    def codec(self, muted: frozenset[str]) -> NoticeCodec:
        """One for all who don't hear these types."""
        found = self._codecs.get(muted)
        if found is None:
            found = self._codecs[muted] = NoticeCodec(muted)
        return found

    def _arrive(self, environ: WSGIEnvironment, name: str) -> tuple[Identity, list[str]]:
        """Who comes, and the roles that they were given."""
        identity = self.who(environ, None)
        if name not in ("", ANONYMOUS):
            if not identity.authenticated:
                raise Unauthenticated("A token is needed.")
            if identity.user != name:
                raise NotAllowed("The token is another user's.")
        return identity, self.groups(identity)

    def groups(self, identity: Identity) -> list[str]:
        """Raises Unavailable."""
        return [] if identity.user is None else list(self.permissions.given(identity.user))

    def _refuse(self, environ: WSGIEnvironment, connection: Connection, error: SidecarError) -> None:
        code = TOKEN_ENDED if isinstance(error, Unauthenticated) else SENT_AWAY
        stranger = Identity(kind="anonymous", name=ANONYMOUS)
        subscriber = Subscriber(connection.outbox, self.codec(frozenset()), self.tail.last)
        socket = PermissionSocket(self, connection, subscriber, stranger, environ.get("REMOTE_ADDR", ""))
        self.sockets.add(socket)
        socket.error(error.code, error.detail)
        connection.open(socket)
        connection.close(code, error.code)


class PermissionSocket(PlainSocket):
    """One connection of a user, or of somebody without a name."""

    kind = "permissions"
    __slots__ = ("_house", "_muted", "_session")

    def __init__(
        self,
        house: PlainPermissions,
        connection: Connection,
        subscriber: Subscriber,
        identity: Identity,
        address: str,
    ):
        super().__init__(house, connection, subscriber, identity, address)
        self._house = house
        self._muted: frozenset[str] = frozenset()
        self._session = f"session_{secrets.token_hex(8)}"

    def confirm(self, groups: list[str], known: Offset) -> None:
        """In both shapes at once that clients of the older server know: flat, and within `data`. What came up to
        `known` has been sent, or is not for it."""
        now, user = self._house.clock(), self.identity.user
        common = {"groups": groups, "server_time": utc_text(now), "features": FEATURES}
        self.say(
            CONNECTION_CONFIRMED,
            user_id=user,
            **common,
            data={"user_id": 0 if user is None else user, "sessionId": self._session, **common},
            timestamp=int(now * 1000),
            seq=known.seq,
            offset=known.text,
            epoch=self._house.tail.epoch,
        )

    def obey(self, body: dict[str, Any]) -> None:
        kind = body.get("type")
        obey = OBEYED.get(cast(Message, kind)) if isinstance(kind, str) else None
        if obey is None:
            self.error("UNKNOWN_MESSAGE_TYPE", "Unknown message type")
        else:
            obey(self, body)

    def failed(self, error: Exception) -> None:
        if isinstance(error, Unparsable):
            self.error("INVALID_JSON", "Invalid JSON format")
        elif isinstance(error, SidecarError):
            self.error(error.code, error.detail)
        else:
            log.error("plain.handler_failed", exc_info=error)
            self.error("INTERNAL_ERROR", "The request failed; the fault has been logged.")

    def error(self, code: str, message: str, **more: object) -> None:
        self.count(code)
        self.say(PERMISSIONS_ERROR, error_code=code, message=message, **more)

    def _known(self) -> Offset:
        """What came up to here has been sent."""
        subscriber = self.subscriber
        return self._house.tail.offset if subscriber.live else Offset(subscriber.position)

    def connect_again(self, _body: dict[str, Any]) -> None:
        self._house.limited(self)
        self.confirm(self._house.groups(self.identity), self._known())

    def beat(self, _body: dict[str, Any]) -> None:
        now = self._house.clock()
        self.say(HEARTBEAT_RESPONSE, timestamp=utc_text(now)[:19].replace("T", " "), server_time=now)

    def check(self, body: dict[str, Any]) -> None:
        data = body.get("data")
        said = {**data, **body} if isinstance(data, dict) else body
        request_id = said.get("request_id")
        resource = _text(said.get("resource"), MAX_RESOURCE_CHARACTERS)
        action = _text(said.get("action"), MAX_ACTION_CHARACTERS)
        if resource is None or action is None:
            self.error("missing_parameters", "缺少resource或action参数", request_id=request_id)
            return
        try:
            self._house.limited(self)
            rights = self._house.permissions.rights(self.identity)
        except RateLimited as error:
            self.error(error.code, error.detail, request_id=request_id)
            return
        except Unavailable as error:
            self.error("permission_check_error", error.detail, request_id=request_id)
            return
        self.say(
            PERMISSION_CHECK_RESPONSE,
            request_id=request_id,
            resource=resource,
            action=action,
            has_permission=rights.may(resource, action),
        )

    def choose(self, body: dict[str, Any]) -> None:
        """Every type is heard unless it was declined."""
        data, wanted = body.get("data"), body["type"] == HEAR_TYPES
        types = body.get("types", data.get("types") if isinstance(data, dict) else None)
        if not _are_names(types):
            self.error("missing_parameters", f"types must be a list of up to {MAX_TYPES} names")
            return
        self._muted = self._muted - set(types) if wanted else self._muted | TYPES.intersection(types)
        self.subscriber.codec = self._house.codec(self._muted)
        if wanted:
            self.say(TYPES_HEARD, subscribed_types=types)
        else:
            self.say(TYPES_DECLINED, unsubscribed_types=types)


OBEYED: dict[Message, Callable[[PermissionSocket, dict[str, Any]], None]] = {
    CONNECT_AGAIN: PermissionSocket.connect_again,
    PLAIN_HEARTBEAT: PermissionSocket.beat,
    PLAIN_PING: PermissionSocket.beat,
    PERMISSION_CHECK: PermissionSocket.check,
    HEAR_TYPES: PermissionSocket.choose,
    DECLINE_TYPES: PermissionSocket.choose,
}
"""What a client may say, and what is done."""


def _rooms_of(identity: Identity) -> list[str]:
    if not identity.authenticated:
        return [rooms.ANONYMOUS]
    found = [rooms.PERMISSIONS]
    if identity.user is not None:
        found.append(rooms.permissions(identity.user))
    if may_watch_room(identity, rooms.MENU):
        found.append(rooms.MENU)
    return found


def _text(value: object, most: int) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= most else None


def _are_names(value: object) -> TypeGuard[list[str]]:
    return (
        isinstance(value, list)
        and len(value) <= MAX_TYPES
        and all(_text(name, MAX_TYPE_CHARACTERS) is not None for name in value)
    )
