"""Who is connected: a session for each namespace of each connection, its identity, and the end of that identity."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Protocol

import flask
import gevent
import structlog
from flask_socketio import ConnectionRefusedError, SocketIO

from sidecar.domain.access import Identity
from sidecar.domain.errors import NotAllowed, SidecarError, Unauthenticated, Unavailable
from sidecar.domain.events import Event, parse_offset
from sidecar.domain.times import utc_text
from sidecar.fanout.catchup import CatchUp
from sidecar.fanout.codecs import SocketIoCodec
from sidecar.fanout.engine import drop, emit_with_offset, engine_socket, keep_recoverable
from sidecar.fanout.hub import Hub, Subscriber, cut_off
from sidecar.fanout.recovery import Recovered, Recovery
from sidecar.fanout.tail import Tail
from sidecar.fanout.transports import EngineSocket
from sidecar.observability.logs import described
from sidecar.observability.metrics import Metrics
from sidecar.services.access import Access
from sidecar.sockets.credentials import BOT_PLATFORM, identify
from sidecar.sockets.errors import REFUSALS
from sidecar.sockets.gate import RECOVERS
from sidecar.sockets.rights import Projects, Rights
from sidecar.sockets.session import Session, holder_of, own_rooms
from sidecar.sockets.watch import Watch
from sidecar.wire.origins import Origins
from sidecar.wire.spoken import Frame
from sidecar.wire.told import SESSION, TOKEN_EXPIRING

log = structlog.get_logger("sidecar.sockets")

STORE_SECONDS = 1.0
"""Between two tries to store what a session holds."""
ENDED = "This connection has ended."


class Bots(Protocol):
    """Connections that are no browser's (sockets/maim.py)."""

    def connect(self, sid: str, namespace: str, environ: Mapping[str, Any]) -> None:
        """Raises SidecarError for one that may not come in."""

    def disconnect(self, sid: str) -> None:
        """Of any connection that was no session."""


