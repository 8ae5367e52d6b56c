"""What Lark calls us with, over HTTP or the long connection: proved, taken once, answered in time, done in any case.

An event is stored, encrypted, before anything is done with it, and is done when its handler has come back. The
platform waits three seconds: it is answered without a result when a handler takes longer, which goes on behind. Should
the process die meanwhile, or the handler fail, the event is handled again by whoever looks next
(jobs/authorizations.py)."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import gevent
import structlog

from sidecar.domain.access import Identity, may_feed_events
from sidecar.domain.authorizations import App, Callback
from sidecar.domain.errors import (
    Invalid,
    NotAllowed,
    NotFound,
    ReplayedRequest,
    SidecarError,
    StaleRequest,
    Unauthenticated,
    Unavailable,
)
from sidecar.domain.times import unix_seconds, utc_text
from sidecar.observability.lark_metrics import CallbackOutcome, Transport
from sidecar.services.access import require
from sidecar.services.authorization_parts import PartOf, Parts
from sidecar.services.authorizations import WRITE
from sidecar.services.lark_handlers import Answer, EventHandlers, HandlerFailed, Told
from sidecar.services.vault import Unreadable
from sidecar.store.journal import Transaction
from sidecar.store.lark_events import (
    EventRow,
    LinkRow,
    claim_event,
    events_due,
    find_event,
    finish_event,
    insert_event,
    postpone_event,
    save_link,
    seen_before,
)
from sidecar.wire.authorizations import EventBody, LinkBody

log = structlog.get_logger("sidecar.authorizations")

ANSWER_SECONDS = 2.5
"""The platform waits three."""
CLAIM_SECONDS = 330.0
"""So long nobody else handles an event that somebody is at; longer than a handler may take."""
LOOK_SECONDS = 0.05
RETRY_SECONDS = (10.0, 60.0, 600.0)
"""After the first, second, third failure of a handler; then it is given up."""
TRIES = 1 + len(RETRY_SECONDS)
BATCH = 20


class Callbacks(PartOf):
    """`over_http` False takes nothing over HTTP. Every method may raise Unavailable."""

    def __init__(self, parts: Parts, handlers: EventHandlers, over_http: bool):
        super().__init__(parts)
        self._handlers = handlers
        self._over_http = over_http

    def take(self, app_id: str | None, headers: Mapping[str, str], raw: bytes) -> Answer:
        """What a callback over HTTP is answered; without an `app_id` it is for the app whose key proves it. Raises
        NotFound, Unauthenticated (SignatureMismatch, StaleRequest, ReplayedRequest), Unparsable, Invalid."""
        first = self._apps.named(app_id)
        if not self._over_http:
            raise NotFound("Callbacks come over the long connection here (SIDECAR_LARK_FALLBACK_TO_HTTP).")
        apps = [first] if app_id is not None else self._apps.all()
        try:
            app, callback = self._proved(apps, headers, raw)
            if callback.challenge is not None:
                log.info("authorizations.challenged", app=app.id)
                return {"challenge": callback.challenge}
            return self._event(app, callback, "http")
        except SidecarError as error:
            outcome = _outcome(error)
            if outcome is not None:
                self._metrics.callback("http", outcome)
                log.warning("authorizations.callback_refused", code=error.code)
            raise

    def fed(self, identity: Identity, body: EventBody) -> Answer:
        """What an event is answered that came over the long connection. Raises NotFound, Unauthenticated, NotAllowed,
        Invalid."""
        app = self._feeding(identity, body.app)
        try:
            callback = self._provider.event(body.event)
        except Invalid:
            self._metrics.callback("websocket", "unreadable")
            raise
        return self._event(app, callback, "websocket")

    def linked(self, identity: Identity, body: LinkBody) -> None:
        """The state of a long connection. Raises NotFound, Unauthenticated, NotAllowed, Invalid."""
        app = self._feeding(identity, body.app)
        try:
            started_at = utc_text(unix_seconds(body.started_at))
        except (ValueError, OverflowError):
            raise Invalid("started_at must be a time such as 2026-11-21T04:29:00Z.") from None
        row = LinkRow(
            app.id,
            started_at,
            body.connected,
            utc_text(self._clock()),
            body.heartbeat_seconds,
            body.reconnects.attempt,
            body.reconnects.success,
            body.reconnects.failure,
        )
        self._submit(lambda transaction: save_link(transaction.connection, row))

    def _feeding(self, identity: Identity, app_id: str) -> App:
        self._apps.named(None)
        require(identity, WRITE)
        if not may_feed_events(identity):
            raise NotAllowed("Events are fed by back ends: a browser could click on cards as anybody.")
        return self._apps.reached(app_id, identity)

    def redo(self) -> int:
        """Handle what was begun and not done, each in a greenlet; how many they were."""
        rows = self._database.read(lambda connection: events_due(connection, utc_text(self._clock()), BATCH))
        return sum(self._redo(row) for row in rows)

    def _redo(self, row: EventRow) -> bool:
        claimed = self._submit(partial(_reclaim, row))
        if claimed is None:
            return False
        try:
            if claimed.tries > TRIES:  # it has never come back, and may have ended each process that tried
                raise HandlerFailed
            app = self._apps.named(row.app_id)
            event = json.loads(self._vault.open(row.sealed or "", "event", row.app_id, row.event_id))
        except (HandlerFailed, NotFound, Unreadable):
            log.error("authorizations.event_given_up", event_id=row.event_id)
            self._submit(lambda transaction: finish_event(transaction.connection, claimed, {}))
            return True
        gevent.spawn(self._work, app, claimed, event).name = "lark-event"
        return True

    def _proved(self, apps: list[App], headers: Mapping[str, str], raw: bytes) -> tuple[App, Callback]:
        """Raises, if it is none's, what the app made of it whose key has signed it, or else the last one."""
        failures: list[SidecarError] = [Unauthenticated("This callback is for no app here.")]
        for app in apps:
            try:
                return app, self._provider.callback(app, headers, raw, self._clock())
            except SidecarError as error:
                failures.append(error)
        raise next((error for error in failures if isinstance(error, StaleRequest | Invalid)), failures[-1])

    def _event(self, app: App, callback: Callback, transport: Transport) -> Answer:
        """(Measured from here: what came before took no time that counts.)"""
        deadline = time.monotonic() + ANSWER_SECONDS
        now = utc_text(self._clock())
        wanted = self._handlers.wants(callback.type)
        sealed = self._vault.seal(json.dumps(dict(callback.event)), "event", app.id, callback.event_id)
        row = EventRow(app.id, callback.event_id, callback.type, transport, now, sealed, None, None, 1)
        with structlog.contextvars.bound_contextvars(event_id=callback.event_id):
            if not wanted:
                if callback.nonce is not None:
                    self._submit(partial(_check_nonce, f"{app.id} {callback.nonce}"))
                self._metrics.callback(transport, "unhandled")
                log.info("authorizations.event_unhandled", app=app.id, type=callback.type)
                return {}
            nonce = None if callback.nonce is None else f"{app.id} {callback.nonce}"
            known = self._submit(partial(_take, row, nonce))
            if known is not None:
                self._metrics.callback(transport, "duplicate")
                return self._answered(known, deadline)
            working = gevent.spawn(self._work, app, row, callback.event)
            working.name = "lark-event"
            working.join(max(0.0, deadline - time.monotonic()))
            if not isinstance(working.value, dict):  # not done yet, failed, or ended by its own hand
                log.info("authorizations.event_goes_on", app=app.id, type=callback.type)
                return {}
            return working.value

    def _work(self, app: App, row: EventRow, event: Mapping[str, Any]) -> Answer | None:
        """Handle it and keep the answer; None if it failed, and is to be tried again."""
        transport: Transport = "websocket" if row.transport == "websocket" else "http"
        told = Told(app.id, row.event_id, row.type, transport)
        with structlog.contextvars.bound_contextvars(event_id=row.event_id):
            try:
                answer = self._handlers.handle(app, told, event)
                self._submit(lambda transaction: finish_event(transaction.connection, row, answer))
            except (HandlerFailed, SidecarError) as error:
                self._metrics.callback(transport, "failed")
                self._postpone(row, error)
                return None
            self._metrics.callback(transport, "handled")
            log.info("authorizations.event_handled", app=app.id, type=row.type, transport=transport)
            return answer

    def _postpone(self, row: EventRow, error: Exception) -> None:
        """(If the store doesn't take it, the claim ends by itself.)"""
        given_up = row.tries >= TRIES
        log.warning("authorizations.event_failed", problem=type(error).__name__, tries=row.tries, given_up=given_up)
        with contextlib.suppress(Unavailable):
            if given_up:
                self._submit(lambda transaction: finish_event(transaction.connection, row, {}))
            else:
                until = utc_text(self._clock() + RETRY_SECONDS[row.tries - 1])
                self._submit(lambda transaction: postpone_event(transaction.connection, row, until))

    def _answered(self, row: EventRow, deadline: float) -> Answer:
        """The answer of an event that came before; {} if it has none in time."""
        look = partial(find_event, app_id=row.app_id, event_id=row.event_id)
        while row.answer is None and time.monotonic() < deadline:
            gevent.sleep(LOOK_SECONDS)
            row = self._database.read(look) or row
        found: Answer = json.loads(row.answer) if row.answer is not None else {}
        return found


