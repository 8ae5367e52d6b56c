"""What operators and monitors ask: is it alive, is it ready, its figures, what it is."""

from __future__ import annotations

from collections.abc import Callable

import gevent
from flask import Blueprint, Response, jsonify

from sidecar.http.operations import Media, Who, operation
from sidecar.http.parameters import Anything
from sidecar.http.requests import Caller
from sidecar.observability.metrics import CONTENT_TYPE, Metrics
from sidecar.services.health import Health
from sidecar.wire.answers_operating import Alive, Info, Readiness


def operating(
    health: Health, metrics: Metrics, measure: Callable[[], None], caller: Caller, info: dict[str, object]
) -> Blueprint:
    """`measure` brings the gauges up to date that `health` knows nothing of. `info` is what /api/info tells everybody:
    no secret, no count of anything private."""
    routes = Blueprint("operating", __name__)

    @routes.get("/healthz")
    @operation("operating", "Is the process alive?", scope=Who.ALL, query=Anything, answer=Alive)
    def healthz() -> Response:
        return jsonify(status="ok")

    @routes.get("/readyz")
    @operation(
        "operating",
        "Can it do its work?",
        notes="By its database, the writer of the journal, and how far it has read the journal.",
        scope=Who.ALL,
        query=Anything,
        answer=Readiness,
        answers={503: Readiness},
    )
    def readyz() -> tuple[Response, int]:
        problems = health.problems()
        answer = {"ready": not problems, "problems": problems, "warnings": health.warnings()}
        return jsonify(answer), 503 if problems else 200

    @routes.get("/metrics")
    @operation("operating", "Figures for Prometheus", scope=Who.ALL, query=Anything, answer=Media("text/plain"))
    def prometheus() -> Response:
        health.measure(metrics)
        measure()
        return Response(gevent.get_hub().threadpool.apply(metrics.render), content_type=CONTENT_TYPE)

    @routes.get("/api/info")
    @operation("operating", "What this server is, and who the caller is", scope=Who.ANYBODY, answer=Info)
    def about() -> Response:
        return jsonify(info | {"who": caller.identity().name, "seq": health.seq, "epoch": health.epoch})

    return routes
