"""Authorizations over HTTP: for back ends and browsers of ours, for the platform's callbacks, and the pages on which
users come back."""

from __future__ import annotations

from dataclasses import asdict

from flask import Blueprint, Response, jsonify, render_template, request
from werkzeug.exceptions import MethodNotAllowed

from sidecar.domain.authorizations import AppTokenKind, Language, masked
from sidecar.domain.errors import (
    AuthenticationRequired,
    AuthorizationCodeExpired,
    AuthorizationExpired,
    AuthorizationFailed,
    AuthorizationNotFound,
    AuthorizationRejected,
    Conflict,
    NotAllowed,
    NotFound,
    ProviderUnavailable,
    ReplayedRequest,
    SidecarError,
    SignatureMismatch,
    StaleRequest,
    TokenRefreshFailed,
    Unauthenticated,
    Unavailable,
    UserTokenExpired,
)
from sidecar.http.authorization_texts import Text, of_error, of_state
from sidecar.http.errors import STATUS
from sidecar.http.operations import HTML, Who, operation
from sidecar.http.parameters import Anything, Parameters, shortened, text, whole, word
from sidecar.http.requests import Caller, json_body, keyed_request, parsed, public_prefix, raw_body
from sidecar.services.authorization_upkeep import CleanUp
from sidecar.services.authorizations import READ, WRITE, Authorizations
from sidecar.services.lark_apps import Apps
from sidecar.services.lark_callbacks import Callbacks
from sidecar.services.providers import Provider
from sidecar.services.user_tokens import TokenStore
from sidecar.store.authorizations import SessionRow, UseRow
from sidecar.wire.answers import Object
from sidecar.wire.answers_authorizations import (
    AppToken,
    Authorization,
    AuthorizationBegun,
    AuthorizationNow,
    CardSent,
    CleanedUp,
    Heard,
    TokenRevoked,
    TokenUseList,
    UserToken,
)
from sidecar.wire.authorizations import CardBody, EventBody, LinkBody, StartBody
from sidecar.wire.checks import read

MAX_PAGE = 200
MAX_PARAMETER = 4_096
TAG = "authorizations"
SESSION = {"session_id": "As it was answered when the authorization began."}
USER = {"app_id": "The app's id at the platform.", "user": "The caller's own id of the user."}
PLATFORM = (
    NotFound,
    AuthorizationFailed,
    AuthorizationCodeExpired,
    AuthenticationRequired,
    UserTokenExpired,
    TokenRefreshFailed,
    ProviderUnavailable,
)
"""What may come of asking the platform."""
ENDED = (Conflict, AuthorizationExpired, AuthorizationRejected)
PROVED = (NotFound, Unauthenticated, SignatureMismatch, StaleRequest, ReplayedRequest, Unavailable)
RETURNED = (200, 400, 403, 404, 409, 410, 502, 503)
"""Statuses of the page on which a user comes back, each with what has happened."""


class UserTokenQuery(Parameters):
    refused: str | None = text(MAX_PARAMETER, "The fingerprint of a token that the platform does not take.")


class AppTokenQuery(Parameters):
    kind: AppTokenKind = word(("tenant", "app"), "tenant", "Whose token.")


class AuditQuery(Parameters):
    app: str | None = text(MAX_PARAMETER, "Of this app only.")
    user: str | None = text(MAX_PARAMETER, "Of this user only.")
    limit: int = whole(50, 1, MAX_PAGE, "At most so many items.")


