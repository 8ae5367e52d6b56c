"""The command line on an installation whose server runs, and on one whose server does not."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from config.settings import settings_table
from sidecar.version import VERSION
from tests.servers import ROOT, RunningSidecar

WEBHOOK = "/api/webhooks/deployment"
WAIT_SECONDS = 60


@pytest.fixture
def stopped(tmp_path) -> RunningSidecar:
    """An installation that was never started."""
    return RunningSidecar(tmp_path / "stopped", {"SIDECAR_PORT": "1"})


def ok(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def one_line(done: subprocess.CompletedProcess[str], code: int = 1) -> str:
    assert (done.returncode, done.stdout) == (code, ""), done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert "Traceback" not in line
    return line


def test_help_and_version(stopped):
    assert VERSION in ok(stopped.cli("--version"))
    text = ok(stopped.cli("--help"))
    for command in ("serve", "token", "secret", "login", "send", "tail", "demo", "deliveries", "db", "settings"):
        assert re.search(rf"^  {command}\b", text, re.MULTILINE)
    assert not stopped.instance.exists(), "asking for help makes nothing"


def test_settings_prints_the_page(stopped):
    assert ok(stopped.cli("settings")) == settings_table()


def test_tokens_are_made_listed_and_revoked_without_a_server(stopped):
    made = stopped.cli(
        "token", "create", "--name", "ci", "--scope", "webhooks:write", "--project", "it's", "--days", "1"
    )
    text = made.stdout.removesuffix("\n")
    assert re.fullmatch(r"sct_[0-9a-f]{12}_[\w-]{43}", text), "the token alone, so that $(…) takes it"
    assert f"Token {text}" in made.stderr, "the example carries the token"
    id = text.split("_")[1]
    (row,) = ok(stopped.cli("token", "list")).splitlines()
    assert row.startswith(f"{id}  ci  webhooks:write  it's  until 20")
    assert text not in row
    assert ok(stopped.cli("token", "revoke", id)) == f"Token {id} is revoked.\n"
    assert ok(stopped.cli("token", "list")).endswith("revoked\n")
    assert "revoked already" in one_line(stopped.cli("token", "revoke", id))


def test_the_example_of_a_token_is_a_command_that_a_shell_can_run(sidecar):
    """Also when the project's name holds a quote."""
    made = sidecar.cli("token", "create", "--name", "ci", "--scope", "webhooks:write", "--project", 'it\'s "mine"')
    command = made.stderr.split("Try it:\n", 1)[1]
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30, check=True)
    assert json.loads(done.stdout)["project"] == 'it\'s "mine"'


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--name", "x", "--scope", "fly"), "scopes"),
        (("--name", " ", "--scope", "admin"), "name"),
        (("--name", "x", "--scope", "admin", "--project", ""), "projects[0]"),
    ],
)
def test_a_token_that_can_not_be_made_is_one_line(stopped, arguments, told):
    assert told in one_line(stopped.cli("token", "create", *arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        ("token", "revoke", "nonsense"),
        ("login",),
        ("send", "--project", "p", "--deployment", "1", "hello"),
        ("deliveries", "list"),
        ("deliveries", "show", "1"),
        ("deliveries", "replay", "1"),
        ("tail", "--project", "p"),
    ],
)
def test_a_failure_is_one_line_without_a_traceback(stopped, arguments):
    """No server listens on port 1, and there is no token yet."""
    assert one_line(stopped.cli(*arguments)).startswith("Error: ")


def test_a_demo_that_can_not_play_says_so(stopped):
    done = stopped.cli("demo")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("url", ["nonsense", "http://[::1", "ftp://127.0.0.1", "http://127.0.0.1:99999"])
def test_a_bad_address_is_one_line(stopped, url):
    line = one_line(stopped.cli("send", "--project", "p", "--deployment", "1", "x", SIDECAR_URL=url))
    assert line.startswith("Error: ")


@pytest.mark.parametrize("token", ["wrong", "é"])
@pytest.mark.parametrize(
    "arguments", [("send", "--project", "p", "--deployment", "1", "x"), ("tail", "--project", "p")]
)
def test_a_bad_token_is_one_line(sidecar, token, arguments):
    line = one_line(sidecar.cli(*arguments, SIDECAR_TOKEN=token))
    assert line.startswith("Error: ")
    if token.isascii():
        assert "SIDECAR_TOKEN" in line, "a variable that was set an hour ago is soon forgotten"


def test_bad_settings_are_told_line_by_line(stopped):
    done = stopped.cli("token", "list", SIDECAR_OPEN="yes", SIDECAR_MAX_ROOMS="0")
    assert done.returncode == 2
    assert {line.split(":")[1].strip() for line in done.stderr.splitlines()} == {"SIDECAR_OPEN", "SIDECAR_MAX_ROOMS"}


