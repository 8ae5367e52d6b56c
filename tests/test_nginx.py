"""The sidecar behind a real nginx: with nginx/sidecar.conf as shipped, and with the deployment guide's three
locations as the guide writes them."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import websocket

from tests import governing
from tests.programs import (
    DEADLINE_SECONDS,
    ROOT,
    JsClient,
    Nginx,
    check_nginx_conf,
    free_port,
    require,
    running_nginx,
    wait_until,
    write_nginx_conf,
)
from tests.sockets.clients import Plain

SHIPPED = (ROOT / "nginx" / "sidecar.conf").read_text()
GUIDE = (ROOT / "tests" / "nginx" / "guide.conf").read_text()
WEBHOOK = "/project-dashboard/api/webhooks/deployment"
NAMESPACES = ["/", "/project-dashboard/ws"]
SHIPPED_PATHS = [
    "/socket.io/",
    "/project-dashboard/ws/",
    "/project-dashboard/ws/socket.io",
    "/socket.io/socket.io/",
]
GUIDE_PATHS = ["/project-dashboard/ws/", "/project-dashboard/ws/socket.io"]
CONFS_AND_PATHS = [("shipped", path) for path in SHIPPED_PATHS] + [("guide", path) for path in GUIDE_PATHS]
TRANSPORTS = {
    "polling": ["polling"],
    "websocket": ["websocket"],
    "upgrade": ["polling", "websocket"],
}
ORIGIN = "https://dashboard.example"
HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.fixture(scope="module")
def sites(sidecar: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Nginx]]:
    """Two nginx before the same sidecar, by the name of their file."""
    folder = tmp_path_factory.mktemp("nginx")
    with (
        running_nginx(folder / "shipped", SHIPPED, sidecar.port) as shipped,
        running_nginx(folder / "guide", GUIDE, sidecar.port) as guide,
    ):
        yield {"shipped": shipped, "guide": guide}


@pytest.fixture(scope="module")
def shipped(sites: dict[str, Nginx]) -> Nginx:
    return sites["shipped"]


@pytest.fixture
def name() -> str:
    """A name that no other test uses, for sockets and projects."""
    return f"nginx-{uuid.uuid4().hex[:12]}"


def post_step(site: Nginx, token: str, project: str) -> httpx.Response:
    """What a deploy workflow sends, through nginx."""
    body = {
        "type": "step_started",
        "project": project,
        "deployment_id": f"{project}-1",
        "step_name": "build",
        "step_status": "started",
        "timestamp": "2026-11-01T12:00:00.000Z",
    }
    return httpx.post(site.url + WEBHOOK, json=body, headers={"Authorization": f"Token {token}"})


def assert_step_of(project: str, event: dict[str, Any]) -> None:
    assert event["type"] == "step_started"
    assert event["payload"]["project"] == project
    assert event["payload"]["step_name"] == "build"


# -- Every client, namespace, engine path and transport


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize(("conf", "path"), CONFS_AND_PATHS)
def test_the_official_client_gets_a_posted_step(
    sites: dict[str, Nginx],
    sidecar: Any,
    js: JsClient,
    name: str,
    conf: str,
    path: str,
    namespace: str,
    transport: str,
) -> None:
    site = sites[conf]
    # A browser always says where its page came from. The guide's nginx hides our name: tested below.
    headers = {"extraHeaders": {"Origin": site.url}} if conf == "shipped" else {}
    js.connect(
        site.url + namespace,
        socket=name,
        path=path,
        transports=TRANSPORTS[transport],
        auth={"token": sidecar.token},
        reconnection=False,
        **headers,
    )
    assert js.next("open", socket=name)["transport"] == TRANSPORTS[transport][0]
    connected = js.next("connect", socket=name)
    if transport == "upgrade" and connected["transport"] == "polling":
        js.next("upgrade", socket=name)
    answer = js.call("subscribe_project", name, socket=name)
    assert answer["ok"] is True
    assert answer["room"] == f"project:{name}"

    assert post_step(site, sidecar.token, name).status_code == 200

    assert_step_of(name, js.next("event", lambda line: line["event"] == "event", socket=name)["args"][0])
    js.send("disconnect", socket=name)
    js.next("disconnect", socket=name)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize(("conf", "path"), CONFS_AND_PATHS)
def test_the_python_client_gets_a_posted_step(
    sites: dict[str, Nginx], sidecar: Any, name: str, conf: str, path: str, namespace: str, transport: str
) -> None:
    with PythonClient(sites[conf], namespace, path, TRANSPORTS[transport], sidecar.token) as client:
        assert client.transport == TRANSPORTS[transport][-1]
        assert client.call("subscribe_project", name)["ok"] is True
        assert post_step(sites[conf], sidecar.token, name).status_code == 200
        assert_step_of(name, client.events.get(timeout=DEADLINE_SECONDS))


class PythonClient:
    """python-socketio's client; needs the packages requests (polling) and websocket-client."""

    def __init__(self, site: Nginx, namespace: str, path: str, transports: list[str], token: str) -> None:
        pytest.importorskip("requests")
        pytest.importorskip("websocket")
        socketio = pytest.importorskip("socketio")
        self.events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._namespace = namespace
        # websocket-client would claim to be a page of http://<address of nginx>; programs have no Origin.
        self._client = socketio.Client(
            reconnection=False, websocket_extra_options={"suppress_origin": True}, handle_sigint=False
        )
        self._client.on("event", lambda *args: self.events.put(args[0]), namespace=namespace)
        self._client.connect(
            site.url,
            namespaces=[namespace],
            socketio_path=path.strip("/"),
            transports=transports,
            auth={"token": token},
            wait_timeout=DEADLINE_SECONDS,
        )

    @property
    def transport(self) -> str:
        name: str = self._client.transport()
        return name

    def call(self, event: str, *args: Any) -> Any:
        return self._client.call(event, args, namespace=self._namespace, timeout=DEADLINE_SECONDS)

    def __enter__(self) -> PythonClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.eio.wait()


