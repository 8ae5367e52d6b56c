"""The metrics of authorizations and of Lark. Those named `lark_service_*` are the original's, with its labels, so that
dashboards made for it go on working; the others are ours. Labels are words of ours, and ids of the operator's own
apps."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from sidecar.domain.authorizations import METHODS, REASONS, STATES, Method, State
from sidecar.domain.errors import AuthorizationFailed, ProviderUnavailable

AUTH_SECONDS = (1, 2.5, 5, 10, 15, 30, 60)
CALL_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

Endpoint = Literal["exchange", "refresh", "person", "app_token", "send_card", "update_card"]
"""What the platform is asked for: the calls of `services/providers.py` that go over the network."""
CallOutcome = Literal["ok", "refused", "unavailable", "failed"]
"""`refused`: it answered no; `unavailable`: it didn't answer, or not in time; `failed`: a fault of ours."""
Transport = Literal["http", "websocket"]
CallbackOutcome = Literal[
    "handled",
    "duplicate",
    "refused_signature",
    "refused_stale",
    "refused_replay",
    "unreadable",
    "failed",
    "unhandled",
]
"""What became of a callback or an event (docs/monitoring.md says what each means)."""
ENDPOINTS: tuple[Endpoint, ...] = get_args(Endpoint)
CALL_OUTCOMES: tuple[CallOutcome, ...] = get_args(CallOutcome)
TRANSPORTS: tuple[Transport, ...] = get_args(Transport)
CALLBACK_OUTCOMES: tuple[CallbackOutcome, ...] = get_args(CallbackOutcome)
RECONNECT_OUTCOMES = ("attempt", "success", "failure")
REFRESH_OUTCOMES = ("success", "failure")
CARD_OUTCOMES = ("updated", "failed")
MISSED_HEARTBEATS = 3
LINK_SECONDS = 90_000.0
"""A process of `lark-events` that was not heard for so long (25 h) is taken to be gone for good; the sidecar is told of
those of the last 24 h."""


@dataclass(frozen=True, slots=True)
class _Link:
    """What one process of `lark-events` told last; `until` then it is believed to be connected."""

    heard_at: float
    until: float
    reconnects: Mapping[str, int]


