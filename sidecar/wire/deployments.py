"""Deployment webhooks as senders write them, read into one Report: typed messages and the untyped older shapes.

Tolerant where real senders are sloppy, strict in naming every field that can't be used.
It decides nothing about rights and knows nothing that is stored.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from sidecar.domain.deployments import (
    TERMINAL,
    Facts,
    Hints,
    LogLine,
    Report,
    StepReport,
    blank,
    missing_identity,
    normalise_status,
)
from sidecar.domain.errors import FieldError, Invalid
from sidecar.domain.redaction import redact_tree
from sidecar.domain.times import unix_seconds, utc_text
from sidecar.wire.fields import ALIASES, MAX_WORD_CHARACTERS, DeploymentMessage, Line, problems
from sidecar.wire.news import (
    DEPLOYMENT_COMPLETED,
    DEPLOYMENT_STARTED,
    REPORTS,
    STEP_COMPLETED,
    STEP_MANUAL,
    STEP_STARTED,
)

STEP_TYPES = frozenset({STEP_STARTED, STEP_COMPLETED, STEP_MANUAL})
DEPLOYMENT_TYPES = frozenset({DEPLOYMENT_STARTED, DEPLOYMENT_COMPLETED})
TYPES = tuple(REPORTS)
OURS = frozenset({"reported_status", "lines_not_kept"})
"""Fields of what browsers get that no sender can choose."""
CLOCK_SKEW_SECONDS = 300
MAX_LINES = 5_000
MAX_DETAILS = 200
MAX_METRICS = 200
MAX_MESSAGE_CHARACTERS = 65_536

_STREAM = re.compile(r"deployment_(.{1,180})_\d{6,12}")
_LEVELS = {
    "debug": "debug",
    "trace": "debug",
    "verbose": "debug",
    "warn": "warn",
    "warning": "warn",
    "error": "error",
    "err": "error",
    "fatal": "error",
    "critical": "error",
    "alert": "error",
    "emergency": "error",
}


def read_report(body: dict[str, Any], path_kind: str, now: str, repaired: bool = False) -> Report:
    """The report in a body. `path_kind` is `step` for bodies posted to /api/webhook/step, else `deployment`; `now`
    stands in for a missing time. Raises Invalid naming every bad and every missing field."""
    known = _renamed(body)
    try:
        message = DeploymentMessage.model_validate(known)
    except ValidationError as error:
        raise Invalid("The message has fields that can't be used.", problems(error)) from None
    return _Reader(known, message, path_kind, now, repaired).report()


def _renamed(body: dict[str, Any]) -> dict[str, Any]:
    """The body under snake_case names; a name given in both spellings counts in the first."""
    found = {name: value for name, value in body.items() if name not in ALIASES}
    for old, new in ALIASES.items():
        if old in body and blank(found.get(new)):
            found[new] = body[old]
    return found


class _Reader:
    """One message on its way to a Report; collects what is missing."""

    def __init__(self, body: dict[str, Any], message: DeploymentMessage, path_kind: str, now: str, repaired: bool):
        self.body = body
        self.message = message
        self.path_kind = path_kind
        self.repaired = repaired
        self.missing: list[FieldError] = []
        self.at = _not_after(message.timestamp, now) or now
        self.now = now

    def report(self) -> Report:
        message = self.message
        type = message.type or ""
        if type in STEP_TYPES:
            report = self._step(type)
        elif type in DEPLOYMENT_TYPES:
            report = self._deployment(type)
        elif type == "log_entry":
            report = self._log_entry()
        elif type == "log_batch":
            report = self._log_batch()
        elif type == "metrics_update":
            report = self._metrics()
        elif type == "test":
            report = self._base(type)
        elif message.step_name and (self.path_kind == "step" or not type):
            report = self._step("")
        else:
            report = self._untyped(type)
        unplaced = () if report.hints.newest_open or report.hints.started_at else missing_identity(report)
        if report.type == "log_entry" and report.deployment_id:
            unplaced = ()  # the project may be known here
        if self.missing:
            raise Invalid("The message lacks fields.", (*self.missing, *unplaced))
        return report

    def _require(self, name: str, value: object, hint: str = "is required") -> None:
        if value is None or value == "":
            self.missing.append(FieldError(name, hint))

    def _base(self, type: str, **parts: Any) -> Report:
        """A report of this type with all that every message may carry."""
        message = self.message
        deployment_id = message.deployment_id or message.run_id or _of_stream(message.log_stream_id) or ""
        project = message.project or ""
        payload = self._payload() | {"project": project, "deployment_id": deployment_id}
        if type == "test":
            payload.pop("deployment_id")
        shown: dict[str, object] = parts.pop("payload", {})
        payload |= {name: value for name, value in shown.items() if value is not None or name in payload}
        return Report(
            type=type,
            project=project,
            deployment_id=deployment_id,
            at=self.at,
            attempt=message.attempt or 0,
            payload=payload,
            repaired=self.repaired,
            **parts,
        )

    def _payload(self) -> dict[str, object]:
        """What browsers get: the accepted fields as they came, blanks as null, secrets cut out."""
        cleaned = self.message.model_dump(exclude_unset=True, exclude={"type", "attempt", "logs", "step_details"})
        extra = {
            name: value for name, value in self.body.items() if name not in OURS | DeploymentMessage.model_fields.keys()
        }
        payload = {**extra, **cleaned}
        if isinstance(self.message.logs, str):
            payload["logs"] = self.message.logs
        if self.message.attempt:
            payload["attempt"] = self.message.attempt
        if self.message.step_details:
            payload["step_details"] = self.message.step_details
        if isinstance(self.body.get("timestamp"), str) and self.message.timestamp:
            payload["timestamp"] = self.body["timestamp"]
        else:
            payload["timestamp"] = self.at
        return {name: redact_tree(value) for name, value in payload.items()}

    def _facts(self, **more: Any) -> Facts:
        message = self.message
        facts: dict[str, Any] = {
            "workflow_name": message.workflow_name,
            "workflow_id": message.workflow_id,
            "environment": message.environment,
            "ref": message.ref or message.branch,
            "sha": message.sha or message.commit_hash,
            "actor": message.actor or message.triggered_by,
            "url": message.url or message.workflow_url or message.test_url,
        }
        return Facts(**(facts | more))

    def _step(self, type: str) -> Report:
        """A step. Without a type (the /step path) the state stands under `status` and the name of the type follows."""
        message = self.message
        self._require("step_name", message.step_name)
        word = message.step_status or message.status
        status = "running" if word is None and type == "step_started" else normalise_status(word)
        if not type:
            self._require("status", word)
            type = "step_completed" if status in TERMINAL else "step_started"
        logs = message.step_logs or (message.logs if isinstance(message.logs, str) else None)
        duration = message.duration if message.duration is not None else message.step_duration
        step = StepReport(
            key=message.step_id or message.step_name or "",
            name=message.step_name or "",
            status=status,
            reported_status=word,
            started_at=message.started_at,
            completed_at=message.completed_at,
            duration_seconds=duration,
            logs=_cut(logs),
            error_message=_cut(message.error_message),
            url=message.url,
        )
        shown = {"status": status, "step_status": word, "duration": duration, "logs": _cut(logs)}
        report = self._base(type, steps=(step,), facts=self._facts(), payload=shown)
        return report if self.message.type else self._identified(report, newest_open=True)

    def _deployment(self, type: str) -> Report:
        message = self.message
        word = message.status or message.step_status
        status = "running" if type == "deployment_started" and word is None else normalise_status(word)
        if type == "deployment_completed" and not self.body.keys() & {"status", "step_status"}:
            self._require("status", None)
        facts = self._facts(
            started_at=message.started_at,
            completed_at=message.completed_at,
            duration_seconds=message.duration,
            error_message=_cut(message.error_message),
            logs=_cut(message.logs if isinstance(message.logs, str) else None),
        )
        return self._base(type, status=status, reported_status=word, facts=facts, payload=_stated(status, word))

    def _log_entry(self) -> Report:
        message = self.message
        text = message.message
        if text is None:
            self._require("message", None)
        elif self.repaired:
            text = text.removesuffix("\n")  # the sender's `jq -s` took the line's end for a part of the line
        line = LogLine(
            at=message.timestamp or self.now,
            level=_level(message.level),
            message=_cut(text) or "",
            source=message.source,
            step=message.step or message.step_name,
        )
        shown = {"level": line.level, "message": line.message}
        return self._base("log_entry", lines=(line,), facts=self._facts(), payload=shown)

    def _log_batch(self) -> Report:
        logs = self.message.logs
        if not isinstance(logs, list):
            self._require("logs", None, "must be a list of lines")
            logs = []
        if len(logs) > MAX_LINES:
            raise Invalid("The message has fields that can't be used.", (FieldError("logs", f"more than {MAX_LINES}"),))
        lines = tuple(self._line(line) for line in logs)
        shown: list[dict[str, object]] = []
        for line, parsed in zip(logs, lines, strict=True):
            item = {name: redact_tree(value) for name, value in line.model_extra.items()} if line.model_extra else {}
            item["level"], item["message"], item["timestamp"] = parsed.level, parsed.message, parsed.at
            if parsed.step:
                item["step"] = parsed.step
            shown.append(item)
        return self._base("log_batch", lines=lines, facts=self._facts(), payload={"logs": shown})

    def _line(self, line: Line) -> LogLine:
        return LogLine(
            at=line.timestamp or self.at,
            level=_level(line.level),
            message=_cut(line.message) or "",
            source=line.source or self.message.source,
            step=line.step or self.message.step or self.message.step_name,
        )

    def _metrics(self) -> Report:
        metrics = self.message.metrics
        self._require("metrics", metrics, "must be an object")
        if metrics is not None and len(metrics) > MAX_METRICS:
            raise Invalid(
                "The message has fields that can't be used.", (FieldError("metrics", f"more than {MAX_METRICS}"),)
            )
        started_at = self.message.metrics_start()
        cleaned = None if metrics is None else {name: redact_tree(value) for name, value in metrics.items()}
        report = self._base("metrics_update", facts=self._facts(), payload={"metrics": cleaned})
        hints = Hints(started_at=None if report.deployment_id else started_at)
        return replace(report, metrics=cleaned, hints=hints)

    def _untyped(self, type: str) -> Report:
        """The older shapes: a whole deployment in one message, with or without the results of its steps."""
        message = self.message
        word = message.status
        if word is None and message.deploy_success is not None:
            word = "success" if message.deploy_success else "failed"
        if type and (word is None or not message.project):
            raise Invalid(
                "The type is not known.", (FieldError("type", f"must be one of {' '.join(TYPES)}, or absent"),)
            )
        self._require("status", word)
        status = normalise_status(word)
        duration = message.duration if message.duration is not None else message.deploy_duration
        facts = self._facts(
            started_at=message.started_at,
            completed_at=message.completed_at,
            duration_seconds=duration,
            error_message=_cut(message.error_message or message.error),
            logs=_cut(message.logs if isinstance(message.logs, str) else None),
            title=None if message.message is None else message.message[:MAX_WORD_CHARACTERS],
        )
        details = message.step_details or {}
        if len(details) > MAX_DETAILS:
            raise Invalid(
                "The message has fields that can't be used.", (FieldError("step_details", f"more than {MAX_DETAILS}"),)
            )
        steps = tuple(
            StepReport(key=name, name=name, position=index, status=normalise_status(result), reported_status=result)
            for index, (name, result) in enumerate(details.items(), 1)
        )
        report = self._base(
            "deployment_completed" if status in TERMINAL else "deployment_started",
            status=status,
            reported_status=word,
            facts=facts,
            steps=steps,
            payload=_stated(status, word) | {"duration": duration},
        )
        return self._identified(report, newest_open=bool(details))

    def _identified(self, report: Report, newest_open: bool) -> Report:
        """An older shape without a run's id: its project's newest open deployment where the sender reports in
        several messages, else an id of its own made from what it says, so that a repetition is the same one."""
        if report.deployment_id or not report.project:
            return report
        text = "\n".join((report.project, str(self.message.timestamp or self.now), report.reported_status or ""))
        made = "auto-" + hashlib.sha256(text.encode()).hexdigest()[:16]
        payload = report.payload | {"deployment_id": made}
        return replace(report, deployment_id=made, payload=payload, hints=Hints(newest_open=newest_open))


def _stated(status: str, word: str | None) -> dict[str, object]:
    """Our status, and the sender's own word where it is another."""
    return {"status": status} if word in (None, status) else {"status": status, "reported_status": word}


def _of_stream(stream: str | None) -> str | None:
    match = _STREAM.fullmatch(stream or "")
    return match[1] if match else None


def _not_after(at: str | None, now: str) -> str | None:
    """A sender's clock that runs ahead must not make its report win for ever."""
    if at is None or at <= utc_text(unix_seconds(now) + CLOCK_SKEW_SECONDS):
        return at
    return now


def _level(word: str | None) -> str:
    return _LEVELS.get((word or "").strip().lower(), "info")


def _cut(text: str | None) -> str | None:
    """A text of bounded length; what is cut is said. (Secrets are cut out when a message is read, so that none is
    halved here.)"""
    if text is None or len(text) <= MAX_MESSAGE_CHARACTERS:
        return text
    return f"{text[:MAX_MESSAGE_CHARACTERS]} … [cut {len(text) - MAX_MESSAGE_CHARACTERS} characters]"
