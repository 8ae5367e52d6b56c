"""How the events that a client sends are handled: by whom, and what is answered when it fails."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from flask_socketio import SocketIO

from sidecar.domain.errors import SidecarError
from sidecar.fanout.transports import EngineSocket
from sidecar.observability.metrics import Metrics
from sidecar.sockets.errors import REFUSALS, refused
from sidecar.sockets.sessions import Sessions
from sidecar.wire.spoken import Command

log = structlog.get_logger("sidecar.sockets")

Answer = dict[str, object]


class Handlers:
    """Of these namespaces; `commands` are those that are handled."""

    def __init__(self, socketio: SocketIO, namespaces: tuple[str, ...], sessions: Sessions, metrics: Metrics):
        self.commands: list[Command] = []
        self._metrics = metrics
        self._socketio = socketio
        self._namespaces = namespaces
        self._sessions = sessions

    def on(self, command: Command, handle: Callable[..., Answer]) -> None:
        """`handle` is given the session and the event's arguments; what it returns or raises (SidecarError) is the
        acknowledgement."""
        self.commands.append(command)

        def handler(*args: object) -> Answer:
            try:
                return handle(self._sessions.current(), *args)
            except SidecarError as error:
                return self._refused(error)
            except Exception as error:
                log.error("sockets.handler_failed", name=command.name, exc_info=error)
                return self._refused(SidecarError("The request failed; the fault has been logged."))

        for namespace in self._namespaces:
            for name in command.names:
                self._socketio.on_event(name, handler, namespace=namespace)

    def _refused(self, error: SidecarError) -> Answer:
        self._metrics.socket_error(EngineSocket.kind, REFUSALS[type(error)].code)
        return refused(error)
