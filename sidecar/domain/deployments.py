"""What a report about a deployment means: status words, times, and the rules by which reports merge into a state.

Delivery is unordered and repeated, so merging is a pure function that gives the same state whatever the order, as
far as the reports' own times allow (docs/protocol.md, 3.3).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal, TypeVar, get_args

from sidecar.domain.errors import FieldError

Status = Literal["queued", "waiting", "running", "success", "failed", "cancelled", "skipped", "timed_out", "unknown"]
STATUSES: tuple[Status, ...] = get_args(Status)
Level = Literal["debug", "info", "warn", "error"]
LEVELS: tuple[Level, ...] = get_args(Level)
"""Of log lines."""
TERMINAL = frozenset({"success", "failed", "cancelled", "skipped", "timed_out"})

_WORDS: dict[str, str] = {
    word: status
    for status, words in {
        "queued": "queued requested pending created waiting_for_resource preparing scheduled enqueued 排队 等待中",
        "waiting": "waiting action_required manual approval blocked 待审批",
        "running": "running in_progress started retrying canceling cancelling terminating executing finalizing"
        " 运行中 进行中 部署中 开始",
        "success": "success successful succeeded completed complete neutral passed ok done ✅ ✔ 🎉 成功 完成 已完成",
        "failed": "failed failure fail error errored startup_failure broken ❌ ✖ 💥 失败 错误",
        "cancelled": "cancelled canceled cancel cancellation stale inactive aborted 取消 已取消",
        "skipped": "skipped skip 跳过 已跳过 ⏭",
        "timed_out": "timed_out timeout timedout 超时",
    }.items()
    for word in words.split()
}
_BLANKS = frozenset({"", "null", "none", "undefined", "nil", "..."})


def blank(value: object) -> bool:
    """Does a sender's script write this where it knows nothing? None, empty, `null`, `...`."""
    return value is None or (isinstance(value, str) and value.strip().lower() in _BLANKS)


def normalise_status(word: str | None) -> str:
    """Our status for a sender's word, whatever product it speaks; `unknown` for one that we don't know."""
    if word is None or blank(word):
        return "unknown"
    text = re.sub(r"[\s-]+", "_", word.strip().lower().replace("\ufe0f", ""))
    if text in _WORDS:
        return _WORDS[text]
    for part in text.split("_"):
        if part in _WORDS and not part.isascii():
            return _WORDS[part]
    bare = re.sub(r"[^\w]+", "", text).strip("_")
    return _WORDS.get(bare, "unknown")


STEP_WORDS = ("started", "running", "completed", "failed", "retrying")
"""A step's status as the guide's front end knows them (docs/protocol.md, 5)."""


def step_word(status: str, reported: str | None) -> str:
    """The one of STEP_WORDS for our status: the sender's own word where it is one of them and means that status."""
    word = (reported or "").strip().lower()
    if word in STEP_WORDS and normalise_status(word) == status:
        return word
    if status in ("success", "skipped"):
        return "completed"
    if status in ("failed", "timed_out", "cancelled"):
        return "failed"
    return "running" if status == "running" else "started"


_NUMBER = re.compile(r"\d{9,16}(\.\d+)?")
_OURS = re.compile(r"(?:19[7-9]|2\d\d)\d-\d\d-\d\dT(?:[01]\d|2[0-3]):\d\d:\d\d\.\d{3}Z", re.ASCII)
"""A time as `parse_time` writes it, if there is such a day and hour."""


