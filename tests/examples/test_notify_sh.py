"""examples/notify.sh under every shell of this machine, against a server that only records."""

import hashlib
import hmac
import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hypothesis", reason="hypothesis is not installed (tests/requirements.txt)")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SCRIPT = Path(__file__).parents[2] / "examples" / "notify.sh"
DEADLINE_SECONDS = 30
TOKEN = "sct_17_" + "s3cret" * 4  # a made-up one, easy to find in a process list
BUSYBOX_TOOLS = (
    "awk cat cut date env grep kill mkfifo mktemp od readlink rm seq sh sha256sum sleep tail tee touch tr wc"
)


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    raw: bytes
    at: float

    @property
    def body(self) -> dict[str, Any]:
        # strict: a control byte that was not escaped is an error here
        return json.loads(self.raw.decode("ascii"))

    @property
    def key(self) -> str:
        return self.headers["idempotency-key"]


@dataclass
class Recorder:
    """Answers 200 and remembers, unless a test says otherwise."""

    requests: list[Request] = field(default_factory=list)
    arrived: threading.Condition = field(default_factory=threading.Condition)
    answer: Callable[[Request], tuple[int, dict[str, str]]] = lambda request: (200, {})
    url: str = ""

    def wait_for(self, enough: Callable[[list[Request]], bool]) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: enough(self.requests), DEADLINE_SECONDS)

    def take(self, request: Request) -> tuple[int, dict[str, str]]:
        with self.arrived:
            self.requests.append(request)
            self.arrived.notify_all()
        return self.answer(request)

    def bodies(self, kind: str | None = None) -> list[dict[str, Any]]:
        bodies = [request.body for request in self.requests]
        return [body for body in bodies if kind in (None, body["type"])]

    def lines(self) -> list[str]:
        return [line["message"] for body in self.bodies("log_batch") for line in body["logs"]]


@pytest.fixture
def server() -> Iterator[Recorder]:
    recorder = Recorder()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, extra = recorder.take(Request(self.path, headers, raw, time.monotonic()))
            answer = json.dumps({"detail": f"says {status}"}).encode()
            self.send_response(status)
            for name, value in extra.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        recorder.url = f"http://127.0.0.1:{http_server.server_port}/project-dashboard"
        thread = threading.Thread(target=http_server.serve_forever, args=(0.01,))
        thread.start()
        yield recorder
        http_server.shutdown()
        thread.join()


@dataclass
class Notify:
    """The script under one shell. `run` waits for it, `start` doesn't."""

    command: list[str]
    environment: dict[str, str]

    def start(self, *arguments: str | bytes, **changes: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self.command, *arguments],
            env=self.environment | changes,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def run(self, *arguments: str | bytes, stdin: bytes = b"", **changes: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*self.command, *arguments],
            env=self.environment | changes,
            input=stdin,
            capture_output=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )


@pytest.fixture(params=["dash", "bash --posix", "busybox sh"])
def notify(request: pytest.FixtureRequest, server: Recorder, tmp_path: Path) -> Iterator[Notify]:
    """With the tools of this machine, but busybox with its own."""
    shell = request.param.split()
    for program in (shell[0], "curl"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    path = os.environ["PATH"]
    if shell[0] == "busybox":
        path = str(only_busybox(tmp_path / "bin"))
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    yield Notify(
        [str(shutil.which(shell[0])), *shell[1:], str(SCRIPT)],
        {
            "PATH": path,
            "TMPDIR": str(temporary),
            "SIDECAR_URL": server.url,
            "SIDECAR_TOKEN": TOKEN,
            "SIDECAR_PROJECT": "axi-star-cloud",
            "SIDECAR_DEPLOYMENT_ID": "123456789",
            "SIDECAR_RETRY_SECONDS": "0.01",
        },
    )
    assert list(temporary.iterdir()) == [], "temporary files stay behind"


def only_busybox(folder: Path) -> Path:
    """A PATH with busybox's own awk, od, tee and so on: what a small container has."""
    folder.mkdir()
    for tool in BUSYBOX_TOOLS.split():
        (folder / tool).symlink_to(str(shutil.which("busybox")))
    (folder / "curl").symlink_to(str(shutil.which("curl")))
    return folder


def lines_of(output: bytes) -> list[str]:
    """What should arrive: newline or CRLF ends a line, U+FFFD stands for what is no UTF-8."""
    lines = output.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix(b"\r").decode("utf-8", "replace") for line in lines]


