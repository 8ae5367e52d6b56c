"""The fields that deployment messages may carry, read tolerantly: numbers and nulls as text, ids as numbers."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from sidecar.domain.deployments import blank, parse_time
from sidecar.domain.errors import FieldError, SidecarError
from sidecar.domain.rooms import clean_name

MAX_SECONDS = 10 * 365 * 86_400
MAX_TEXT_CHARACTERS = 1_048_576
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


def _text(value: Any) -> str | None:
    if isinstance(value, (bool, dict, list)):
        raise ValueError("must be text")
    if blank(value):
        return None
    text = str(value)
    if len(text) > MAX_TEXT_CHARACTERS:
        raise ValueError(f"is longer than {MAX_TEXT_CHARACTERS} characters")
    return text


def _verbatim(value: Any) -> str | None:
    """A log line: any text counts, also an empty one and the word null."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (dict, list)):
        raise ValueError("must be text")
    return str(value)


def _name(value: Any) -> str | None:
    if blank(value):
        return None
    try:
        return clean_name(value, "it")
    except SidecarError as error:
        raise ValueError(error.detail) from None


def _seconds(value: Any) -> float | int | None:
    if blank(value):
        return None
    try:
        number = float(value) if not isinstance(value, (bool, dict, list)) else float("nan")
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if not 0 <= number <= MAX_SECONDS:
        raise ValueError("must be a number of seconds from 0 to ten years")
    return int(number) if number.is_integer() else number


def _attempt(value: Any) -> int | None:
    number = _seconds(value)
    if number is None:
        return None
    if not isinstance(number, int) or not 1 <= number <= MAX_ATTEMPT:
        raise ValueError(f"must be a whole number from 1 to {MAX_ATTEMPT}")
    return number


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
    return {str(_name(name) or ""): _text(result) for name, result in found.items() if _name(name)}


def _logs(value: Any) -> Any:
    """The lines of a batch, or the one text of a step."""
    if isinstance(value, list):
        return [{"message": item} if isinstance(item, (str, int, float)) else item for item in value]
    return _text(value)


Text = Annotated[str | None, BeforeValidator(_text)]
Name = Annotated[str | None, BeforeValidator(_name)]
Time = Annotated[str | None, BeforeValidator(parse_time)]
Seconds = Annotated[int | float | None, BeforeValidator(_seconds)]


class Line(BaseModel):
    """One line of a log batch."""

    model_config = ConfigDict(extra="allow", hide_input_in_errors=True)

    message: Annotated[str | None, BeforeValidator(_verbatim)] = None
    level: Text = None
    timestamp: Time = None
    source: Text = None
    step: Name = None


class Message(BaseModel):
    """Every field that we read of a deployment message; others pass through untouched."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    type: Text = None
    project: Name = None
    deployment_id: Name = None
    run_id: Name = None
    attempt: Annotated[int | None, BeforeValidator(_attempt)] = None
    timestamp: Time = None
    status: Text = None
    duration: Seconds = None
    logs: Annotated[str | list[Line] | None, BeforeValidator(_logs)] = None
    error_message: Text = None
    error: Text = None
    started_at: Time = None
    completed_at: Time = None
    workflow_name: Text = None
    workflow_id: Text = None
    workflow_url: Text = None
    step: Name = None
    step_id: Name = None
    step_name: Name = None
    step_status: Text = None
    step_duration: Seconds = None
    step_logs: Text = None
    step_details: Annotated[dict[str, str | None] | None, BeforeValidator(_results)] = None
    log_stream_id: Text = None
    level: Text = None
    message: Annotated[str | None, BeforeValidator(_verbatim)] = None
    source: Text = None
    metrics: Annotated[dict[str, Any] | None, BeforeValidator(_object)] = None
    environment: Text = None
    branch: Text = None
    ref: Text = None
    sha: Text = None
    commit_hash: Text = None
    actor: Text = None
    triggered_by: Text = None
    url: Text = None
    test_url: Text = None
    deploy_success: Annotated[bool | None, BeforeValidator(_flag)] = None
    deploy_duration: Seconds = None

    def metrics_start(self) -> str | None:
        """When the run that the metrics speak of began, if they say so readably."""
        try:
            return parse_time((self.metrics or {}).get("start_time"))
        except ValueError:
            return None


def problems(error: ValidationError) -> tuple[FieldError, ...]:
    """Every bad field of a failed validation, without the input that was given. Of a union only what concerns the
    list form is told: `logs[3].level`, not pydantic's own names of the branches."""
    found: dict[str, str] = {}
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        path = ""
        for part in item["loc"]:
            if isinstance(part, int):
                path += f"[{part}]"
            elif part not in ("str", "list[Line]"):
                path += f".{part}" if path else str(part)
        found.setdefault(path, item["msg"].removeprefix("Value error, "))
    return tuple(FieldError(path, message) for path, message in found.items())
