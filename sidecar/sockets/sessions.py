"""Who is connected: a session for each namespace of each connection, its identity, and the end of that identity."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable
from typing import Any

import flask
import gevent
import structlog
from flask_socketio import ConnectionRefusedError, SocketIO
from gevent.event import Event as Signal

from sidecar.domain import rooms
from sidecar.domain.errors import NotAllowed, SidecarError, Unauthenticated
from sidecar.domain.events import Event
from sidecar.domain.permissions import Identity
from sidecar.domain.times import utc_text
from sidecar.fanout.codecs import SocketIoCodec
from sidecar.fanout.engine import abandon, engine_socket
from sidecar.fanout.hub import Hub, Subscriber
from sidecar.fanout.tail import Tail
from sidecar.services.access import LOGIN_COOKIE, Access
from sidecar.sockets.errors import REFUSALS
from sidecar.sockets.gate import URL_TOKEN
from sidecar.wire.origins import Origins

log = structlog.get_logger("sidecar.sockets")

WARNING_SECONDS = 30
LOOK_SECONDS = 10
"""How often the clock is looked at though no end is near: it may have been set, or the machine have slept."""
SPARE_EXPIRIES = 64
"""Ends of sessions gone that may wait to be forgotten, besides as many as there are sessions."""


class Session:
    """One namespace of one connection. `identity` changes when the client renews its token."""

    __slots__ = ("engine_sid", "identity", "namespace", "sid", "subscriber")

    def __init__(self, sid: str, engine_sid: str, namespace: str, identity: Identity, subscriber: Subscriber):
        self.sid = sid
        self.engine_sid = engine_sid
        self.namespace = namespace
        self.identity = identity
        self.subscriber = subscriber


class Sessions:
    """Owns the connect and disconnect of every namespace and one greenlet that watches expiries."""

    def __init__(
        self,
        socketio: SocketIO,
        namespaces: tuple[str, ...],
        access: Access,
        origins: Origins,
        hub: Hub,
        tail: Tail,
        clock: Callable[[], float] = time.time,
    ):
        self._socketio = socketio
        self._access = access
        self._origins = origins
        self._hub = hub
        self._tail = tail
        self._clock = clock
        self._codecs: dict[str, SocketIoCodec] = {}
        self._sessions: dict[tuple[str, str], Session] = {}
        self._revocations = 0
        self._expiries: list[tuple[float, int, Session, Identity, bool]] = []
        self._tie = itertools.count()
        self._wake = Signal()
        self._greenlet: gevent.Greenlet | None = None
        for namespace in namespaces:
            socketio.on_event("connect", self._connect, namespace=namespace)
            socketio.on_event("disconnect", self._disconnect, namespace=namespace)

    def start(self) -> None:
        self._greenlet = gevent.spawn(self._watch_expiries)
        self._greenlet.name = "token-expiry"

    def stop(self) -> None:
        if self._greenlet is not None:
            self._greenlet.kill()

    def __len__(self) -> int:
        return len(self._sessions)

    def current(self) -> Session:
        """The session of the Socket.IO event being handled. Raises NotAllowed if it has just ended."""
        request: Any = flask.request
        try:
            return self._sessions[request.namespace, request.sid]
        except KeyError:
            raise NotAllowed("This connection has ended.") from None

    def renewal(self, session: Session, token: str) -> Identity:
        """Who the session would be with another token of the same user. Raises Unauthenticated, NotAllowed."""
        identity = self._unrevoked(lambda: self._access.by_credential(token))
        if identity.user != session.identity.user:
            raise NotAllowed("The new token belongs to another user.")
        return identity

    def renew(self, session: Session, identity: Identity) -> None:
        session.identity = identity
        for room in own_rooms(identity):
            self._hub.join(session.subscriber, room, self._tail.last)
        self._expect_end(session)

    def token_revoked(self, token_id: str) -> None:
        """End every session that rests on this token (or on one that it issued)."""
        self._revocations += 1
        for session in [s for s in self._sessions.values() if s.identity.token_id == token_id]:
            self._end(session, "The token has been revoked.")

    def emit(self, session: Session, name: str, body: dict[str, object]) -> None:
        self._socketio.emit(name, body, namespace=session.namespace, to=session.sid)

    def _connect(self, auth: object = None, *_rest: object) -> None:
        request: Any = flask.request
        try:
            identity = self._unrevoked(lambda: self._identify(auth))
            self._open(request.sid, request.namespace, identity)
        except SidecarError as error:
            refusal = REFUSALS[type(error)]
            if refusal.final:
                raise ConnectionRefusedError(error.detail, {"code": refusal.code}) from None
            abandon(self._socketio, request.sid, request.namespace)
            raise
        except Exception as error:
            log.error("sockets.connect_failed", exc_info=error)
            raise ConnectionRefusedError("The connection failed.", {"code": "error"}) from None

    def _unrevoked(self, identify: Callable[[], Identity]) -> Identity:
        """Whom it finds, asked again when a token was revoked meanwhile: it may have been this one, read before."""
        while True:
            revocations = self._revocations
            identity = identify()
            if revocations == self._revocations:
                return identity

    def _identify(self, auth: object) -> Identity:
        request = flask.request
        address = request.remote_addr or ""
        given = auth.get("token") if isinstance(auth, dict) else None
        if given is not None and not isinstance(given, str):
            raise Unauthenticated("auth.token must be a string.")
        header = request.headers.get("Authorization", "")
        scheme, _, rest = header.partition(" ")
        if given:
            return self._access.by_credential(given)
        if scheme.lower() in ("token", "bearer") and rest.strip():
            return self._access.by_credential(rest.strip())
        if request.environ.get(URL_TOKEN):
            return self._access.by_credential(request.environ[URL_TOKEN], in_url=True)
        cookie = request.cookies.get(LOGIN_COOKIE) if self._origins.same_origin(request.environ) else None
        identity = self._access.by_cookie(cookie, address) if cookie else self._access.stranger(address)
        if not identity.authenticated and "deployments:read" not in identity.scopes:
            raise Unauthenticated("A token is needed: give it as auth.token.")
        return identity

    def _open(self, sid: str, namespace: str, identity: Identity) -> None:
        """From here to the CONNECT packet nothing yields, so no event can overtake it."""
        socket = engine_socket(self._socketio, sid, namespace)
        if socket is None:
            raise NotAllowed("This connection has ended.")
        codec = self._codecs.get(namespace)
        if codec is None:
            codec = self._codecs[namespace] = SocketIoCodec(namespace, self._tail.epoch)
        last = self._tail.last
        subscriber = Subscriber(socket.outbox, codec, last)
        session = Session(sid, socket.sid, namespace, identity, subscriber)
        self._sessions[namespace, sid] = session
        for room in own_rooms(identity):
            self._hub.join(subscriber, room, last)
        self._expect_end(session)
        log.debug("sockets.connected", namespace=namespace, who=identity.name, kind=identity.kind)

    def _disconnect(self, reason: object = None, *_rest: object) -> None:
        request: Any = flask.request
        session = self._sessions.pop((request.namespace, request.sid), None)
        if session is not None:
            self._hub.drop(session.subscriber)
            log.debug("sockets.disconnected", namespace=session.namespace, reason=str(reason))

    def _expect_end(self, session: Session) -> None:
        end = session.identity.expires_at
        if end is not None:
            if len(self._expiries) > 2 * len(self._sessions) + SPARE_EXPIRIES:
                self._expiries = [entry for entry in self._expiries if self._holds(entry[2], entry[3])]
                heapq.heapify(self._expiries)
            heapq.heappush(self._expiries, (end - WARNING_SECONDS, next(self._tie), session, session.identity, False))
            self._wake.set()

    def _holds(self, session: Session, identity: Identity) -> bool:
        """Is the session still open, under this identity?"""
        return self._sessions.get((session.namespace, session.sid)) is session and session.identity is identity

    def _watch_expiries(self) -> None:
        while True:
            pause = self._expiries[0][0] - self._clock() if self._expiries else None
            if pause is None or pause > 0:
                self._wake.wait(timeout=None if pause is None else min(pause, LOOK_SECONDS))
                self._wake.clear()
                continue
            _, _, session, identity, warned = heapq.heappop(self._expiries)
            if not self._holds(session, identity):
                continue
            if warned:
                self._end(session, "The token has expired.")
                continue
            end = identity.expires_at or 0.0
            self.emit(session, "token_expiring", {"expires_at": utc_text(end)})
            heapq.heappush(self._expiries, (end, next(self._tie), session, identity, True))

    def _end(self, session: Session, message: str) -> None:
        """Tell the client that its token no longer holds, then disconnect it for good (code 4401 of plain sockets)."""
        self._hub.drop(session.subscriber)
        self.emit(session, "token_expired", {"code": "token_expired", "message": message})
        gevent.spawn(self._socketio.server.disconnect, session.sid, namespace=session.namespace)


def own_rooms(identity: Identity) -> list[str]:
    """The rooms that a connection is in without asking: its user's, and everyone's."""
    found = []
    if identity.user is not None:
        found += [rooms.user(identity.user), rooms.permissions(identity.user)]
    if identity.authenticated:
        found.append(rooms.EVERYONE)
    return found


def project_of(event: Event) -> str | None:
    """The project whose room the event went to."""
    return next((name.removeprefix("project:") for name in event.rooms if name.startswith("project:")), None)