class Sessions:
    """Owns the connect and disconnect of every namespace, and hands those of `bots` on. `recovery` is None where
    clients that come back begin anew."""

    def __init__(
        self,
        socketio: SocketIO,
        namespaces: tuple[str, ...],
        access: Access,
        origins: Origins,
        hub: Hub,
        tail: Tail,
        catchup: CatchUp,
        rights: Rights,
        watch: Watch,
        recovery: Recovery | None,
        bots: Bots,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
    ):
        self._socketio = socketio
        self._access = access
        self._origins = origins
        self._hub = hub
        self._tail = tail
        self._catchup = catchup
        self._rights = rights
        self._watch = watch
        self._recovery = recovery
        self._bots = bots
        self._metrics = metrics
        self._clock = clock
        self._codecs: dict[tuple[str, bool], SocketIoCodec] = {}
        self._sessions: dict[tuple[str, str], Session] = {}
        self._kept: dict[bytes, Session] = {}
        rights.on_lost = self.store_first
        for namespace in namespaces:
            socketio.on_event("connect", self._connect, namespace=namespace)
            socketio.on_event("disconnect", self._disconnect, namespace=namespace)

    def start(self) -> None:
        if self._recovery is not None:
            self._recovery.start()

    def stop(self) -> None:
        """Also stores which sessions have ended, so the writer must still run."""
        if self._recovery is not None:
            self._recovery.stop()

    def __len__(self) -> int:
        return len(self._sessions)

    def current(self) -> Session:
        """The session of the Socket.IO event being handled. Raises NotAllowed if it has just ended, elsewhere too."""
        self._tail.refresh()
        request: Any = flask.request
        session = self._sessions.get((request.namespace, request.sid))
        if session is None or session.over:
            raise NotAllowed(ENDED)
        return session

    def renewal(self, session: Session, token: str) -> Identity:
        """Who the session would be with another token of the same user. Raises Unauthenticated, NotAllowed."""
        identity = self._watch.unrevoked(lambda: self._access.by_credential(token))
        if identity.user != session.identity.user:
            raise NotAllowed("The new token belongs to another user.")
        return identity

    def renew(self, session: Session, identity: Identity, projects: Projects) -> None:
        """The session's rooms are looked through again; `projects` as `Rights.projects` found them."""
        former, own = own_rooms(session.identity), own_rooms(identity)
        session.identity = identity
        for room in former:
            if room not in own:
                self._hub.leave(session.subscriber, room)
        for room in own:
            self._hub.join(session.subscriber, room, self._tail.last)
        self._rights.recheck(session, projects, self._tail.last)
        self._watch.add(session)
        self.store_first(session, self._tail.last)

    def save(self, session: Session, without: str | None = None) -> None:
        """Store which rooms the session holds, but for one that it is about to leave. Raises Unavailable, also
        when its client has come back by another connection."""
        if session.kept is not None and self._recovery is not None:
            self._recovery.save(session.kept, holder_of(session.identity), session.subscriber, without)

    def store_first(self, session: Session, position: int) -> None:
        """What is stored is not what the session holds, or may not be: nothing more is sent to it before it is, however
        long that takes; up to `position` it was if it is live. Otherwise its client could come back to a room that it
        was not in meanwhile, and what it missed there would count as sent."""
        if session.kept is None or session.subscriber.closed:
            return
        storing, session.stale = session.stale, True
        if not storing:
            pause = ExitStack()
            pause.enter_context(self._catchup.paused(session.subscriber, position))
            gevent.spawn(self._store, session, pause).name = "session-store"

    def warn(self, session: Session, expires_at: float) -> None:
        """As `Watched.token_expiring`."""
        self.emit(session, TOKEN_EXPIRING, {"expires_at": utc_text(expires_at)})

    def end(self, session: Session, event: Frame, code: str, message: str) -> None:
        """As `Watched.end`."""
        session.over = True
        self._hub.drop(session.subscriber)
        self.emit(session, event, {"code": code, "message": message})
        gevent.spawn(self._disconnect_if_held, session)

    def taken(self, pid_hash: bytes, generation: int) -> None:
        """The client of this session has come back by another connection: an older one here is closed."""
        session = self._kept.get(pid_hash)
        if session is not None and session.kept is not None and session.kept.generation < generation:
            self._hub.drop(session.subscriber)
            gevent.spawn(drop, self._socketio.server, session.engine_sid)

    def doubt_deployments(self) -> None:
        """An id may be another project's from now on: whoever is in the room of one is asked for the right to it again
        when its next event comes. It does not switch greenlets."""
        for session in self._sessions.values():
            self._rights.doubt_deployments(session)

    def have_all_come_back(self) -> None:
        """The others have taken this process for dead: nobody knows what became of its sessions' rows."""
        for session in list(self._kept.values()):
            cut_off(session.subscriber)

    def emit(self, session: Session, name: Frame, body: dict[str, object]) -> None:
        self._socketio.emit(name, body, namespace=session.namespace, to=session.sid)

    def _connect(self, auth: object = None, *_rest: object) -> None:
        request: Any = flask.request
        try:
            if BOT_PLATFORM in request.environ:
                self._bots.connect(request.sid, request.namespace, request.environ)
            elif self._recovery is not None and request.environ.get(RECOVERS):
                self._come_back(self._recovery, request.sid, request.namespace, auth)
            else:
                self._open(request.sid, request.namespace, self._watch.unrevoked(lambda: self._identify(auth)))
        except SidecarError as error:
            refusal = REFUSALS[type(error)]
            self._metrics.socket_error(EngineSocket.kind, refusal.code)
            if refusal.final:
                raise ConnectionRefusedError(error.detail, {"code": refusal.code}) from None
            raise
        except Exception as error:
            log.error("sockets.connect_failed", exc_info=error)
            self._metrics.socket_error(EngineSocket.kind, "error")
            raise ConnectionRefusedError("The connection failed.", {"code": "error"}) from None

    def _identify(self, auth: object) -> Identity:
        given = auth.get("token") if isinstance(auth, dict) else None
        if given is not None and not isinstance(given, str):
            raise Unauthenticated("auth.token must be a string.")
        return identify(self._access, self._origins, flask.request.environ, given, "deployments:read")

    def _open(self, sid: str, namespace: str, identity: Identity) -> None:
        """A session of a client that can't come back."""
        socket = self._socket(sid, namespace)
        last = self._tail.last
        subscriber = Subscriber(socket.outbox, self._codec(namespace, False), last, user=identity.user)
        session = Session(self, sid, socket.sid, namespace, identity, subscriber)
        self._register(session, socket)
        for room in own_rooms(identity):
            self._hub.join(subscriber, room, last)

    def _come_back(self, recovery: Recovery, sid: str, namespace: str, auth: object) -> None:
        """A session of a client that can come back, or has. Raises Unavailable."""
        given = auth if isinstance(auth, dict) else {}
        pid, offset = given.get("pid"), given.get("offset")
        place = parse_offset(offset)
        if place is not None:  # it may have been at a process that is ahead of this one
            self._reach(place.seq)
        taken: list[Recovered] = []
        looked_at = 0

        def arrive() -> tuple[Identity, Recovered | None, Projects]:
            nonlocal looked_at
            identity = self._identify(auth)
            recovered = recovery.take(pid, offset, namespace, holder_of(identity))
            if recovered is None:
                return identity, None, {}
            taken.append(recovered)
            self._must_reach(recovered.needs)
            looked_at = self._tail.last
            return identity, recovered, self._rights.projects(recovered.rooms)

        try:
            identity, recovered, projects = self._watch.unrevoked(arrive)  # from here on it does not yield
            if recovered is not None:
                newer = self._kept.get(recovered.kept.pid_hash)
                if newer is not None and newer.kept is not None and newer.kept.generation > recovered.kept.generation:
                    raise Unavailable("The client has come back by another connection.", retry_after_seconds=1)
                published = self._tail.since(looked_at, len(self._tail.ring))
                if published is None:
                    raise Unavailable("Too much has come meanwhile.", retry_after_seconds=1)
                self._reopen(recovered, str(pid), sid, namespace, identity, projects, published)
        except BaseException:
            for session in taken:
                recovery.ended(session.kept, for_good=False)
            raise
        if recovered is None:
            for session in taken:  # and lost again, to another connection of the same client
                recovery.ended(session.kept, for_good=False)
            self._open_kept(recovery, sid, namespace, identity)

    def _open_kept(self, recovery: Recovery, sid: str, namespace: str, identity: Identity) -> None:
        """A new session. It is stored before its client hears of it, and nothing is sent before that."""
        socket = self._socket(sid, namespace)
        last, offset = self._tail.last, self._tail.offset
        kept, pid = recovery.prepare(last)
        subscriber = Subscriber(socket.outbox, self._codec(namespace, True), last, kept.first_replay, identity.user)
        session = Session(self, sid, socket.sid, namespace, identity, subscriber, kept)
        self._register(session, socket)
        with self._catchup.paused(subscriber, last):
            try:
                for room in own_rooms(identity):
                    self._hub.join(subscriber, room, last)
                recovery.open(kept, sid, namespace, holder_of(identity), subscriber)
                if subscriber.closed or socket.closed:  # it went, or its token was revoked
                    raise NotAllowed(ENDED)
                keep_recoverable(self._socketio, sid, namespace, pid, sid)
                self._greet(session, offset.text)
            except BaseException:
                self._forget(session)
                recovery.never_opened(kept)
                raise

    def _reopen(
        self,
        recovered: Recovered,
        pid: str,
        sid: str,
        namespace: str,
        identity: Identity,
        projects: Projects,
        published: list[Event],
    ) -> None:
        """A session given back; `published` is what has come since the `projects` were looked for, which may be the
        first event of a deployment. It does not yield but to the handlers of the connection that it replaces."""
        socket = self._socket(sid, namespace)
        subscriber = recovered.subscriber(socket.outbox, self._codec(namespace, True), identity.user)
        keep_recoverable(self._socketio, sid, namespace, pid, recovered.sid)
        session = Session(self, recovered.sid, socket.sid, namespace, identity, subscriber, recovered.kept)
        self._register(session, socket)
        try:
            with recovered.resumed(self._hub, self._catchup, subscriber):
                for room in own_rooms(identity):
                    self._hub.join(subscriber, room, self._tail.last)
                self._greet(session, None)
                self._rights.recheck(session, projects, recovered.position)
                for event in published:
                    self._hub.ask_guards(event)
        except BaseException:
            self._forget(session)
            raise

    def _reach(self, seq: int) -> None:
        if seq > self._tail.last:
            self._tail.reach(seq)

    def _must_reach(self, seq: int) -> None:
        self._reach(seq)
        if seq > self._tail.last:
            raise Unavailable("This process has not read the journal so far yet.", retry_after_seconds=1)

    def _greet(self, session: Session, offset: str | None) -> None:
        """The first event of a session, which gives its client an offset to come back with before any other has."""
        body = {
            "recovered": offset is None,
            "seq": session.subscriber.position,
            "epoch": self._tail.epoch,
            "timestamp": utc_text(self._clock()),
        }
        emit_with_offset(self._socketio, session.sid, session.namespace, SESSION, body, offset)

    def _socket(self, sid: str, namespace: str) -> EngineSocket:
        socket = engine_socket(self._socketio, sid, namespace)
        if socket is None:
            raise NotAllowed(ENDED)
        return socket

    def _codec(self, namespace: str, offsets: bool) -> SocketIoCodec:
        codec = self._codecs.get((namespace, offsets))
        if codec is None:
            codec = self._codecs[namespace, offsets] = SocketIoCodec(namespace, self._tail.epoch, offsets)
        return codec

    def _register(self, session: Session, socket: EngineSocket) -> None:
        self._sessions[session.namespace, session.sid] = session
        if session.kept is not None:
            self._kept[session.kept.pid_hash] = session
        self._watch.add(session)
        log.debug("sockets.connected", namespace=session.namespace, who=session.identity.name, socket=socket.number)

    def _store(self, session: Session, pause: ExitStack) -> None:
        with pause:
            while session.stale and not session.subscriber.closed:
                session.stale = False
                try:
                    self.save(session)
                except Unavailable as error:
                    log.warning("sockets.not_stored", problem=error.detail)
                    session.stale = True
                    gevent.sleep(STORE_SECONDS)
                except Exception as error:
                    log.warning("sockets.not_stored", problem=described(error))
                    cut_off(session.subscriber)

    def _forget(self, session: Session) -> None:
        if self._sessions.get((session.namespace, session.sid)) is session:
            del self._sessions[session.namespace, session.sid]
        if session.kept is not None and self._kept.get(session.kept.pid_hash) is session:
            del self._kept[session.kept.pid_hash]
        self._watch.remove(session)
        self._hub.drop(session.subscriber)

    def _disconnect(self, reason: object = None, *_rest: object) -> None:
        request: Any = flask.request
        session = self._sessions.get((request.namespace, request.sid))
        if session is None:
            self._bots.disconnect(request.sid)
            return
        self._forget(session)
        if session.kept is not None and self._recovery is not None:
            said_goodbye = reason == self._socketio.server.reason.CLIENT_DISCONNECT
            self._recovery.ended(session.kept, for_good=session.over or said_goodbye)
        log.debug("sockets.disconnected", namespace=session.namespace, reason=str(reason))

    def _disconnect_if_held(self, session: Session) -> None:
        """(The client may just have come back, by a connection of the same sid.)"""
        if self._sessions.get((session.namespace, session.sid)) is session:
            self._socketio.server.disconnect(session.sid, namespace=session.namespace)
