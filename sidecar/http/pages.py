"""The pages: dashboard, test console and their files, and the first steps of somebody who has just installed it."""

from __future__ import annotations

from pathlib import Path

from flask import Blueprint, Response, jsonify, render_template, send_from_directory

from sidecar.http.requests import Caller, public_prefix

WEB = Path(__file__).resolve().parent.parent / "web"


def pages(caller: Caller, first_token_file: Path, open: str, namespace: str) -> Blueprint:
    """`first_token_file` holds a token for posting, written at the first start; only admins are shown it."""
    routes = Blueprint("pages", __name__)

    @routes.get("/")
    def dashboard() -> Response:
        page = render_template("index.html", base=public_prefix(), namespace=namespace, open=open)
        return Response(page, content_type="text/html; charset=utf-8")

    @routes.get("/console")
    def console() -> Response:
        page = render_template("console.html", base=public_prefix(), namespace=namespace)
        return Response(page, content_type="text/html; charset=utf-8")

    @routes.get("/static/<path:name>")
    def static_file(name: str) -> Response:
        response = send_from_directory(WEB / "static", name, max_age=300)
        response.headers["Access-Control-Allow-Origin"] = "*"
        return response

    @routes.get("/api/first-steps")
    def first_steps() -> Response:
        """What the empty page shows an admin: a token that may post webhooks, if the first one still exists."""
        caller.require("admin")
        token = first_token_file.read_text().strip() if first_token_file.exists() else None
        return jsonify(token=token, namespace=namespace)

    return routes