class ReturnedQuery(Parameters, others=True):
    """What the platform may add besides is none of our business."""

    state: str = shortened(MAX_PARAMETER, "As the platform was given it.")
    code: str = shortened(MAX_PARAMETER, "What tokens are to be had for.")
    error: str = shortened(MAX_PARAMETER, "Why there is no code.")


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

    @routes.post("/api/authorizations")
    @operation(
        TAG,
        "Begin the authorization of a user",
        scope=WRITE,
        body=StartBody,
        keyed=True,
        answer=AuthorizationBegun,
        refusals=(NotFound, AuthorizationFailed, *ENDED),
    )
    def start() -> Response:
        identity = caller.require(WRITE)
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
    @operation(
        TAG,
        "How far an authorization has come",
        notes="With authorizations:read; of one's own with a connection token.",
        scope=Who.KNOWN,
        path=SESSION,
        answer=Authorization,
        refusals=(NotAllowed, AuthorizationNotFound),
    )
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
    @operation(
        TAG,
        "Send the card by which the user authorizes",
        notes="Once: asked again, it tells of the one that was sent.",
        scope=WRITE,
        path=SESSION,
        body=CardBody,
        body_optional=True,
        answer=CardSent,
        refusals=(AuthorizationNotFound, *ENDED, *PLATFORM),
    )
    def card(session_id: str) -> Response:
        identity = caller.require(WRITE)
        raw = raw_body()
        body = read(CardBody, parsed(raw) if raw else {})
        message_id, duplicate = service.send_card(identity, session_id, body)
        return jsonify(success=True, message_id=message_id, session_id=session_id, duplicate=duplicate)

    @routes.get("/api/authorizations/<app_id>/<path:user>/token")
    @operation(
        TAG,
        "A token of the user that holds now",
        notes="Renewed before, if little of its life is left.",
        scope=READ,
        query=UserTokenQuery,
        path=USER,
        answer=UserToken,
        refusals=PLATFORM,
    )
    def user_token(app_id: str, user: str, query: UserTokenQuery) -> Response:
        found = tokens.token(caller.identity(), app_id, user, query.refused)
        return jsonify(
            user_access_token=found.text,
            token_expires_at=found.expires_at,
            expires_in=int(found.expires_in),
            is_expiring=found.is_expiring,
            scope=found.scope,
            open_id=found.open_id,
        )

    @routes.delete("/api/authorizations/<app_id>/<path:user>/token")
    @operation(TAG, "Forget the tokens of a user", scope=WRITE, path=USER, answer=TokenRevoked)
    def revoke(app_id: str, user: str) -> Response:
        return jsonify(success=True, revoked=tokens.revoke(caller.identity(), app_id, user))

    @routes.get("/api/authorizations/<app_id>/app-token")
    @operation(
        TAG,
        "A token of the app itself",
        notes="For what needs no user.",
        scope=READ,
        query=AppTokenQuery,
        path={"app_id": USER["app_id"]},
        answer=AppToken,
        refusals=PLATFORM,
    )
    def app_token(app_id: str, query: AppTokenQuery) -> Response:
        found = tokens.app_token(caller.identity(), app_id, query.kind)
        return jsonify(token=found.text, kind=query.kind, expires_in=int(found.expires_in))

    @routes.post("/api/authorizations/cleanup")
    @operation(
        TAG, "End what is over and forget what is old, now", scope="admin", answer=CleanedUp, refusals=(NotFound,)
    )
    def cleanup() -> Response:
        caller.require("admin")
        service.expire()
        return jsonify(success=True, cleaned_count=cleaning.run())

    @routes.get("/api/authorizations/audit")
    @operation(TAG, "Who was given tokens", scope="admin", query=AuditQuery, answer=TokenUseList, refusals=(NotFound,))
    def audit(query: AuditQuery) -> Response:
        caller.require("admin")
        return jsonify(items=[_use(row) for row in tokens.uses(query.app, query.user, query.limit)])

    @routes.post("/api/authorizations/events")
    @operation(
        TAG,
        "Take an event that came over the long connection",
        notes="From `python -m sidecar lark-events`; the answer is for the platform.",
        scope=WRITE,
        body=EventBody,
        answer=Object,
        refusals=(NotFound, ReplayedRequest),
    )
    def fed() -> Response:
        return jsonify(callbacks.fed(caller.require(WRITE), read(EventBody, json_body())))

    @routes.post("/api/authorizations/events/link")
    @operation(TAG, "Hear how the long connection is", scope=WRITE, body=LinkBody, answer=Heard, refusals=(NotFound,))
    def linked() -> Response:
        callbacks.linked(caller.require(WRITE), read(LinkBody, json_body()))
        return jsonify(success=True)

    @operation(
        TAG,
        "Take a callback of the platform",
        notes="Of events and of clicks on cards; the answer is for the platform.",
        scope=Who.PLATFORM,
        path={"app_id": USER["app_id"]},
        body=Object,
        answer=Object,
        refusals=PROVED,
    )
    def called(app_id: str | None = None) -> Response:
        return jsonify(callbacks.take(app_id, dict(request.headers), raw_body()))

    routes.add_url_rule("/callback/lark", "called", called, methods=["POST"])
    routes.add_url_rule("/callback/lark/<app_id>", "called_for", called, methods=["POST"])

    @operation(
        TAG,
        "The page on which a user comes back from the platform",
        scope=Who.ALL,
        query=ReturnedQuery,
        answers=dict.fromkeys(RETURNED, HTML),
        refusals=(NotFound, Unavailable),
    )
    def returned(query: ReturnedQuery) -> Response:
        """Not for HEAD, by which scanners and previews look at addresses: it would use up the code."""
        if request.method == "HEAD":
            raise MethodNotAllowed(["GET"])
        row = None
        try:
            outcome = service.returned(query.state, query.code, query.error)
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
    @operation(
        TAG,
        "The page of an authorization",
        notes="For whoever was given its address: the id can't be guessed.",
        scope=Who.ALL,
        query=Anything,
        path=SESSION,
        answer=HTML,
        answers={404: HTML},
        refusals=(Unavailable,),
    )
    def page(session_id: str) -> Response:
        """For whoever was given its address: the id can't be guessed."""
        try:
            row = service.known(session_id)
        except AuthorizationNotFound as error:
            return _page(None, of_error(error, language, None), language, 404)
        return _page(row, of_state(row.state, row.language, row.reason), row.language, 200)

    @routes.get("/authorizations/<session_id>/state")
    @operation(
        TAG,
        "What the page asks while it waits",
        scope=Who.ALL,
        path=SESSION,
        answer=AuthorizationNow,
        refusals=(AuthorizationNotFound, Unavailable),
    )
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