NASTY = [
    b"",
    b"plain",
    b'he said "hi" \\ and left',
    b"\\u000d \\n \\",
    b"a\ttab, a \x08 backspace, a \x7f delete",
    bytes(range(1, 10)) + bytes(range(11, 32)),
    b"NUL \x00 inside",
    b"\x1b[1;31mred\x1b[0m \x1b]8;;http://example.org\x07link\x1b]8;;\x07",
    b"10%\r50%\r100%",
    b"windows\r",
    b"two returns\r\r",
    "déjà vu, 部署成功, 🚀 👩‍💻 \u2028 \ufeff \ufffe".encode(),
    b"latin-1 caf\xe9 here",
    b"cut \xe2\x82",
    b"cut \xf0\x9f\x9a before ascii",
    b"overlong \xc0\xaf \xe0\x80\xaf \xf0\x80\x80\xaf",
    b"surrogate \xed\xa0\x80 \xed\xbf\xbf",
    b"too high \xf4\x90\x80\x80 \xf5\x80\x80\x80 \xff\xfe",
    b"highest \xf4\x8f\xbf\xbf, lowest \xf0\x90\x80\x80 \xe0\xa0\x80 \xc2\x80, last \xed\x9f\xbf",
    b"continuation \x80\xbf alone",
    b"$(id) `id` $HOME %s %d %n ' ; & | > <",
    b'{"type":"test"}',
    b"-n",
    b"  leading and trailing  ",
]


def test_any_line_arrives_as_it_was(notify: Notify, server: Recorder) -> None:
    output = b"\n".join(NASTY)
    assert notify.run("log", stdin=output).returncode == 0
    assert server.lines() == lines_of(output)


@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=50))
def test_any_bytes_arrive_as_valid_json(notify: Notify, server: Recorder, chunks: list[bytes]) -> None:
    server.requests.clear()
    output = b"\n".join(chunks)
    notify.run("log", stdin=output)
    assert server.lines() == lines_of(output)


def test_any_argument_arrives_as_it_was(notify: Notify, server: Recorder) -> None:
    for text in NASTY:
        if b"\x00" not in text and text:
            notify.run("log", text)
    expected = [text.decode("utf-8", "replace") for text in NASTY if b"\x00" not in text and text]
    assert [body["message"] for body in server.bodies("log_entry")] == expected


def test_a_message_of_several_lines_stays_one(notify: Notify, server: Recorder) -> None:
    notify.run("log", "warn", "first\nsecond\n")
    (body,) = server.bodies()
    assert (body["level"], body["message"]) == ("warn", "first\nsecond\n")


def test_many_lines_come_in_order_and_in_bounded_batches(notify: Notify, server: Recorder) -> None:
    output = b"".join(b"line %d\n" % number for number in range(1050)) + b"no newline"
    notify.run("step", "build", "--", "cat", stdin=output)
    assert server.lines() == lines_of(output)
    assert max(len(body["logs"]) for body in server.bodies("log_batch")) == 200


def test_a_line_without_end_is_cut_between_characters(notify: Notify, server: Recorder) -> None:
    notify.run("log", stdin="é🚀".encode() * 20_000)
    pieces = server.lines()
    assert "".join(pieces) == "é🚀" * 20_000
    assert max(len(piece.encode()) for piece in pieces) <= 32_768 + 3


def test_no_body_exceeds_what_the_server_takes(notify: Notify, server: Recorder) -> None:
    """Every byte of these becomes six; nginx and the sidecar refuse more than 1 MiB."""
    noise = random.Random(8).choices([b"\x00", b"\x1b", b"\xff"], k=300_000)
    output = b"".join(noise)
    notify.run("log", stdin=output)
    assert "".join(server.lines()) == output.decode("utf-8", "replace")
    assert max(len(request.raw) for request in server.requests) < 1_048_576


