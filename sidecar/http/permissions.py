"""Roles, who has them and what that allows, over HTTP."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify

from sidecar.domain import rooms
from sidecar.domain.access import Identity
from sidecar.domain.errors import BadName, Conflict, NotAllowed
from sidecar.fanout.hub import Hub
from sidecar.fanout.tail import Tail
from sidecar.http.conditions import condition, tagged
from sidecar.http.operations import Who, operation
from sidecar.http.parameters import Parameters, name, text
from sidecar.http.requests import Caller, json_body, keyed_request, parsed, raw_body
from sidecar.http.versions import NUMBER, VERSION, TriedQuery, add_history, write_answer
from sidecar.services.access import require
from sidecar.services.menu import Menu
from sidecar.services.permissions import READ, WRITE, Permissions
from sidecar.services.role_changes import role_content
from sidecar.services.versions import Written, version_answer
from sidecar.store.permissions import RoleRow
from sidecar.store.versions import PERMISSIONS
from sidecar.wire.answers_versions import (
    NoticeSent,
    PermissionCheck,
    PermissionsOf,
    PermissionsThen,
    PermissionsWritten,
    RoleList,
    UserRoles,
    VersionAnswer,
    VersionedRole,
)
from sidecar.wire.menu import MAX_REASON_CHARACTERS
from sidecar.wire.permissions import (
    MAX_ACTION_CHARACTERS,
    MAX_RESOURCE_CHARACTERS,
    EditRoleBody,
    NoticeBody,
    PermissionsBody,
    UserRolesBody,
    read_all,
    read_notice,
    read_role,
    read_user,
)

ROLE = {"name": "The role's name."}
USER = {"id": "The user's id, the `sub` of their connection tokens."}
OTHERS = "Of this user; for those who may read the permissions of others."


class UserQuery(Parameters):
    user: str | None = name(OTHERS)


class CheckQuery(UserQuery):
    resource: str = text(MAX_RESOURCE_CHARACTERS, "What it is done to.", required=True)
    action: str = text(MAX_ACTION_CHARACTERS, "What is done.", required=True)


class DeleteRoleQuery(Parameters):
    reason: str | None = text(MAX_REASON_CHARACTERS, "Why, for the history.")


def permissions(service: Permissions, menu: Menu, caller: Caller, hub: Hub, tail: Tail) -> Blueprint:
    routes = Blueprint("permissions", __name__)

    @routes.get("/api/permissions")
    @operation(
        "permissions",
        "What the caller may, or a user",
        scope=Who.ANYBODY,
        query=UserQuery,
        tagged=True,
        answer=PermissionsOf,
        refusals=(NotAllowed,),
    )
    def mine(query: UserQuery) -> Response:
        at = {"seq": tail.last, "epoch": tail.epoch, "offset": tail.offset.text}
        found = service.of(caller.identity(), query.user)
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
    @operation(
        "permissions",
        "Which version the permissions have",
        notes="With the last changes of what the caller may.",
        scope=Who.ANYBODY,
        query=UserQuery,
        tagged=True,
        answer=VersionAnswer,
        refusals=(NotAllowed,),
    )
    def version(query: UserQuery) -> Response:
        identity = caller.identity()
        found = service.of(identity, query.user)
        full = identity.admin or WRITE in identity.scopes
        body = version_answer(
            PERMISSIONS, found.version, found.at, found.rights.checksum, service.newest_changes(found), full
        )
        return tagged(jsonify(body), f"{found.version}-{found.rights.checksum[:8]}{'-full' if full else ''}")

    @routes.get("/api/permissions/check")
    @operation(
        "permissions",
        "May the caller, or a user, do this?",
        scope=Who.ANYBODY,
        query=CheckQuery,
        answer=PermissionCheck,
        refusals=(NotAllowed,),
    )
    def check(query: CheckQuery) -> Response:
        resource, action = query.resource, query.action
        found = service.of(caller.identity(), query.user)
        return jsonify(
            has_permission=found.rights.may(resource, action),
            user=found.user,
            resource=resource,
            action=action,
            version=found.version,
        )

    @routes.get(f"/api/permissions/{VERSION}")
    @operation("permissions", "Roles and who had them, as it was", scope=READ, path=NUMBER, answer=PermissionsThen)
    def then(number: int) -> Response:
        roles, users = service.at(caller.identity(), number)
        return jsonify(version=number, roles=[role_content(role) for role in roles], users=users)

    @routes.post("/api/permissions/sync")
    @operation(
        "permissions",
        "Make all roles, and who has them, so",
        notes="In one version.",
        scope=WRITE,
        query=TriedQuery,
        body=PermissionsBody,
        keyed=True,
        conditional=True,
        answer=PermissionsWritten,
    )
    def sync(query: TriedQuery) -> Response:
        identity = caller.require(WRITE)
        raw = raw_body()
        whole = read_all(parsed(raw, unique=True))
        keyed = keyed_request(identity, "permissions-sync", raw)
        return written(service.sync(identity, keyed, whole, condition(), query.dry_run))

    @routes.post("/api/permissions/notify")
    @operation(
        "permissions",
        "Tell a user, a role or all something",
        scope=WRITE,
        body=NoticeBody,
        keyed=True,
        answer=NoticeSent,
    )
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
    @operation("permissions", "All roles", scope=READ, tagged=True, answer=RoleList)
    def roles() -> Response:
        require(caller.identity(), READ)
        state = service.state
        body = {"items": [_role(row) for _, row in sorted(state.roles.items())], "next": None}
        return tagged(jsonify(body | {"version": state.version}), str(state.version))

    @routes.get("/api/roles/<name>")
    @operation("permissions", "A role", scope=READ, path=ROLE, tagged=True, answer=VersionedRole)
    def role(name: str) -> Response:
        require(caller.identity(), READ)
        row = service.role(name)
        return tagged(jsonify(_role(row)), str(row.version))

    @routes.put("/api/roles/<name>")
    @operation(
        "permissions",
        "Make a role, or make it so",
        scope=WRITE,
        path=ROLE,
        body=EditRoleBody,
        conditional=True,
        answer=PermissionsWritten,
    )
    def put_role(name: str) -> Response:
        identity = caller.require(WRITE)
        made, reason = read_role(json_body(unique=True), name)
        return written(service.put_role(identity, made, reason, condition()))

    @routes.delete("/api/roles/<name>")
    @operation(
        "permissions",
        "Delete a role",
        scope=WRITE,
        query=DeleteRoleQuery,
        path=ROLE,
        conditional=True,
        answer=PermissionsWritten,
        refusals=(Conflict,),
    )
    def delete_role(name: str, query: DeleteRoleQuery) -> Response:
        identity = caller.require(WRITE)
        return written(service.delete_role(identity, name, query.reason or "", condition()))

    @routes.get("/api/users/<path:id>/roles")
    @operation(
        "permissions",
        "The roles of a user",
        notes="Of oneself without a scope, of others with permissions:read.",
        scope=Who.ANYBODY,
        path=USER,
        tagged=True,
        answer=UserRoles,
        refusals=(BadName, NotAllowed),
    )
    def user_roles(id: str) -> Response:
        identity = caller.identity()
        user = rooms.clean_name(id, "the user's id")
        if not _is(identity, user):
            require(identity, READ)
        state = service.state
        return tagged(jsonify(user=user, roles=list(service.given(user)), version=state.version), str(state.version))

    @routes.put("/api/users/<path:id>/roles")
    @operation(
        "permissions",
        "Give a user these roles",
        scope=WRITE,
        path=USER,
        body=UserRolesBody,
        conditional=True,
        answer=PermissionsWritten,
        refusals=(BadName,),
    )
    def put_user_roles(id: str) -> Response:
        identity = caller.require(WRITE)
        user = rooms.clean_name(id, "the user's id")
        roles, reason = read_user(json_body(unique=True), user)
        return written(service.put_user(identity, user, roles, reason, condition()))

    def written(result: Written) -> Response:
        return write_answer(result, tail.epoch)

    add_history(routes, service, caller, TriedQuery, lambda result, _query: written(result), PermissionsWritten)
    return routes


def _role(row: RoleRow) -> dict[str, Any]:
    return role_content(row.role) | {"version": row.version}


def _is(identity: Identity, user: str) -> bool:
    return identity.user == user and identity.authenticated