def test_the_guides_own_client_line(shipped: Nginx, sidecar: Any, js: JsClient, name: str) -> None:
    """io('<origin>/project-dashboard/ws', {transports: ['websocket'], path: '/socket.io'}): it asks
    at /socket.io/ for the namespace /project-dashboard/ws."""
    js.connect(
        f"{shipped.url}/project-dashboard/ws",
        socket=name,
        transports=["websocket"],
        path="/socket.io",
        auth={"token": sidecar.token},
    )
    assert js.next("connect", socket=name)["transport"] == "websocket"
    assert js.call("subscribe_project", name, socket=name)["ok"] is True
    assert post_step(shipped, sidecar.token, name).status_code == 200
    assert_step_of(name, js.next("event", lambda line: line["event"] == "event", socket=name)["args"][0])
    js.send("disconnect", socket=name)


# -- Origins


@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_a_page_of_another_site_is_refused(
    shipped: Nginx, sidecar: Any, js: JsClient, name: str, transport: str
) -> None:
    js.connect(
        shipped.url,
        socket=name,
        transports=[transport],
        auth={"token": sidecar.token},
        reconnection=False,
        extraHeaders={"Origin": "https://evil.example"},
    )
    js.next("connect_error", socket=name)


def test_the_guides_locations_need_the_origin_listed(
    start_sidecar: Any, tmp_path: Path, js: JsClient, name: str
) -> None:
    """They send the upstream's name as Host, so no browser's page looks like our own."""
    sidecar = start_sidecar(SIDECAR_ALLOWED_ORIGINS=ORIGIN)
    with running_nginx(tmp_path / "guide", GUIDE, sidecar.port) as guide:
        for transport in ("polling", "websocket"):
            for origin, outcome in ((ORIGIN, "connect"), (guide.url, "connect_error")):
                socket = f"{name}-{transport}-{outcome}"
                js.connect(
                    guide.url,
                    socket=socket,
                    path="/project-dashboard/ws/",
                    transports=[transport],
                    auth={"token": sidecar.token},
                    reconnection=False,
                    extraHeaders={"Origin": origin},
                )
                js.next(outcome, socket=socket)
                js.send("disconnect", socket=socket)


