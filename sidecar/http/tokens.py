"""Tokens over HTTP: API tokens for admins, connection tokens for back ends, login links and their session."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, redirect, render_template, request
from werkzeug.wrappers import Response as BaseResponse

from sidecar.domain.errors import NotAllowed, NotFound, TooLarge
from sidecar.http.operations import HTML, Media, Who, operation
from sidecar.http.parameters import Anything, Parameters, shortened
from sidecar.http.requests import Caller, json_body, public_prefix
from sidecar.services.access import LOGIN_COOKIE
from sidecar.services.connections import COOKIE_SECONDS, Connections
from sidecar.services.tokens import NewToken as MadeToken
from sidecar.services.tokens import Tokens
from sidecar.store.tokens import TokenRow
from sidecar.wire.answers import Done
from sidecar.wire.answers_tokens import NewConnectionToken, NewToken, Session, TokenList
from sidecar.wire.checks import read
from sidecar.wire.origins import Origins
from sidecar.wire.tokens import ConnectionTokenBody, LoginForm, TokenBody

FORM = Media("application/x-www-form-urlencoded", LoginForm)


class LoginQuery(Parameters, others=True):
    code: str = shortened(100, "The one-time code; opening the page does not spend it.")


def tokens(service: Tokens, connections: Connections, caller: Caller, origins: Origins) -> Blueprint:
    routes = Blueprint("tokens", __name__)

    @routes.post("/api/tokens/connection")
    @operation(
        "tokens",
        "Issue a connection token for a browser",
        scope="tokens:issue",
        body=ConnectionTokenBody,
        answer=NewConnectionToken,
    )
    def issue_connection_token() -> Response:
        identity = caller.require("tokens:issue")
        body = read(ConnectionTokenBody, json_body())
        token = connections.issue(identity, body.sub, body.rooms, body.scopes, body.ttl_seconds)
        return jsonify(success=True, token=token.text, expires_at=token.expires_at, ttl_seconds=token.ttl_seconds)

    @routes.get("/api/tokens")
    @operation("tokens", "All API tokens, without their text", scope="admin", answer=TokenList)
    def list_tokens() -> Response:
        caller.require("admin")
        return jsonify(items=[_shown(row) for row in service.list()])

    @routes.post("/api/tokens")
    @operation("tokens", "Make an API token", scope="admin", body=TokenBody, answer=NewToken)
    def create_token() -> Response:
        caller.require("admin")
        body = read(TokenBody, json_body())
        made = service.create(body.name, body.scopes or [], body.projects, body.ttl_seconds)
        return jsonify(success=True, **_new(made))

    @routes.delete("/api/tokens/<id>")
    @operation(
        "tokens",
        "Revoke an API token",
        notes="What rests on it ends too: its connection tokens, sessions and live connections.",
        scope="admin",
        path={"id": "As the list names it, 12 hexadecimal digits."},
        answer=Done,
    )
    def revoke_token(id: str) -> Response:
        caller.require("admin")
        service.revoke(id)
        return jsonify(success=True, message="The token is revoked.")

    @routes.get("/login")
    @operation("pages", "The page to log in by a link", scope=Who.ALL, query=LoginQuery, answer=HTML)
    def login_page(query: LoginQuery) -> str:
        """Shows a button: link previews and prefetching must not spend the one-time code."""
        return render_template("login.html", base=public_prefix(), code=query.code, error="")

    @routes.post("/login")
    @operation(
        "pages",
        "Log in",
        notes="From this site's own page only. Sets the session's cookie and goes on to the dashboard.",
        scope=Who.ALL,
        query=Anything,
        body=FORM,
        answers={303: HTML, 404: HTML},
        refusals=(NotAllowed, TooLarge),
    )
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
    @operation("tokens", "Who the caller is", scope=Who.ANYBODY, answer=Session)
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


def _new(token: MadeToken) -> dict[str, object]:
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
