"""What routes about a project as a whole answer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import WithJsonSchema
from typing_extensions import TypedDict

from sidecar.wire.answers import At, Done, Time

Day = Annotated[str, WithJsonSchema({"type": "string", "format": "date"})]
"""In UTC, such as `2026-11-21`."""


class StatusCounts(TypedDict):
    """How many deployments there are of each status, as it is shown: what is stale is `unknown`."""

    total: int
    queued: int
    waiting: int
    running: int
    success: int
    failed: int
    cancelled: int
    skipped: int
    timed_out: int
    unknown: int


class DurationFigures(TypedDict):
    """Seconds of the `count` deployments that have ended and say how long they took."""

    count: int
    p50: float | None
    p95: float | None


class StepFigures(TypedDict):
    """Steps of one name; percentiles are of those that have ended and say how long they took."""

    name: str
    count: int
    success_rate: float | None
    p50: float | None
    p95: float | None


class DayFigures(TypedDict):
    """`failed` counts `timed_out` too, `other` what is neither success nor failure (yet)."""

    day: Day
    total: int
    success: int
    failed: int
    other: int
    p50: float | None


class ProjectMetrics(At):
    """Each deployment counts with its latest attempt, on the day when its first report came. `success_rate` is of those
    that ended well or badly, null if none did; percentiles are by nearest rank."""

    project: str
    since: Time
    until: Time
    counts: StatusCounts
    success_rate: float | None
    duration: DurationFigures
    steps: list[StepFigures]
    days: list[DayFigures]


class _Forgotten(Done):
    project: str
    deployments: int
    steps: int
    lines: int
    events: int
    deliveries: int


class ProjectDeleted(_Forgotten):
    """How much this request has forgotten."""

    finished: Literal[True]


class ProjectBeingDeleted(_Forgotten):
    """How much this request has forgotten; the rest is forgotten by itself, and the same request again waits for it."""

    finished: Literal[False]
