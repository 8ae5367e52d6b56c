"""What a client is answered when a handler breaks."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from sidecar.observability.metrics import Metrics
from sidecar.sockets.handlers import Handlers
from sidecar.wire.spoken import Command, Said


class Registry:
    """Stands for the Socket.IO server: keeps what is registered."""

    def __init__(self) -> None:
        self.handlers: dict[tuple[str, str], Callable[..., Any]] = {}

    def on_event(self, name: str, handler: Callable[..., Any], namespace: str) -> None:
        self.handlers[namespace, name] = handler


def test_a_fault_is_logged_with_the_events_name_and_answered(capsys):
    """The line in the log could not be written, which cut the connection off."""
    registry = Registry()
    handlers = Handlers(registry, ("/", "/x"), SimpleNamespace(current=lambda: None), Metrics())

    def broken(session: object) -> dict[str, object]:
        raise RuntimeError("a fault")

    handlers.on(Command("break", "It breaks.", Said), broken)
    answer = registry.handlers["/x", "break"]()
    assert (answer["ok"], answer["code"]) == (False, "error")
    assert "a fault" not in answer["message"]
    out = capsys.readouterr().out
    assert "sockets.handler_failed" in out
    assert "break" in out