def test_what_each_subcommand_sends(notify: Notify, server: Recorder) -> None:
    notify.run("start")
    notify.run("step-started", "build")
    notify.run("step-completed", "build", "completed", "12.5")
    notify.run("log", "error", "disk", "full")
    notify.run("log", "error")
    notify.run("metrics", "steps=5", "ratio=-0.5e3", "version=1.2.3", "zip=01", "ok=true", "eq=a=b", "none=")
    notify.run("test")
    notify.run("finish", "success")

    assert all(request.path == "/project-dashboard/api/webhooks/deployment" for request in server.requests)
    for request in server.requests:
        assert request.headers["content-type"] == "application/json"
        assert request.headers["user-agent"] == "sidecar-notify/1.0"
        assert request.headers["authorization"] == f"Bearer {TOKEN}"
    assert len({request.key for request in server.requests}) == len(server.requests)

    sent = server.bodies()
    stamps = {"timestamp", "started_at", "completed_at"}
    times = [body.pop(name) for body in sent for name in stamps & body.keys()]
    assert all(time[10] == "T" and time.endswith("Z") for time in times)
    who = {"project": "axi-star-cloud", "deployment_id": "123456789"}
    assert sent == [
        {"type": "deployment_started", **who, "status": "running"},
        {"type": "step_started", **who, "step_name": "build", "step_status": "started"},
        {"type": "step_completed", **who, "step_name": "build", "step_status": "completed", "duration": 12.5},
        {"type": "log_entry", **who, "level": "error", "message": "disk full", "source": "workflow"},
        {"type": "log_entry", **who, "level": "info", "message": "error", "source": "workflow"},
        {
            "type": "metrics_update",
            **who,
            "metrics": {
                "steps": 5,
                "ratio": -500.0,
                "version": "1.2.3",
                "zip": "01",
                "ok": True,
                "eq": "a=b",
                "none": "",
            },
        },
        {"type": "test", "project": "axi-star-cloud"},
        {"type": "deployment_completed", **who, "status": "success"},
    ]


def test_a_step_is_reported_around_its_output(notify: Notify, server: Recorder) -> None:
    done = notify.run("step", 'say "hi"', "--", "sh", "-c", 'echo "$1"; echo "$1" >&2', "sh", "a  b")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"a  b\n", b"a  b\n")
    kinds = [body["type"] for body in server.bodies()]
    assert (kinds[0], kinds[-1], set(kinds[1:-1])) == ("step_started", "step_completed", {"log_batch"})
    assert server.lines() == ["a  b", "a  b"]
    end = server.bodies()[-1]
    assert (end["step_name"], end["step_status"]) == ('say "hi"', "completed")
    assert 0 <= end["duration"] < DEADLINE_SECONDS
    assert end["started_at"] <= end["completed_at"]


def test_output_is_live_on_the_terminal_and_in_the_log(notify: Notify, server: Recorder) -> None:
    process = notify.start("step", "wait", "--", "sh", "-c", "echo first; read line; printf last")
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"first\n"
    server.wait_for(lambda requests: any(request.body["type"] == "log_batch" for request in requests))
    process.stdin.write(b"go on\n")
    output, _ = process.communicate(timeout=DEADLINE_SECONDS)
    assert output == b"last"
    assert server.lines() == ["first", "last"]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["sh", "-c", "exit 0"], 0),
        (["sh", "-c", "exit 3"], 3),
        (["sh", "-c", "kill -KILL $$"], 137),
        (["/nonexistent/program"], 127),
    ],
)
def test_a_step_ends_with_the_exit_code_of_its_command(
    notify: Notify, server: Recorder, command: list[str], code: int
) -> None:
    assert notify.run("step", "build", "--", *command).returncode == code
    end = server.bodies("step_completed")[0]
    assert end["step_status"] == ("failed" if code else "completed")
    assert end.get("logs") == (f"exit code {code}" if code else None)


def test_the_command_runs_as_it_would_alone(notify: Notify, server: Recorder) -> None:
    """Input, variables and umask are the caller's; a script's own variables must not leak into them."""
    callers = {"work": "1", "status": "2", "key": "3", "project": "4", "step": "5", "LC_ALL": "C"}
    umask = os.umask(0o022)
    os.umask(umask)  # there is no way to read it but to set it
    done = notify.run("step", "s", "--", "sh", "-c", "umask; cat; env", stdin=b"input\n", **callers)
    output = done.stdout.decode().splitlines()
    assert int(output[0], 8) == umask
    assert output[1] == "input"
    seen = dict(line.split("=", 1) for line in output[2:])
    for shells_own in ("PWD", "OLDPWD", "SHLVL", "_"):
        seen.pop(shells_own, None)
    assert seen == notify.environment | callers


