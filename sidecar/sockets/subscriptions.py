"""Subscriptions of browsers: projects, deployments, free rooms and the menu, in both spellings, acknowledged."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from sidecar.domain import access, rooms
from sidecar.domain.access import Identity
from sidecar.domain.errors import Invalid, NotAllowed, TooManyRooms, Unavailable
from sidecar.domain.events import parse_offset
from sidecar.domain.rooms import clean_name
from sidecar.domain.times import utc_text
from sidecar.fanout.catchup import CatchUp, Past, Snapshot, Subscription
from sidecar.fanout.hub import Guard, Hub
from sidecar.sockets.handlers import Answer, Handlers
from sidecar.sockets.rights import NAMELESS, Rights
from sidecar.sockets.session import Session
from sidecar.sockets.sessions import Sessions
from sidecar.wire.told import (
    HEARTBEAT,
    HEARTBEAT_ACK,
    OF_KIND,
    REFRESH_TOKEN,
    SNAPSHOT,
    SUBSCRIPTION_CONFIRMED,
    UNSUBSCRIPTION_CONFIRMED,
    subscribe,
    unsubscribe,
)

SnapshotOf = Callable[[str, str, Identity], Snapshot]


class Subscriptions:
    """`project_of_deployment` finds the project that owns a deployment id, None for an id not seen yet;
    `snapshot_of(kind, name, identity)` makes what a subscriber is shown whose past is no longer kept."""

    def __init__(
        self,
        handlers: Handlers,
        sessions: Sessions,
        hub: Hub,
        catchup: CatchUp,
        rights: Rights,
        snapshot_of: SnapshotOf,
        project_of_deployment: Callable[[str], str | None],
        max_rooms: int,
    ):
        self._sessions = sessions
        self._hub = hub
        self._catchup = catchup
        self._rights = rights
        self._snapshot_of = snapshot_of
        self._project_of_deployment = project_of_deployment
        self._max_rooms = max_rooms
        for kind in OF_KIND:
            handlers.on(subscribe(kind), partial(self._subscribe, kind))
            handlers.on(unsubscribe(kind), partial(self._unsubscribe, kind))
        handlers.on(HEARTBEAT, self._heartbeat)
        handlers.on(REFRESH_TOKEN, self._refresh_token)

    def _subscribe(self, kind: str, session: Session, *args: object) -> Answer:
        name, options = _arguments(kind, args)
        past = _past(options)
        room = _room(kind, name)
        subscription = self._admit(kind, session, name, room, past)
        if subscription.truncated:
            self._sessions.emit(session, SNAPSHOT, _snapshot(kind, name, subscription))
        self._sessions.emit(
            session, SUBSCRIPTION_CONFIRMED, {"type": kind, "id": name, "timestamp": utc_text(time.time())}
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

    def join(
        self,
        session: Session,
        room: str,
        past: Past | None = None,
        snapshot: Snapshot | None = None,
        guard: Guard | None = None,
    ) -> Subscription:
        """Put it into a room that it has the right to. Raises TooManyRooms, Unavailable."""
        if room not in session.subscriber.rooms and len(session.subscriber.rooms) >= self._max_rooms:
            raise TooManyRooms(f"One socket may be in {self._max_rooms} rooms.")
        save = None if session.kept is None else partial(self._sessions.save, session)
        try:
            return self._catchup.subscribe(self._hub, session.subscriber, room, past, save, snapshot, guard)
        except Unavailable:  # it may be stored all the same
            self._sessions.store_first(session, self._catchup.last)
            raise

    def leave(self, session: Session, room: str) -> None:
        """Raises Unavailable; then it is still there."""
        if room in session.subscriber.rooms:
            try:
                self._sessions.save(session, without=room)
            except Unavailable:  # it may be stored all the same
                self._sessions.store_first(session, self._catchup.last)
                raise
            self._hub.leave(session.subscriber, room)

    def lose(self, session: Session, room: str) -> None:
        """Leave a room that it was not to be in, and may be stored in."""
        if room in session.subscriber.rooms:
            self._hub.leave(session.subscriber, room)
            self._sessions.store_first(session, self._catchup.last)

    def _admit(self, kind: str, session: Session, name: str, room: str, past: Past | None) -> Subscription:
        identity = session.identity
        if kind == "deployment":
            project = self._project_of_deployment(name)
            if project is None:
                return self._admit_to_unseen(session, name, room, past)
            allowed = access.may_watch_deployment(identity, name, project)
        elif kind == "project":
            allowed = access.may_watch_project(identity, name)
        else:
            allowed = access.may_watch_room(identity, room)
        if not allowed:
            if kind == "deployment":  # held before it was seen, perhaps
                self.lose(session, room)
            raise NotAllowed(f"The token does not give the right to this {kind}.")
        return self._join(kind, session, name, room, past)

    def _admit_to_unseen(self, session: Session, name: str, room: str, past: Past | None) -> Subscription:
        """A deployment id that was not seen yet is held under a guard, which asks for the right when the first event
        comes; the second look closes the gap between looking and holding."""
        subscriber = session.subscriber
        if not access.may_hold_deployment(session.identity, name):
            raise NotAllowed("The token does not give the right to this deployment.")
        fresh = room not in subscriber.rooms
        with self._catchup.paused(subscriber, self._catchup.last):
            subscription = self._join("deployment", session, name, room, past, self._rights.first_event(session, name))
            try:
                project = self._project_of_deployment(name)
            except Unavailable:
                if fresh:
                    self.lose(session, room)
                raise
            if project is not None:
                self._hub.unguard(subscriber, room)
                if not access.may_watch_deployment(session.identity, name, project):
                    self.lose(session, room)
                    raise NotAllowed("The token does not give the right to this deployment.")
            return subscription

    def _join(
        self, kind: str, session: Session, name: str, room: str, past: Past | None, guard: Guard | None = None
    ) -> Subscription:
        return self.join(session, room, past, self._snapshot_of(kind, name, session.identity), guard)

    def _unsubscribe(self, kind: str, session: Session, *args: object) -> Answer:
        name, _ = _arguments(kind, args)
        room = _room(kind, name)
        self.leave(session, room)
        self._sessions.emit(
            session, UNSUBSCRIPTION_CONFIRMED, {"type": kind, "id": name, "timestamp": utc_text(time.time())}
        )
        return {"ok": True, "room": room}

    def _heartbeat(self, session: Session, *_args: object) -> Answer:
        timestamp = utc_text(time.time())
        self._sessions.emit(session, HEARTBEAT_ACK, {"timestamp": timestamp})
        return {"ok": True, "timestamp": timestamp}

    def _refresh_token(self, session: Session, *args: object) -> Answer:
        token = args[0] if args else None
        if isinstance(token, dict):
            token = token.get("token")
        if not isinstance(token, str):
            raise NotAllowed("refresh_token needs a token.")
        identity = self._sessions.renewal(session, token)
        self._sessions.renew(session, identity, self._rights.projects(session.subscriber.rooms))
        expires_at = identity.expires_at
        return {"ok": True, "expires_at": None if expires_at is None else utc_text(expires_at)}


def _arguments(kind: str, args: tuple[object, ...]) -> tuple[str, object]:
    """(name, options) of a subscribe. Where there is one room only a name is not looked at."""
    if kind in NAMELESS:
        return NAMELESS[kind], next((item for item in args[:2] if isinstance(item, dict)), None)
    return clean_name(args[0] if args else None, f"the {kind}'s name"), args[1] if len(args) > 1 else None


def _past(options: object) -> Past | None:
    if options is None:
        return None
    if not isinstance(options, dict):
        raise Invalid("The options must be an object such as {since: 42}.")
    if options.get("since") is None:
        return None
    offset, epoch = parse_offset(options["since"]), options.get("epoch")
    if offset is None:
        raise Invalid("since must be an offset that an event or answer carried, or a seq.")
    if epoch is not None and not isinstance(epoch, str):
        raise Invalid("epoch must be the name that an event or answer carried.")
    return Past(offset, epoch)


def _snapshot(kind: str, name: str, subscription: Subscription) -> Answer:
    at = subscription.snapshot_offset
    return {
        "type": kind,
        "id": name,
        "room": subscription.room,
        "snapshot": subscription.snapshot,
        "seq": None if at is None else at.seq,
        "offset": None if at is None else at.text,
        "epoch": subscription.epoch,
        "timestamp": utc_text(time.time()),
    }


def _room(kind: str, name: str) -> str:
    spell: dict[str, Callable[[str], str]] = {
        "project": rooms.project,
        "deployment": rooms.deployment,
        "room": rooms.free,
    }
    return spell[kind](name) if kind in spell else NAMELESS[kind]
