"""An embedder's own code within the bots' traffic (`SIDECAR_MAIM_HOOKS=module:object`): who may come, whose a key is,
what passes. A hook may be a function or a coroutine; one that fails is logged, counted, and harms nothing."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import gevent
import structlog

from sidecar.domain.errors import BadName
from sidecar.domain.rooms import clean_name
from sidecar.observability.logs import RateLimited
from sidecar.observability.metrics import Metrics
from sidecar.services.embedded_code import Coroutines, imported, placed

log = RateLimited(structlog.get_logger("sidecar.maim"))

HOOK_SECONDS = 10.0
"""For so long a hook is waited for."""

Handler = Callable[[dict[str, Any], dict[str, Any]], Any]
Metadata = dict[str, Any]


class Hooks:
    """`embedded` is the embedder's object; of `on_auth`, `on_auth_extract_user`, `on_message`, `on_connect`,
    `on_disconnect`, `custom_handlers` (a mapping of types) and `use(server)` it has those that it wants. None has no
    hooks."""

    def __init__(self, metrics: Metrics, embedded: object = None):
        self._metrics = metrics
        self._embedded = embedded
        self._coroutines = Coroutines("maim-hooks")
        self._handlers: dict[str, Handler] = {}
        self._turns: dict[str, gevent.Greenlet] = {}
        """By connection, the last call about it that has not come back."""
        for type, handler in (getattr(embedded, "custom_handlers", None) or {}).items():
            self.register_custom_handler(type, handler)

    def start(self, server: object) -> None:
        """Give the embedder the server, to send by and to register handlers with."""
        self._call("use", server)

    def register_custom_handler(self, type: str, handler: Handler) -> None:
        """`handler(envelope, metadata)` is called for each custom message of this type."""
        self._handlers[type if type.startswith("custom_") else f"custom_{type}"] = handler

    @property
    def know_users(self) -> bool:
        """Do they tell who may come and whose a key is? Then keys need not be in our table."""
        return self._has("on_auth") and self._has("on_auth_extract_user")

    def admit(self, metadata: Metadata) -> bool:
        """Does nothing stand against this connection? A hook that fails does."""
        return not self._has("on_auth") or self._call("on_auth", metadata) is True

    def user_of(self, metadata: Metadata) -> str | None:
        """Whose the key is that the metadata name."""
        user = self._call("on_auth_extract_user", metadata) if self.know_users else None
        try:
            return clean_name(user) if isinstance(user, str) else None
        except BadName:
            return None

    def message(self, payload: Mapping[str, Any], metadata: Metadata) -> bool:
        """Shall the sidecar route it? `on_message` keeps it to itself by returning False."""
        return not self._has("on_message") or self._call("on_message", payload, metadata) is not False

    def connected(self, uuid: str, metadata: Metadata) -> None:
        """Does not block."""
        self._in_turn("on_connect", uuid, metadata)

    def disconnected(self, uuid: str, metadata: Metadata) -> None:
        """Does not block."""
        self._in_turn("on_disconnect", uuid, metadata)

    def handles(self, type: str) -> bool:
        return type in self._handlers

    def custom(self, envelope: dict[str, Any], metadata: Metadata) -> None:
        """Call the handler of this custom message."""
        self._guarded("custom_handler", lambda: self._handlers[envelope["type"]](envelope, metadata))

    def _in_turn(self, name: str, uuid: str, metadata: Metadata) -> None:
        """Call it in a greenlet, when what was called before of this connection has come back."""
        if not self._has(name):
            return
        former = self._turns.get(uuid)

        def call() -> None:
            if former is not None:
                former.join()
            self._call(name, uuid, metadata)
            if self._turns.get(uuid) is greenlet:
                del self._turns[uuid]

        greenlet = self._turns[uuid] = gevent.spawn(call)
        greenlet.name = "maim-hook"

    def _has(self, name: str) -> bool:
        return callable(getattr(self._embedded, name, None))

    def _call(self, name: str, *args: Any) -> Any:
        """What the hook returns; None if there is none, or it failed."""
        function = getattr(self._embedded, name, None)
        return self._guarded(name, lambda: function(*args)) if callable(function) else None

    def _guarded(self, name: str, call: Callable[[], Any]) -> Any:
        try:
            with gevent.Timeout(HOOK_SECONDS, TimeoutError(f"it has not come back within {HOOK_SECONDS:g} s")):
                found = call()
                return self._coroutines.result(found) if inspect.isawaitable(found) else found
        except (gevent.GreenletExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # time-outs and cancellations of their own, exits
            self._metrics.maim_hooks_failed.labels(name).inc()
            log.warning("maim.hook_failed", hook=name, problem=placed(error))
            return None


def load_hooks(path: str, metrics: Metrics) -> Hooks:
    """The object that `package.module:object` of the settings names; without one no hooks. Raises Invalid."""
    return Hooks(metrics, imported(path, "SIDECAR_MAIM_HOOKS") if path else None)