def test_an_unknown_variable_is_warned_of(stopped):
    done = stopped.cli("token", "list", SIDECAR_PROT="1")
    assert done.returncode == 0
    assert "SIDECAR_PROT is not a setting" in done.stderr


def test_a_folder_that_can_not_be_made_is_one_line(stopped):
    stopped.instance.write_text("a file where the folder should be")
    assert str(stopped.instance) in one_line(stopped.cli("token", "list"))


def test_a_database_that_is_newer_is_one_line(stopped):
    ok(stopped.cli("db", "upgrade"))
    with contextlib.closing(sqlite3.connect(stopped.instance / "sidecar.db", isolation_level=None)) as database:
        database.execute("update alembic_version set version_num = '9999'")
    assert "The database can't be used" in one_line(stopped.cli("token", "list"))


def test_db_upgrade_makes_a_database_and_may_be_repeated(stopped):
    for _ in range(2):
        assert "up to date" in ok(stopped.cli("db", "upgrade"))
    assert (stopped.instance / "sidecar.db").exists()


def test_login_prints_a_link_that_works_once(sidecar):
    url = ok(sidecar.cli("login")).strip()
    assert url.startswith(f"http://127.0.0.1:{sidecar.port}/project-dashboard/login?code=")
    code = url.partition("code=")[2]
    assert [sidecar.post("/login", token="", data={"code": code}).status_code for _ in range(2)] == [303, 404]


def test_login_without_an_admin_token_says_how_to_make_one(stopped):
    line = one_line(stopped.cli("login"))
    assert "token create" in line
    assert str(stopped.instance) in line, "whoever has asked the wrong installation sees it"


def test_send_stores_a_line(sidecar, name):
    told = ok(sidecar.cli("send", "--project", name, "--deployment", name, "--level", "warn", "héllo --x"))
    seq = int(re.fullmatch(r"Stored as event (\d+)\.\n", told)[1])
    (line,) = sidecar.get(f"/api/deployments/{name}/logs").json()["items"]
    assert (line["seq"], line["level"], line["message"]) == (seq, "warn", "héllo --x")


@pytest.mark.parametrize(("flags", "status"), [((), "success"), (("--fail",), "failed")])
def test_demo_plays_a_whole_deployment(sidecar, name, flags, status):
    told = ok(sidecar.cli("demo", "--project", name, "--speed", "1000", *flags))
    assert told.endswith(f"Done: {status}\n")
    (item,) = sidecar.get("/api/deployments", params={"project": name}).json()["items"]
    assert item["status"] == status
    view = sidecar.get(f"/api/deployments/{item['id']}").json()
    assert view["steps"][-1]["status"] == status
    assert view["lines"] > 0


def test_deliveries_are_listed_and_replayed(sidecar, name):
    assert sidecar.post(WEBHOOK, content=b"not json").status_code == 400
    first = ok(sidecar.cli("deliveries", "list", "--verdict", "quarantined", "--limit", "1")).splitlines()
    assert len(first) == 1
    number, _, verdict, path = first[0].split("  ")[:4]
    assert (verdict, path) == ("quarantined", WEBHOOK)
    assert "not JSON" in first[0]
    assert "400" in one_line(sidecar.cli("deliveries", "replay", number))
    sidecar.post(WEBHOOK, {"type": "log_entry", "project": name, "deployment_id": name, "message": "again"})
    number = ok(sidecar.cli("deliveries", "list", "--limit", "1")).split()[0]
    assert ok(sidecar.cli("deliveries", "replay", number)).startswith("Stored as event ")
    assert len(ok(sidecar.cli("deliveries", "list", "--project", name)).splitlines()) == 2
    shown = ok(sidecar.cli("deliveries", "show", number))
    assert f"project: {name}\n" in shown
    assert "\nAuthorization: [redacted]\n" in shown
    assert '"message": "again"' in shown or '"message":"again"' in shown
    lines = sidecar.get(f"/api/deployments/{name}/logs").json()["items"]
    assert [line["message"] for line in lines] == ["again", "again"]


class Tail:
    """`sidecar tail` in a process of its own, its lines as they come."""

    def __init__(self, server: RunningSidecar, *arguments: str, **environment: str):
        self.process, self._output, self._errors = server.begin_cli("tail", *arguments, **environment)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self._output:
            self.lines.append(line.decode().rstrip("\n"))

    def wait(self, count: int) -> list[str]:
        deadline = time.monotonic() + WAIT_SECONDS
        while len(self.lines) < count:
            assert time.monotonic() < deadline, self.lines
            assert self.process.poll() is None, self._errors.read()
            time.sleep(0.02)
        return self.lines

    def interrupt(self) -> int:
        """As Ctrl+C does."""
        self.process.send_signal(2)
        code = self.process.wait(WAIT_SECONDS)
        self._reader.join(WAIT_SECONDS)
        assert self._errors.read() == b""
        self._output.close()
        self._errors.close()
        return code


