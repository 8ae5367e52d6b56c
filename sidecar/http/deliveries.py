"""Deliveries over HTTP, for admins: what was posted, why it was not used, and once more from the top."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify, request

from sidecar.http.paging import MAX_NUMBER, Query, decode_cursor, encode_cursor
from sidecar.http.requests import Caller
from sidecar.services.deliveries import Deliveries

VERDICTS = ("stored", "test", "quarantined", "replayed", "erased")
ONE = f"/api/deliveries/<int(max={MAX_NUMBER}):number>"


def deliveries(service: Deliveries, caller: Caller) -> Blueprint:
    routes = Blueprint("deliveries", __name__)

    @routes.get("/api/deliveries")
    def list_deliveries() -> Response:
        caller.require("admin")
        query = Query(request.args)
        limit = query.number("limit", 20, 1, 100)
        cursor = query.read("cursor", decode_cursor)
        verdict = query.choices("verdict", VERDICTS)
        query.finish()
        rows = service.list(verdict[0] if verdict else None, cursor, limit + 1)
        more, rows = len(rows) > limit, rows[:limit]
        return jsonify(items=[_shown(row) for row in rows], next=encode_cursor(rows[-1]["number"]) if more else None)

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
    return row | {"body": row["body"].decode("utf-8", "replace")}
