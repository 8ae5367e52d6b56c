"""The menu over HTTP: its version for everybody, what of it the caller sees, and its changes."""

from __future__ import annotations

from flask import Blueprint, Response, json, jsonify

from sidecar.domain import rooms
from sidecar.domain.access import may
from sidecar.domain.errors import Conflict, NotAllowed, Unavailable
from sidecar.domain.menu import tree
from sidecar.fanout.hub import Hub
from sidecar.fanout.tail import Tail
from sidecar.http.conditions import condition, tagged
from sidecar.http.operations import Who, operation
from sidecar.http.parameters import Anything, Parameters, flag, text
from sidecar.http.requests import Caller, json_body, keyed_request, parsed, raw_body
from sidecar.http.versions import NUMBER, VERSION, TriedQuery, add_history, write_answer
from sidecar.services.menu import WRITE, Menu, shown_item
from sidecar.services.versions import SYSTEM, Written
from sidecar.wire.answers_versions import (
    MenuSeen,
    MenuThen,
    MenuWritten,
    VersionAnswer,
    VersionedMenuItem,
)
from sidecar.wire.menu import (
    MAX_REASON_CHARACTERS,
    EditBody,
    ItemPutBody,
    MenuBody,
    read_edit,
    read_whole,
)

KEY = {"key": "The item's key; `version`, `history`, `sync` and `versions` can't be one."}


class SeenQuery(Parameters):
    all: bool = flag("Everything, what is not active too; for those who may write.")


class DeleteQuery(Parameters):
    children: bool = flag("Also all that lies below it.")
    reason: str | None = text(MAX_REASON_CHARACTERS, "Why, for the history.")


def menu(service: Menu, caller: Caller, hub: Hub, tail: Tail) -> Blueprint:
    routes = Blueprint("menu", __name__)

    @routes.get("/api/menu/version")
    @operation(
        "menu",
        "Which version the menu has",
        scope=Who.ANYBODY,
        query=Anything,  # pages of the older server add what defeats caches
        tagged=True,
        answer=VersionAnswer,
        answers={500: VersionAnswer},
    )
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
    @operation(
        "menu",
        "What the caller sees of the menu",
        scope=Who.ANYBODY,
        query=SeenQuery,
        tagged=True,
        answer=MenuSeen,
        refusals=(NotAllowed,),
    )
    def seen(query: SeenQuery) -> Response:
        at = {"seq": tail.last, "epoch": tail.epoch, "offset": tail.offset.text}
        found = service.seen(caller.identity(), query.all)
        body = {
            "version": found.state.version,
            "checksum": found.state.checksum,
            "items": found.items,
            "roles": list(found.roles),
            **at,
        }
        return tagged(jsonify(body), f"{found.state.version}-{found.tag}")

    @routes.get("/api/menu/<key>")
    @operation(
        "menu", "An item that the caller sees", scope=Who.ANYBODY, path=KEY, tagged=True, answer=VersionedMenuItem
    )
    def item(key: str) -> Response:
        found = service.item(caller.identity(), key)
        return tagged(jsonify(shown_item(found)), str(found.version))

    @routes.put("/api/menu/<key>")
    @operation(
        "menu",
        "Make an item, or make it so",
        scope=WRITE,
        path=KEY,
        body=ItemPutBody,
        conditional=True,
        answer=MenuWritten,
    )
    def put(key: str) -> Response:
        identity = caller.require(WRITE)
        key, edit = read_edit(json_body(unique=True), key, whole=True)
        return written(service.put(identity, key, edit.given, edit.reason, condition()))

    @routes.patch("/api/menu/<key>")
    @operation("menu", "Change an item", scope=WRITE, path=KEY, body=EditBody, conditional=True, answer=MenuWritten)
    def patch(key: str) -> Response:
        identity = caller.require(WRITE)
        key, edit = read_edit(json_body(unique=True), key, whole=False)
        return written(service.patch(identity, key, edit.given, edit.reason, condition()))

    @routes.delete("/api/menu/<key>")
    @operation(
        "menu",
        "Delete an item",
        scope=WRITE,
        query=DeleteQuery,
        path=KEY,
        conditional=True,
        answer=MenuWritten,
        refusals=(Conflict,),
    )
    def delete(key: str, query: DeleteQuery) -> Response:
        identity = caller.require(WRITE)
        return written(service.delete(identity, key, query.reason or "", query.children, condition()))

    @routes.post("/api/menu/sync")
    @operation(
        "menu",
        "Make the whole menu so",
        notes="In one version. A tree by `children`, or flat with `parent`.",
        scope=WRITE,
        query=TriedQuery,
        body=MenuBody,
        keyed=True,
        conditional=True,
        answer=MenuWritten,
    )
    def sync(query: TriedQuery) -> Response:
        identity = caller.require(WRITE)
        raw = raw_body()
        whole = read_whole(parsed(raw, unique=True))
        keyed = keyed_request(identity, "menu-sync", raw)
        return written(service.sync(identity, keyed, whole, condition(), query.dry_run))

    @routes.get(f"/api/menu/{VERSION}")
    @operation("menu", "The menu as it was", scope=WRITE, path=NUMBER, answer=MenuThen)
    def then(number: int) -> Response:
        items = service.at(caller.require(WRITE), number)
        return jsonify(version=number, items=tree(items))

    def written(result: Written) -> Response:
        recipients = hub.count([rooms.MENU]) if result.changes else 0
        return write_answer(result, tail.epoch, recipients=recipients)

    add_history(routes, service, caller, TriedQuery, lambda result, _query: written(result), MenuWritten)
    return routes


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