def test_a_daemon_left_behind_does_not_hold_the_step(notify: Notify, server: Recorder, tmp_path: Path) -> None:
    release = tmp_path / "release"
    daemon = 'until [ -e "$1" ]; do sleep 0.05; done; touch "$1.seen"'
    with (tmp_path / "output").open("wb") as output:
        process = subprocess.Popen(
            [
                *notify.command,
                "step",
                "s",
                "--",
                "sh",
                "-c",
                f"({daemon}) & echo started",
                "sh",
                str(release),
            ],
            env=notify.environment,
            stdout=output,
            stderr=output,
        )
        try:
            assert process.wait(DEADLINE_SECONDS) == 0
        finally:
            release.touch()
    assert server.lines() == ["started"]
    assert server.bodies()[-1]["step_status"] == "completed"
    until(release.with_suffix(".seen").exists)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("status", [429, 503])
def test_a_retry_carries_the_same_key(notify: Notify, server: Recorder, status: int) -> None:
    server.answer = lambda request: (status if len(server.requests) < 3 else 200, {})
    done = notify.run("log", "hello")
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(server.requests) == 3
    assert len({(request.key, request.raw) for request in server.requests}) == 1


def test_retry_after_is_honoured(notify: Notify, server: Recorder) -> None:
    server.answer = lambda request: (429, {"Retry-After": "1"}) if len(server.requests) < 2 else (200, {})
    notify.run("log", "hello")
    first, second = server.requests
    assert second.at - first.at >= 1


def test_a_retry_after_beyond_the_limit_ends_the_tries(notify: Notify, server: Recorder) -> None:
    server.answer = lambda request: (503, {"Retry-After": "3600"})
    done = notify.run("log", "hello")
    assert (done.returncode, len(server.requests)) == (0, 1)
    assert b"HTTP 503" in done.stderr


def test_five_tries_are_enough(notify: Notify, server: Recorder) -> None:
    server.answer = lambda request: (500, {})
    assert notify.run("log", "hello").returncode == 0
    assert len(server.requests) == 5


def test_a_refusal_is_not_retried_and_its_reason_shown(notify: Notify, server: Recorder) -> None:
    server.answer = lambda request: (401, {})
    done = notify.run("log", "hello")
    assert (done.returncode, len(server.requests)) == (0, 1)
    assert b"HTTP 401" in done.stderr
    assert b"says 401" in done.stderr
    assert TOKEN.encode() not in done.stdout + done.stderr


def test_log_lines_wait_for_a_server_that_is_away(notify: Notify, server: Recorder) -> None:
    """A sidecar that restarts during the deploy gets the lines afterwards, once."""

    def batches(requests: list[Request]) -> list[Request]:
        return [request for request in requests if request.body["type"] == "log_batch"]

    server.answer = lambda request: (503 if 1 <= len(batches(server.requests)) <= 5 else 200, {})
    process = notify.start("step", "wait", "--", "sh", "-c", "echo first; read line; echo second")
    server.wait_for(lambda requests: len(batches(requests)) == 5)
    _, errors = process.communicate(b"go on\n", timeout=DEADLINE_SECONDS)
    tried = batches(server.requests)
    assert len({request.key for request in tried[:6]}) == 1
    assert [line["message"] for request in tried[5:] for line in request.body["logs"]] == ["first", "second"]
    assert errors == b""


def test_a_dead_server_does_not_touch_the_deploy(notify: Notify) -> None:
    nobody = "http://127.0.0.1:1"  # a port that nothing may listen on without being root
    done = notify.run("step", "build", "--", "sh", "-c", "echo out; exit 4", SIDECAR_URL=nobody)
    assert (done.returncode, done.stdout) == (4, b"out\n")
    assert b"not delivered" in done.stderr
    assert notify.run("step", "build", "--", "sh", "-c", "exit 0", SIDECAR_URL=nobody).returncode == 0
    assert notify.run("finish", "success", SIDECAR_URL=nobody).returncode == 0


