"""The metrics of one process, by name, and nothing else; those of Lark are in lark_metrics.py. Labels are bounded: no
label holds a name from outside."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from sidecar.domain.maim import REASONS
from sidecar.observability.lark_metrics import LarkMetrics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
CLOSE_CODES = frozenset({*range(1000, 1004), 1005, 1006, *range(1007, 1015), 4401, 4403})
"""The close codes that have a label of their own (RFC 6455, 7.4.1; docs/protocol.md)."""
UPGRADED = "upgraded"
"""In place of a close code: a long-polling session that goes on as a WebSocket."""
FAILURES = (
    "cut",
    "heartbeat",
    "protocol",
    "unsupported",
    "not_utf8",
    "too_large",
    "bad_packet",
    "cut_off",
    "internal",
    "peer_error",
)
"""How a socket can fail (docs/monitoring.md says what each means)."""
HANDSHAKE_FAILURES = (
    "timeout",
    "ended",
    "plain_http",
    "not_tls",
    "version",
    "client_certificate",
    "refused_by_client",
    "other",
)
"""How a TLS handshake can fail (docs/monitoring.md says what each means)."""
HTTP_PHASES = ("unused", "idle", "head", "body", "response")
"""What an HTTP client can take too long over (docs/monitoring.md says what each means)."""
LATENCY_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """One registry an app, so that several apps of one process (tests) don't share figures."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.requests = Counter(
            "sidecar_http_requests", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self.request_seconds = Histogram(
            "sidecar_http_request_duration_seconds",
            "Time until a request was answered.",
            ("method", "route"),
            buckets=LATENCY_SECONDS,
            registry=self.registry,
        )
        self.deliveries = Counter(
            "sidecar_deliveries", "Webhook deliveries by what became of them.", ("verdict",), registry=self.registry
        )
        self.events = Counter("sidecar_events_published", "Journal events handed to the hub.", registry=self.registry)
        self.handshakes_refused = Counter(
            "sidecar_handshakes_refused", "Socket handshakes refused.", ("reason",), registry=self.registry
        )
        self.sockets_opened = Counter(
            "sidecar_sockets_opened", "Sockets opened, by what they are for.", ("kind",), registry=self.registry
        )
        self.sockets_closed = Counter(
            "sidecar_sockets_closed", "Sockets closed, by close code.", ("kind", "code"), registry=self.registry
        )
        self.sockets_failed = Counter(
            "sidecar_sockets_failed", "Sockets that ended badly.", ("kind", "reason"), registry=self.registry
        )
        self.socket_errors = Counter(
            "sidecar_socket_errors", "Errors answered to open sockets.", ("kind", "code"), registry=self.registry
        )
        self.recovered = self._gauge("sidecar_sessions_recovered", "Sessions that this process has given back.")
        self.connections = self._gauge("sidecar_socket_connections", "Open Engine.IO sessions and plain WebSockets.")
        self.connections_max = self._gauge("sidecar_socket_connections_max", "SIDECAR_MAX_CONNECTIONS.")
        self.subscribers = self._gauge("sidecar_subscribers", "Socket.IO namespaces connected.")
        self.rooms = self._gauge("sidecar_rooms", "Rooms with a subscriber.")
        self.behind = self._gauge("sidecar_subscribers_catching_up", "Subscribers that read from the journal now.")
        self.demoted = Counter(
            "sidecar_subscribers_demoted", "Slow subscribers sent back to the journal.", registry=self.registry
        )
        self.tail_seq = self._gauge("sidecar_journal_tail_seq", "Last event handed to the hub.")
        self.tail_lag = self._gauge("sidecar_journal_tail_lag_events", "Events the tail was behind when it looked.")
        self.tail_events = Counter(
            "sidecar_journal_tail_events",
            "Events that the tail took, by road: own writer, a doorbell, or read from the journal.",
            ("road",),
            registry=self.registry,
        )
        self.volatile_dropped = Counter(
            "sidecar_volatile_dropped", "Volatile news that could not be passed on to others.", registry=self.registry
        )
        self.redis_refused = Counter(
            "sidecar_redis_refused", "Messages over Redis that were not ours, or came again.", registry=self.registry
        )
        self.redis_configured = self._gauge("sidecar_redis_configured", "1 if SIDECAR_REDIS_URL is set, else 0.")
        self.redis_connected = self._gauge(
            "sidecar_redis_connected", "1 if other processes are told and heard over Redis, else 0."
        )
        self.writer_waiting = self._gauge("sidecar_journal_writer_waiting", "Commands waiting for the writer.")

        self.writer_healthy = self._gauge(
            "sidecar_journal_writer_healthy", "1 if the last batch was committed, else 0."
        )
        self.maim_connections = self._gauge("sidecar_maim_connections", "Bots connected.")
        self.maim_auths = Counter(
            "sidecar_maim_auths", "Bots that asked to come in, by result.", ("result",), registry=self.registry
        )
        self.maim_messages = Counter(
            "sidecar_maim_messages", "Frames of bots, by kind.", ("kind",), registry=self.registry
        )
        self.maim_delivered = Counter(
            "sidecar_maim_delivered", "Messages handed to a bot's connection.", registry=self.registry
        )
        self.maim_undelivered = Counter(
            "sidecar_maim_undelivered", "Messages that reached no bot.", ("reason",), registry=self.registry
        )
        self.maim_hooks_failed = Counter(
            "sidecar_maim_hooks_failed", "Hooks of SIDECAR_MAIM_HOOKS that failed.", ("hook",), registry=self.registry
        )
        for reason in REASONS:  # a rate needs to have seen a zero
            self.maim_undelivered.labels(reason)
        self.tls_expiry = self._gauge(
            "sidecar_tls_certificate_expiry_timestamp_seconds", "End of the TLS certificate, unix time; 0 without TLS."
        )
        self.tls_handshakes_failed = Counter(
            "sidecar_tls_handshakes_failed", "TLS handshakes that failed.", ("reason",), registry=self.registry
        )
        for reason in HANDSHAKE_FAILURES:
            self.tls_handshakes_failed.labels(reason)
        self.http_timeouts = Counter(
            "sidecar_http_timeouts",
            "HTTP connections ended because of a slow client.",
            ("phase",),
            registry=self.registry,
        )
        for phase in HTTP_PHASES:
            self.http_timeouts.labels(phase)
        self.lark = LarkMetrics(self.registry)
        self._kinds: set[str] = set()
        self._counted: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """`method` and `route` are of a bounded set: ours, or the word for all others."""
        key = (method, route, status)
        found = self._counted.get(key)
        if found is None:
            found = self.requests.labels(method, route, str(status)), self.request_seconds.labels(method, route)
            self._counted[key] = found
        found[0].inc()
        found[1].observe(seconds)

    def socket_opened(self, kind: str) -> None:
        """`kind` is a word of ours."""
        if kind not in self._kinds:  # a rate needs to have seen a zero
            self._kinds.add(kind)
            for reason in FAILURES:
                self.sockets_failed.labels(kind, reason)
        self.sockets_opened.labels(kind).inc()

    def socket_closed(self, kind: str, code: int | str, failure: str = "") -> None:
        """`failure` is one of FAILURES, empty for an end in order."""
        label = str(code) if code in CLOSE_CODES or code == UPGRADED else "other"
        self.sockets_closed.labels(kind, label).inc()
        if failure:
            self.sockets_failed.labels(kind, failure).inc()

    def socket_error(self, kind: str, code: str) -> None:
        """`code` is one of our errors'."""
        self.socket_errors.labels(kind, code).inc()

    def _gauge(self, name: str, help: str) -> Gauge:
        return Gauge(name, help, registry=self.registry)

    def render(self) -> bytes:
        """The exposition text. Takes milliseconds: call it off the loop."""
        return generate_latest(self.registry)