class LarkMetrics:
    """The services say here what happened; nothing is read from the database. `clock` gives unix time."""

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float] = time.time):
        self._registry = registry
        self._clock = clock
        self._born_at = clock()
        self._apps: frozenset[str] = frozenset()
        self._links: dict[str, dict[float, _Link]] = {}

        self.connection_status = self._gauge(
            "lark_service_websocket_connection_status", "1 if the app's long connection is up, else 0.", "app_id"
        )
        self.reconnects = self._counter(
            "lark_service_websocket_reconnect", "Reconnects of the long connection.", "app_id", "outcome"
        )
        self.sessions = self._counter("lark_service_auth_session", "Authorizations begun.", "app_id", "auth_method")
        self.sessions_active = self._gauge("lark_service_auth_session_active", "Authorizations pending.", "app_id")
        self.sessions_expired = self._counter(
            "lark_service_auth_session_expired", "Authorizations that nobody completed in time.", "app_id"
        )
        self.successes = self._counter(
            "lark_service_auth_success", "Authorizations completed.", "app_id", "auth_method"
        )
        self.failures = self._counter(
            "lark_service_auth_failure", "Attempts to authorize that failed.", "app_id", "auth_method", "reason"
        )
        self.durations = Histogram(
            "lark_service_auth_duration_seconds",
            "From the beginning of an authorization to its completion.",
            ("app_id", "auth_method"),
            buckets=AUTH_SECONDS,
            registry=registry,
        )
        self.token_refreshes = self._counter(
            "lark_service_token_refresh", "Users' tokens renewed.", "app_id", "outcome"
        )
        self.tokens_active = self._gauge(
            "lark_service_token_active_count", "Users' tokens that hold or can be renewed.", "app_id"
        )

        self.app_count = self._gauge("sidecar_lark_apps", "Apps that this process serves.")
        self.calls = self._counter("sidecar_lark_requests", "Calls to the platform.", "endpoint", "outcome")
        self.call_seconds = Histogram(
            "sidecar_lark_request_duration_seconds",
            "Time that calls to the platform took.",
            ("endpoint",),
            buckets=CALL_SECONDS,
            registry=registry,
        )
        self.callbacks = self._counter(
            "sidecar_lark_callbacks", "Callbacks and events of the platform.", "transport", "outcome"
        )
        self.card_updates = self._counter("sidecar_lark_card_updates", "Cards changed in place.", "outcome")
        self.handlers_failed = self._counter(
            "sidecar_lark_handlers_failed", "Handlers of callbacks and events that failed.", "handler"
        )
        self.rows = self._gauge("sidecar_authorization_rows", "Authorizations in the database.", "state")
        self.cleanup_at = self._gauge(
            "sidecar_authorization_cleanup_timestamp_seconds", "Last clean-up by this process, unix time; 0: none."
        )
        self.people_synced_at = self._gauge(
            "sidecar_lark_user_info_sync_timestamp_seconds",
            "Last whole sync of users' names by this process, unix time; 0: none.",
        )
        self.token_uses = self._counter("sidecar_authorization_token_uses", "Tokens handed to back ends.")

        # A rate needs to have seen a zero.
        for endpoint in ENDPOINTS:
            self.call_seconds.labels(endpoint)
            for how in CALL_OUTCOMES:
                self.calls.labels(endpoint, how)
        for transport in TRANSPORTS:
            for became in CALLBACK_OUTCOMES:
                self.callbacks.labels(transport, became)
        for outcome in CARD_OUTCOMES:
            self.card_updates.labels(outcome)

    def serve(self, app_ids: Collection[str]) -> None:
        """These are all the apps now; to be told before each look at the figures. Each has its figures from here on,
        those of others are taken out."""
        served = frozenset(app_ids)
        self._review_links()
        for app_id in self._apps - served:
            self._forget(app_id)
        for app_id in served - self._apps:
            self._begin(app_id)
        self._apps = served
        self.app_count.set(len(served))

    def begun(self, app_id: str, method: Method) -> None:
        """An authorization was begun."""
        self.sessions.labels(app_id, method).inc()

    def completed(self, app_id: str, method: Method, seconds: float) -> None:
        """`seconds` after its beginning."""
        self.successes.labels(app_id, method).inc()
        self.durations.labels(app_id, method).observe(seconds)

    def failed(self, app_id: str, method: Method, reason: str) -> None:
        """An attempt failed; `reason` is one of domain.authorizations.REASONS, others count as unknown."""
        self.failures.labels(app_id, method, reason if reason in REASONS else "unknown_error").inc()

    def expired(self, app_id: str, count: int = 1) -> None:
        """So many became expired."""
        self.sessions_expired.labels(app_id).inc(count)

    def refreshed(self, app_id: str, ok: bool) -> None:
        """A user's token was to be renewed."""
        self.token_refreshes.labels(app_id, "success" if ok else "failure").inc()

    def token_used(self) -> None:
        """A token was handed to a back end."""
        self.token_uses.inc()

    def stock(self, rows: Mapping[State, int], active: Mapping[str, int], tokens: Mapping[str, int]) -> None:
        """What the database holds: authorizations by state, and by app those that are pending and the tokens that hold
        or can be renewed. What is missing is none."""
        for state in STATES:
            self.rows.labels(state).set(rows.get(state, 0))
        for app_id in self._apps:
            self.sessions_active.labels(app_id).set(active.get(app_id, 0))
            self.tokens_active.labels(app_id).set(tokens.get(app_id, 0))

    def callback(self, transport: Transport, outcome: CallbackOutcome) -> None:
        """A callback or an event came, and this became of it."""
        self.callbacks.labels(transport, outcome).inc()

    def card_updated(self, ok: bool) -> None:
        """A card that was sent should have been changed in place."""
        self.card_updates.labels("updated" if ok else "failed").inc()

    def handle(self, handlers: Collection[str]) -> None:
        """These handlers there are, by name."""
        for handler in handlers:
            self.handlers_failed.labels(handler)

    def handler_failed(self, handler: str) -> None:
        """`handler` is one that was named to `handle`, never a name from outside."""
        self.handlers_failed.labels(handler).inc()

    def cleaned_up(self) -> None:
        """The clean-up has run, now."""
        self.cleanup_at.set(self._clock())

    def people_synced(self) -> None:
        """The sync of users' names has run to its end, now."""
        self.people_synced_at.set(self._clock())

    @contextmanager
    def call(self, endpoint: Endpoint) -> Iterator[None]:
        """Around a call to the platform: its time, and how it ended by what it raises."""
        begun = time.perf_counter()
        outcome: CallOutcome = "failed"
        try:
            yield
            outcome = "ok"
        except ProviderUnavailable:
            outcome = "unavailable"
            raise
        except AuthorizationFailed:
            outcome = "refused"
            raise
        finally:
            self.calls.labels(endpoint, outcome).inc()
            self.call_seconds.labels(endpoint).observe(time.perf_counter() - begun)

    def link(
        self,
        app_id: str,
        *,
        connected: bool,
        reconnects: Mapping[str, int],
        started_at: float,
        heard_at: float,
        heartbeat_seconds: float,
    ) -> None:
        """What `lark-events` told last, at `heard_at`: is it connected, and its reconnects by outcome since it began
        (both unix time). May be told again. Counted is what has grown since the last time; of a process of
        `lark-events` that is older than this one, what has grown since the first time."""
        links = self._links.setdefault(app_id, {})
        first: Mapping[str, int] = reconnects if started_at < self._born_at else {}
        known = links[started_at].reconnects if started_at in links else first
        for outcome in RECONNECT_OUTCOMES:
            grown = reconnects.get(outcome, 0) - known.get(outcome, 0)
            self.reconnects.labels(app_id, outcome).inc(max(0, grown))
        until = heard_at + MISSED_HEARTBEATS * heartbeat_seconds if connected else heard_at
        links[started_at] = _Link(heard_at, until, dict(reconnects))
        self._show_link(app_id)

    def _show_link(self, app_id: str) -> None:
        """One process that is connected and was heard lately is enough."""
        now = self._clock()
        connected = any(now < link.until for link in self._links[app_id].values())
        self.connection_status.labels(app_id).set(connected)

    def _review_links(self) -> None:
        """What was not heard any more has fallen silent, or is gone."""
        before = self._clock() - LINK_SECONDS
        for app_id, links in list(self._links.items()):
            for started_at in [key for key, link in links.items() if link.heard_at < before]:
                del links[started_at]
            if links:
                self._show_link(app_id)
            else:
                del self._links[app_id]
                self.connection_status.remove(app_id)

    def _begin(self, app_id: str) -> None:
        """Gauges are shown from when they are known: a zero that isn't one would alarm."""
        self.sessions_expired.labels(app_id)
        for outcome in REFRESH_OUTCOMES:
            self.token_refreshes.labels(app_id, outcome)
        for outcome in RECONNECT_OUTCOMES:
            self.reconnects.labels(app_id, outcome)
        for method in METHODS:
            self.sessions.labels(app_id, method)
            self.successes.labels(app_id, method)
            self.durations.labels(app_id, method)
            for reason in REASONS:
                self.failures.labels(app_id, method, reason)

    def _forget(self, app_id: str) -> None:
        self._links.pop(app_id, None)
        for metric in (
            self.connection_status,
            self.reconnects,
            self.sessions,
            self.sessions_active,
            self.sessions_expired,
            self.successes,
            self.failures,
            self.durations,
            self.token_refreshes,
            self.tokens_active,
        ):
            metric.remove_by_labels({"app_id": app_id})

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(name, help, labels, registry=self._registry)

    def _gauge(self, name: str, help: str, *labels: str) -> Gauge:
        return Gauge(name, help, labels, registry=self._registry)
