"""How the events that a client sends are handled: by whom, and what is answered when it fails."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from flask_socketio import SocketIO

from sidecar.domain.errors import SidecarError
from sidecar.sockets.errors import refused
from sidecar.sockets.sessions import Sessions

log = structlog.get_logger("sidecar.sockets")

Answer = dict[str, object]


class Handlers:
    """Of these namespaces."""

    def __init__(self, socketio: SocketIO, namespaces: tuple[str, ...], sessions: Sessions):
        self._socketio = socketio
        self._namespaces = namespaces
        self._sessions = sessions

    def on(self, name: str, handle: Callable[..., Answer]) -> None:
        """`handle` is given the session and the event's arguments; what it returns or raises (SidecarError) is the
        acknowledgement."""

        def handler(*args: object) -> Answer:
            try:
                return handle(self._sessions.current(), *args)
            except SidecarError as error:
                return refused(error)
            except Exception as error:
                log.error("sockets.handler_failed", name=name, exc_info=error)
                return refused(SidecarError("The request failed; the fault has been logged."))

        for namespace in self._namespaces:
            self._socketio.on_event(name, handler, namespace=namespace)
