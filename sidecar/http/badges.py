"""Badges of projects, as images that other pages show."""

from __future__ import annotations

import hashlib

from flask import Blueprint, Response

from sidecar.domain.badges import KINDS
from sidecar.domain.errors import NotAllowed, NotFound
from sidecar.http.conditions import tagged
from sidecar.http.operations import Media, Who, operation
from sidecar.http.parameters import Parameters, text, word
from sidecar.http.requests import Caller
from sidecar.services.badges import Badges
from sidecar.wire.badges import LABEL_CHARACTERS, badge_svg

SVG = Media("image/svg+xml")


class BadgeQuery(Parameters):
    kind: str = word(
        KINDS, KINDS[0], "What it shows: of the newest deployment its status or which it was, or the rate."
    )
    label: str | None = text(LABEL_CHARACTERS, "What stands on the left, in place of what the badge covers.")


def badges(service: Badges, caller: Caller) -> Blueprint:
    routes = Blueprint("badges", __name__)

    @routes.get("/api/badges/<path:project>.svg")
    @operation(
        "deployments",
        "The badge of a project",
        notes="For everybody where SIDECAR_PUBLIC_BADGES names the project, else with `deployments:read`.",
        scope=Who.ANYBODY,
        query=BadgeQuery,
        path={"project": "The project's name; slashes need no escape."},
        tagged=True,
        answer=SVG,
        refusals=(NotAllowed, NotFound),
    )
    def badge(project: str, query: BadgeQuery) -> Response:
        image = badge_svg(service.badge(caller.identity, project, query.kind, query.label))
        response = Response(image, content_type="image/svg+xml; charset=utf-8")
        response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
        return tagged(response, hashlib.sha256(image.encode()).hexdigest()[:32], private=not service.public(project))

    return routes
