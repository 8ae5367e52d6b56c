"""Running it: health and figures, an orderly end, a taken port, an old Python, the first start and those after it."""

from __future__ import annotations

import ast
import contextlib
import fcntl
import http.client
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import websocket

from sidecar.version import VERSION
from tests.programs import free_port, wait_until
from tests.servers import PRELOADED, ROOT, RunningSidecar, run

WEBHOOK = "/api/webhooks/deployment"
END_SECONDS = 10
WAIT_SECONDS = 60


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


# Health and figures


def test_it_says_that_it_lives_and_is_ready(sidecar):
    assert sidecar.get("/healthz", token="").json() == {"status": "ok"}
    assert sidecar.get("/readyz", token="").json() == {"ready": True, "problems": [], "warnings": []}


def test_it_says_what_it_is(sidecar):
    info = sidecar.get("/api/info", token="").json()
    assert (info["name"], info["version"], info["who"]) == ("sidecar", VERSION, "anonymous")
    assert info["namespaces"] == ["/", "/project-dashboard/ws"]
    assert sidecar.get("/api/info").json()["who"] == "admin"
    assert isinstance(info["seq"], int)
    assert re.fullmatch(r"[0-9a-f]{8}", info["epoch"])


def test_metrics_count_what_happens(sidecar, name):
    posts = f'sidecar_http_requests_total{{method="POST",route="{WEBHOOK}",status="200"}}'
    stored = 'sidecar_deliveries_total{verdict="stored"}'
    before = {key: sidecar.metrics().get(key, 0) for key in (posts, stored, "sidecar_journal_tail_seq")}
    body = {"type": "log_entry", "project": name, "deployment_id": name, "message": "x"}
    sidecar.post(WEBHOOK, body)
    sidecar.post(WEBHOOK, body)
    assert sidecar.metric(posts) == before[posts] + 2
    assert sidecar.metric(stored) == before[stored] + 2
    assert sidecar.metric("sidecar_journal_tail_seq") > before["sidecar_journal_tail_seq"]
    wait_until(lambda: sidecar.metric("sidecar_journal_tail_lag_events") == 0, "it has looked again")


def test_metrics_are_prometheus_text_without_names_from_outside(sidecar, name):
    sidecar.post(WEBHOOK, {"type": "test", "project": name})
    sidecar.get(f"/nothing/{name}")
    answer = sidecar.get("/metrics", token="")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert name not in answer.text
    for family in ("sidecar_http_request_duration_seconds", "sidecar_subscribers", "process_open_fds"):
        assert f"# HELP {family}" in answer.text


# The end


@contextmanager
def open_websocket(server: RunningSidecar) -> Iterator[websocket.WebSocket]:
    """A connected Socket.IO client as a browser has it, spoken by hand so that its close code is seen."""
    url = f"ws://127.0.0.1:{server.port}/socket.io/?EIO=4&transport=websocket"
    connection = websocket.create_connection(url, timeout=WAIT_SECONDS)
    try:
        assert connection.recv().startswith("0")
        connection.send(f'40{{"token":"{server.token}"}}')
        assert connection.recv().startswith("40")
        yield connection
    finally:
        connection.shutdown()


