"""The back end of the menu page: it knows its users, gives their browsers tokens, and changes the menu for them.

The API token of the sidecar stays here. The login is a FAKE: anybody is whoever they say. Put your own in its place.
"""

import os
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from flask import Flask, Response, jsonify, redirect, request, send_from_directory, session
from werkzeug.wrappers import Response as BaseResponse

FOLDER = Path(__file__).resolve().parent


def create_app(sidecar_url: str, sidecar_token: str) -> Flask:
    """`sidecar_url` with its prefix, as browsers reach it; the token has the scopes tokens:issue, deployments:read and
    menu:write."""
    app = Flask(__name__, static_folder=None)
    app.secret_key = secrets.token_bytes(32)  # a restart logs everybody out; keep yours
    app.config.update(SESSION_COOKIE_NAME="menu_example", SESSION_COOKIE_SAMESITE="Lax")

    def ask(method: str, path: str, body: dict[str, Any]) -> httpx.Response:
        headers = {"Authorization": f"Bearer {sidecar_token}"}
        return httpx.request(method, sidecar_url + path, json=body, headers=headers, timeout=10).raise_for_status()

    @app.get("/login")
    def login() -> BaseResponse:
        """FAKE: /login?user=ada makes you ada."""
        session["user"] = request.args["user"]
        return redirect("/")

    @app.get("/")
    @app.get("/<any('app.js'):name>")
    def page(name: str = "index.html") -> Response:
        return send_from_directory(FOLDER, name)

    @app.get("/config.json")
    def config() -> Response:
        return jsonify(sidecar=sidecar_url, user=session.get("user"))

    @app.post("/token")
    def token() -> tuple[Response, int]:
        """POST, so that nothing prefetches or caches it."""
        if "user" not in session:
            return jsonify(message="Log in first: /login?user=<your name>"), 401
        return jsonify(token=ask("POST", "/api/tokens/connection", {"sub": session["user"]}).json()["token"]), 200

    @app.post("/items")
    def add() -> tuple[Response, int]:
        """A new item. Who may do that is for your application to say; here whoever is logged in."""
        if "user" not in session:
            return jsonify(message="Log in first: /login?user=<your name>"), 401
        item = {"name": str(request.json["name"]), "menu_level": "root", "reason": f"added by {session['user']}"}
        ask("PUT", f"/api/menu/item-{secrets.token_hex(4)}", item)
        return jsonify(success=True), 200

    @app.after_request
    def restrict(response: Response) -> Response:
        """Scripts come from us and the sidecar only, and answers are for this user alone."""
        parts = urlsplit(sidecar_url)
        origin = f"{parts.scheme}://{parts.netloc}"
        response.headers["Content-Security-Policy"] = (
            f"default-src 'none'; script-src 'self' {origin}; style-src 'unsafe-inline'; img-src data:; "
            f"connect-src 'self' {origin} {origin.replace('http', 'ws', 1)}; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        response.headers["Cache-Control"] = "no-store"
        return response

    return app


if __name__ == "__main__":
    url = os.environ.get("SIDECAR_URL", "http://127.0.0.1:8091/project-dashboard").rstrip("/")
    create_app(url, os.environ["SIDECAR_TOKEN"]).run(host="127.0.0.1", port=int(os.environ.get("PORT", "5000")))
