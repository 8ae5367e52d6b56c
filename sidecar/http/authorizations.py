"""Authorizations over HTTP: for back ends and browsers of ours, for the platform's callbacks, and the pages on which
users come back."""

from __future__ import annotations

from dataclasses import asdict

from flask import Blueprint, Response, jsonify, render_template, request
from werkzeug.exceptions import MethodNotAllowed

from sidecar.domain.authorizations import Language, masked
from sidecar.domain.errors import (
    AuthorizationFailed,
    AuthorizationNotFound,
    Conflict,
    FieldError,
    Invalid,
    SidecarError,
)
from sidecar.http.authorization_texts import Text, of_error, of_state
from sidecar.http.errors import STATUS
from sidecar.http.paging import Query, only_parameters
from sidecar.http.requests import Caller, json_body, keyed_request, parsed, public_prefix, raw_body
from sidecar.services.authorization_upkeep import CleanUp
from sidecar.services.authorizations import Authorizations
from sidecar.services.lark_apps import Apps
from sidecar.services.lark_callbacks import Callbacks
from sidecar.services.providers import Provider
from sidecar.services.user_tokens import TokenStore
from sidecar.store.authorizations import SessionRow, UseRow
from sidecar.wire.authorizations import CardBody, EventBody, LinkBody, StartBody
from sidecar.wire.checks import read

MAX_PAGE = 200
MAX_PARAMETER = 4_096
PARAMETERS = {
    "user_token": ("refused",),
    "app_token": ("kind",),
    "audit": ("app", "user", "limit"),
    "returned": None,
    "returned_api": None,
    "page": None,
}


