"""Subscriptions of browsers: projects, deployments, free rooms and the menu, in both spellings, acknowledged."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import structlog
from flask_socketio import SocketIO

from sidecar.domain import permissions, rooms
from sidecar.domain.errors import Invalid, NotAllowed, SidecarError, TooManyRooms, Unavailable
from sidecar.domain.events import Event, Offset, parse_offset
from sidecar.domain.rooms import clean_name
from sidecar.domain.times import utc_text
from sidecar.fanout.catchup import CatchUp, Subscription
from sidecar.fanout.hub import Hub
from sidecar.sockets.errors import refused
from sidecar.sockets.sessions import Session, Sessions, project_of

log = structlog.get_logger("sidecar.sockets")

Answer = dict[str, object]

NAMELESS = {"menu": rooms.MENU, "projects": rooms.PROJECTS}
"""Kinds of which there is one room only, so that a subscribe names none."""


class Subscriptions:
    """`project_of_deployment` finds the project that owns a deployment id, None for an id not seen yet."""

    def __init__(
        self,
        socketio: SocketIO,
        namespaces: tuple[str, ...],
        sessions: Sessions,
        hub: Hub,
        catchup: CatchUp,
        project_of_deployment: Callable[[str], str | None],
        max_rooms: int,
    ):
        self._sessions = sessions
        self._hub = hub
        self._catchup = catchup
        self._project_of_deployment = project_of_deployment
        self._max_rooms = max_rooms
        for namespace in namespaces:
            on = partial(self._register, socketio, namespace)
            for kind in ("project", "deployment", "room", *NAMELESS):
                for mark in ("_", ":"):
                    on(f"subscribe{mark}{kind}", partial(self._subscribe, kind))
                    on(f"unsubscribe{mark}{kind}", partial(self._unsubscribe, kind))
            on("heartbeat", self._heartbeat)
            on("refresh_token", self._refresh_token)

    def _register(self, socketio: SocketIO, namespace: str, name: str, handle: Callable[..., Answer]) -> None:
        def handler(*args: object) -> Answer:
            try:
                return handle(self._sessions.current(), *args)
            except SidecarError as error:
                return refused(error)
            except Exception as error:
                log.error("sockets.handler_failed", event=name, exc_info=error)
                return refused(SidecarError("The request failed; the fault has been logged."))

        socketio.on_event(name, handler, namespace=namespace)

    def _subscribe(self, kind: str, session: Session, *args: object) -> Answer:
        name, options = _arguments(kind, args)
        since = _since(options)
        room = _room(kind, name)
        if room not in session.subscriber.rooms and len(session.subscriber.rooms) >= self._max_rooms:
            raise TooManyRooms(f"One socket may be in {self._max_rooms} rooms.")
        subscription = self._admit(kind, session, name, room, since)
        self._sessions.emit(
            session, "subscription:confirmed", {"type": kind, "id": name, "timestamp": utc_text(time.time())}
        )
        return {
            "ok": True,
            "room": subscription.room,
            "seq": subscription.seq,
            "offset": subscription.offset,
            "epoch": subscription.epoch,
            "replayed": subscription.replayed,
            "truncated": subscription.truncated,
        }

    def _admit(self, kind: str, session: Session, name: str, room: str, since: Offset | None) -> Subscription:
        if kind == "deployment":
            return self._admit_to_deployment(session, name, room, since)
        identity = session.identity
        allowed = (
            permissions.may_watch_project(identity, name)
            if kind == "project"
            else permissions.may_watch_room(identity, room)
        )
        if not allowed:
            raise NotAllowed("The token does not give the right to this room.")
        return self._catchup.subscribe(self._hub, session.subscriber, room, since)

    def _admit_to_deployment(self, session: Session, name: str, room: str, since: Offset | None) -> Subscription:
        """The right is that of the deployment's project. An id not seen yet is held under a guard, which asks for
        the right when the first event comes; the second look closes the gap between looking and holding."""
        subscriber = session.subscriber
        project = self._project_of_deployment(name)
        if project is None:
            if not permissions.may_hold_deployment(session.identity, name):
                raise NotAllowed("The token does not give the right to this deployment.")
            fresh = room not in subscriber.rooms
            self._hub.join(subscriber, room, self._catchup.last)
            self._hub.guard(subscriber, room, partial(self._first_event, session, name))
            try:
                project = self._project_of_deployment(name)
                if project is None:
                    return self._catchup.subscribe(self._hub, subscriber, room, since)
            except Unavailable:
                if fresh:
                    self._hub.leave(subscriber, room)
                raise
            self._hub.unguard(subscriber, room)
        if not permissions.may_watch_deployment(session.identity, name, project):
            self._hub.leave(subscriber, room)
            raise NotAllowed("The token does not give the right to this deployment.")
        return self._catchup.subscribe(self._hub, subscriber, room, since)

    def _first_event(self, session: Session, name: str, event: Event) -> bool:
        project = project_of(event)
        if project is not None and permissions.may_watch_deployment(session.identity, name, project):
            return True
        self._tell_revoked(session, "deployment", name)
        return False

    def _unsubscribe(self, kind: str, session: Session, *args: object) -> Answer:
        name, _ = _arguments(kind, args)
        room = _room(kind, name)
        self._hub.leave(session.subscriber, room)
        self._sessions.emit(
            session, "unsubscription:confirmed", {"type": kind, "id": name, "timestamp": utc_text(time.time())}
        )
        return {"ok": True, "room": room}

    def _heartbeat(self, session: Session, *_args: object) -> Answer:
        timestamp = utc_text(time.time())
        self._sessions.emit(session, "heartbeat:ack", {"timestamp": timestamp})
        return {"ok": True, "timestamp": timestamp}

    def _refresh_token(self, session: Session, *args: object) -> Answer:
        token = args[0] if args else None
        if isinstance(token, dict):
            token = token.get("token")
        if not isinstance(token, str):
            raise NotAllowed("refresh_token needs a token.")
        identity = self._sessions.renewal(session, token)
        held = [room.removeprefix("deployment:") for room in session.subscriber.rooms if room.startswith("deployment:")]
        projects = {name: self._project_of_deployment(name) for name in held}
        self._sessions.renew(session, identity)
        self._recheck(session, projects)
        expires_at = identity.expires_at
        return {"ok": True, "expires_at": None if expires_at is None else utc_text(expires_at)}

    def _recheck(self, session: Session, projects: dict[str, str | None]) -> None:
        """Leave the rooms that the renewed token no longer gives, and say so. It does not switch greenlets, and what
        it needs was read before (`projects`, by deployment), so that a renewal is whole or not at all."""
        for room in list(session.subscriber.rooms):
            kind, _, name = room.partition(":")
            if kind == "project":
                kept = permissions.may_watch_project(session.identity, name)
            elif kind == "deployment":
                project = projects.get(name)
                kept = name in projects and (
                    permissions.may_hold_deployment(session.identity, name)
                    if project is None
                    else permissions.may_watch_deployment(session.identity, name, project)
                )
            elif kind == "room" or kind in NAMELESS:
                kept = permissions.may_watch_room(session.identity, room)
            else:
                kept = True
            if kept and kind == "deployment" and projects[name] is None:
                self._hub.guard(session.subscriber, room, partial(self._first_event, session, name))
            if not kept:
                self._hub.leave(session.subscriber, room)
                self._tell_revoked(session, kind, name or room)

    def _tell_revoked(self, session: Session, kind: str, name: str) -> None:
        body: Answer = {"type": kind, "id": name, "code": "not_allowed"}
        self._sessions.emit(session, "subscription:revoked", body | {"timestamp": utc_text(time.time())})


def _arguments(kind: str, args: tuple[object, ...]) -> tuple[str, object]:
    """(name, options) of a subscribe. Where there is one room only a name is not looked at."""
    if kind in NAMELESS:
        return NAMELESS[kind], next((item for item in args[:2] if isinstance(item, dict)), None)
    return clean_name(args[0] if args else None, f"the {kind}'s name"), args[1] if len(args) > 1 else None


def _since(options: object) -> Offset | None:
    if options is None:
        return None
    if not isinstance(options, dict):
        raise Invalid("The options must be an object such as {since: 42}.")
    if options.get("since") is None:
        return None
    offset = parse_offset(options["since"])
    if offset is None:
        raise Invalid("since must be an offset that an event or answer carried, or a seq.")
    return offset


def _room(kind: str, name: str) -> str:
    spell: dict[str, Callable[[str], str]] = {
        "project": rooms.project,
        "deployment": rooms.deployment,
        "room": rooms.free,
    }
    return spell[kind](name) if kind in spell else NAMELESS[kind]
