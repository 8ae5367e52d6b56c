"""The pages: dashboard, test console, deliveries and their files; and the first steps of who has just installed it."""

from __future__ import annotations

from pathlib import Path

from flask import Blueprint, Response, jsonify, render_template, send_from_directory

from sidecar.http.deliveries import VERDICTS
from sidecar.http.operations import HTML, Media, Who, operation
from sidecar.http.parameters import Anything
from sidecar.http.requests import Caller, public_prefix
from sidecar.wire.answers import Problem
from sidecar.wire.answers_operating import FirstSteps

WEB = Path(__file__).resolve().parent.parent / "web"
FILES = tuple(map(Media, ("text/javascript", "text/css", "image/svg+xml", "application/octet-stream")))
OUT_OF_RANGE = Media("application/problem+json", Problem)


def pages(caller: Caller, first_token_file: Path, open: str, namespace: str) -> Blueprint:
    """`first_token_file` holds a token for posting, written at the first start; only admins are shown it."""
    routes = Blueprint("pages", __name__)

    @routes.get("/")
    @operation("pages", "The dashboard", scope=Who.ALL, query=Anything, answer=HTML)
    def dashboard() -> Response:
        page = render_template("index.html", base=public_prefix(), namespace=namespace, open=open)
        return Response(page, content_type="text/html; charset=utf-8")

    @routes.get("/console")
    @operation("pages", "The test console", scope=Who.ALL, query=Anything, answer=HTML)
    def console() -> Response:
        page = render_template("console.html", base=public_prefix(), namespace=namespace)
        return Response(page, content_type="text/html; charset=utf-8")

    @routes.get("/deliveries")
    @operation("pages", "The deliveries, for who has logged in", scope=Who.ALL, query=Anything, answer=HTML)
    def deliveries() -> Response:
        page = render_template("deliveries.html", base=public_prefix(), verdicts=VERDICTS)
        return Response(page, content_type="text/html; charset=utf-8")

    @routes.get("/static/<path:name>")
    @operation(
        "pages",
        "A file of the pages, the browser's client among them",
        scope=Who.ALL,
        query=Anything,
        path={"name": "Such as `sidecar.js`."},
        tagged=True,
        answer=FILES,
        answers={206: FILES, 416: OUT_OF_RANGE},
    )
    def static_file(name: str) -> Response:
        response = send_from_directory(WEB / "static", name, max_age=300)
        response.headers["Access-Control-Allow-Origin"] = "*"
        return response

    @routes.get("/api/first-steps")
    @operation("pages", "What the empty dashboard shows an admin", scope="admin", answer=FirstSteps)
    def first_steps() -> Response:
        """What the empty page shows an admin: a token that may post webhooks, if the first one still exists."""
        caller.require("admin")
        token = first_token_file.read_text().strip() if first_token_file.exists() else None
        return jsonify(token=token, namespace=namespace)

    return routes
