"""The document of the HTTP API, OpenAPI 3.1, made from the URL map and what the views declare (operations.py)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from http import HTTPStatus
from typing import Any

import gevent
from flask import Blueprint, Flask, Response
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema
from werkzeug.routing import Rule

from sidecar.domain import errors
from sidecar.http.conditions import tagged
from sidecar.http.errors import STATUS, is_old
from sidecar.http.operations import DECLARED, Media, Operation, Who, operation
from sidecar.http.parameters import Parameter
from sidecar.http.requests import CSRF_HEADER, SAFE_METHODS, UNLIMITED, public_prefix
from sidecar.services.access import LOGIN_COOKIE
from sidecar.services.idempotency import KEY_MAX_CHARACTERS
from sidecar.version import VERSION
from sidecar.wire.answers import Object, OldProblem, Problem

SERVER = "{server}"
"""Stands in the document for the prefix under which it is asked for."""

ABOUT = """\
Webhooks in, rooms out: what deploy workflows and back ends post, browsers get at once and in order.

Every path answers with and without the prefix of the server named here, and with and without a slash at its end. \
A request that is refused gets problem+json (RFC 9457) with a stable `code` and every bad field in `errors`; a method \
that is not listed at a path gets 405 with `Allow`. Each answer has an `X-Request-Id`, the sender's own if it gave one.
"""

TAGS = {
    "webhooks": "What deploy workflows post",
    "deployments": "Projects, deployments, their steps, events and logs",
    "deliveries": "What was posted, raw, and once more from the top",
    "messages": "From a back end to browsers: to rooms, to users, to everyone",
    "live push": "What is sent to a room again and again",
    "rooms": "Which free rooms there are, and who is in them",
    "menu": "The application's menu, versioned",
    "permissions": "Roles, who has them, what that allows; versioned",
    "users": "Users as connection tokens name them",
    "bots": "Bots that speak maim_message: messages to them, connections, keys",
    "authorizations": "Users' authorizations through Lark/Feishu",
    "tokens": "API tokens, connection tokens, logging in",
    "secrets": "Secrets by which webhooks are signed",
    "operating": "Alive, ready, figures",
    "pages": "What browsers show",
    "contracts": "This document and its like",
}

TOKEN_SCHEMES = ("bearer", "token", "api_key", "webhook_token")
SECURITY_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API token (`sct_…`) or a connection token. Roles named at an operation are its scopes.",
    },
    "token": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "The same as `Token <token>`.",
    },
    "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same, bare."},
    "webhook_token": {"type": "apiKey", "in": "header", "name": "X-Webhook-Token", "description": "The same, bare."},
    "login": {
        "type": "apiKey",
        "in": "cookie",
        "name": LOGIN_COOKIE,
        "description": "The session of the pages; it may do all that an admin may.",
    },
    "csrf": {
        "type": "apiKey",
        "in": "header",
        "name": CSRF_HEADER,
        "description": "Goes with the login cookie wherever something is changed (GET /api/session tells it).",
    },
    "platform_signature": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Lark-Signature",
        "description": "As Lark signs its callbacks; without an encrypt key its verification token is in the body.",
    },
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Hub-Signature-256",
        "description": "`sha256=` and the HMAC-SHA256 of the raw body by a secret of the project, in hexadecimal.",
    },
}

IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Repeated with the same body it gets the first answer, marked `duplicate`; with another one 409.",
    "schema": {"type": "string", "minLength": 1, "maxLength": KEY_MAX_CHARACTERS},
}
IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "description": "ETags that the caller has; 304 if one of them is still right.",
    "schema": {"type": "string"},
}
CONDITIONS = (
    {
        "name": "If-Match",
        "in": "header",
        "description": "Write only if this ETag is still the right one (`*`: if there is one), else 412.",
        "schema": {"type": "string"},
    },
    {
        "name": "If-None-Match",
        "in": "header",
        "description": "`*`: write only if it doesn't exist yet, else 412.",
        "schema": {"type": "string"},
    },
)
ETAG = {"ETag": {"schema": {"type": "string"}}}
REFUSAL_HEADERS = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}}},
    429: {"Retry-After": {"description": "Seconds", "schema": {"type": "integer", "minimum": 1}}},
    503: {"Retry-After": {"description": "Seconds", "schema": {"type": "integer", "minimum": 1}}},
}
UNNAMED_CODES = {400: ("bad_request",)}
"""Codes that no class of errors stands for: of requests that Werkzeug refuses."""

VARIABLE = re.compile(r"<(?:(?P<kind>\w+)(?:\((?P<options>[^)]*)\))?:)?(?P<name>\w+)>")


def openapi(app: Flask) -> Blueprint:
    """Serves the document, made when it is first asked for."""
    routes = Blueprint("openapi", __name__)

    @cache
    def kept() -> tuple[str, str, str]:
        """What comes before and after the server's place, and a mark of all."""
        text = json.dumps(document(rules, app.view_functions), ensure_ascii=False, separators=(",", ":"))
        head, _, rest = text.partition(json.dumps(SERVER))
        return head, rest, hashlib.sha256(text.encode()).hexdigest()[:16]

    rules: list[Rule] = []

    @routes.get("/api/openapi.json")
    @operation(
        "contracts",
        "This document",
        scope=Who.ALL,
        tagged=True,
        answer=Object,
        notes="`servers` names the prefix it was asked under.",
    )
    def openapi_json() -> Response:
        if not rules:
            rules.extend(app.url_map.iter_rules())
        head, rest, mark = gevent.get_hub().threadpool.apply(kept)
        server = public_prefix() or "/"
        response = Response(f"{head}{json.dumps(server)}{rest}", content_type="application/json")
        return tagged(response, f"{mark}{server.replace('/', '-')}", private=False)

    return routes


