"""Which rooms a session may hold: asked when it subscribes, when its token is renewed, and when it comes back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from flask_socketio import SocketIO

from sidecar.domain import access, rooms
from sidecar.domain.access import Identity
from sidecar.domain.events import Event
from sidecar.domain.times import utc_text
from sidecar.fanout.hub import Guard, Hub
from sidecar.sockets.session import Session
from sidecar.wire.told import SUBSCRIPTION_REVOKED

NAMELESS = {"menu": rooms.MENU, "projects": rooms.PROJECTS}
"""Kinds of which there is one room only, so that a subscribe names none."""

Projects = Mapping[str, str | None]
"""The project that owns each deployment id, None for one not seen yet."""


class Rights:
    """`projects_of` finds the projects that own these deployment ids. `on_lost` is told of a session that was in a room
    without the right to it; everything up to the given seq was sent to it if it is live."""

    def __init__(self, socketio: SocketIO, hub: Hub, projects_of: Callable[[list[str]], dict[str, str | None]]):
        self._socketio = socketio
        self._hub = hub
        self._projects_of = projects_of
        self.on_lost: Callable[[Session, int], None] = lambda session, position: None

    def projects(self, held: Iterable[str]) -> Projects:
        """Of the deployments among these rooms: what `recheck` needs to know. Raises Unavailable."""
        names = [room.removeprefix(rooms.DEPLOYMENT) for room in held if room.startswith(rooms.DEPLOYMENT)]
        return self._projects_of(names) if names else {}

    def recheck(self, session: Session, projects: Projects, position: int) -> None:
        """Leave the rooms that its identity does not give (any more), and say so. It does not switch greenlets, so
        that a change of identity is whole or not at all."""
        for room in list(session.subscriber.rooms):
            kind, _, name = room.partition(":")
            if not _allowed(session.identity, kind, name, room, projects):
                self._hub.leave(session.subscriber, room)
                self._tell_revoked(session, kind, name or room)
                self.on_lost(session, position)
            elif kind == "deployment" and projects[name] is None:
                self._hub.guard(session.subscriber, room, self.first_event(session, name))

    def doubt_deployments(self, session: Session) -> None:
        """Ask for the right to each deployment that it watches when the next event of that comes."""
        for room in session.subscriber.rooms:
            if room.startswith(rooms.DEPLOYMENT):
                name = room.removeprefix(rooms.DEPLOYMENT)
                self._hub.guard(session.subscriber, room, self.first_event(session, name))

    def first_event(self, session: Session, name: str) -> Guard:
        """What a deployment id that was not seen yet (or was deleted) is asked with when its first event comes."""

        def check(event: Event) -> bool:
            project = _project_of(event)
            if project is not None and access.may_watch_deployment(session.identity, name, project):
                return True
            self._tell_revoked(session, "deployment", name)
            self.on_lost(session, event.seq - 1)
            return False

        return check

    def _tell_revoked(self, session: Session, kind: str, name: str) -> None:
        body = {"type": kind, "id": name, "code": "not_allowed", "timestamp": utc_text(time.time())}
        self._socketio.emit(SUBSCRIPTION_REVOKED, body, namespace=session.namespace, to=session.sid)


def _allowed(identity: Identity, kind: str, name: str, room: str, projects: Projects) -> bool:
    if kind == "project":
        return access.may_watch_project(identity, name)
    if kind == "deployment":
        if name not in projects:
            return False
        project = projects[name]
        if project is None:
            return access.may_hold_deployment(identity, name)
        return access.may_watch_deployment(identity, name, project)
    if kind == "presence":
        return access.may_watch_presence(identity, name)
    if kind == "room" or kind in NAMELESS:
        return access.may_watch_room(identity, room)
    return True


def _project_of(event: Event) -> str | None:
    """The project whose room the event went to."""
    return next((name.removeprefix(rooms.PROJECT) for name in event.rooms if name.startswith(rooms.PROJECT)), None)
