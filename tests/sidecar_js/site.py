"""A team's web site with a page that has imported static/sidecar.js, on another origin than the sidecar."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from tests.chromium import Browser

PREFIX = "/project-dashboard"
QUICK = "spread: 20, retry: { first: 50, most: 400 }, socket: { reconnectionDelay: 50, reconnectionDelayMax: 200 }"
"""Options of a Sidecar that waits for less."""


class Site:
    """A team's web site: one page that has imported the module, and `/token`, which gives what `token` returns (None:
    it fails). `asked` counts how often."""

    def __init__(self) -> None:
        self.sidecar = ""
        self.token: Callable[[], str | None] = lambda: None
        self.asked = 0
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, environ: Any, start_response: Any) -> Any:
        path = Request(environ).path
        static = f"{self.sidecar}{PREFIX}/static"
        if path == "/":
            page = f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Site</title>
                <link rel="icon" href="data:,">
                <body><script src="{static}/vendor/socket.io.min.js"></script>
                <script type="module" src="/page.js"></script></body></html>"""
            return Response(page, content_type="text/html; charset=utf-8")(environ, start_response)
        if path == "/page.js":
            script = f"""import {{ Sidecar }} from "{static}/sidecar.js"; window.Sidecar = Sidecar;
                window.fetchToken = async () => {{
                  const answer = await fetch("/token", {{ method: "POST" }});
                  if (!answer.ok) throw new Error("no token today");
                  return answer.text();
                }};"""
            return Response(script, content_type="text/javascript")(environ, start_response)
        self.asked += 1
        token = self.token()
        return Response(token or "", status=503 if token is None else 200)(environ, start_response)


def allowing(site: Site) -> dict[str, str]:
    return {"SIDECAR_ALLOWED_ORIGINS": site.url, "SIDECAR_RATE_LIMIT": "off"}


def connect(page: Browser, url: str, options: str = "", before: str = "") -> None:
    """`sidecar` on the page, which has run the script `before`."""
    made = f"new Sidecar({{ url: '{url}{PREFIX}', token: fetchToken, {QUICK}, {options} }})"
    page.evaluate(f"{before} window.sidecar = {made}; null")
