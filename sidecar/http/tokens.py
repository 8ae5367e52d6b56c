"""Tokens over HTTP: API tokens for admins, connection tokens for back ends, login links and their session."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, redirect, render_template, request
from werkzeug.wrappers import Response as BaseResponse

from sidecar.domain.errors import FieldError, Invalid, NotAllowed, NotFound
from sidecar.http.requests import Caller, json_body, public_prefix
from sidecar.services.access import LOGIN_COOKIE
from sidecar.services.connections import COOKIE_SECONDS, Connections
from sidecar.services.tokens import NewToken, Tokens
from sidecar.store.tokens import TokenRow
from sidecar.wire.origins import Origins


def tokens(service: Tokens, connections: Connections, caller: Caller, origins: Origins) -> Blueprint:
    routes = Blueprint("tokens", __name__)

    @routes.post("/api/tokens/connection")
    def issue_connection_token() -> Response:
        identity = caller.require("tokens:issue")
        body = json_body()
        token = connections.issue(
            identity,
            sub=body.get("sub"),
            patterns=_list(body, "rooms"),
            scopes=_list(body, "scopes"),
            ttl_seconds=body.get("ttl_seconds"),
        )
        return jsonify(success=True, token=token.text, expires_at=token.expires_at, ttl_seconds=token.ttl_seconds)

    @routes.get("/api/tokens")
    def list_tokens() -> Response:
        caller.require("admin")
        return jsonify(items=[_shown(row) for row in service.list()])

    @routes.post("/api/tokens")
    def create_token() -> Response:
        caller.require("admin")
        body = json_body()
        ttl = body.get("ttl_seconds")
        if ttl is not None and (isinstance(ttl, bool) or not isinstance(ttl, (int, float))):
            raise Invalid("The token can't be made so.", (FieldError("ttl_seconds", "must be a number of seconds"),))
        made = service.create(body.get("name"), _list(body, "scopes") or [], _list(body, "projects"), ttl)
        return jsonify(success=True, **_new(made))

    @routes.delete("/api/tokens/<id>")
    def revoke_token(id: str) -> Response:
        caller.require("admin")
        service.revoke(id)
        return jsonify(success=True, message="The token is revoked.")

    @routes.get("/login")
    def login_page() -> str:
        """Shows a button: link previews and prefetching must not spend the one-time code."""
        return render_template("login.html", base=public_prefix(), code=request.args.get("code", "")[:100], error="")

    @routes.post("/login")
    def login() -> BaseResponse:
        if not origins.same_origin(request.environ):
            raise NotAllowed("A login must come from this site's own page.")
        try:
            cookie = connections.spend_login_link(request.form.get("code", ""))
        except NotFound as error:
            page = render_template("login.html", base=public_prefix(), code="", error=error.detail)
            return Response(page, 404, content_type="text/html; charset=utf-8")
        response = redirect(f"{public_prefix()}/", 303)
        response.set_cookie(
            LOGIN_COOKIE,
            cookie,
            max_age=COOKIE_SECONDS,
            path=f"{public_prefix()}/",
            httponly=True,
            samesite="Lax",
            secure=request.scheme == "https",
        )
        return response

    @routes.get("/api/session")
    def session() -> Response:
        """Who the page runs as, and the CSRF token that its writes must carry."""
        identity = caller.identity()
        cookie = request.cookies.get(LOGIN_COOKIE) if identity.kind == "cookie" else None
        return jsonify(
            name=identity.name,
            kind=identity.kind,
            scopes=sorted(identity.scopes),
            csrf_token=connections.csrf_token(cookie) if cookie else None,
        )

    return routes


def _list(body: dict[str, object], name: str) -> list[object] | None:
    value = body.get(name)
    if value is None or isinstance(value, list):
        return value
    raise Invalid("The request can't be used.", (FieldError(name, "must be a list"),))


def _new(token: NewToken) -> dict[str, object]:
    return {
        "id": token.id,
        "token": token.text,
        "name": token.name,
        "scopes": token.scopes,
        "projects": token.projects,
        "expires_at": token.expires_at,
    }


def _shown(row: TokenRow) -> dict[str, object]:
    return {
        "id": row.id,
        "name": row.name,
        "scopes": row.scopes,
        "projects": row.projects,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "revoked_at": row.revoked_at,
    }
