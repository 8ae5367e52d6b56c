"""What bots did since this process began: for the original server's statistics, for Prometheus, and for the log."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import structlog

from sidecar.domain.maim import REASONS
from sidecar.fanout.roster import Bot, Roster
from sidecar.observability.metrics import Metrics

log = structlog.get_logger("sidecar.maim")


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a message. `results`: by uuid, was it handed to the connection's outbox, or to the process that
    holds it? `reason` says why nobody was reached, `queued` that it waits for its receiver."""

    results: dict[str, bool] = field(default_factory=dict)
    reason: str | None = None
    queued: bool = False
    duplicate: bool = False


class Figures:
    """`logs` are the kinds of lines that are written: `connections`, `messages`."""

    def __init__(self, metrics: Metrics, roster: Roster, logs: frozenset[str]):
        self._metrics = metrics
        self._roster = roster
        self._logs = logs
        self._auths: Counter[str] = Counter()
        self._kinds: Counter[str] = Counter()
        self._undelivered: Counter[str] = Counter()
        self._connections = 0
        self._received = 0
        self._received_bytes = 0
        self.active = 0
        """Frames that are being dealt with."""

    def asked(self, result: str) -> None:
        """A bot wants to come in: `admitted`, `refused`, or `failed` if nobody knows."""
        self._auths[result] += 1
        if result != "failed":
            self._metrics.maim_auths.labels(result).inc()

    def came(self, bot: Bot) -> None:
        self._connections += 1
        self._metrics.maim_connections.inc()
        self._tell("maim.connected", bot)

    def went(self, bot: Bot) -> None:
        self._metrics.maim_connections.dec()
        self._tell("maim.disconnected", bot)

    def received(self, size: int) -> None:
        """A frame of so many bytes."""
        self._received += 1
        self._received_bytes += size

    def count(self, kind: str) -> None:
        """What kind of frame it was; `duplicate` is counted beside its own kind."""
        self._kinds[kind] += 1
        self._metrics.maim_messages.labels(kind).inc()

    def account_for(self, sent: Sent, sender: str, type: str) -> Sent:
        """What became of a message, which is given back."""
        delivered = sum(sent.results.values())
        self._metrics.maim_delivered.inc(delivered)
        if sent.reason is not None:
            self._undelivered[sent.reason] += 1
            self._metrics.maim_undelivered.labels(sent.reason).inc()
        if "messages" in self._logs and not sent.duplicate:
            log.info(
                "maim.message",
                sender=sender,
                type=type[:100],
                connections=delivered,
                reason=sent.reason,
                queued=sent.queued,
            )
        return sent

    def stats(self) -> dict[str, object]:
        """By the names of the original server (docs/maim.md)."""
        auths, kinds, roster = self._auths, self._kinds, self._roster
        return {
            "total_auth_requests": auths.total(),
            "successful_auths": auths["admitted"],
            "failed_auths": auths["refused"] + auths["failed"],
            "messages_processed": kinds["standard"],
            "custom_messages_processed": kinds["custom"],
            "current_users": len({(bot.place.tenant, bot.place.user) for bot in roster}),
            "current_connections": len(roster),
            "active_handler_tasks": self.active,
            "duplicate_messages_ignored": kinds["duplicate"],
            "undelivered": {reason: self._undelivered[reason] for reason in REASONS},
            "network": {
                "total_connections": self._connections,
                "current_connections": len(roster),
                "messages_received": self._received,
                "messages_sent": roster.sent,
                "bytes_received": self._received_bytes,
                "bytes_sent": roster.sent_bytes,
            },
        }

    def _tell(self, event: str, bot: Bot) -> None:
        if "connections" in self._logs:
            place = bot.place
            log.info(event, tenant=place.tenant, user=place.user, platform=place.platform, uuid=bot.uuid, line=bot.line)
