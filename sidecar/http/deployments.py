"""The read API of deployments: lists, one, its events and its log, each with the seq that it is true at."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from urllib.parse import quote

from flask import Blueprint, Response, jsonify, request

from sidecar.domain.access import Identity
from sidecar.domain.deployments import LEVELS, STATUSES
from sidecar.http.operations import Media, operation
from sidecar.http.paging import decode_cursor, encode_cursor
from sidecar.http.parameters import MAX_NUMBER, Parameters, moment, names, parsed, text, whole, word, words
from sidecar.http.requests import Caller
from sidecar.services.deployments import History
from sidecar.services.views import Views, at
from sidecar.store.deployments import DeploymentFilter, LineRow
from sidecar.wire.answers_deployments import (
    DeploymentForUi,
    DeploymentList,
    EventList,
    LineList,
    ProjectList,
    WholeDeployment,
)
from sidecar.wire.envelopes import envelope_object

DOWNLOAD_LINES = 5_000
UI_LINES = 1_000
"""As many as are told in the shape of the guide's front end; `/logs` has them all."""
SCOPE = "deployments:read"
ID = {"deployment_id": "As its sender named it; slashes need no escape."}


class DeploymentsQuery(Parameters):
    """`cursor` goes on where a page ended; `page` counts pages from 1, for tables that show how many there are."""

    limit: int = whole(20, 1, 200, "At most so many items.")
    page: int | None = whole(None, 1, 1_000_000, "This page, and `pagination` in the answer.")
    cursor: int | None = parsed(decode_cursor, {}, "The `next` of the page before.")
    project: tuple[str, ...] | None = names("Of these projects only.")
    status: tuple[str, ...] = words(STATUSES, "Of these statuses only; several also separated by commas.")
    since: str | None = moment("First seen at this time or later.")
    until: str | None = moment("First seen before this time.")


class EventsQuery(Parameters):
    after: int = whole(0, 0, MAX_NUMBER, "Events with a higher seq only.")
    limit: int = whole(100, 1, 1_000, "At most so many items.")


class LinesQuery(Parameters):
    after: int = whole(0, 0, MAX_NUMBER, "Lines with a higher number only.")
    limit: int = whole(500, 1, 5_000, "At most so many items.")
    level: tuple[str, ...] = words(LEVELS, "Of these levels only; several also separated by commas.")
    q: str | None = text(200, "Lines that hold this text, in any case.")
    format: tuple[str, ...] = words(
        ("json", "text"), "`text` is the whole log to download, as `Accept: text/plain` is."
    )


class DeploymentQuery(Parameters):
    shape: str | None = word(("ui",), None, "`ui`: as front ends of the deployment guide know it.")


def deployments(history: History, views: Views, caller: Caller) -> Blueprint:
    routes = Blueprint("deployments", __name__)

    @routes.get("/api/projects")
    @operation("deployments", "Projects, those with the latest news first", scope=SCOPE, answer=ProjectList)
    def list_projects() -> Response:
        items, head = history.projects(caller.require(SCOPE))
        return jsonify(items=[views.project(item) for item in items], next=None, **at(head))

    @routes.get("/api/deployments")
    @operation("deployments", "Deployments, newest first", scope=SCOPE, query=DeploymentsQuery, answer=DeploymentList)
    def list_deployments(query: DeploymentsQuery) -> Response:
        identity = caller.require(SCOPE)
        limit, page = query.limit, query.page
        wanted = DeploymentFilter(query.project, query.status, query.since, query.until, views.stale_before())
        skip = (page - 1) * limit if page else 0
        rows, total, head = history.deployments(identity, wanted, query.cursor, skip, limit + 1, count=page is not None)
        more, rows = len(rows) > limit, rows[:limit]
        answer: dict[str, object] = {"items": [views.summary(row) for row in rows], **at(head)}
        answer["next"] = encode_cursor(rows[-1].number) if more else None
        if page is not None and total is not None:
            answer["pagination"] = _pagination(page, limit, total)
        return jsonify(answer)

    @routes.get("/api/deployments/<path:deployment_id>/events")
    @operation(
        "deployments",
        "The events of a deployment, oldest first",
        scope=SCOPE,
        query=EventsQuery,
        path=ID,
        answer=EventList,
    )
    def list_events(deployment_id: str, query: EventsQuery) -> Response:
        page, head = history.events(caller.require(SCOPE), deployment_id, query.after, query.limit)
        next_after = page.events[-1].seq if page.events and page.upto < head.seq else None
        items = [envelope_object(event, head.epoch) for event in page.events]
        return jsonify(items=items, next=next_after, **at(head))

    @routes.get("/api/deployments/<path:deployment_id>/logs")
    @operation(
        "deployments",
        "The log of a deployment",
        scope=SCOPE,
        query=LinesQuery,
        path=ID,
        answer=(LineList, Media("text/plain")),
    )
    def list_lines(deployment_id: str, query: LinesQuery) -> Response:
        identity, limit = caller.require(SCOPE), query.limit
        accepted = request.accept_mimetypes.best_match(["application/json", "text/plain"], "application/json")
        if query.format == ("text",) or (not query.format and accepted == "text/plain"):
            return _download(history, identity, deployment_id, query.level, query.q)
        lines, head = history.lines(identity, deployment_id, query.after, limit + 1, query.level, query.q)
        more, lines = len(lines) > limit, lines[:limit]
        return jsonify(items=[_line(line) for line in lines], next=lines[-1].number if more else None, **at(head))

    @routes.get("/api/deployments/<path:deployment_id>")
    @operation(
        "deployments",
        "A deployment with its steps",
        scope=SCOPE,
        query=DeploymentQuery,
        path=ID,
        answer=WholeDeployment | DeploymentForUi,
    )
    def one_deployment(deployment_id: str, query: DeploymentQuery) -> Response:
        identity = caller.require(SCOPE)
        if query.shape == "ui":
            return jsonify(views.for_ui(*history.deployment_with_log(identity, deployment_id, UI_LINES)))
        view = history.deployment(identity, deployment_id)
        return jsonify(views.whole(view) | at(view.head))

    return routes


def _download(
    history: History, identity: Identity, deployment_id: str, levels: Sequence[str], text: str | None
) -> Response:
    """The whole log as text, a page of lines at a time."""
    first, _ = history.lines(identity, deployment_id, 0, DOWNLOAD_LINES, levels, text)

    def chunks() -> Iterator[str]:
        lines = first
        while lines:
            yield "".join(f"{row.line.at} {row.line.level:<5} {row.line.message}\n" for row in lines)
            lines, _ = history.lines(identity, deployment_id, lines[-1].number, DOWNLOAD_LINES, levels, text)

    response = Response(chunks(), content_type="text/plain; charset=utf-8")
    response.headers["Content-Disposition"] = _attachment(f"deployment-{deployment_id}.log")
    return response


def _attachment(name: str) -> str:
    """A file's name for every client: in ASCII, and as it is (RFC 6266, section 4.3)."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name)
    whole = quote(re.sub(r"[/\\]", "-", name), safe="")
    return f"attachment; filename={plain}; filename*=UTF-8''{whole}"


def _line(row: LineRow) -> dict[str, object]:
    line = row.line
    return {
        "number": row.number,
        "seq": row.seq,
        "at": line.at,
        "level": line.level,
        "source": line.source,
        "step": line.step,
        "message": line.message,
    }


def _pagination(page: int, limit: int, total: int) -> dict[str, object]:
    pages = -(-total // limit)
    return {
        "page": page,
        "limit": limit,
        "total": total,
        "totalPages": pages,
        "hasNext": page < pages,
        "hasPrev": page > 1,
    }