def close_code(connection: websocket.WebSocket) -> int:
    """The code of the close frame, after whatever comes before it."""
    while True:
        frame = connection.recv_frame()
        if frame.opcode == websocket.ABNF.OPCODE_CLOSE:
            return int.from_bytes(frame.data[:2], "big")
        assert not frame.data.startswith(b"41"), "after a Socket.IO DISCONNECT a client would not come back"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_at_the_end_everybody_is_told_and_nothing_is_lost(start_sidecar, number):
    server = start_sidecar(SIDECAR_RATE_LIMIT="off")
    acknowledged: list[int] = []
    polled: list[tuple[int, str]] = []
    asked = threading.Event()
    stop = threading.Event()

    def post() -> None:
        with httpx.Client(base_url=server.url, headers={"Authorization": f"Token {server.token}"}) as client:
            for count in range(100_000):
                body = {"type": "log_entry", "project": "p", "deployment_id": "1", "message": str(count)}
                try:
                    answer = client.post(WEBHOOK, json=body)
                except httpx.HTTPError:
                    return
                if answer.status_code == 200:
                    acknowledged.append(int(answer.json()["event_id"]))
                if stop.is_set():
                    return

    def poll() -> None:
        polling = "/socket.io/?EIO=4&transport=polling"
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
            connection.request("GET", polling)
            sid = connection.getresponse().read().decode().split('"sid":"', 1)[1].split('"', 1)[0]
            connection.request("GET", f"{polling}&sid={sid}")
            asked.set()
            answer = connection.getresponse()
            polled.append((answer.status, answer.read().decode()))

    poster, poller = threading.Thread(target=post), threading.Thread(target=poll)
    with open_websocket(server) as first, open_websocket(server) as second:
        poster.start()
        poller.start()
        until(lambda: len(acknowledged) > 20, "nothing was posted")
        assert asked.wait(WAIT_SECONDS)
        until(lambda: server.metric("sidecar_socket_connections") == 3, "the long poll did not arrive")
        os.kill(server.pid, number)
        assert [close_code(first), close_code(second)] == [1012, 1012]
    assert server._process is not None
    assert server._process.wait(END_SECONDS) == 0, server.output()
    stop.set()
    poster.join(WAIT_SECONDS)
    poller.join(WAIT_SECONDS)
    assert not poller.is_alive()
    assert polled[0][0] == 200, "the long poll is answered too"
    assert "Traceback" not in server.output()

    server.start()
    stored: list[int] = []
    after: int | None = 0
    while after is not None:
        page = server.get(f"/api/deployments/1/events?limit=1000&after={after}").json()
        stored += [item["seq"] for item in page["items"]]
        after = page["next"]
    assert set(acknowledged) <= set(stored)
    assert stored == list(range(stored[0], stored[0] + len(stored))), "no hole"


def test_clients_without_a_request_under_way_are_left_at_the_end_and_others_are_answered(start_sidecar):
    server = start_sidecar()
    silent = socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_SECONDS)
    slow = socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_SECONDS)
    head = f"POST /api/tokens HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {server.token}\r\nContent-Length: 2\r\n\r\n"
    slow.sendall(head.encode() + b"{")
    with httpx.Client(base_url=server.url) as client, silent, slow:
        assert client.get("/healthz").status_code == 200
        os.kill(server.pid, signal.SIGTERM)
        assert silent.recv(1) == b""
        slow.sendall(b"}")
        assert slow.recv(100).startswith(b"HTTP/1.1 400 ")
        assert server._process is not None
        assert server._process.wait(END_SECONDS) == 0


# Starts that fail


def inherited() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("SIDECAR_", "PORT"))}


def start(environment: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command or (sys.executable, str(ROOT / "app.py")),
        cwd=ROOT,
        env=inherited() | environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_taken_port_is_one_line_with_the_cure(sidecar, tmp_path):
    folder = tmp_path / "instance"
    done = start({"SIDECAR_PORT": str(sidecar.port), "SIDECAR_INSTANCE_DIR": str(folder)})
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert f"Port {sidecar.port} is taken by process {sidecar.pid}" in line
    assert "SIDECAR_PORT" in line
    assert not folder.exists(), "the database is not touched before the port is ours"


def test_a_port_held_by_a_socket_that_does_not_listen_yet(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        done = start({"SIDECAR_PORT": str(port), "SIDECAR_INSTANCE_DIR": str(tmp_path / "instance")})
    assert done.returncode == 2
    assert f"Port {port} is taken" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"SIDECAR_HOST": "203.0.113.1"}, "SIDECAR_HOST"),
        ({"SIDECAR_HOST": "no.such.host.invalid"}, "SIDECAR_HOST"),
        ({"SIDECAR_PORT": "eighty"}, "SIDECAR_PORT"),
        ({"SIDECAR_OPEN": "yes", "SIDECAR_MAX_ROOMS": "0"}, "SIDECAR_MAX_ROOMS"),
        ({"SIDECAR_DATABASE_URL": "nonsense"}, "SIDECAR_DATABASE_URL"),
        ({"SIDECAR_DATABASE_URL": "postgresql+nosuchdriver://h/x"}, "psycopg"),
        ({"SIDECAR_DATABASE_URL": "postgresql://me:hunter2@127.0.0.1:1/x"}, "The database can't be used"),
        ({"SIDECAR_INSTANCE_DIR": str(ROOT / "app.py")}, "app.py"),
    ],
)
def test_a_start_that_can_not_work_says_why_and_exits_with_2(tmp_path, environment, told):
    place = {"SIDECAR_INSTANCE_DIR": str(tmp_path / "instance"), "SIDECAR_PORT": "0"}
    done = run(str(ROOT / "app.py"), environment=inherited() | place | environment)
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert all(line.startswith("sidecar: ") for line in lines), done.stderr
    assert told in done.stderr
    assert "hunter2" not in done.stderr
    assert len(lines) == sum(name not in ("SIDECAR_INSTANCE_DIR",) for name in environment) or len(lines) == 1


