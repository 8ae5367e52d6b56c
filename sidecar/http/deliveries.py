"""Deliveries over HTTP, for admins: what was posted, why it was not used, and once more from the top."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify, request

from sidecar.domain.deployments import parse_time
from sidecar.domain.redaction import redact
from sidecar.http.paging import MAX_NUMBER, Query, decode_cursor, encode_cursor, only_parameters
from sidecar.http.requests import Caller
from sidecar.services.deliveries import Deliveries
from sidecar.store.deliveries import DeliveryFilter

VERDICTS = ("stored", "test", "quarantined", "replayed")
ONE = f"/api/deliveries/<int(max={MAX_NUMBER}):number>"


def deliveries(service: Deliveries, caller: Caller) -> Blueprint:
    routes = Blueprint("deliveries", __name__)
    only_parameters(routes, {"list_deliveries": ("limit", "cursor", "verdict", "project", "since", "until")})

    @routes.get("/api/deliveries")
    def list_deliveries() -> Response:
        caller.require("admin")
        query = Query(request.args)
        limit = query.number("limit", 20, 1, 100)
        cursor = query.read("cursor", decode_cursor)
        wanted = DeliveryFilter(
            verdicts=query.choices("verdict", VERDICTS),
            projects=query.names("project"),
            since=query.read("since", parse_time),
            until=query.read("until", parse_time),
        )
        query.finish()
        rows = service.list(wanted, cursor, limit + 1)
        more, rows = len(rows) > limit, rows[:limit]
        return jsonify(items=rows, next=encode_cursor(rows[-1]["number"]) if more else None)

    @routes.get(ONE)
    def one_delivery(number: int) -> Response:
        caller.require("admin")
        return jsonify(_shown(service.find(number)))

    @routes.post(f"{ONE}/replay")
    def replay(number: int) -> Response:
        receipt = service.replay(caller.require("admin"), number)
        return jsonify(success=True, message="The delivery was taken again.", **receipt.stored())

    return routes


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"body": redact(row["body"].decode("utf-8", "replace"))}
