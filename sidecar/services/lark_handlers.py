"""The table of what is done with events of Lark: clicks on our own cards, and an embedder's handlers
(`SIDECAR_LARK_HANDLERS=module:object`), the same for events over HTTP and over the long connection."""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import gevent
import structlog

from sidecar.domain.authorizations import App, Method
from sidecar.domain.errors import Invalid
from sidecar.observability.lark_metrics import LarkMetrics, Transport
from sidecar.observability.logs import RateLimited
from sidecar.services.authorizations import Authorizations
from sidecar.services.embedded_code import Coroutines, imported, placed
from sidecar.services.providers import Provider

log = RateLimited(structlog.get_logger("sidecar.authorizations"))

CARD_CLICK = "card.action.trigger"
HANDLER_SECONDS = 300.0
"""For so long a handler may be at work; what it answers later than the platform waits is for repetitions alone."""
METHODS: Mapping[Transport, Method] = {"http": "http_callback", "websocket": "websocket_card"}

Answer = dict[str, Any]
Handler = Callable[[dict[str, Any], dict[str, Any]], Any]


@dataclass(frozen=True, slots=True)
class Told:
    """Where an event comes from; handlers are given it as a dict."""

    app_id: str
    event_id: str
    event_type: str
    transport: Transport


class HandlerFailed(Exception):
    """It did not do its work; the event is to be handled again."""


class EventHandlers:
    """`embedded` is the embedder's: a mapping of event types to `handler(event, told)`, or an object with such a
    mapping as `handlers`, and `use(sidecar)` if it wants what programs in this process call (services/inprocess.py)."""

    def __init__(
        self, authorizations: Authorizations, provider: Provider, metrics: LarkMetrics, embedded: object = None
    ):
        self._authorizations = authorizations
        self._provider = provider
        self._metrics = metrics
        self._embedded = embedded
        self._coroutines = Coroutines("lark-handlers")
        found = embedded if isinstance(embedded, Mapping) else getattr(embedded, "handlers", {})
        if not isinstance(found, Mapping):
            raise Invalid("SIDECAR_LARK_HANDLERS: its handlers are no mapping of event types to functions.")
        self._handlers: dict[str, Handler] = dict(found)
        unusable = sorted(str(type) for type, handler in self._handlers.items() if not callable(handler))
        if unusable:
            raise Invalid(f"SIDECAR_LARK_HANDLERS: no function for {', '.join(unusable)}.")
        metrics.handle([*self._handlers, "use"] if embedded is not None else [])

    def start(self, sidecar: object) -> None:
        """Give the embedder what it calls us by."""
        use = getattr(self._embedded, "use", None)
        if callable(use) and not isinstance(self._embedded, Mapping):
            with contextlib.suppress(HandlerFailed):
                self._run("use", lambda: use(sidecar))

    def wants(self, type: str) -> bool:
        """Is anything done with events of this type?"""
        return type == CARD_CLICK or type in self._handlers

    def handle(self, app: App, told: Told, event: Mapping[str, Any]) -> Answer:
        """Do what is to be done; the answer. Raises HandlerFailed, and Unavailable for our own part."""
        if told.event_type == CARD_CLICK:
            click = self._provider.click(event)
            if click is not None:
                structlog.contextvars.bind_contextvars(authorization=click.session_id)
                return self._authorizations.clicked(app, click, METHODS[told.transport])
        handler = self._handlers.get(told.event_type)
        if handler is None:
            return {}
        found = self._run(told.event_type, lambda: handler(dict(event), asdict(told)))
        if not isinstance(found, dict):
            return {}
        if not _is_json(found):
            self._metrics.handler_failed(told.event_type)
            log.warning("authorizations.handler_failed", handler=told.event_type, problem="its answer is no JSON")
            raise HandlerFailed
        return found

    def _run(self, name: str, call: Callable[[], Any]) -> Any:
        """Raises HandlerFailed for whatever it raises."""
        try:
            with gevent.Timeout(HANDLER_SECONDS, TimeoutError(f"it has not come back within {HANDLER_SECONDS:g} s")):
                found = call()
                return self._coroutines.result(found) if inspect.isawaitable(found) else found
        except (gevent.GreenletExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # time-outs and cancellations of their own, exits
            self._metrics.handler_failed(name)
            log.warning("authorizations.handler_failed", handler=name, problem=placed(error))
            raise HandlerFailed from None


def _is_json(answer: Answer) -> bool:
    try:
        json.dumps(answer, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def load_handlers(path: str, authorizations: Authorizations, provider: Provider, metrics: LarkMetrics) -> EventHandlers:
    """With the object that `package.module:object` of the settings names. Raises Invalid."""
    embedded = imported(path, "SIDECAR_LARK_HANDLERS") if path else None
    return EventHandlers(authorizations, provider, metrics, embedded)
