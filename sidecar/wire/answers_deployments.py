"""What the read API of deployments answers."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from sidecar.domain.deployments import Level, Status
from sidecar.wire.answers import At, Envelope, Object, Time


class Project(TypedDict):
    """`deployment_id` and `status` are those of its newest deployment, `stale` and `last_status` as there."""

    name: str
    first_at: Time
    last_at: Time
    deployments: int
    deployment_id: str | None
    status: Status | None
    stale: bool
    last_status: NotRequired[Status]


class ProjectList(At):
    items: list[Project]
    next: None


class _State(TypedDict):
    """`status` is ours, `reported_status` the sender's own word; `first_at` and `last_at` are our times of the first
    and the last report, the others the sender's."""

    status: Status
    reported_status: str | None
    status_at: str
    first_at: Time
    last_at: Time
    started_at: Time | None
    completed_at: Time | None
    duration_seconds: float | None
    logs: str | None
    error_message: str | None
    url: str | None


class Step(_State):
    """One step of a deployment."""

    key: str
    name: str
    position: int


class Deployment(_State):
    """The newest attempt of a deployment. One that is `stale` is not over and has had no news for long: its status is
    shown as `unknown`, and `last_status` is what was known last."""

    id: str
    deployment_id: str
    attempt: int
    project: str
    source: str | None
    workflow_name: str | None
    workflow_id: str | None
    environment: str | None
    ref: str | None
    sha: str | None
    actor: str | None
    title: str | None
    queued_at: Time | None
    lines: int
    metrics: Object | None
    stale: bool
    last_status: NotRequired[Status]


class WholeDeployment(Deployment, At):
    """A deployment with its steps. `last_seq` is the seq of its last change."""

    steps: list[Step]
    last_seq: int


class Pagination(TypedDict):
    page: int
    limit: int
    total: int
    totalPages: int
    hasNext: bool
    hasPrev: bool


class DeploymentList(At):
    """`next` is the `cursor` of the next page; `pagination` is there when `page` was asked for."""

    items: list[Deployment]
    next: str | None
    pagination: NotRequired[Pagination]


class EventList(At):
    """`next` is the `after` of the next page."""

    items: list[Envelope]
    next: int | None


class LogLine(TypedDict):
    number: int
    seq: int
    at: Time
    level: Level
    source: str | None
    step: str | None
    message: str


class LineList(At):
    """`next` is the `after` of the next page."""

    items: list[LogLine]
    next: int | None


class UiStep(TypedDict):
    stepName: str
    status: Literal["started", "running", "completed", "failed", "retrying"]
    duration: float | None
    logs: str
    timestamp: Time


class DeploymentForUi(TypedDict):
    """A deployment as front ends of the deployment guide know it."""

    id: str
    project: str
    status: Status
    duration: float | None
    steps: list[UiStep]
    logs: list[str]
