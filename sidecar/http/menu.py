"""The menu over HTTP: its version for everybody, what of it the caller sees, and its changes."""

from __future__ import annotations

from flask import Blueprint, Response, json, jsonify, request

from sidecar.domain import rooms
from sidecar.domain.access import may
from sidecar.domain.errors import Invalid, Unavailable
from sidecar.domain.menu import tree
from sidecar.fanout.hub import Hub
from sidecar.fanout.tail import Tail
from sidecar.http.conditions import condition, tagged
from sidecar.http.paging import Query, only_parameters
from sidecar.http.requests import Caller, json_body, keyed_request, parsed, raw_body
from sidecar.services.menu import WRITE, Menu, shown_item
from sidecar.services.versions import SYSTEM, Written, named_change, shown_change, shown_past
from sidecar.wire.checks import read
from sidecar.wire.menu import MAX_REASON_CHARACTERS, ReasonBody, read_edit, read_whole

MAX_PAGE = 100
PARAMETERS = {
    "version": None,  # pages of the older server add what defeats caches
    "whole": ("all",),
    "delete": ("children", "reason"),
    "sync": ("dry_run",),
    "rollback": ("dry_run",),
    "history": ("limit", "cursor"),
}


def menu(service: Menu, caller: Caller, hub: Hub, tail: Tail) -> Blueprint:
    routes = Blueprint("menu", __name__)
    only_parameters(routes, PARAMETERS)

    @routes.get("/api/menu/version")
    def version() -> Response:
        full = may(caller.identity(), WRITE)
        try:
            state = service.state
        except Unavailable as error:
            return _unreadable(error)
        if full:
            return tagged(jsonify(state.answer(True)), f"{state.version}-full")
        return tagged(Response(state.public, content_type="application/json"), str(state.version), private=False)

    @routes.get("/api/menu")
    def whole() -> Response:
        query = Query(request.args)
        all = query.choices("all", ["1", "true"])
        query.finish()
        at = {"seq": tail.last, "epoch": tail.epoch, "offset": tail.offset.text}
        found = service.seen(caller.identity(), bool(all))
        body = {
            "version": found.state.version,
            "checksum": found.state.checksum,
            "items": found.items,
            "roles": list(found.roles),
            **at,
        }
        return tagged(jsonify(body), f"{found.state.version}-{found.tag}")

    @routes.get("/api/menu/<key>")
    def item(key: str) -> Response:
        found = service.item(caller.identity(), key)
        return tagged(jsonify(shown_item(found)), str(found.version))

    @routes.put("/api/menu/<key>")
    def put(key: str) -> Response:
        identity = caller.require(WRITE)
        key, edit = read_edit(json_body(unique=True), key, whole=True)
        return written(service.put(identity, key, edit.given, edit.reason, condition()))

    @routes.patch("/api/menu/<key>")
    def patch(key: str) -> Response:
        identity = caller.require(WRITE)
        key, edit = read_edit(json_body(unique=True), key, whole=False)
        return written(service.patch(identity, key, edit.given, edit.reason, condition()))

    @routes.delete("/api/menu/<key>")
    def delete(key: str) -> Response:
        identity = caller.require(WRITE)
        query = Query(request.args)
        children = query.choices("children", ["1", "true"])
        reason = query.text("reason", MAX_REASON_CHARACTERS) or ""
        query.finish()
        return written(service.delete(identity, key, reason, bool(children), condition()))

    @routes.post("/api/menu/sync")
    def sync() -> Response:
        identity = caller.require(WRITE)
        raw = raw_body()
        whole = read_whole(parsed(raw, unique=True))
        dry_run = is_dry_run()
        return written(service.sync(identity, keyed_request(identity, "menu-sync", raw), whole, condition(), dry_run))

    @routes.get("/api/menu/history")
    def history() -> Response:
        below, limit = paged()
        return jsonify(shown_past(service.past(caller.require(WRITE), below, limit)))

    @routes.get("/api/menu/versions/<int(max=9223372036854775807):number>")
    def then(number: int) -> Response:
        items = service.at(caller.require(WRITE), number)
        return jsonify(version=number, items=tree(items))

    @routes.post("/api/menu/versions/<int(max=9223372036854775807):number>/rollback")
    def rollback(number: int) -> Response:
        identity = caller.require(WRITE)
        raw = raw_body()
        reason = read(ReasonBody, parsed(raw, unique=True) if raw else {}).reason
        keyed = keyed_request(identity, f"menu-rollback-{number}", raw)
        return written(service.rollback(identity, keyed, number, reason, condition(), is_dry_run()))

    def written(result: Written) -> Response:
        recipients = hub.count([rooms.MENU]) if result.changes else 0
        return told(result, tail.epoch, recipients=recipients)

    return routes


def told(result: Written, epoch: str, **more: object) -> Response:
    """What every write of something versioned is answered."""
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


def paged() -> tuple[int | None, int]:
    """(below which version, how many) of a history's page. Raises Invalid."""
    query = Query(request.args)
    limit = query.number("limit", 20, 1, MAX_PAGE)
    below = query.read("cursor", _version)
    query.finish()
    return below, limit


def is_dry_run() -> bool:
    query = Query(request.args)
    found = query.choices("dry_run", ["1", "true"])
    query.finish()
    return bool(found)


def _version(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise Invalid("is not a cursor of this server")
    return int(text)


def _unreadable(error: Unavailable) -> Response:
    """What clients of the older server know for a menu that can't be read and never was."""
    body = {
        "version": 1,
        "timestamp": 1,
        "checksum": "error",
        "changes": [],
        "author": SYSTEM,
        "description": f"获取版本信息失败: {error.detail}",
    }
    return Response(json.dumps(body, ensure_ascii=False), 500, content_type="application/json")