def test_ctrl_c_while_it_starts_ends_it_without_a_traceback(tmp_path):
    """As `pm2 restart` and `pm2 stop` one after the other do."""
    log = tmp_path / "output"
    with (
        (tmp_path / "start.lock").open("wb") as lock,
        log.open("wb") as output,
        open(os.devnull, "rb") as nothing,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        environment = os.environ | {"SIDECAR_INSTANCE_DIR": str(tmp_path), "SIDECAR_PORT": "0"}
        process = PRELOADED.start([str(ROOT / "app.py")], environment, (nothing, output, output))
        until((tmp_path / "sidecar.db").exists, "it has come as far as the lock")
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_SECONDS) == -signal.SIGINT
    assert log.read_text() == ""


@pytest.mark.parametrize("content", [b"this is not a database, but it is long enough to be read as one" * 50])
def test_a_database_that_is_none_is_told(tmp_path, content):
    (tmp_path / "sidecar.db").write_bytes(content)
    place = {"SIDECAR_INSTANCE_DIR": str(tmp_path), "SIDECAR_PORT": "0"}
    done = run(str(ROOT / "app.py"), environment=inherited() | place)
    assert done.returncode == 2
    assert done.stderr.startswith("sidecar: The database can't be used")
    assert len(done.stderr.splitlines()) == 1
    assert (tmp_path / "sidecar.db").read_bytes() == content


OLD = (
    "import runpy, sys; sys.version_info = (3, 10, 4, 'final', 0); sys.version = '3.10.4'; runpy.run_path(sys.argv[1])"
)
"""Runs a file in a Python that says it is an older one: few machines have a real one."""


@pytest.mark.parametrize("file", ["app.py", "sidecar/__main__.py"])
def test_an_old_python_is_one_line(tmp_path, file):
    ast.parse((ROOT / file).read_text(), feature_version=(3, 6))  # an older one must get as far as the check
    done = start({"SIDECAR_INSTANCE_DIR": str(tmp_path / "instance")}, sys.executable, "-c", OLD, str(ROOT / file))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("The sidecar needs Python 3.11 or later; this is 3.")


@pytest.mark.parametrize("command", [["app.py"], ["-m", "sidecar"]])
def test_a_python_without_the_requirements_is_one_line(tmp_path, command):
    """Whoever has just cloned it tries `python3 app.py`."""
    done = start({"SIDECAR_INSTANCE_DIR": str(tmp_path / "instance")}, sys.executable, "-S", *command)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "`make run`" in line


# First and later starts


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir() if path.is_file()}


