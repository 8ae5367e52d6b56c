"""Roles, who has them and what that allows, over HTTP."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify, request

from sidecar.domain import rooms
from sidecar.domain.access import Identity
from sidecar.domain.errors import FieldError, Invalid
from sidecar.fanout.hub import Hub
from sidecar.fanout.tail import Tail
from sidecar.http.conditions import condition, tagged
from sidecar.http.menu import is_dry_run, paged, told
from sidecar.http.paging import Query, only_parameters
from sidecar.http.requests import Caller, json_body, keyed_request, parsed, raw_body
from sidecar.services.access import require
from sidecar.services.menu import Menu
from sidecar.services.permissions import READ, WRITE, Permissions
from sidecar.services.role_changes import said_role
from sidecar.services.versions import Written, shown_past, version_answer
from sidecar.store.permissions import RoleRow
from sidecar.store.versions import PERMISSIONS
from sidecar.wire.checks import read
from sidecar.wire.menu import MAX_REASON_CHARACTERS, ReasonBody
from sidecar.wire.permissions import (
    MAX_ACTION_CHARACTERS,
    MAX_RESOURCE_CHARACTERS,
    read_all,
    read_notice,
    read_role,
    read_user,
)

PARAMETERS = {
    "mine": ("user",),
    "version": ("user",),
    "check": ("resource", "action", "user"),
    "history": ("limit", "cursor"),
    "sync": ("dry_run",),
    "rollback": ("dry_run",),
    "delete_role": ("reason",),
}


def permissions(service: Permissions, menu: Menu, caller: Caller, hub: Hub, tail: Tail) -> Blueprint:
    routes = Blueprint("permissions", __name__)
    only_parameters(routes, PARAMETERS)

    @routes.get("/api/permissions")
    def mine() -> Response:
        at = {"seq": tail.last, "epoch": tail.epoch, "offset": tail.offset.text}
        found = service.of(caller.identity(), asked_user())
        seen = menu.seen_keys(found.rights)
        body = {
            "user": found.user,
            "roles": list(found.rights.roles),
            "grants": [
                {"resource": grant.resource, "action": grant.action, "effect": grant.effect}
                for grant in found.rights.grants
            ],
            "permissions": found.rights.allowed,
            "menus": seen,
            "version": found.version,
            "checksum": found.rights.checksum,
            **at,
        }
        return tagged(jsonify(body), f"{found.version}-{found.rights.checksum[:8]}-{menu.state.version}")

    @routes.get("/api/permissions/version")
    def version() -> Response:
        identity = caller.identity()
        found = service.of(identity, asked_user())
        full = identity.admin or WRITE in identity.scopes
        body = version_answer(
            PERMISSIONS, found.version, found.at, found.rights.checksum, service.newest_changes(found), full
        )
        return tagged(jsonify(body), f"{found.version}-{found.rights.checksum[:8]}{'-full' if full else ''}")

    @routes.get("/api/permissions/check")
    def check() -> Response:
        query = Query(request.args)
        resource = query.text("resource", MAX_RESOURCE_CHARACTERS)
        action = query.text("action", MAX_ACTION_CHARACTERS)
        query.finish()
        missing = [name for name, value in (("resource", resource), ("action", action)) if value is None]
        if resource is None or action is None:
            problems = tuple(FieldError(name, "is missing") for name in missing)
            raise Invalid(f"The query lacks {' and '.join(missing)}.", problems)
        found = service.of(caller.identity(), asked_user())
        return jsonify(
            has_permission=found.rights.may(resource, action),
            user=found.user,
            resource=resource,
            action=action,
            version=found.version,
        )

    @routes.get("/api/permissions/history")
    def history() -> Response:
        below, limit = paged()
        return jsonify(shown_past(service.past(caller.identity(), below, limit)))

    @routes.get("/api/permissions/versions/<int(max=9223372036854775807):number>")
    def then(number: int) -> Response:
        roles, users = service.at(caller.identity(), number)
        return jsonify(version=number, roles=[said_role(role) for role in roles], users=users)

    @routes.post("/api/permissions/versions/<int(max=9223372036854775807):number>/rollback")
    def rollback(number: int) -> Response:
        identity = caller.require(WRITE)
        raw = raw_body()
        reason = read(ReasonBody, parsed(raw, unique=True) if raw else {}).reason
        keyed = keyed_request(identity, f"permissions-rollback-{number}", raw)
        return written(service.rollback(identity, keyed, number, reason, condition(), is_dry_run()))

    @routes.post("/api/permissions/sync")
    def sync() -> Response:
        identity = caller.require(WRITE)
        raw = raw_body()
        whole = read_all(parsed(raw, unique=True))
        keyed = keyed_request(identity, "permissions-sync", raw)
        return written(service.sync(identity, keyed, whole, condition(), is_dry_run()))

    @routes.post("/api/permissions/notify")
    def notify() -> Response:
        identity = caller.require(WRITE)
        raw = raw_body()
        body = read_notice(parsed(raw, unique=True))
        sent = service.notify(identity, keyed_request(identity, "permissions-notify", raw), body)
        return jsonify(
            success=True,
            status="success",
            message="Sent.",
            event_id=str(sent.seq),
            epoch=tail.epoch,
            recipients=hub.count(sent.rooms),
            duplicate=sent.duplicate,
        )

    @routes.get("/api/roles")
    def roles() -> Response:
        require(caller.identity(), READ)
        state = service.state
        body = {"items": [_role(row) for _, row in sorted(state.roles.items())], "next": None}
        return tagged(jsonify(body | {"version": state.version}), str(state.version))

    @routes.get("/api/roles/<name>")
    def role(name: str) -> Response:
        require(caller.identity(), READ)
        row = service.role(name)
        return tagged(jsonify(_role(row)), str(row.version))

    @routes.put("/api/roles/<name>")
    def put_role(name: str) -> Response:
        identity = caller.require(WRITE)
        made, reason = read_role(json_body(unique=True), name)
        return written(service.put_role(identity, made, reason, condition()))

    @routes.delete("/api/roles/<name>")
    def delete_role(name: str) -> Response:
        identity = caller.require(WRITE)
        query = Query(request.args)
        reason = query.text("reason", MAX_REASON_CHARACTERS) or ""
        query.finish()
        return written(service.delete_role(identity, name, reason, condition()))

    @routes.get("/api/users/<path:id>/roles")
    def user_roles(id: str) -> Response:
        identity = caller.identity()
        user = rooms.clean_name(id, "the user's id")
        if not _is(identity, user):
            require(identity, READ)
        state = service.state
        return tagged(jsonify(user=user, roles=list(service.given(user)), version=state.version), str(state.version))

    @routes.put("/api/users/<path:id>/roles")
    def put_user_roles(id: str) -> Response:
        identity = caller.require(WRITE)
        user = rooms.clean_name(id, "the user's id")
        roles, reason = read_user(json_body(unique=True), user)
        return written(service.put_user(identity, user, roles, reason, condition()))

    def asked_user() -> str | None:
        given = request.args.get("user")
        return None if given is None else rooms.clean_name(given, "user")

    def written(result: Written) -> Response:
        return told(result, tail.epoch)

    return routes


def _role(row: RoleRow) -> dict[str, Any]:
    return said_role(row.role) | {"version": row.version}


def _is(identity: Identity, user: str) -> bool:
    return identity.user == user and identity.authenticated