def document(rules: Iterable[Rule], views: Mapping[str, Any]) -> dict[str, Any]:
    """The whole document. A route without a declaration is not in it."""
    declared = [
        (rule, method, getattr(views[rule.endpoint], DECLARED))
        for rule in sorted(rules, key=lambda rule: rule.rule)
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
        if hasattr(views[rule.endpoint], DECLARED)
    ]
    schemas = _Schemas(kind for _, _, found in declared for kind in _kinds(found))
    responses: dict[str, Any] = {}
    paths: dict[str, dict[str, Any]] = {}
    for rule, method, found in declared:
        path = VARIABLE.sub(r"{\g<name>}", rule.rule)
        paths.setdefault(path, {})[method.lower()] = _Described(rule, method, found, schemas, responses).operation()
    used = {found.tag for _, _, found in declared}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "sidecar",
            "version": VERSION,
            "description": ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": SERVER}],
        "tags": [{"name": tag, "description": about} for tag, about in TAGS.items() if tag in used],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "responses": dict(sorted(responses.items())),
            "securitySchemes": SECURITY_SCHEMES,
        },
    }


class _Generator(GenerateJsonSchema):
    """What a TypedDict doesn't name is not in an answer; titles would only repeat the names."""

    def typed_dict_schema(self, schema: core_schema.TypedDictSchema) -> dict[str, Any]:
        return {"additionalProperties": False} | super().typed_dict_schema(schema)

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> dict[str, Any]:
        """Nothing as a default says that a field may be left out, which is told already."""
        described = super().default_schema(schema)
        if described.get("default", False) in (None, ""):
            del described["default"]
        return described

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


