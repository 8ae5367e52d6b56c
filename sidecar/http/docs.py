"""What this server speaks, for programs and people: the document of its sockets, and a page that shows it and that of
the HTTP API (openapi.py)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cache
from typing import Any

import gevent
from flask import Blueprint, Response, render_template, request

from sidecar.domain.errors import BadHost
from sidecar.http.conditions import tagged
from sidecar.http.operations import HTML, Who, operation
from sidecar.http.requests import public_prefix
from sidecar.wire.answers import Object


def docs(document: Callable[[], dict[str, Any]], servers: Callable[[str, str, str], dict[str, Any]]) -> Blueprint:
    """`document` makes that of the sockets, but for its `servers`, which depend on the scheme, host and prefix that a
    caller has asked by."""
    routes = Blueprint("docs", __name__)

    @cache
    def kept() -> tuple[str, Any]:
        """All that is the same for everybody, up to its last member, and a hash of it."""
        text = json.dumps(document(), ensure_ascii=False, separators=(",", ":")).removesuffix("}") + ',"servers":'
        return text, hashlib.sha256(text.encode())

    @routes.get("/api/asyncapi.json")
    @operation(
        "contracts",
        "The document of the sockets, AsyncAPI 3.0",
        scope=Who.ALL,
        tagged=True,
        answer=Object,
        notes="`servers` names the scheme, host and prefix it was asked under.",
    )
    def asyncapi_json() -> Response:
        if not request.host:
            raise BadHost("The Host header names no host.")
        text, mark = gevent.get_hub().threadpool.apply(kept)
        here = json.dumps(servers(request.scheme, request.host, public_prefix()), separators=(",", ":")) + "}"
        tag = mark.copy()
        tag.update(here.encode())
        response = Response(text + here, content_type="application/json")
        return tagged(response, tag.hexdigest()[:16], private=False)

    @routes.get("/api/docs")
    @operation("pages", "This document and that of the sockets, to read", scope=Who.ALL, answer=HTML)
    def page() -> Response:
        return Response(render_template("docs.html", base=public_prefix()), content_type="text/html; charset=utf-8")

    return routes
