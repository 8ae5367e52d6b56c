"""What operators and monitors ask: is it alive, is it ready, its figures, what it is."""

from __future__ import annotations

from collections.abc import Callable

import gevent
from flask import Blueprint, Response, jsonify

from sidecar.http.requests import Caller
from sidecar.observability.metrics import CONTENT_TYPE, Metrics
from sidecar.services.health import Health


def operating(
    health: Health, metrics: Metrics, measure: Callable[[], None], caller: Caller, info: dict[str, object]
) -> Blueprint:
    """`measure` brings the gauges up to date that `health` knows nothing of. `info` is what /api/info tells everybody:
    no secret, no count of anything private."""
    routes = Blueprint("operating", __name__)

    @routes.get("/healthz")
    def healthz() -> Response:
        return jsonify(status="ok")

    @routes.get("/readyz")
    def readyz() -> tuple[Response, int]:
        problems = health.problems()
        return jsonify(ready=not problems, problems=problems), 503 if problems else 200

    @routes.get("/metrics")
    def prometheus() -> Response:
        health.measure(metrics)
        measure()
        return Response(gevent.get_hub().threadpool.apply(metrics.render), content_type=CONTENT_TYPE)

    @routes.get("/api/info")
    def about() -> Response:
        return jsonify(info | {"who": caller.identity().name, "seq": health.seq, "epoch": health.epoch})

    return routes
