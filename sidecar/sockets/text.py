"""What WebSockets without Socket.IO have in common: they carry text, and are asked for a sign of life."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from sidecar.fanout.websocket import UNSUPPORTED, Connection


class TextSocket(ABC):
    """The peer of a connection, and a member of the network's clock. After `ping_seconds` without a sign of life one is
    asked for; without one for as long again the other side is gone."""

    ping_seconds: ClassVar[float] = 25.0
    __slots__ = ("_awaiting", "connection")

    def __init__(self, connection: Connection):
        self.connection = connection
        self._awaiting = False

    @property
    @abstractmethod
    def alive(self) -> bool:
        """Has it not ended?"""

    def intercept(self, message: str | bytes) -> bool:
        if isinstance(message, bytes):
            self.connection.close(UNSUPPORTED, "text only")
            return True
        return False

    def due(self) -> float | None:
        """The clock."""
        if not self.alive:
            return None
        if self.connection.heard or self.connection.paused:
            self.connection.heard = self._awaiting = False
        elif self._awaiting:
            self.connection.abort("heartbeat")
            return None
        else:
            self._awaiting = True
            self.connection.ping()
        return self.ping_seconds