# -- What the documents promise by hand


@pytest.mark.parametrize("conf", ["shipped", "guide"])
def test_the_documented_check_answers_101(sites: dict[str, Nginx], conf: str) -> None:
    headers = [part for name, value in HANDSHAKE.items() for part in ("-H", f"{name}: {value}")]
    url = f"{sites[conf].url}/project-dashboard/ws/?EIO=4&transport=websocket"
    done = subprocess.run(
        [require("curl"), "--http1.1", "-i", "-N", "-s", "--max-time", "2", *headers, url],
        capture_output=True,
        check=False,
        timeout=DEADLINE_SECONDS,
    )
    assert done.stdout.splitlines()[0].strip() == b"HTTP/1.1 101 Switching Protocols"
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in done.stdout


PLAIN = [("shipped", root) for root in ("/ws", "/project-dashboard/ws", "/socket.io")] + [
    ("guide", "/project-dashboard/ws")
]


@pytest.mark.parametrize("kind", ["rooms", "test"])
@pytest.mark.parametrize(("conf", "root"), PLAIN)
def test_a_plain_websocket_gets_what_an_older_client_posts(
    sites: dict[str, Nginx], sidecar: Any, name: str, conf: str, root: str, kind: str
) -> None:
    token = sidecar.connection_token(sub="ada", rooms=[f"room:{name}"])
    socket = websocket.create_connection(
        f"ws://127.0.0.1:{sites[conf].port}{root}/{kind}/{name}/",
        timeout=DEADLINE_SECONDS,
        subprotocols=["sidecar.v1", f"bearer.{token}"],
        suppress_origin=True,
    )
    try:
        assert socket.subprotocol == "sidecar.v1"
        assert json.loads(socket.recv())["type"] == "connection_status"
        path = "/ashe/send-websocket/" if conf == "shipped" else "/project-dashboard/api/send-websocket/"
        answer = httpx.post(
            f"{sites[conf].url}{path}",
            json={"room": name, "message": "through nginx", "target_user": "ada"},
            headers={"Authorization": f"Token {sidecar.token}"},
        )
        assert (answer.status_code, answer.json()["recipients"]) == (200, 1)
        assert json.loads(socket.recv())["message"]["content"] == "through nginx"
    finally:
        socket.close()


SIX_KEYS = {"version", "timestamp", "checksum", "changes", "author", "description"}
MENU_ROOTS = ["/api/menu", "/project-dashboard/api/menu"]


def test_the_menus_version_is_the_same_by_every_way(shipped: Nginx, sidecar: Any) -> None:
    """Older clients ask without the last slash, and follow no redirect."""
    governing.put_item(sidecar, governing.short_name())
    answers = [
        httpx.get(f"{origin}{root}/version{end}")
        for origin in (shipped.url, sidecar.url)
        for root in MENU_ROOTS
        for end in ("", "/")
    ]
    assert {answer.status_code for answer in answers} == {200}
    assert set(answers[0].json()) == SIX_KEYS
    assert all(answer.content == answers[0].content for answer in answers)
    assert {answer.headers["etag"] for answer in answers} == {f'"{answers[0].json()["version"]}"'}
    assert {answer.headers["content-type"] for answer in answers} == {"application/json"}