def _outcome(error: SidecarError) -> CallbackOutcome | None:
    if isinstance(error, ReplayedRequest):
        return "refused_replay"
    if isinstance(error, StaleRequest):
        return "refused_stale"
    if isinstance(error, Unauthenticated):
        return "refused_signature"
    return "unreadable" if isinstance(error, Invalid) else None


def _check_nonce(nonce: str, transaction: Transaction) -> None:
    if seen_before(transaction, nonce):
        raise ReplayedRequest("This request has come before.")


def _take(row: EventRow, nonce: str | None, transaction: Transaction) -> EventRow | None:
    """The row of the event if it is known; otherwise it is from now on, and ours to handle. Raises ReplayedRequest."""
    if nonce is not None:
        _check_nonce(nonce, transaction)
    known = find_event(transaction.connection, row.app_id, row.event_id)
    if known is None:
        insert_event(transaction.connection, row)
        until = utc_text(unix_seconds(transaction.now) + CLAIM_SECONDS)
        postpone_event(transaction.connection, row, until)
    return known


def _reclaim(row: EventRow, transaction: Transaction) -> EventRow | None:
    """It is ours to handle now; None if somebody else is at it, or it is done."""
    now = find_event(transaction.connection, row.app_id, row.event_id)
    if now is None or now.claimed_until is None or now.claimed_until > transaction.now:
        return None
    claim_event(transaction.connection, now, utc_text(unix_seconds(transaction.now) + CLAIM_SECONDS))
    return EventRow(
        now.app_id, now.event_id, now.type, now.transport, now.received_at, now.sealed, None, None, now.tries + 1
    )
