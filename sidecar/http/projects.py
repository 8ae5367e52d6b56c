"""Projects as a whole over HTTP: their figures, and deleting one."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request

from sidecar.http.paging import Query, time_of
from sidecar.http.requests import Caller
from sidecar.services.projects import Projects


def projects(service: Projects, caller: Caller) -> Blueprint:
    routes = Blueprint("projects", __name__)

    @routes.get("/api/projects/<path:project>/metrics")
    def project_metrics(project: str) -> Response:
        identity = caller.require("deployments:read")
        query = Query(request.args)
        since = query.read("since", time_of)
        until = query.read("until", time_of)
        query.finish()
        return jsonify(service.metrics(identity, project, since, until))

    @routes.delete("/api/projects/<path:project>")
    def delete_project(project: str) -> tuple[Response, int]:
        """202 when it takes longer than a request may: it goes on by itself."""
        done = service.delete(caller.require("admin"), project)
        message = (
            "The project is deleted." if done.finished else "The project is being deleted; that goes on by itself."
        )
        answer = jsonify(
            success=True,
            message=message,
            project=project,
            finished=done.finished,
            deployments=done.deployments,
            steps=done.steps,
            lines=done.lines,
            events=done.events,
            deliveries=done.deliveries,
        )
        return answer, 200 if done.finished else 202

    return routes