class _Schemas:
    """JSON Schemas of types; those with a name are components."""

    def __init__(self, kinds: Iterable[Any]):
        unique = list({repr(kind): kind for kind in kinds}.values())
        found, definitions = TypeAdapter.json_schemas(
            [(repr(kind), "validation", TypeAdapter(kind)) for kind in unique],
            ref_template="#/components/schemas/{model}",
            schema_generator=_Generator,
        )
        self._found = {key: schema for (key, _), schema in found.items()}
        self.components: dict[str, Any] = dict(sorted(definitions.get("$defs", {}).items()))
        for schema in (*self.components.values(), *self._found.values()):
            schema.pop("title", None)

    def of(self, kind: Any) -> Any:
        """`kind` is a type, or a JSON Schema already."""
        return kind if isinstance(kind, dict) else self._found[repr(kind)]


def _kinds(found: Operation) -> Iterator[Any]:
    """The types that an operation speaks of."""
    yield from (Problem, OldProblem)
    for held in (found.body, found.answer, *found.answers.values()):
        for media in _media(held):
            if not isinstance(media.kind, dict):
                yield media.kind


def _media(held: Any) -> tuple[Media, ...]:
    """What a body or an answer is declared to hold."""
    if held is None:
        return ()
    parts = held if isinstance(held, tuple) else (held,)
    return tuple(part if isinstance(part, Media) else Media("application/json", part) for part in parts)