def line_of(name: str, text: str) -> dict[str, str]:
    return {"type": "log_entry", "project": name, "deployment_id": name, "level": "info", "message": text}


def test_tail_shows_what_was_and_what_comes(sidecar, name):
    sidecar.post(WEBHOOK, line_of(name, "before"))
    tail = Tail(sidecar, "--project", name, "--since", "0")
    try:
        tail.wait(1)
        sidecar.post(WEBHOOK, line_of(name, "after"))
        lines = tail.wait(2)
    finally:
        code = tail.interrupt()
    assert code == 130
    assert [line.rpartition("] ")[2] for line in lines] == ["before", "after"]
    assert f"{name}#{name} log_entry" in lines[0]


def test_tail_prints_whole_events_as_json(sidecar, name):
    sidecar.post(WEBHOOK, line_of(name, "hello"))
    tail = Tail(sidecar, "--deployment", name, "--since", "0", "--json")
    try:
        (line,) = tail.wait(1)
    finally:
        tail.interrupt()
    event = json.loads(line)
    assert set(event) == {"type", "payload", "timestamp", "seq", "epoch", "offset"}
    assert event["payload"]["message"] == "hello"


def test_tail_goes_on_after_a_restart_without_gap_or_repetition(start_sidecar):
    server = start_sidecar()
    server.post(WEBHOOK, line_of("p", "0"))
    tail = Tail(server, "--project", "p", "--since", "0")
    try:
        tail.wait(1)
        server.post(WEBHOOK, line_of("p", "1"))
        tail.wait(2)
        server.stop()
        server.start()
        for number in range(2, 6):
            server.post(WEBHOOK, line_of("p", str(number)))
        lines = list(tail.wait(6))
        server.post(WEBHOOK, line_of("p", "6"))
        lines = list(tail.wait(7))
    finally:
        tail.interrupt()
    assert [line.rpartition("] ")[2] for line in lines] == [str(number) for number in range(7)]


def test_tail_ends_when_it_is_interrupted_in_the_midst_of_a_line(sidecar, name):
    """python-engineio swallows whatever a handler raises; an interrupt that came while one ran was lost."""
    lines = [{"message": str(number)} for number in range(5_000)]
    for number in range(4):
        body = {"type": "log_batch", "project": name, "deployment_id": f"{name}-{number}", "logs": lines}
        assert sidecar.post(WEBHOOK, body).status_code == 200
    tail = Tail(sidecar, "--project", name, "--since", "0")
    try:
        tail.wait(10)
    finally:
        assert tail.interrupt() == 130


def test_tail_needs_something_to_follow(stopped):
    done = stopped.cli("tail")
    assert done.returncode == 2
    assert "--project" in done.stderr


def test_tail_of_a_project_without_the_right_ends_with_the_reason(sidecar, name):
    token = sidecar.new_token("deployments:read", projects=[f"{name}-other"])
    line = one_line(sidecar.cli("tail", "--project", name, SIDECAR_TOKEN=token))
    assert "right" in line
    assert "SIDECAR_TOKEN" in line


@pytest.mark.parametrize("program", [["sidecar"], ["flask", "--app", "app", "sidecar"]], ids=["module", "flask"])
def test_a_whole_interpreter_runs_the_same_commands(sidecar, program: list[str]):
    """Here, unlike elsewhere in the tests, one that imports all and frees all."""
    done = subprocess.run(
        [sys.executable, "-m", *program, "token", "list"],
        cwd=ROOT,
        env=os.environ | sidecar._environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ok(done) == ok(sidecar.cli("token", "list"))


def test_serve_takes_its_options(sidecar, tmp_path):
    """`serve --port` wins over the environment: here it finds the port taken."""
    done = sidecar.cli("serve", "--port", str(sidecar.port), SIDECAR_PORT="1", SIDECAR_INSTANCE_DIR=str(tmp_path / "i"))
    assert f"Port {sidecar.port} is taken" in one_line(done, 2)
    assert not (tmp_path / "i").exists()


@pytest.mark.parametrize("path", ["no.such.module:f", "json:nothing"])
def test_a_live_source_that_is_not_there_is_told_in_one_line(stopped, path: str):
    done = stopped.cli("serve", SIDECAR_PORT="0", SIDECAR_LIVE_SOURCES=f"sales={path}")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert f"SIDECAR_LIVE_SOURCES: {path}" in done.stderr
