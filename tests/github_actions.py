"""A stand-in for GitHub: runs a composite action of ours as its runner does, and answers for its API.

The runner: expressions are worked out, inputs become environment variables, each `run:` is written to a file and given
to bash with `-e -o pipefail`. The API: jobs of a run and their logs, in pages, with ETags and redirects, as documented
at docs.github.com/rest/actions."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}")
COMMAND_SECONDS = 120
API_TOKEN = "ghs_made0up0for0tests"
REPOSITORY = "acme/axi-star-cloud"

Contexts = dict[str, dict[str, Any]]


def evaluate(expression: str, contexts: Contexts) -> Any:
    """The few operators that the recipes use: names, 'text', && and ||."""
    value: Any = ""
    for alternative in expression.split("||"):
        for part in alternative.split("&&"):
            value = _operand(part.strip(), contexts)
            if value in (None, ""):
                break
        if value not in (None, ""):
            return value
    return "" if value is None else value


def _operand(text: str, contexts: Contexts) -> Any:
    if text.startswith("'"):
        return text[1:-1]
    context, _, name = text.partition(".")
    assert re.fullmatch(r"[a-z_]+", context), f"not an operand: {text}"
    return contexts[context].get(name)


def fill(text: Any, contexts: Contexts) -> str:
    return EXPRESSION.sub(lambda match: str(evaluate(match[1].strip(), contexts)), str(text))


@dataclass
class Ran:
    """What became of a job's step."""

    code: int
    output: str
    """As GitHub's log shows it: standard output and error, mixed."""
    outputs: str
    """What it wrote to GITHUB_OUTPUT."""
    later_environment: str
    """What it wrote to GITHUB_ENV."""
    later_path: str

    @property
    def warnings(self) -> list[str]:
        return [line for line in self.output.splitlines() if line.startswith("::warning title=sidecar::")]


