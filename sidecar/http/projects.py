"""Projects as a whole over HTTP: their figures, and deleting one."""

from __future__ import annotations

from dataclasses import asdict

from flask import Blueprint, Response, jsonify

from sidecar.http.operations import operation
from sidecar.http.parameters import Parameters, moment
from sidecar.http.requests import Caller
from sidecar.services.projects import Projects
from sidecar.wire.answers_projects import ProjectBeingDeleted, ProjectDeleted, ProjectMetrics

SCOPE = "deployments:read"
PROJECT = {"project": "The project's name; slashes need no escape."}


class MetricsQuery(Parameters):
    since: str | None = moment("Deployments first seen then or later. Without it the 30 days that end with `until`.")
    until: str | None = moment("Deployments first seen before. Without it up to now.")


def projects(service: Projects, caller: Caller) -> Blueprint:
    routes = Blueprint("projects", __name__)

    @routes.get("/api/projects/<path:project>/metrics")
    @operation(
        "deployments",
        "The figures of a project",
        notes="Of 30 days, or of a time of 366 days at most.",
        scope=SCOPE,
        query=MetricsQuery,
        path=PROJECT,
        answer=ProjectMetrics,
    )
    def project_metrics(project: str, query: MetricsQuery) -> Response:
        return jsonify(service.metrics(caller.require(SCOPE), project, query.since, query.until))

    @routes.delete("/api/projects/<path:project>")
    @operation(
        "deployments",
        "Forget a project",
        notes="202 where it takes longer than a request may: the rest is forgotten by itself.",
        scope="admin",
        path=PROJECT,
        answer=ProjectDeleted,
        answers={202: ProjectBeingDeleted},
    )
    def delete_project(project: str) -> tuple[Response, int]:
        done = service.delete(caller.require("admin"), project)
        left = "" if done.finished else "; the rest goes on by itself"
        answer = jsonify(success=True, message=f"The project is deleted{left}.", project=project, **asdict(done))
        return answer, 200 if done.finished else 202

    return routes
