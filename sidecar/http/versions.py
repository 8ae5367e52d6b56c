"""What the menu and the permissions have alike over HTTP, as both are versioned: their history and the way back into
it, and what a write is answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from flask import Blueprint, Response, jsonify

from sidecar.http.conditions import condition
from sidecar.http.operations import operation
from sidecar.http.parameters import MAX_NUMBER, Parameters, flag, parsed, whole
from sidecar.http.requests import Caller, keyed_request, raw_body
from sidecar.http.requests import parsed as parsed_body
from sidecar.services.menu import Menu
from sidecar.services.permissions import Permissions
from sidecar.services.versions import Written, named_change, shown_change, shown_history
from sidecar.wire.answers_versions import RevisionList
from sidecar.wire.checks import read
from sidecar.wire.menu import ReasonBody

MAX_PAGE = 100
VERSION = f"versions/<int(max={MAX_NUMBER}):number>"
NUMBER = {"number": "A version."}


def _version(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise ValueError("is not a cursor of this server")
    return int(text)


class HistoryQuery(Parameters):
    limit: int = whole(20, 1, MAX_PAGE, "At most so many items.")
    cursor: int | None = parsed(_version, {}, "The `next` of the page before.")


class TriedQuery(Parameters):
    dry_run: bool = flag("Only say what it would change.")


Tried = TypeVar("Tried", bound=TriedQuery)


def add_history(
    routes: Blueprint,
    service: Menu | Permissions,
    caller: Caller,
    tried_query: type[Tried],
    written: Callable[[Written, Tried], Response],
    answer: type,
) -> None:
    """Its history, and the rollback to a version, for the scopes of the service. A rollback takes `tried_query`, and
    `written` makes `answer` of what it did. (What an old version was like each tells in its own form.)"""
    subject = service.subject

    @routes.get(f"/api/{subject}/history")
    @operation(
        subject, "All changes, the newest first", scope=service.read_scope, query=HistoryQuery, answer=RevisionList
    )
    def history(query: HistoryQuery) -> Response:
        return jsonify(shown_history(service.history(caller.identity(), query.cursor, query.limit)))

    @routes.post(f"/api/{subject}/{VERSION}/rollback")
    @operation(
        subject,
        f"Make the {subject} as at this version",
        notes="As a new version.",
        scope=service.write_scope,
        query=tried_query,
        path=NUMBER,
        body=ReasonBody,
        body_optional=True,
        keyed=True,
        conditional=True,
        answer=answer,
    )
    def rollback(number: int, query: Tried) -> Response:
        identity = caller.require(service.write_scope)
        raw = raw_body()
        reason = read(ReasonBody, parsed_body(raw, unique=True) if raw else {}).reason
        keyed = keyed_request(identity, f"{subject}-rollback-{number}", raw)
        return written(service.rollback(identity, keyed, number, reason, condition(), query.dry_run), query)


def write_answer(result: Written, epoch: str, **more: object) -> Response:
    """What every write is answered."""
    seq, revision = result.seq, result.revision
    body = {
        "success": True,
        "status": "success",
        "message": "Changed." if seq is not None else "This would change." if result.changes else "Nothing to change.",
        "version": result.version,
        "changed": seq is not None,
        "event_id": None if seq is None else str(seq),
        "epoch": epoch,
        "duplicate": result.duplicate,
        **more,
        "changes": [
            named_change(change) if revision is None else shown_change(revision, change) for change in result.changes
        ],
        **result.said,
    }
    response = jsonify(body)
    response.set_etag(str(result.version))
    return response