def test_strict_and_test_fail_when_undelivered(notify: Notify) -> None:
    nobody = "http://127.0.0.1:1"
    strict = {"SIDECAR_URL": nobody, "SIDECAR_STRICT": "1"}
    assert notify.run("finish", "success", **strict).returncode == 1
    assert notify.run("step", "build", "--", "sh", "-c", "exit 0", **strict).returncode == 1
    assert notify.run("step", "build", "--", "sh", "-c", "exit 4", **strict).returncode == 4
    assert notify.run("test", SIDECAR_URL=nobody).returncode == 1


def test_strict_is_content_when_delivered(notify: Notify) -> None:
    assert notify.run("step", "build", "--", "sh", "-c", "echo x", SIDECAR_STRICT="1").returncode == 0
    done = notify.run("test")
    assert (done.returncode, done.stdout) == (0, b"delivered: the sidecar answered HTTP 200\n")


def test_the_token_is_in_no_process_list(notify: Notify, server: Recorder) -> None:
    """Looked at from inside the request, while curl and the script are alive."""
    seen: list[bytes] = []

    def look_around(request: Request) -> tuple[int, dict[str, str]]:
        for arguments in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                seen.append(arguments.read_bytes())
            except OSError:  # that process is gone
                continue
        return 200, {}

    server.answer = look_around
    done = notify.run("step", "secret step", "--", "sh", "-c", "echo secret line")
    everything = b"\n".join(seen)
    assert b"sidecar-notify/1.0" in everything, "curl was not seen, so this proves nothing"
    for secret in (TOKEN.encode(), b"secret line"):
        assert secret not in everything.replace(b"echo secret line", b"")
    assert server.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
    assert TOKEN.encode() not in done.stdout + done.stderr


def test_a_trace_does_not_show_the_token(notify: Notify) -> None:
    traced = Notify([*notify.command[:-1], "-x", notify.command[-1]], notify.environment)
    done = traced.run("log", "hello")
    assert TOKEN.encode() not in done.stdout + done.stderr


def test_no_token_means_no_header(notify: Notify, server: Recorder) -> None:
    notify.run("log", "hello", SIDECAR_TOKEN="")
    assert "authorization" not in server.requests[0].headers


SECRET = "It's a Secret to Everybody"
"""GitHub's own example, so that its published signature could be compared."""


@pytest.mark.parametrize(
    "secret",
    [SECRET, "k" * 64, 'x%s\\n\\0045$" ' * 12, "ключ 🚀", "-n"],
    ids=["github", "block", "long", "utf8", "option"],
)
def test_a_secret_signs_what_is_sent(notify: Notify, server: Recorder, secret: str) -> None:
    signing = {"SIDECAR_TOKEN": "", "SIDECAR_WEBHOOK_SECRET": secret}
    notify.run("log", 'said "hi" \\ 🚀', **signing)
    notify.run("log", stdin=b"one\ntwo \x00 \xff\n", **signing)
    assert len(server.requests) == 2
    for request in server.requests:
        expected = hmac.new(secret.encode(), request.raw, hashlib.sha256).hexdigest()
        assert request.headers["x-hub-signature-256"] == f"sha256={expected}"
        assert "authorization" not in request.headers


def test_a_token_goes_before_a_secret(notify: Notify, server: Recorder) -> None:
    notify.run("log", "hello", SIDECAR_WEBHOOK_SECRET=SECRET)
    assert server.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
    assert "x-hub-signature-256" not in server.requests[0].headers


def test_openssl_signs_where_sha256sum_is_missing(notify: Notify, server: Recorder, tmp_path: Path) -> None:
    folder = tmp_path / "only-openssl"
    folder.mkdir()
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    for tool in [*BUSYBOX_TOOLS.replace(" sha256sum", "").split(), "curl", "openssl"]:
        (folder / tool).symlink_to(str(shutil.which(tool)))
    notify.run("log", "hello", PATH=str(folder), SIDECAR_TOKEN="", SIDECAR_WEBHOOK_SECRET=SECRET)
    (request,) = server.requests
    expected = hmac.new(SECRET.encode(), request.raw, hashlib.sha256).hexdigest()
    assert request.headers["x-hub-signature-256"] == f"sha256={expected}"


