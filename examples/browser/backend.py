"""A team's own dashboard back end: it knows its users, and gives their browsers tokens for the sidecar.

The API token of the sidecar stays here. A browser gets a connection token of a few minutes that opens only
the rooms of its user. The login is a FAKE: anybody is whoever they say. Put your own in its place.
"""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from flask import Flask, Response, jsonify, redirect, request, send_from_directory, session
from werkzeug.wrappers import Response as BaseResponse

FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Settings:
    sidecar_url: str
    """With the prefix, as the browser reaches it."""
    sidecar_token: str
    """An API token with the scopes tokens:issue and deployments:read: what it can't do, no browser can."""
    project: str
    token_seconds: int = 300

    @classmethod
    def from_environment(cls) -> "Settings":
        return cls(
            os.environ.get("SIDECAR_URL", "http://127.0.0.1:8091/project-dashboard").rstrip("/"),
            os.environ["SIDECAR_TOKEN"],
            os.environ["SIDECAR_PROJECT"],
        )

    @property
    def sidecar_origin(self) -> str:
        parts = urlsplit(self.sidecar_url)
        return f"{parts.scheme}://{parts.netloc}"


def create_app(settings: Settings | None = None) -> Flask:
    settings = settings or Settings.from_environment()
    app = Flask(__name__, static_folder=None)
    app.secret_key = secrets.token_bytes(32)  # a restart logs everybody out; keep yours
    app.config.update(SESSION_COOKIE_NAME="browser_example", SESSION_COOKIE_SAMESITE="Lax")

    @app.get("/login")
    def login() -> BaseResponse:
        """FAKE: /login?user=ada makes you ada."""
        session["user"] = request.args["user"]
        return redirect("/")

    @app.get("/")
    def page() -> Response:
        return send_from_directory(FOLDER, "index.html")

    @app.get("/app.js")
    def script() -> Response:
        return send_from_directory(FOLDER, "app.js")

    @app.get("/config.json")
    def config() -> Response:
        """What the page must know; nothing of it is secret."""
        return jsonify(
            sidecar=settings.sidecar_origin,
            prefix=urlsplit(settings.sidecar_url).path,
            project=settings.project,
            user=session.get("user"),
        )

    @app.post("/token")
    def token() -> tuple[Response, int]:
        """A connection token for the user who is logged in. POST, so that nothing prefetches or caches it."""
        user = session.get("user")
        if not user:
            return jsonify(message="Log in first: /login?user=<your name>"), 401
        try:
            answer = httpx.post(
                f"{settings.sidecar_url}/api/tokens/connection",
                headers={"Authorization": f"Bearer {settings.sidecar_token}"},
                json={"sub": user, "rooms": rooms_of(user), "ttl_seconds": settings.token_seconds},
                timeout=10,
            )
            answer.raise_for_status()
        except httpx.HTTPStatusError as error:
            # our own token is wrong or too narrow: the operator's business, not the browser's
            app.logger.error("The sidecar refused a connection token: %s", error.response.text[:300])
            return jsonify(message="The dashboard is not set up right."), 502
        except httpx.HTTPError as error:
            app.logger.warning("The sidecar can't be reached: %s", error)
            return jsonify(message="The sidecar can't be reached."), 503
        issued = answer.json()
        return jsonify(token=issued["token"], expires_at=issued["expires_at"]), 200

    def rooms_of(user: str) -> list[str]:
        """Which rooms this user may watch is for your application to say. A project's room gives its
        deployments too; `deployment:*` would give those of every project that our token may read. A `*` means any
        text and nothing else is special."""
        return [f"project:{settings.project}"]

    @app.after_request
    def restrict(response: Response) -> Response:
        """Scripts come from us and the sidecar only, and answers are for this user alone."""
        sidecar = settings.sidecar_origin
        response.headers["Content-Security-Policy"] = (
            f"default-src 'none'; script-src 'self' {sidecar}; style-src 'unsafe-inline'; img-src data:; "
            f"connect-src 'self' {sidecar} {sidecar.replace('http', 'ws', 1)}; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        response.headers["Cache-Control"] = "no-store"
        return response

    return app


if __name__ == "__main__":
    create_app().run(host="127.0.0.1", port=int(os.environ.get("PORT", "5000")))