def authorizations(
    service: Authorizations,
    tokens: TokenStore,
    callbacks: Callbacks,
    cleaning: CleanUp,
    apps: Apps,
    provider: Provider,
    caller: Caller,
    language: Language,
    public_base: str | None,
) -> Blueprint:
    """`language` is that of pages on which nobody is known; `public_base` the address below which browsers reach us,
    None for the one that a request came by."""
    routes = Blueprint("authorizations", __name__)

    @routes.before_request
    def there_is_an_app() -> None:
        apps.named(None)

    only_parameters(routes, PARAMETERS)

    @routes.post("/api/authorizations")
    def start() -> Response:
        identity = caller.identity()
        raw = raw_body()
        keyed = keyed_request(identity, "authorizations", raw)
        begun = service.start(identity, keyed, read(StartBody, parsed(raw)))
        row = begun.row
        return jsonify(
            success=True,
            session_id=row.session_id,
            app=row.app_id,
            user=row.user_id,
            state=row.state,
            method=row.auth_method,
            authorize_url=begun.authorize_url,
            expires_at=row.expires_at,
            page=f"{public_base or request.host_url.rstrip('/') + public_prefix()}/authorizations/{row.session_id}",
            duplicate=begun.duplicate,
        )

    @routes.get("/api/authorizations/<session_id>")
    def one(session_id: str) -> Response:
        row = service.seen(caller.identity(), session_id)
        return jsonify(
            session_id=row.session_id,
            app=row.app_id,
            user=row.user_id,
            state=row.state,
            method=row.auth_method,
            reason=row.reason,
            open_id=row.open_id,
            union_id=row.union_id,
            name=row.user_name,
            mobile=_masked(row.mobile),
            email=_masked(row.email),
            message_id=row.message_id,
            created_at=row.created_at,
            expires_at=row.expires_at,
            completed_at=row.completed_at,
        )

    @routes.post("/api/authorizations/<session_id>/card")
    def card(session_id: str) -> Response:
        raw = raw_body()
        body = read(CardBody, parsed(raw) if raw else {})
        message_id, duplicate = service.send_card(caller.identity(), session_id, body)
        return jsonify(success=True, message_id=message_id, session_id=session_id, duplicate=duplicate)

    @routes.get("/api/authorizations/<app_id>/<path:user>/token")
    def user_token(app_id: str, user: str) -> Response:
        found = tokens.token(caller.identity(), app_id, user, request.args.get("refused"))
        return jsonify(
            user_access_token=found.text,
            token_expires_at=found.expires_at,
            expires_in=int(found.expires_in),
            is_expiring=found.is_expiring,
            scope=found.scope,
            open_id=found.open_id,
        )

    @routes.delete("/api/authorizations/<app_id>/<path:user>/token")
    def revoke(app_id: str, user: str) -> Response:
        return jsonify(success=True, revoked=tokens.revoke(caller.identity(), app_id, user))

    @routes.get("/api/authorizations/<app_id>/app-token")
    def app_token(app_id: str) -> Response:
        kind = request.args.get("kind", "tenant")
        if kind not in ("tenant", "app"):
            raise Invalid("kind must be tenant or app.", (FieldError("kind", "must be tenant or app"),))
        found = tokens.app_token(caller.identity(), app_id, "app" if kind == "app" else "tenant")
        return jsonify(token=found.text, kind=kind, expires_in=int(found.expires_in))

    @routes.post("/api/authorizations/cleanup")
    def cleanup() -> Response:
        caller.require("admin")
        service.expire()
        return jsonify(success=True, cleaned_count=cleaning.run())

    @routes.get("/api/authorizations/audit")
    def audit() -> Response:
        caller.require("admin")
        query = Query(request.args)
        app_id, user = query.text("app", MAX_PARAMETER), query.text("user", MAX_PARAMETER)
        limit = query.number("limit", 50, 1, MAX_PAGE)
        query.finish()
        return jsonify(items=[_use(row) for row in tokens.uses(app_id, user, limit)])

    @routes.post("/api/authorizations/events")
    def fed() -> Response:
        return jsonify(callbacks.fed(caller.identity(), read(EventBody, json_body())))

    @routes.post("/api/authorizations/events/link")
    def linked() -> Response:
        callbacks.linked(caller.identity(), read(LinkBody, json_body()))
        return jsonify(success=True)

    def called(app_id: str | None = None) -> Response:
        return jsonify(callbacks.take(app_id, dict(request.headers), raw_body()))

    routes.add_url_rule("/callback/lark", "called", called, methods=["POST"])
    routes.add_url_rule("/callback/lark/<app_id>", "called_for", called, methods=["POST"])

    def returned() -> Response:
        """Also with the parameters of others: what the platform may add is none of our business. Not for HEAD, by which
        scanners and previews look at addresses: it would use up the code."""
        if request.method == "HEAD":
            raise MethodNotAllowed(["GET"])
        given = {name: request.args.get(name, "")[:MAX_PARAMETER] for name in ("state", "code", "error")}
        row = None
        try:
            outcome = service.returned(given["state"], given["code"], given["error"])
            row, error = outcome.row, outcome.error
            if row is not None and error is None:
                return _page(row, of_state("completed", row.language), row.language, 200)
            if error is not None:
                raise error
            raise AuthorizationNotFound("This address belongs to no authorization of ours.")
        except SidecarError as error:
            spoken = row.language if row is not None else language
            advice = provider.advice(error.provider_code, spoken) if isinstance(error, AuthorizationFailed) else None
            told = of_error(error, spoken, advice)
            if isinstance(error, Conflict) and row is not None and row.state == "completed":
                told = of_state("completed_before", spoken)
            return _page(row, told, spoken, STATUS[type(error)])

    for path, name in (("/callback", "returned"), ("/api/authorizations/callback", "returned_api")):
        routes.add_url_rule(path, name, returned, methods=["GET"])

    @routes.get("/authorizations/<session_id>")
    def page(session_id: str) -> Response:
        """For whoever was given its address: the id can't be guessed."""
        try:
            row = service.known(session_id)
        except AuthorizationNotFound as error:
            return _page(None, of_error(error, language, None), language, 404)
        return _page(row, of_state(row.state, row.language, row.reason), row.language, 200)

    @routes.get("/authorizations/<session_id>/state")
    def state(session_id: str) -> Response:
        """What the page asks again and again while it waits."""
        row = service.known(session_id)
        return jsonify(state=row.state, reason=row.reason)

    return routes


def _page(row: SessionRow | None, told: Text, language: Language, status: int) -> Response:
    shown = render_template(
        "authorization.html",
        base=public_prefix(),
        language=language,
        told=asdict(told),
        session_id=None if row is None else row.session_id,
        state=None if row is None else row.state,
        reason=None if row is None else row.reason,
    )
    return Response(shown, status, content_type="text/html; charset=utf-8", headers={"Referrer-Policy": "no-referrer"})


def _masked(text: str | None) -> str | None:
    return None if text is None else masked(text)


def _use(row: UseRow) -> dict[str, object]:
    return {
        "at": row.at,
        "app": row.app_id,
        "user": row.user_id,
        "use": row.use,
        "by": row.by,
        "token_id": row.token_id,
    }