def test_the_secret_is_in_no_process_list_and_no_trace(notify: Notify, server: Recorder, tmp_path: Path) -> None:
    """Each program that signs writes down its own arguments."""
    seen = tmp_path / "seen"
    folder = tmp_path / "watched"
    folder.mkdir()
    path = notify.environment["PATH"]
    for tool in [*BUSYBOX_TOOLS.split(), "curl"]:
        real = shutil.which(tool, path=path)
        wrapper = folder / tool
        wrapper.write_text(f'#!/bin/sh\nprintf "%s\\n" {tool} "$@" >>"{seen}"\nexec {real} "$@"\n')
        wrapper.chmod(0o755)
    traced = Notify([*notify.command[:-1], "-x", notify.command[-1]], notify.environment)
    done = traced.run("log", "hello", PATH=str(folder), SIDECAR_TOKEN="", SIDECAR_WEBHOOK_SECRET=SECRET)
    assert "x-hub-signature-256" in server.requests[0].headers
    arguments = seen.read_bytes()
    assert b"sidecar-notify/1.0" in arguments, "curl was not seen, so this proves nothing"
    assert b"sha256sum" in arguments
    assert SECRET.encode() not in arguments + done.stdout + done.stderr


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SIDECAR_ATTEMPT", "first"),
        ("SIDECAR_ATTEMPT", "0"),
        ("SIDECAR_TOKEN", 'x"\noutput = "/tmp/owned'),
        ("SIDECAR_URL", 'http://127.0.0.1/"\noutput = "/tmp/owned'),
        ("SIDECAR_URL", "file:///etc/passwd"),
        ("SIDECAR_PROJECT", ""),
        ("SIDECAR_RETRY_SECONDS", "soon"),
        ("SIDECAR_GIVE_UP_SECONDS", "1.5"),
    ],
)
def test_unusable_settings_send_nothing_and_say_so(notify: Notify, server: Recorder, variable: str, value: str) -> None:
    done = notify.run("step", "build", "--", "sh", "-c", "echo out; exit 3", **{variable: value})
    assert (done.returncode, done.stdout, server.requests) == (3, b"out\n", [])
    assert variable.encode() in done.stderr
    assert b"owned" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["finish"],
        ["step"],
        ["step", "build"],
        ["step", "build", "--"],
        ["step-started"],
        ["step-completed", "build"],
        ["step-completed", "build", "completed", "long"],
        ["metrics"],
        ["metrics", "novalue"],
        ["metrics", "=value"],
    ],
)
def test_wrong_usage_is_said_and_sends_nothing(notify: Notify, server: Recorder, arguments: list[str]) -> None:
    done = notify.run(*arguments)
    assert (done.returncode, server.requests) == (2, [])
    assert b"notify.sh" in done.stderr


def test_help_names_every_variable(notify: Notify) -> None:
    done = notify.run("help")
    assert done.returncode == 0
    more = {"SIDECAR_STRICT", "SIDECAR_GIVE_UP_SECONDS", "SIDECAR_WEBHOOK_SECRET", "SIDECAR_ATTEMPT", "SIDECAR_STEP"}
    for name in {*notify.environment, *more}:
        assert not name.startswith("SIDECAR_") or name.encode() in done.stdout


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"GITHUB_RUN_ID": "77", "CI_PIPELINE_ID": "88"}, "77"),
        ({"CI_PIPELINE_ID": "88"}, "88"),
        ({"SIDECAR_DEPLOYMENT_ID": "99", "GITHUB_RUN_ID": "77"}, "99"),
    ],
)
def test_the_deployment_is_that_of_the_ci(
    notify: Notify, server: Recorder, given: dict[str, str], expected: str
) -> None:
    del notify.environment["SIDECAR_DEPLOYMENT_ID"]
    assert notify.run("start", **given).stdout.decode() == expected + "\n"
    assert server.bodies()[0]["deployment_id"] == expected


def test_a_run_started_again_is_another_attempt(notify: Notify, server: Recorder) -> None:
    """GitHub keeps the run's id; without the attempt the finished deployment could not begin again."""
    del notify.environment["SIDECAR_DEPLOYMENT_ID"]
    notify.run("start", GITHUB_RUN_ID="77", GITHUB_RUN_ATTEMPT="2")
    notify.run("start", SIDECAR_DEPLOYMENT_ID="99", GITHUB_RUN_ID="77", GITHUB_RUN_ATTEMPT="2")
    assert [body.get("attempt") for body in server.bodies()] == [2, None]