def test_the_first_start_makes_an_installation_for_its_owner_alone(start_sidecar):
    """Also under a generous umask: tokens, the secret, and the database with everything in it."""
    before = os.umask(0)
    try:
        server = start_sidecar()
    finally:
        os.umask(before)
    server.post(WEBHOOK, {"type": "test", "project": "p"})
    found = modes(server.instance)
    assert {"admin-token", "webhook-token", "secret_key", "sidecar.db"} <= set(found)
    assert set(found.values()) == {0o600}, found
    for folder in (server.instance, server.instance / "doorbells"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_printed_curl_works_as_it_stands(start_sidecar):
    server = start_sidecar()
    command = server.output().split("First curl:\n", 1)[1].split("\n2026", 1)[0].split("\nWARNING", 1)[0]
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30, check=True)
    assert '"success":true' in done.stdout.replace(" ", "")
    assert server.get("/api/projects").json()["items"][0]["name"] == "my-project"


def test_a_restart_keeps_everything(start_sidecar):
    server = start_sidecar()
    server.post(WEBHOOK, {"type": "step_started", "project": "p", "deployment_id": "1", "step_name": "x"})
    connection = server.connection_token()
    names = ("admin-token", "webhook-token", "secret_key")
    before = {name: (server.instance / name).read_text() for name in names}
    info = server.get("/api/info").json()
    server.stop()
    server.start()
    assert {name: (server.instance / name).read_text() for name in names} == before
    after = server.get("/api/info").json()
    assert (after["epoch"], after["seq"]) == (info["epoch"], info["seq"])
    assert server.get("/api/deployments/1").status_code == 200
    assert server.get("/api/deployments/1", connection).status_code == 200, "signed with the same secret"
    assert len(server.get("/api/tokens").json()["items"]) == 2


def test_each_start_prints_a_login_that_works(start_sidecar):
    server = start_sidecar()
    server.stop()
    server.start()
    codes = re.findall(r"login\?code=([\w-]+)", server.output())
    assert len(set(codes)) == 2
    for code in codes:
        assert server.post("/login", token="", data={"code": code}).status_code == 303


def test_a_start_without_any_admin_token_still_serves(tmp_path):
    """Whoever revoked the last admin token still wants the webhooks taken."""
    port = str(free_port())
    server = RunningSidecar(tmp_path, {"SIDECAR_PORT": port})
    server.start()
    try:
        token = server.new_token("webhooks:write")
        assert server.cli("token", "revoke", server.token.split("_")[1]).returncode == 0
        server.stop()
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "app.py")],
            cwd=ROOT,
            env=server._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert "No admin token is left" in line
            assert "token create" in line
            until(lambda: answers(f"http://127.0.0.1:{port}/readyz"), "it did not serve")
            body = {"type": "test", "project": "p"}
            assert server.post(WEBHOOK, body, token=token).status_code == 200
        finally:
            process.terminate()
            process.communicate(timeout=END_SECONDS)
        assert process.returncode == 0
    finally:
        server.stop()


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.HTTPError:
        return False


def test_a_token_made_before_the_first_start_does_not_prevent_it(tmp_path):
    server = RunningSidecar(tmp_path, {})
    made = server.cli("token", "create", "--name", "ci", "--scope", "webhooks:write")
    assert made.returncode == 0, made.stderr
    server.start()
    try:
        assert server.get("/api/tokens").status_code == 200, "there is an admin token"
        assert server.post(WEBHOOK, {"type": "test", "project": "p"}, token=made.stdout.split()[0]).status_code == 200
    finally:
        server.stop()


@pytest.mark.parametrize(("host", "reached"), [("0.0.0.0", "127.0.0.1"), ("::1", "[::1]")])
def test_the_printed_address_can_be_opened(tmp_path, host, reached):
    if host == "::1" and not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "app.py")],
        cwd=ROOT,
        env=os.environ
        | {"SIDECAR_HOST": host, "SIDECAR_PORT": str(port), "SIDECAR_INSTANCE_DIR": str(tmp_path / "instance")},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith(f"The sidecar serves http://{reached}:{port}/project-dashboard/ - log in once: http://")
        until(lambda: answers(f"http://{reached}:{port}/healthz"), "it did not serve")
    finally:
        process.terminate()
        process.communicate(timeout=END_SECONDS)
