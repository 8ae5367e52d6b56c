"""The fields that deployment messages may carry, read tolerantly: numbers and nulls as text, ids as numbers. What each
takes is said in its `json_schema_input_type`, for the document of the API."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from sidecar.domain.deployments import blank, parse_time
from sidecar.domain.errors import FieldError, SidecarError
from sidecar.domain.redaction import redact
from sidecar.domain.rooms import NAME_MAX_CHARACTERS, clean_name

MAX_SECONDS = 10 * 365 * 86_400
MAX_WORD_CHARACTERS = 1_000
MAX_ATTEMPT = 1_000_000

ALIASES = {
    "projectId": "project",
    "deploymentId": "deployment_id",
    "runId": "run_id",
    "run_attempt": "attempt",
    "stepName": "step_name",
    "stepStatus": "step_status",
    "stepId": "step_id",
    "workflowName": "workflow_name",
    "workflowId": "workflow_id",
    "startedAt": "started_at",
    "completedAt": "completed_at",
    "logStreamId": "log_stream_id",
    "sourceRepo": "source_repo",
    "deployType": "deploy_type",
    "serverHost": "server_host",
    "errorMessage": "error_message",
}
"""camelCase names of older senders (and GitHub's name of an attempt), with ours."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _text(value: Any) -> str | None:
    """A text of any length that the body may have."""
    if isinstance(value, (bool, dict, list)):
        raise ValueError("must be text")
    return None if blank(value) else redact(str(value))


def _word(value: Any) -> str | None:
    """A short text; the end of a longer one is cut."""
    text = _text(value)
    return text if text is None or len(text) <= MAX_WORD_CHARACTERS else text[:MAX_WORD_CHARACTERS] + "…"


def _verbatim(value: Any) -> str | None:
    """A log line: any text counts, also an empty one and the word null."""
    if value is None:
        return None
    if isinstance(value, (dict, list)):
        raise ValueError("must be text")
    return redact(str(value))


def _label(value: Any) -> str | None:
    """A step's name, as people write it. It names no room: joined emoji are fine, control characters become spaces,
    and the end of a long one is cut."""
    text = _text(value)
    return None if text is None else _CONTROL.sub(" ", text).strip()[:NAME_MAX_CHARACTERS] or None


def _name(value: Any) -> str | None:
    if blank(value):
        return None
    try:
        return clean_name(value, "it")
    except SidecarError as error:
        raise ValueError(error.detail) from None


def _seconds(value: Any) -> float | int | None:
    """A number of seconds. One that no deployment can take (below 0: a job cancelled before it began; an epoch: a
    script that lost its start time) says nothing."""
    if blank(value):
        return None
    number = _number(value)
    if number is None:
        raise ValueError("must be a number of seconds")
    if not 0 <= number <= MAX_SECONDS:
        return None
    return int(number) if number.is_integer() else number


def _attempt(value: Any) -> int | None:
    if blank(value):
        return None
    number = _number(value)
    if number is None or not number.is_integer() or not 1 <= number <= MAX_ATTEMPT:
        raise ValueError(f"must be a whole number from 1 to {MAX_ATTEMPT}")
    return int(number)


def _number(value: Any) -> float | None:
    """A finite number, also one written as text; None for anything else."""
    if isinstance(value, (bool, dict, list)):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _flag(value: Any) -> bool | None:
    if blank(value):
        return None
    text = str(value).strip().lower()
    if text in ("true", "1", "yes"):
        return True
    if text in ("false", "0", "no"):
        return False
    raise ValueError("must be true or false")


def _object(value: Any) -> dict[str, Any] | None:
    if blank(value):
        return None
    if not isinstance(value, dict):
        raise ValueError("must be an object")
    return value


def _results(value: Any) -> dict[str, str | None] | None:
    found = _object(value)
    if found is None:
        return None
    return {label: _word(result) for name, result in found.items() if (label := _label(name)) is not None}


def _logs(value: Any) -> Any:
    """The lines of a batch, or the one text of a step."""
    if isinstance(value, list):
        return [{"message": item} if isinstance(item, (str, int, float)) else item for item in value]
    return _text(value)


Scalar = str | float | None
Text = Annotated[str | None, BeforeValidator(_text, json_schema_input_type=Scalar)]
Word = Annotated[str | None, BeforeValidator(_word, json_schema_input_type=Scalar)]
Label = Annotated[str | None, BeforeValidator(_label, json_schema_input_type=Scalar)]
Name = Annotated[str | None, BeforeValidator(_name, json_schema_input_type=str | int | None)]
Time = Annotated[str | None, BeforeValidator(parse_time, json_schema_input_type=Scalar)]
Seconds = Annotated[int | float | None, BeforeValidator(_seconds, json_schema_input_type=Scalar)]
Attempt = Annotated[int | None, BeforeValidator(_attempt, json_schema_input_type=Scalar)]
Verbatim = Annotated[str | None, BeforeValidator(_verbatim, json_schema_input_type=Scalar | bool)]
Results = Annotated[
    dict[str, str | None] | None, BeforeValidator(_results, json_schema_input_type=dict[str, Scalar] | None)
]
Figures = Annotated[dict[str, Any] | None, BeforeValidator(_object, json_schema_input_type=dict[str, Any] | None)]
Flag = Annotated[bool | None, BeforeValidator(_flag, json_schema_input_type=bool | Scalar)]


class Line(BaseModel):
    """One line of a log batch."""

    model_config = ConfigDict(extra="allow", hide_input_in_errors=True)

    message: Verbatim = None
    level: Word = None
    timestamp: Time = None
    source: Word = None
    step: Label = None


Lines = Annotated[
    str | list[Line] | None, BeforeValidator(_logs, json_schema_input_type=Scalar | list[Line | str | float | bool])
]


class DeploymentMessage(BaseModel):
    """Every field that we read of a deployment message; others pass through untouched."""

    model_config = ConfigDict(
        extra="ignore",
        hide_input_in_errors=True,
        json_schema_extra={
            "examples": [
                {
                    "type": "step_started",
                    "project": "my-project",
                    "deployment_id": "1",
                    "step_name": "build",
                    "step_status": "started",
                }
            ]
        },
    )

    type: Word = None
    project: Name = None
    deployment_id: Name = None
    run_id: Name = None
    attempt: Attempt = None
    timestamp: Time = None
    status: Word = None
    duration: Seconds = None
    logs: Lines = None
    error_message: Text = None
    error: Text = None
    started_at: Time = None
    completed_at: Time = None
    workflow_name: Word = None
    workflow_id: Word = None
    workflow_url: Word = None
    step: Label = None
    step_id: Label = None
    step_name: Label = None
    step_status: Word = None
    step_duration: Seconds = None
    step_logs: Text = None
    step_details: Results = None
    log_stream_id: Word = None
    level: Word = None
    message: Verbatim = None
    source: Word = None
    metrics: Figures = None
    environment: Word = None
    branch: Word = None
    ref: Word = None
    sha: Word = None
    commit_hash: Word = None
    actor: Word = None
    triggered_by: Word = None
    url: Word = None
    test_url: Word = None
    deploy_success: Flag = None
    deploy_duration: Seconds = None

    def metrics_start(self) -> str | None:
        """When the run that the metrics speak of began, if they say so readably."""
        try:
            return parse_time((self.metrics or {}).get("start_time"))
        except ValueError:
            return None


def problems(error: ValidationError) -> tuple[FieldError, ...]:
    """Every bad field of a failed validation, without the input that was given. Of `logs` (a text or a list of
    lines) only what concerns the list is told: `logs[3].level`, not pydantic's own names of the two forms."""
    found: dict[str, str] = {}
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        if item["loc"][-1] == "str":
            continue
        path = ""
        for part in item["loc"]:
            if isinstance(part, int):
                path += f"[{part}]"
            elif part != "list[Line]":
                path += f".{part}" if path else str(part)
        message = "must be text or an object" if item["type"] == "model_type" else item["msg"]
        found.setdefault(path, message.removeprefix("Value error, "))
    return tuple(FieldError(path, message) for path, message in found.items())
