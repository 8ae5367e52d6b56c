"""The metrics of one process, by name, and nothing else. Labels are bounded: no label holds a name from outside."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
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
        self.recovered = self._gauge("sidecar_sessions_recovered", "Sessions that this process has given back.")
        self.connections = self._gauge("sidecar_socket_connections", "Open Engine.IO connections.")
        self.subscribers = self._gauge("sidecar_subscribers", "Socket.IO namespaces connected.")
        self.rooms = self._gauge("sidecar_rooms", "Rooms with a subscriber.")
        self.behind = self._gauge("sidecar_subscribers_catching_up", "Subscribers that read from the journal now.")
        self.demoted = self._gauge("sidecar_subscribers_demoted_total", "Slow subscribers sent back to the journal.")
        self.tail_seq = self._gauge("sidecar_journal_tail_seq", "Last event handed to the hub.")
        self.tail_lag = self._gauge("sidecar_journal_tail_lag_events", "Events the tail was behind when it looked.")
        self.writer_waiting = self._gauge("sidecar_journal_writer_waiting", "Commands waiting for the writer.")

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

    def _gauge(self, name: str, help: str) -> Gauge:
        return Gauge(name, help, registry=self.registry)

    def render(self) -> bytes:
        """The exposition text. Takes milliseconds: call it off the loop."""
        return generate_latest(self.registry)
