"""Badges of projects, as images that other pages show."""

from __future__ import annotations

import hashlib

from flask import Blueprint, Response, request

from sidecar.domain.badges import KINDS
from sidecar.http.conditions import tagged
from sidecar.http.paging import Query
from sidecar.http.requests import Caller
from sidecar.services.badges import Badges
from sidecar.wire.badges import LABEL_CHARACTERS, badge_svg


def badges(service: Badges, caller: Caller) -> Blueprint:
    routes = Blueprint("badges", __name__)

    @routes.get("/api/badges/<path:project>.svg")
    def badge(project: str) -> Response:
        query = Query(request.args)
        kind = query.word("kind", KINDS)
        label = query.text("label", LABEL_CHARACTERS)
        query.finish()
        text = badge_svg(service.badge(caller.identity, project, kind or KINDS[0], label))
        response = Response(text, content_type="image/svg+xml; charset=utf-8")
        response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
        return tagged(response, hashlib.sha256(text.encode()).hexdigest()[:32], private=not service.public(project))

    return routes
