"""Structured logs on standard output: one line an event, with the request's id, secrets masked."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from sidecar.domain.redaction import redact_tree

QUIET_LIBRARIES = ("engineio", "engineio.server", "socketio", "socketio.server", "geventwebsocket", "alembic")
DESCRIBED_CHARACTERS = 300


def configure_logs(level: str, format: str) -> None:
    """Once a process, before the first line. `level` and `format` are those of the settings."""
    renderer = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if format == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stdout.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    steps: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*steps, mask, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=False,
    )
    for name in QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def debugging() -> bool:
    """Are debug lines written? Not before `configure_logs`. For what would cost something even unwritten."""
    return structlog.is_configured() and bool(structlog.get_logger().bind().is_enabled_for(logging.DEBUG))


def mask(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """structlog processor: token shapes in any text become `[redacted]`, tracebacks and nested values included."""
    for key, value in event.items():
        event[key] = redact_tree(value)
    return event


def described(error: BaseException) -> str:
    """An error for one line of a log: its class and the beginning of what it says."""
    return f"{type(error).__name__}: {error}"[:DESCRIBED_CHARACTERS]


class RateLimited:
    """Lets one line a kind through each `seconds`, and says how many were kept back: a flood of bad input must
    not become a flood of log lines."""

    def __init__(
        self, logger: FilteringBoundLogger, seconds: float = 10.0, clock: Callable[[], float] = time.monotonic
    ):
        self._logger = logger
        self._seconds = seconds
        self._clock = clock
        self._next: dict[str, float] = {}
        self._kept: dict[str, int] = {}

    def warning(self, kind: str, **values: object) -> None:
        now = self._clock()
        if now < self._next.get(kind, 0.0):
            self._kept[kind] = self._kept.get(kind, 0) + 1
            return
        self._next[kind] = now + self._seconds
        self._logger.warning(kind, **values, kept_back=self._kept.pop(kind, 0))