def test_an_attempt_can_be_given(notify: Notify, server: Recorder) -> None:
    """By one who reports on another run than his own."""
    notify.run("start", SIDECAR_ATTEMPT="3", GITHUB_RUN_ID="77", GITHUB_RUN_ATTEMPT="2")
    assert server.bodies()[0]["attempt"] == 3


def test_the_ends_of_a_deployment_say_where_it_runs(notify: Notify, server: Recorder) -> None:
    del notify.environment["SIDECAR_DEPLOYMENT_ID"]
    github = {
        "GITHUB_RUN_ID": "77",
        "GITHUB_WORKFLOW": 'deploy "it"',
        "GITHUB_REF_NAME": "fix/$(id)",
        "GITHUB_SHA": "abc",
        "GITHUB_ACTOR": "ada",
        "GITHUB_SERVER_URL": "https://github.example",
        "GITHUB_REPOSITORY": "acme/shop",
    }
    gitlab = {
        "CI_PIPELINE_ID": "88",
        "CI_COMMIT_REF_NAME": "main",
        "CI_COMMIT_SHA": "def",
        "GITLAB_USER_LOGIN": "bob",
        "CI_PIPELINE_URL": "https://gitlab.example/acme/shop/-/pipelines/88",
    }
    notify.run("start", **github)
    notify.run("finish", "success", **gitlab)
    first, second = server.bodies()
    names = ["workflow_name", "ref", "sha", "actor", "url"]
    run_url = "https://github.example/acme/shop/actions/runs/77"
    assert [first[name] for name in names] == ['deploy "it"', "fix/$(id)", "abc", "ada", run_url]
    assert [second[name] for name in names] == ["", "main", "def", "bob", gitlab["CI_PIPELINE_URL"]]


JOB_LOG = b"""\xef\xbb\xbf2026-11-22T01:02:03.1234567Z first
2026-11-22T01:02:04.0000000Z ##[group]Run make
2026-11-22T01:02:04.5000000Z ##[error]Process completed with exit code 2.
a second line of one message
2026-02-30T01:02:04Z no day that there is
2026-11-22T25:02:04Z no hour
2028-02-29T00:00:00Z a leap day
2026-11-22T01:02:05Z ##[warning]caf\xe9 \xf0\x9f\x9a\x80
2026-11-22T01:02:06Z ##[unheard]stays
2026-11-22T01:02:07Z \r
"""


def test_lines_of_a_job_have_their_own_time_and_level(notify: Notify, server: Recorder) -> None:
    done = notify.run("job-log", stdin=JOB_LOG, SIDECAR_STEP="deploy (eu, 🚀)")
    assert (done.returncode, done.stderr) == (0, b"")
    (body,) = server.bodies()
    assert (body["type"], body["step_name"]) == ("log_batch", "deploy (eu, 🚀)")
    day = "2026-11-22T01:02:"
    assert [(line["timestamp"], line["level"], line["message"]) for line in body["logs"]] == [
        (f"{day}03.1234567Z", "info", "first"),
        (f"{day}04.0000000Z", "info", "Run make"),
        (f"{day}04.5000000Z", "error", "Process completed with exit code 2."),
        (f"{day}04.5000000Z", "info", "a second line of one message"),
        (f"{day}04.5000000Z", "info", "2026-02-30T01:02:04Z no day that there is"),
        (f"{day}04.5000000Z", "info", "2026-11-22T25:02:04Z no hour"),
        ("2028-02-29T00:00:00Z", "info", "a leap day"),
        (f"{day}05Z", "warn", "caf\ufffd 🚀"),
        (f"{day}06Z", "info", "##[unheard]stays"),
        (f"{day}07Z", "info", ""),
    ]


def test_a_job_log_sent_again_has_the_same_keys(notify: Notify, server: Recorder) -> None:
    """Equal batches of one log are two; the same log of a second run of the reporter is one."""
    log = b"2026-11-22T01:02:03.1234567Z \n" * 450
    notify.run("job-log", stdin=log)
    first = [(request.key, request.raw) for request in server.requests]
    assert len({key for key, _ in first}) == 3
    assert len({raw for _, raw in first}) == 2
    server.requests.clear()
    notify.run("job-log", stdin=log)
    assert [(request.key, request.raw) for request in server.requests] == first