@pytest.mark.parametrize("root", MENU_ROOTS)
def test_etags_pass(shipped: Nginx, sidecar: Any, root: str) -> None:
    """What was read is not sent again, and what was changed meanwhile is not overwritten."""
    key, headers = governing.short_name(), {"Authorization": f"Token {sidecar.token}"}
    with httpx.Client(base_url=shipped.url + root, headers=headers) as http:
        made = http.put(f"/{key}", json={"name": key})
        assert made.status_code == 200
        for path in ("/version", "/version/", "", "/", f"/{key}", f"/{key}/"):
            read = http.get(path)
            assert (read.status_code, read.headers["etag"][:1]) == (200, '"')
            again = http.get(path, headers={"If-None-Match": read.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["etag"] == read.headers["etag"]
        read = {"If-Match": made.headers["etag"]}
        changed = http.patch(f"/{key}", json={"icon": "one"}, headers=read)
        assert (changed.status_code, changed.json()["item"]["icon"]) == (200, "one")
        refused = http.patch(f"/{key}/", json={"icon": "two"}, headers=read)
        assert (refused.status_code, refused.json()["code"]) == (412, "precondition_failed")
        assert http.delete(f"/{key}", headers=read).status_code == 412
        assert http.get(f"/{key}").json()["icon"] == "one"
        fresh = http.get("/version", headers={"If-None-Match": made.headers["etag"]})
        assert (fresh.status_code, fresh.json()["version"]) == (200, changed.json()["version"])


@pytest.mark.parametrize("end", ["", "/"])
@pytest.mark.parametrize(("conf", "root"), PLAIN)
def test_permissions_over_a_plain_websocket(
    sites: dict[str, Nginx], sidecar: Any, conf: str, root: str, end: str
) -> None:
    """The confirmation comes before the client speaks; a user's own events come; a refusal is a close code."""
    user = governing.short_name()
    token = sidecar.connection_token(sub=user)

    def opened(name: str, *offered: str) -> Plain:
        path = f"{root}/permissions/{name}{end}"
        return Plain(sites[conf], path, "", subprotocols=["menu-protocol", *offered])

    stranger, one, refused = opened("anonymous"), opened(user, f"bearer.{token}"), opened(user)
    try:
        for socket, told in ((stranger, None), (one, user)):
            assert socket.made.getsubprotocol() == "menu-protocol"
            confirmed = socket.next()
            assert (confirmed["type"], confirmed["user_id"]) == ("connection_confirmed", told)
            assert socket.say(type="heartbeat")["type"] == "heartbeat_response"
            assert socket.say(type="permission_check", resource="a", action="b")["has_permission"] is False
        assert (refused.next()["error_code"], refused.closed()) == ("unauthenticated", 4401)
        seq = governing.notify(sidecar, {"user": user}, word="through nginx")
        notice = one.next()
        assert (notice["seq"], notice["data"]) == (seq, {"word": "through nginx"})
    finally:
        for socket in (stranger, one, refused):
            socket.close()


def test_the_shipped_file_is_correct(tmp_path: Path) -> None:
    done = check_nginx_conf(write_nginx_conf(tmp_path, SHIPPED, free_port(), 8091))
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr


def test_the_page_needs_no_last_slash(shipped: Nginx) -> None:
    assert httpx.get(f"{shipped.url}/project-dashboard").status_code == 200


@pytest.mark.parametrize("path", ["/project-dashboard/metrics", "/project-dashboard/metrics/"])
def test_the_figures_are_not_for_the_public(shipped: Nginx, path: str) -> None:
    assert httpx.get(shipped.url + path).status_code == 404


@pytest.mark.parametrize("path", ["/socket.io", "/project-dashboard/ws"])
def test_engine_paths_need_no_last_slash(shipped: Nginx, path: str) -> None:
    answer = httpx.get(shipped.url + path, params={"EIO": "4", "transport": "polling"})
    assert answer.status_code == 200
    assert answer.text.startswith('0{"sid":')


# -- Limits and logs


def test_a_body_over_the_limit_is_refused_in_the_sidecars_words(shipped: Nginx, sidecar: Any) -> None:
    headers = {"Authorization": f"Token {sidecar.token}", "Content-Type": "application/json"}
    answer = httpx.post(shipped.url + WEBHOOK, content=b" " * (1_048_576 + 1), headers=headers)
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "too_large"
    assert answer.json()["success"] is False


def test_a_body_at_the_limit_passes(shipped: Nginx, sidecar: Any, name: str) -> None:
    body = json.dumps({"type": "test", "project": name}).encode()
    answer = httpx.post(
        shipped.url + WEBHOOK,
        content=body + b" " * (1_048_576 - len(body)),
        headers={"Authorization": f"Token {sidecar.token}", "Content-Type": "application/json"},
    )
    assert answer.status_code == 200


SECRET = "sct_never_to_be_written_down"
SECRET_PATHS = [
    "/project-dashboard",
    "/project-dashboard/",
    "/project-dashboard/api/authorizations/callback",
    "/project-dashboard/ws",
    "/project-dashboard/ws/",
    "/project-dashboard/ws/rooms/a/",
    "/socket.io",
    "/socket.io/",
    "/ws",
    "/ws/",
    "/ws/rooms/a/",
    "/ws/permissions/7",
    "/callback",
    "/callback/lark",
    "/api/menu",
    "/api/menu/version",
    "/ashe/api/rooms",
]


@pytest.mark.parametrize("alive", [True, False], ids=["sidecar alive", "sidecar away"])
def test_nginx_writes_no_token_down(sidecar: Any, tmp_path: Path, alive: bool) -> None:
    """Neither log, nor when the sidecar is away: nginx's own error lines repeat the whole request."""
    query = f"?EIO=4&transport=polling&token={SECRET}&api_key={SECRET}&code={SECRET}"
    with running_nginx(tmp_path / "site", SHIPPED, sidecar.port if alive else free_port()) as site:
        for path in SECRET_PATHS:
            for headers in ({"Referer": f"{site.url}/project-dashboard?login={SECRET}"}, HANDSHAKE):
                with httpx.stream("GET", site.url + path + query, headers=headers) as answer:
                    assert (answer.status_code == 502) is not alive
        httpx.post(site.url + WEBHOOK + query, content=b" " * 2_000_000)
        wait_until(lambda: site.logged().count(" HTTP/1.1") >= 2 * len(SECRET_PATHS) + 1, "all is logged")
    logged = site.logged()
    for path in [*SECRET_PATHS, WEBHOOK]:
        assert f" {path} HTTP/1.1" in logged
    assert SECRET not in logged


# -- What arrives at the upstream, seen by an upstream that tells


class Upstream(ThreadingHTTPServer):
    """Answers every request with what it got of it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), TellingHandler)
        self.port: int = self.server_address[1]


class TellingHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps({"path": self.path, "headers": {k.lower(): v for k, v in self.headers.items()}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_who_asked_is_what_nginx_says_not_what_the_client_says(upstream: Upstream, tmp_path: Path) -> None:
    forged = {
        "X-Forwarded-For": "203.0.113.9",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Prefix": "/evil",
        "Host": "dashboard.example:8443",
    }
    with running_nginx(tmp_path / "site", SHIPPED, upstream.port) as site:
        told = httpx.get(f"{site.url}/project-dashboard/api/info?a=%2F+b", headers=forged).json()
    assert told["path"] == "/project-dashboard/api/info?a=%2F+b"
    headers = told["headers"]
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"
    assert headers["x-forwarded-host"] == headers["host"] == "dashboard.example:8443"
    assert "x-forwarded-prefix" not in headers
    assert "upgrade" not in headers


def test_the_neighbours_api_stays_the_neighbours(upstream: Upstream, tmp_path: Path) -> None:
    with running_nginx(tmp_path / "site", SHIPPED, upstream.port) as site:
        for path in (
            "/api/webhooks/deployment",
            "/api/menus",
            "/project-dashboards",
            "/wsx",
            "/callbacks",
            "/",
        ):
            assert '"path"' not in httpx.get(site.url + path).text, path
        for path in (
            "/api/menu",
            "/api/menu/version",
            "/ashe/api/rooms",
            "/ws",
            "/callback",
            "/callback/lark",
        ):
            assert httpx.get(site.url + path).json()["path"] == path


def test_a_front_end_of_ones_own(upstream: Upstream, tmp_path: Path) -> None:
    """The variant in comments: files, routes of the front end, and still our API and sockets."""
    lines = SHIPPED.splitlines(keepends=True)
    page = lines.index("    location = /project-dashboard {\n")
    variant = next(n for n, line in enumerate(lines) if "instead of these two" in line)
    commented = [line.replace("# ", "", 1) for line in lines[variant + 1 : variant + 8]]
    site_text = "".join([*lines[:page], *commented, *lines[variant + 8 :]])
    folder = tmp_path / "site"
    front = folder / "www" / "project-dashboard"
    (front / "assets").mkdir(parents=True)
    (front / "index.html").write_text("our own page")
    (front / "assets" / "app.js").write_text("our own script")
    with running_nginx(folder, site_text, upstream.port) as site:
        assert httpx.get(f"{site.url}/project-dashboard/").text == "our own page"
        assert httpx.get(f"{site.url}/project-dashboard/assets/app.js").text == "our own script"
        assert httpx.get(f"{site.url}/project-dashboard/deployments/7").text == "our own page"
        assert httpx.get(f"{site.url}/project-dashboard").status_code == 301
        for path in ("/project-dashboard/api/info", "/project-dashboard/ws/", "/socket.io/"):
            assert httpx.get(site.url + path).json()["path"] == path


def test_the_parts_join_a_site_of_ones_own(upstream: Upstream, tmp_path: Path) -> None:
    """docs/nginx.md: part 1 into the http block, the lines between BEGIN and END into a server that exists;
    its regular expressions and prefixes don't take what is the sidecar's."""
    http_part = SHIPPED.partition("# ---- Part 2")[0]
    begin, end = SHIPPED.index("    # BEGIN sidecar"), SHIPPED.index("    # END sidecar")
    own = """
    server {
        listen 80;
        location / { return 200 neighbour; }
        location /api/ { return 200 neighbour; }
        location ~ \\.js$ { return 200 neighbour; }
    """
    with running_nginx(tmp_path / "site", f"{http_part}{own}{SHIPPED[begin:end]}}}", upstream.port) as site:
        for path in ("/project-dashboard/static/page.js", "/socket.io/socket.io.js", "/api/menu/version"):
            assert httpx.get(site.url + path).json()["path"] == path
        for path in ("/", "/api/webhooks/deployment", "/app.js", "/project-dashboards"):
            assert httpx.get(site.url + path).text == "neighbour"


# -- Several processes


def test_long_polling_stays_at_one_of_several_processes(start_sidecar: Any, tmp_path: Path) -> None:
    """A session that lives in one process is unknown in the other: round robin makes clients hang."""
    first, second = start_sidecar(), start_sidecar()
    servers = f"server 127.0.0.1:8091 max_fails=0;\n    server 127.0.0.1:{second.port} max_fails=0;"
    site_text = SHIPPED.replace("server 127.0.0.1:8091 max_fails=0;", servers, 1)
    with running_nginx(tmp_path / "site", site_text, first.port) as site:
        for _ in range(12):
            with httpx.Client(base_url=site.url) as browser:
                opened = browser.get("/socket.io/", params={"EIO": "4", "transport": "polling"})
                query = {"EIO": "4", "transport": "polling", "sid": json.loads(opened.text[1:])["sid"]}
                for _ in range(3):
                    sent = browser.post("/socket.io/", params=query, content=b"40")
                    assert sent.status_code == 200, sent.text
    requests = (site.folder / "sidecar.access.log").read_text().splitlines()
    assert {line.split()[-2] for line in requests} == {f"127.0.0.1:{s.port}" for s in (first, second)}