@dataclass
class Runner:
    """One machine with the action copied to where the recipe says. `environment` is what the job has."""

    folder: Path
    environment: dict[str, str]
    contexts: Contexts = field(default_factory=dict)
    count: int = 0

    @property
    def action(self) -> Path:
        return self.folder / "action"

    def uses(self, action: dict[str, Any], given: dict[str, Any], **more: str) -> Ran:
        """`uses:` of the action with these inputs."""
        declared = action["inputs"]
        assert not given.keys() - declared.keys(), "GitHub warns of an input that the action doesn't declare"
        inputs = {name: fill(about.get("default", ""), self.contexts) for name, about in declared.items()}
        inputs |= {name: str(value) for name, value in given.items()}
        contexts = self.contexts | {"inputs": inputs, "env": self.environment | more}
        (step,) = action["runs"]["steps"]
        assert step["shell"] == "bash"
        environment = {name: fill(value, contexts) for name, value in step["env"].items()}
        return self.run(step["run"], self.environment | more | environment)

    def run(self, script: str, environment: dict[str, str]) -> Ran:
        """A `run:` of a step."""
        assert "${{" not in script, "an expression in a script is a way in for whoever can name a branch"
        self.count += 1
        place = self.folder / f"step-{self.count}"
        place.mkdir()
        file = place / "script.sh"
        file.write_text(script)
        files = {name: place / name.lower() for name in ("GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_PATH")}
        for path in files.values():
            path.touch()
        temporary = place / "temp"
        temporary.mkdir()
        done = subprocess.run(
            [str(shutil.which("bash")), "--noprofile", "--norc", "-e", "-o", "pipefail", str(file)],
            env={name: value for name, value in environment.items() if "\x00" not in value}
            | {name: str(path) for name, path in files.items()}
            | {"GITHUB_ACTION_PATH": str(self.action), "RUNNER_TEMP": str(temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=place,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert list(temporary.iterdir()) == [], "temporary files stay behind"
        written = [files[name].read_text() for name in ("GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_PATH")]
        return Ran(done.returncode, done.stdout.decode("utf-8", "replace"), *written)


def job(
    number: int, name: str, conclusion: str | None = "success", status: str = "completed", **more: Any
) -> dict[str, Any]:
    """A job as the API tells of it; its log is given to the API beside it."""
    over = status == "completed"
    begun = over or status == "in_progress"
    return {
        "id": number,
        "name": name,
        "status": status,
        "conclusion": conclusion if over else None,
        "created_at": "2026-01-22T01:00:05Z",
        "started_at": "2026-01-22T01:00:10Z",  # GitHub gives a queued job one too
        "completed_at": "2026-01-22T01:01:40Z" if over else None,
        "html_url": f"https://github.example/{REPOSITORY}/actions/runs/1/job/{number}",
        "runner_name": f"GitHub Actions {number}",
        "steps": [{"number": 1, "name": "Set up job", "status": "completed", "conclusion": "success"}] if begun else [],
    } | more


def run_of(number: int, **more: Any) -> dict[str, Any]:
    """A run as the workflow_run event and the API tell of it."""
    return {
        "id": number,
        "name": "deploy-project",
        "display_title": "Deploy it",
        "workflow_id": 4711,
        "run_attempt": 1,
        "status": "completed",
        "conclusion": "success",
        "created_at": "2026-01-22T01:00:00Z",
        "run_started_at": "2026-01-22T01:00:00Z",
        "updated_at": "2026-01-22T01:02:00Z",
        "head_branch": "main",
        "head_sha": "0123abcd" * 5,
        "html_url": f"https://github.example/{REPOSITORY}/actions/runs/{number}",
        "actor": {"login": "ada"},
        "triggering_actor": {"login": "bob"},
        "head_repository": {"full_name": REPOSITORY},
    } | more


def log_of(*lines: bytes) -> bytes:
    """A job's log as the API gives it: a byte order mark, and a time before each line."""
    text = b"".join(
        b"2026-01-22T01:00:%02d.%07dZ %s\n" % (i // 1000 % 60, i % 1000, line) for i, line in enumerate(lines)
    )
    return b"\xef\xbb\xbf" + text


Answer = tuple[int, dict[str, str], bytes]


@dataclass
class GitHub:
    """The API. `refuse` may answer a request in its place."""

    jobs: list[dict[str, Any]] = field(default_factory=list)
    logs: dict[int, bytes] = field(default_factory=dict)
    runs: dict[int, dict[str, Any]] = field(default_factory=dict)
    refuse: Callable[[str], Answer | None] = lambda path: None
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    fetched: list[dict[str, str]] = field(default_factory=list)
    """Headers of the requests that reached the host of the logs."""
    url: str = ""
    logs_url: str = ""

    def paths(self, part: str = "") -> list[str]:
        return [path for path, _ in self.asked if part in path]

    def answer(self, path: str, headers: dict[str, str]) -> Answer:
        self.asked.append((path, headers))
        if headers.get("authorization") != f"Bearer {API_TOKEN}":
            return 401, {}, b'{"message":"Bad credentials"}'
        refusal = self.refuse(path)
        if refusal is not None:
            return refusal
        parts = urlsplit(path)
        asked = parts.path.removeprefix(f"/repos/{REPOSITORY}/actions")
        if match := re.fullmatch(r"/runs/\d+(/attempts/\d+)?/jobs", asked):
            query = parse_qs(parts.query)
            size, page = int(query["per_page"][0]), int(query["page"][0])
            assert size <= 100
            return self._fresh(
                headers, {"total_count": len(self.jobs), "jobs": self.jobs[size * (page - 1) : size * page]}
            )
        if match := re.fullmatch(r"/runs/(\d+)", asked):
            found = self.runs.get(int(match[1]))
            return (404, {}, b"{}") if found is None else self._fresh(headers, found)
        if match := re.fullmatch(r"/jobs/(\d+)/logs", asked):
            return 302, {"Location": f"{self.logs_url}/{match[1]}?sig=temporary"}, b""
        raise AssertionError(f"GitHub has no {path}")

    def _fresh(self, headers: dict[str, str], body: Any) -> Answer:
        raw = json.dumps(body).encode()
        etag = f'W/"{hashlib.sha256(raw).hexdigest()}"'
        if headers.get("if-none-match") == etag:
            return 304, {"ETag": etag}, b""
        return 200, {"ETag": etag}, raw

    def log(self, path: str, headers: dict[str, str]) -> Answer:
        self.fetched.append(headers)
        found = self.logs.get(int(urlsplit(path).path.strip("/")))
        if found is None:
            return 404, {}, b"<Error><Code>BlobNotFound</Code></Error>"
        return 200, {"Content-Type": "text/plain"}, found


@contextmanager
def serving(answer: Callable[[str, dict[str, str]], Answer]) -> Iterator[str]:
    """An HTTP server on a free port; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, more, body = answer(self.path, headers)
            self.send_response(status)
            for name, value in more.items():
                self.send_header(name, value)
            if status != 304:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def github() -> Iterator[GitHub]:
    api = GitHub()
    with serving(api.answer) as api.url, serving(api.log) as api.logs_url:
        yield api


def load(path: Path) -> dict[str, Any]:
    """A YAML file as GitHub reads it: `on` is a name, not a truth."""
    loader = type("Loader", (yaml.SafeLoader,), {})
    loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:bool"]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    loaded: dict[str, Any] = yaml.load(path.read_text(), loader)
    return loaded


def runner_environment(api: GitHub, run_id: int, event: Path, event_name: str) -> dict[str, str]:
    """The variables that GitHub sets, as far as a script may look at them."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(event.parent),
        "CI": "true",
        "GITHUB_ACTIONS": "true",
        "GITHUB_API_URL": api.url,
        "GITHUB_SERVER_URL": "https://github.example",
        "GITHUB_REPOSITORY": REPOSITORY,
        "GITHUB_RUN_ID": str(run_id),
        "GITHUB_RUN_ATTEMPT": "1",
        "GITHUB_WORKFLOW": "websocket-notification",
        "GITHUB_REF_NAME": "main",
        "GITHUB_SHA": "f" * 40,
        "GITHUB_ACTOR": "ada",
        "GITHUB_EVENT_NAME": event_name,
        "GITHUB_EVENT_PATH": str(event),
        "RUNNER_NAME": "GitHub Actions 99",
    }
