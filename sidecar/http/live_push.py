"""Live pushes over HTTP: started, changed, stopped, listed."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify

from sidecar.domain.errors import NotAllowed, TooMany
from sidecar.fanout.tail import Tail
from sidecar.http.operations import Who, operation
from sidecar.http.parameters import Anything
from sidecar.http.requests import Caller, keyed_request, parsed, raw_body
from sidecar.services.live_push import SCOPE, LivePushes
from sidecar.store.live_pushes import LivePushRow
from sidecar.wire.answers_messages import LivePushList, LivePushStarted, LivePushStopped
from sidecar.wire.checks import read
from sidecar.wire.messages import StartPushBody, StopPushBody


def live_push(service: LivePushes, caller: Caller, tail: Tail) -> Blueprint:
    routes = Blueprint("live_push", __name__)

    @operation(
        "live push",
        "Push to a room again and again",
        notes="Started again it has another interval and source.",
        scope=SCOPE,
        query=Anything,
        body=StartPushBody,
        body_optional=True,
        keyed=True,
        answer=LivePushStarted,
        refusals=(TooMany,),
    )
    def start() -> Response:
        identity = caller.require(SCOPE)
        raw = raw_body()
        body = read(StartPushBody, parsed(raw) if raw else {})
        row, duplicate = service.start(identity, keyed_request(identity, "start-live-push", raw), body)
        return jsonify(
            success=True,
            status="success",
            message=f"Live push started for room: {row.room}",
            **_shown(row),
            event_id=str(row.version),
            epoch=tail.epoch,
            duplicate=duplicate,
        )

    @operation(
        "live push",
        "Stop the push of a room, or all that the token has started",
        scope=SCOPE,
        query=Anything,
        body=StopPushBody,
        body_optional=True,
        answer=LivePushStopped,
    )
    def stop() -> Response:
        identity = caller.require(SCOPE)
        raw = raw_body()
        stopped = service.stop(identity, read(StopPushBody, parsed(raw) if raw else {}))
        return jsonify(success=True, status="success", message="Live push stopped", stopped=stopped)

    for path in ("/api/", "/ashe/"):
        routes.add_url_rule(f"{path}start-live-push", f"{path[1:-1]}_start", start, methods=["POST"])
        routes.add_url_rule(f"{path}stop-live-push", f"{path[1:-1]}_stop", stop, methods=["POST"])

    @routes.get("/api/live-push")
    @operation(
        "live push",
        "The pushes that the caller may watch or manage",
        notes="With push:manage or rooms:read.",
        scope=Who.KNOWN,
        answer=LivePushList,
        refusals=(NotAllowed,),
    )
    def list_pushes() -> Response:
        rows = service.visible(caller.identity())
        return jsonify(items=[_shown(row) for row in rows], next=None, sources=service.source_names)

    return routes


def _shown(row: LivePushRow) -> dict[str, Any]:
    seconds = row.interval_seconds
    return {
        "room": row.room,
        "interval": int(seconds) if seconds.is_integer() else seconds,
        "source": row.source,
        "sender": row.sender,
        "started_at": row.started_at,
    }
