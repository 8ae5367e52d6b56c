"""The read API of deployments: lists, one, its events and its log, each with the seq that it is true at."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from urllib.parse import quote

from flask import Blueprint, Response, jsonify, request

from sidecar.domain.access import Identity
from sidecar.domain.deployments import STATUSES, parse_time
from sidecar.http.paging import MAX_NUMBER, Query, decode_cursor, encode_cursor
from sidecar.http.requests import Caller
from sidecar.services.deployments import History
from sidecar.services.views import Views, at
from sidecar.store.deployments import DeploymentFilter, LineRow
from sidecar.wire.envelopes import envelope_object

LEVELS = ("debug", "info", "warn", "error")
DOWNLOAD_LINES = 5_000
UI_LINES = 1_000
"""As many as are told in the shape of the guide's front end; `/logs` has them all."""
SCOPE = "deployments:read"


def deployments(history: History, views: Views, caller: Caller) -> Blueprint:
    routes = Blueprint("deployments", __name__)

    @routes.get("/api/projects")
    def list_projects() -> Response:
        items, head = history.projects(caller.require(SCOPE))
        return jsonify(items=[views.project(item) for item in items], next=None, **at(head))

    @routes.get("/api/deployments")
    def list_deployments() -> Response:
        identity = caller.require(SCOPE)
        query = Query(request.args)
        limit = query.number("limit", 20, 1, 200)
        page = query.number("page", 0, 1, 1_000_000)
        cursor = query.read("cursor", decode_cursor)
        wanted = DeploymentFilter(
            projects=query.names("project"),
            statuses=query.choices("status", STATUSES),
            since=query.read("since", parse_time),
            until=query.read("until", parse_time),
            stale_before=views.stale_before(),
        )
        query.finish()
        skip = (page - 1) * limit if page else 0
        rows, total, head = history.deployments(identity, wanted, cursor, skip, limit + 1, count=page > 0)
        more, rows = len(rows) > limit, rows[:limit]
        answer: dict[str, object] = {"items": [views.summary(row) for row in rows], **at(head)}
        answer["next"] = encode_cursor(rows[-1].number) if more else None
        if total is not None:
            answer["pagination"] = _pagination(page, limit, total)
        return jsonify(answer)

    @routes.get("/api/deployments/<path:deployment_id>/events")
    def list_events(deployment_id: str) -> Response:
        identity = caller.require(SCOPE)
        query = Query(request.args)
        after = query.number("after", 0, 0, MAX_NUMBER)
        limit = query.number("limit", 100, 1, 1_000)
        query.finish()
        page, head = history.events(identity, deployment_id, after, limit)
        next_after = page.events[-1].seq if page.events and page.upto < head.seq else None
        items = [envelope_object(event, head.epoch) for event in page.events]
        return jsonify(items=items, next=next_after, **at(head))

    @routes.get("/api/deployments/<path:deployment_id>/logs")
    def list_lines(deployment_id: str) -> Response:
        identity = caller.require(SCOPE)
        query = Query(request.args)
        after = query.number("after", 0, 0, MAX_NUMBER)
        limit = query.number("limit", 500, 1, 5_000)
        levels = query.choices("level", LEVELS)
        text = query.text("q", 200)
        form = query.choices("format", ("json", "text"))
        query.finish()
        accepted = request.accept_mimetypes.best_match(["application/json", "text/plain"], "application/json")
        if form == ("text",) or (not form and accepted == "text/plain"):
            return _download(history, identity, deployment_id, levels, text)
        lines, head = history.lines(identity, deployment_id, after, limit + 1, levels, text)
        more, lines = len(lines) > limit, lines[:limit]
        return jsonify(items=[_line(line) for line in lines], next=lines[-1].number if more else None, **at(head))

    @routes.get("/api/deployments/<path:deployment_id>")
    def one_deployment(deployment_id: str) -> Response:
        identity = caller.require(SCOPE)
        query = Query(request.args)
        shape = query.word("shape", ("ui",))
        query.finish()
        if shape == "ui":
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