def parse_time(value: object) -> str | None:
    """ISO 8601 text in UTC with milliseconds and `Z` for what senders write as a time: RFC 3339 with any offset,
    `2016-08-12 15:23:28 UTC`, naive (taken as UTC), seconds or milliseconds since 1970. None for blanks and for
    years before 1970 (Go's zero time). Raises ValueError for anything else."""
    if isinstance(value, str) and _OURS.fullmatch(value) and _is_date(value):
        return value
    if blank(value):
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or len(value) > 64:
        raise ValueError("is not a time")
    text = value.strip()
    try:
        moment = _from_number(float(text)) if _NUMBER.fullmatch(text) else datetime.fromisoformat(_isolike(text))
    except (ValueError, OverflowError, OSError):
        raise ValueError("is not a time (write it like 2026-11-21T12:00:00Z)") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    if moment.year < 1970:
        return None
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("is not a time") from None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _is_date(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _from_number(number: float) -> datetime:
    return datetime.fromtimestamp(number / 1000 if number >= 1e11 else number, UTC)


def _isolike(text: str) -> str:
    return text.upper().removesuffix(" UTC").removesuffix(" GMT").strip()


def seconds_between(started_at: str | None, completed_at: str | None) -> float | None:
    """None when one of them is missing or they are the wrong way round."""
    if started_at is None or completed_at is None or completed_at < started_at:
        return None
    span = datetime.fromisoformat(completed_at) - datetime.fromisoformat(started_at)
    return round(span.total_seconds(), 3)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a report says of its deployment beside the status; None where it says nothing."""

    workflow_name: str | None = None
    workflow_id: str | None = None
    environment: str | None = None
    ref: str | None = None
    sha: str | None = None
    actor: str | None = None
    title: str | None = None
    url: str | None = None
    queued_at: str | None = None
    started_at: str | None = None
    completed_at: str | None = None
    duration_seconds: float | None = None
    error_message: str | None = None
    logs: str | None = None


@dataclass(frozen=True, slots=True)
class StepReport:
    """What a report says of one step. `key` tells steps of a deployment apart: the sender's id of it, else its name."""

    key: str
    name: str
    status: str
    reported_status: str | None = None
    position: int | None = None
    started_at: str | None = None
    completed_at: str | None = None
    duration_seconds: float | None = None
    logs: str | None = None
    error_message: str | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class LogLine:
    at: str
    level: str
    message: str
    source: str | None = None
    step: str | None = None


@dataclass(frozen=True, slots=True)
class Hints:
    """How to find the deployment of a report that does not name it: `started_at` is the start of its run;
    `newest_open` asks for the project's newest deployment that is not over."""

    started_at: str | None = None
    newest_open: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """One message about a deployment. `project` and `deployment_id` may be empty where the sender left them so;
    `at` is the sender's time (else ours); `status` None states nothing about the deployment as a whole; `payload`
    is what browsers get."""

    type: str
    project: str
    deployment_id: str
    at: str
    payload: dict[str, object]
    attempt: int = 1
    """0 where the message does not say: the latest one is meant."""
    status: str | None = None
    reported_status: str | None = None
    facts: Facts = field(default_factory=Facts)
    steps: tuple[StepReport, ...] = ()
    lines: tuple[LogLine, ...] = ()
    metrics: dict[str, object] | None = None
    hints: Hints = field(default_factory=Hints)
    repaired: bool = False


def missing_identity(report: Report) -> tuple[FieldError, ...]:
    """What a report still lacks to be placed."""
    missing = []
    if not report.project:
        missing.append(FieldError("project", "is required"))
    if not report.deployment_id and report.type != "test":
        missing.append(FieldError("deployment_id", "is required"))
    return tuple(missing)


@dataclass(frozen=True, slots=True)
class Deployment:
    """The state of one attempt. `status_at` is the sender's time of the report that gave the status; `first_at` and
    `last_at` are our times of the first and last report; `duration_seconds` is as reported (see `duration_of`)."""

    deployment_id: str
    attempt: int
    project: str
    source: str | None
    status: str
    reported_status: str | None
    status_at: str
    first_at: str
    last_at: str
    workflow_name: str | None = None
    workflow_id: str | None = None
    environment: str | None = None
    ref: str | None = None
    sha: str | None = None
    actor: str | None = None
    title: str | None = None
    url: str | None = None
    queued_at: str | None = None
    started_at: str | None = None
    completed_at: str | None = None
    duration_seconds: float | None = None
    error_message: str | None = None
    logs: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """The state of one step; times as in Deployment."""

    key: str
    name: str
    position: int
    status: str
    reported_status: str | None
    status_at: str
    first_at: str
    last_at: str
    started_at: str | None = None
    completed_at: str | None = None
    duration_seconds: float | None = None
    logs: str | None = None
    error_message: str | None = None
    url: str | None = None


DEPLOYMENT_FACTS = (
    "workflow_name",
    "workflow_id",
    "environment",
    "ref",
    "sha",
    "actor",
    "title",
    "url",
    "queued_at",
    "error_message",
    "logs",
)
STEP_FACTS = ("logs", "error_message", "url")

S = TypeVar("S", Deployment, Step)


def merge_deployment(state: Deployment | None, report: Report, now: str) -> Deployment:
    """The state after the report. A higher attempt starts afresh; one of a lower attempt changes nothing. A report
    that states no status opens a deployment as running, and changes no status after that."""
    if state is not None and report.attempt < state.attempt:
        return state
    if state is None or report.attempt > state.attempt:
        state = Deployment(
            deployment_id=report.deployment_id,
            attempt=report.attempt,
            project=report.project,
            source=None if state is None else state.source,
            status="unknown" if report.status is not None else "running",
            reported_status=None,
            status_at="",
            first_at=now,
            last_at=now,
        )
    state = replace(state, last_at=now)
    return _merge(state, report.facts, DEPLOYMENT_FACTS, report.status, report.reported_status, report.at)


def merge_step(state: Step | None, report: StepReport, at: str, now: str) -> Step:
    """The step after a report of the sender's time `at`."""
    if state is None:
        state = Step(
            key=report.key,
            name=report.name,
            position=report.position or 0,
            status="unknown",
            reported_status=None,
            status_at="",
            first_at=now,
            last_at=now,
        )
    state = replace(state, last_at=now)
    return _merge(state, report, STEP_FACTS, report.status, report.reported_status, at)


def duration_of(state: Deployment | Step) -> float | None:
    """Seconds that it took: those that its end reported; without them, or with a 0, the span of its times. Found when
    asked, not stored, because an earlier start may still turn up."""
    if state.duration_seconds:
        return state.duration_seconds
    span = seconds_between(state.started_at, state.completed_at) if state.status in TERMINAL else None
    return state.duration_seconds if span is None else span


def _merge(
    state: S, facts: Facts | StepReport, names: tuple[str, ...], status: str | None, word: str | None, at: str
) -> S:
    """Status, times and duration come out the same in whatever order the reports come: the earliest start that
    anybody told, the end and duration that the end itself told."""
    wins = status is not None and _wins(state, status, at)
    fresh = state.status not in TERMINAL and at >= state.status_at
    merged = _fill(state, facts, names, overwrite=wins or fresh)
    starts = [facts.started_at, state.started_at, at if status == "running" else None]
    merged = replace(merged, started_at=min((start for start in starts if start is not None), default=None))
    if status is not None and status in TERMINAL:
        merged = _end(merged, facts, status, at, wins)
    if wins and status is not None:
        merged = replace(merged, status=status, reported_status=word, status_at=at)
    return merged


def _end(state: S, facts: Facts | StepReport, status: str, at: str, wins: bool) -> S:
    """The end and duration as this report of an end tells them; the state still has its status of before."""
    kept = state.completed_at if state.status == status else None
    if wins:
        state = replace(state, completed_at=facts.completed_at or kept or at)
    told = facts.duration_seconds
    if told is not None and (not state.duration_seconds or (wins and told)):
        state = replace(state, duration_seconds=told)
    return state


def _wins(state: Deployment | Step, status: str, at: str) -> bool:
    """May a report of this status and time replace the state's status? An end is replaced only by a later end;
    at the same time an end wins; among the others the later one wins; `unknown` replaces nothing that a sender
    told."""
    if status == "unknown":
        return state.status_at == "" or (state.status == "unknown" and at >= state.status_at)
    if state.status == "unknown":
        return True
    if status in TERMINAL and state.status in TERMINAL:
        return (at, STATUSES.index(status)) > (state.status_at, STATUSES.index(state.status))
    if status in TERMINAL or state.status in TERMINAL:
        return status in TERMINAL
    return (at, STATUSES.index(status)) >= (state.status_at, STATUSES.index(state.status))


def _fill(state: S, facts: Facts | StepReport, names: tuple[str, ...], overwrite: bool) -> S:
    """Take over the facts that are given: all of them, or only those that the state lacks."""
    given = {name: getattr(facts, name) for name in names if getattr(facts, name) is not None}
    return replace(state, **{name: value for name, value in given.items() if overwrite or getattr(state, name) is None})