class _Described:
    """One operation on its way into the document; what several share goes to `responses`."""

    def __init__(self, rule: Rule, method: str, found: Operation, schemas: _Schemas, responses: dict[str, Any]):
        self.rule = rule
        self.method = method
        self.found = found
        self.schemas = schemas
        self.responses = responses
        self.variables = list(VARIABLE.finditer(rule.rule))
        self.old = is_old(rule.rule)

    def operation(self) -> dict[str, Any]:
        found = self.found
        body: dict[str, Any] = {
            "operationId": self.rule.endpoint.replace(".", "_"),
            "tags": [found.tag],
            "summary": found.summary,
        }
        if found.notes:
            body["description"] = found.notes
        parameters = [*self._path(), *self._query(), *self._headers()]
        if parameters:
            body["parameters"] = parameters
        if found.body is not None:
            content = {media.type: {"schema": self.schemas.of(media.kind)} for media in _media(found.body)}
            body["requestBody"] = {"required": not found.body_optional, "content": content}
        body["responses"] = self._answers()
        body["security"] = self._security()
        return body

    def _path(self) -> Iterator[dict[str, Any]]:
        for variable in self.variables:
            name = variable["name"]
            described = {"name": name, "in": "path", "required": True, "schema": _variable_schema(variable)}
            about = self.found.path.get(name)
            yield {**described, "description": about} if about else described

    def _query(self) -> Iterator[dict[str, Any]]:
        for name, parameter in self.found.query.declared.items():
            yield _parameter(name, parameter)

    def _headers(self) -> Iterator[dict[str, Any]]:
        if self.found.keyed:
            yield IDEMPOTENCY_KEY
        if self.found.tagged:
            yield IF_NONE_MATCH
        if self.found.conditional:
            yield from CONDITIONS

    def _security(self) -> list[dict[str, list[str]]]:
        found = self.found
        if found.scope is Who.ALL:
            return []
        if found.scope is Who.PLATFORM:
            return [{"platform_signature": []}]
        scopes = [found.scope] if isinstance(found.scope, str) else []
        ways = [{scheme: scopes} for scheme in TOKEN_SCHEMES]
        ways.append({"login": []} if self.method in SAFE_METHODS else {"login": [], "csrf": []})
        if found.signed:
            ways.append({"signature": []})
        return [{}, *ways] if found.scope is Who.ANYBODY else ways

    def _answers(self) -> dict[str, Any]:
        found = self.found
        answers = found.answers if found.answer is None else {200: found.answer, **found.answers}
        told = {status: self._answer(status, answer) for status, answer in answers.items()}
        if found.tagged:
            told[304] = {"description": "What the caller has is still right.", "headers": ETAG}
        for status, classes in self._refusals().items():
            refusal = self._refusal(status, classes)
            told[status] = _both(told[status], self.responses, refusal) if status in told else refusal
        return {str(status): told[status] for status in sorted(told)}

    def _answer(self, status: int, answer: Any) -> dict[str, Any]:
        described: dict[str, Any] = {"description": HTTPStatus(status).phrase}
        headers: dict[str, Any] = {
            name: {"description": about, "schema": {"type": "string"}} for name, about in self.found.headers.items()
        }
        if self.found.tagged or self.found.conditional:
            headers |= ETAG
        if headers and status < 400:
            described["headers"] = headers
        media = _media(answer)
        if media:
            described["content"] = {part.type: {"schema": self.schemas.of(part.kind)} for part in media}
        return described

    def _refusals(self) -> dict[int, list[type[errors.SidecarError]]]:
        """The errors of this operation by status."""
        found = self.found
        known = found.scope not in (Who.ALL, Who.PLATFORM)
        writes = self.method not in SAFE_METHODS
        classes: list[type[errors.SidecarError]] = [errors.Invalid, errors.BadHost]
        if found.body is not None and not isinstance(found.body, Media):
            classes += [errors.Unparsable, errors.TooLarge, errors.UnsupportedMedia]
        if known:
            classes += [errors.Unauthenticated, errors.TokenExpired]
        if isinstance(found.scope, str) or (known and writes):
            classes.append(errors.NotAllowed)
        if self.variables:
            classes.append(errors.NotFound)
        if found.keyed:
            classes.append(errors.Conflict)
        if found.conditional:
            classes.append(errors.PreconditionFailed)
        if self.rule.rule not in UNLIMITED:
            classes.append(errors.RateLimited)
        if known or writes:
            classes.append(errors.Unavailable)
        by_status: dict[int, list[type[errors.SidecarError]]] = {}
        for error in dict.fromkeys((*classes, *found.refusals)):
            by_status.setdefault(STATUS[error], []).append(error)
        return by_status

    def _refusal(self, status: int, classes: Iterable[type[errors.SidecarError]]) -> dict[str, Any]:
        """A reference to the component that tells these errors."""
        named = sorted({error.__name__ for error in classes})
        name = ("Old" if self.old else "") + "Or".join(named)
        if name not in self.responses:
            codes = sorted({error.code for error in classes} | set(UNNAMED_CODES.get(status, ())))
            schema = {
                **self.schemas.of(OldProblem if self.old else Problem),
                "properties": {"code": {"enum": codes}},
            }
            response: dict[str, Any] = {"description": "; ".join(sorted({error.title for error in classes}))}
            if status in REFUSAL_HEADERS:
                response["headers"] = REFUSAL_HEADERS[status]
            media = "application/json" if self.old else "application/problem+json"
            self.responses[name] = response | {"content": {media: {"schema": schema}}}
        return {"$ref": f"#/components/responses/{name}"}


def _both(answer: dict[str, Any], responses: Mapping[str, Any], refusal: Mapping[str, str]) -> dict[str, Any]:
    """A status that is an answer of this route and a refusal as well."""
    other = responses[refusal["$ref"].rpartition("/")[2]]
    return {
        "description": f"{answer['description']}; {other['description']}",
        "headers": {**other.get("headers", {}), **answer.get("headers", {})},
        "content": {**other["content"], **answer.get("content", {})},
    }


def _parameter(name: str, parameter: Parameter) -> dict[str, Any]:
    described: dict[str, Any] = {"name": name, "in": "query", "description": parameter.about}
    if parameter.required:
        described["required"] = True
    return described | {"schema": parameter.schema}


def _variable_schema(variable: re.Match[str]) -> dict[str, Any]:
    """The values that a variable of an address takes."""
    if variable["kind"] == "int":
        most = re.search(r"max=(\d+)", variable["options"] or "")
        return {"type": "integer", "minimum": 0} | ({"maximum": int(most[1])} if most else {})
    return {"type": "string", "minLength": 1} | ({} if variable["kind"] == "path" else {"pattern": "^[^/]+$"})