def test_a_log_line_may_belong_to_a_step(notify: Notify, server: Recorder) -> None:
    notify.run("log", "hello", SIDECAR_STEP="build")
    notify.run("log", stdin=b"one\n", SIDECAR_STEP="build")
    assert [body["step_name"] for body in server.bodies()] == ["build", "build"]


def test_own_messages_go_out_as_they_are(notify: Notify, server: Recorder) -> None:
    lines = [b'{"type":"test","project":"\\ud83d\\ude80 %s \\\\n"}', b'{"type":"test"}', b'{"type":"test"}']
    assert notify.run("send", stdin=b"\n\n".join(lines)).returncode == 0
    assert [request.raw for request in server.requests] == lines
    keys = [request.key for request in server.requests]
    assert keys[0] != keys[1] == keys[2]


def test_a_refused_message_does_not_hold_up_the_next(notify: Notify, server: Recorder) -> None:
    server.answer = lambda request: (400 if request.raw == b"1" else 200, {})
    done = notify.run("send", stdin=b"1\n2\n3\n", SIDECAR_STRICT="1")
    assert (done.returncode, [request.raw for request in server.requests]) == (1, [b"1", b"2", b"3"])
    assert done.stderr.count(b"HTTP 400") == 1


def test_a_dead_server_is_asked_for_the_first_message_only(notify: Notify, server: Recorder) -> None:
    server.answer = lambda request: (503, {})
    done = notify.run("send", stdin=b"1\n2\n3\n")
    assert (done.returncode, {request.raw for request in server.requests}) == (0, {b"1"})
    assert done.stderr.count(b"not delivered") == 1


def test_a_warning_is_one_line(notify: Notify, server: Recorder) -> None:
    """GitHub takes a line that begins with two colons for a command."""
    server.answer = lambda request: (400, {})
    done = notify.run("step-started", "x\n::add-mask::e\r::error::y")
    assert done.stderr.count(b"\n") == 1
    assert b"\r" not in done.stderr


def test_a_made_up_deployment_id_is_made_once(notify: Notify, server: Recorder) -> None:
    del notify.environment["SIDECAR_DEPLOYMENT_ID"]
    first = notify.run("start").stdout.decode().strip()
    second = notify.run("start").stdout.decode().strip()
    assert first != second
    done = notify.run("step", "s", "--", "sh", "-c", 'echo "$SIDECAR_DEPLOYMENT_ID"')
    ids = {body["deployment_id"] for body in server.bodies()[2:]}
    assert ids == {done.stdout.decode().strip()}
    assert b"no SIDECAR_DEPLOYMENT_ID" in done.stderr


STUBBORN = """
trap "echo got TERM; exit 9" TERM
trap "echo got INT; exit 8" INT
echo ready
while :; do sleep 0.02; done
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_reaches_the_command_and_the_report(notify: Notify, server: Recorder, name: str) -> None:
    process = notify.start("step", "long", "--", "sh", "-c", STUBBORN)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.Signals[name])
    output, _ = process.communicate(timeout=DEADLINE_SECONDS)
    # dash and busybox can't undo that a background command ignores INT; it gets TERM there
    assert (process.returncode, output) in [(9, b"got TERM\n")] + [(8, b"got INT\n")] * (name == "SIGINT")
    end = server.bodies("step_completed")[0]
    assert end["step_status"] == "cancelled"
    assert end["logs"] == f"exit code {process.returncode} after {name}"
    assert server.lines() == ["ready", output.decode().strip()]


def test_a_signal_to_the_whole_group_is_still_reported(notify: Notify, server: Recorder) -> None:
    """Some CI systems signal every process of the job at once; the reporter must outlive the command."""
    process = notify.start("step", "long", "--", "sh", "-c", "echo ready; exec sleep 60")
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 143
    assert server.bodies()[-1]["step_status"] == "cancelled"
    assert server.lines() == ["ready"]


def test_shellcheck_has_nothing_to_say() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.stdout == ""
