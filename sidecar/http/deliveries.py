"""Deliveries over HTTP, for admins: what was posted, why it was not used, and once more from the top."""

from __future__ import annotations

import time
from typing import Any, get_args

from flask import Blueprint, Response, jsonify

from sidecar.domain.errors import Conflict, Unparsable, UnsupportedMedia
from sidecar.domain.redaction import redact
from sidecar.domain.times import utc_text
from sidecar.http.operations import operation
from sidecar.http.paging import decode_cursor, encode_cursor
from sidecar.http.parameters import MAX_NUMBER, Parameters, moment, names, parsed, whole, words
from sidecar.http.requests import Caller
from sidecar.services.deliveries import Deliveries
from sidecar.store.deliveries import DeliveryFilter
from sidecar.wire.answers_webhooks import DeliveryCounts, DeliveryList, Replayed, Verdict, WholeDelivery

VERDICTS: tuple[str, ...] = get_args(Verdict)
ONE = f"/api/deliveries/<int(max={MAX_NUMBER}):number>"
DAY_SECONDS = 86_400
NUMBER = {"number": "As the list and the refusal of a webhook tell it."}


class DeliveriesQuery(Parameters):
    limit: int = whole(20, 1, 100, "At most so many items.")
    cursor: int | None = parsed(decode_cursor, {}, "The `next` of the page before.")
    verdict: tuple[str, ...] = words(VERDICTS, "What became of it; several also separated by commas.")
    project: tuple[str, ...] | None = names("Of these projects only.")
    since: str | None = moment("Came at this time or later.")
    until: str | None = moment("Came before this time.")


class CountsQuery(Parameters):
    since: str | None = moment("Came at this time or later; without it the last 24 hours.")


def deliveries(service: Deliveries, caller: Caller) -> Blueprint:
    routes = Blueprint("deliveries", __name__)

    @routes.get("/api/deliveries")
    @operation("deliveries", "What was posted, newest first", scope="admin", query=DeliveriesQuery, answer=DeliveryList)
    def list_deliveries(query: DeliveriesQuery) -> Response:
        caller.require("admin")
        wanted = DeliveryFilter(query.verdict, query.project, query.since, query.until)
        rows = service.list(wanted, query.cursor, query.limit + 1)
        more, rows = len(rows) > query.limit, rows[: query.limit]
        return jsonify(items=rows, next=encode_cursor(rows[-1]["number"]) if more else None)

    @routes.get("/api/deliveries/counts")
    @operation("deliveries", "How many came, by verdict", scope="admin", query=CountsQuery, answer=DeliveryCounts)
    def count_deliveries(query: CountsQuery) -> Response:
        caller.require("admin")
        since = query.since or utc_text(time.time() - DAY_SECONDS)
        return jsonify(since=since, counts=service.counts(since, VERDICTS))

    @routes.get(ONE)
    @operation("deliveries", "A delivery with its body", scope="admin", path=NUMBER, answer=WholeDelivery)
    def one_delivery(number: int) -> Response:
        caller.require("admin")
        return jsonify(_shown(service.find(number)))

    @routes.post(f"{ONE}/replay")
    @operation(
        "deliveries",
        "Take a delivery once more",
        notes="With the rights of the token or the secret that it was posted with.",
        scope="admin",
        path=NUMBER,
        answer=Replayed,
        refusals=(Conflict, Unparsable, UnsupportedMedia),
    )
    def replay(number: int) -> Response:
        receipt = service.replay(caller.require("admin"), number)
        return jsonify(success=True, message="The delivery was taken again.", **receipt.stored())

    return routes


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"body": redact(row["body"].decode("utf-8", "replace"))}
