"""docs/protocol.md, messages.md, menu.md, maim.md and authorizations.md, read as one page, against a real server: every
request on it is sent, every answer and event compared, and all that the code speaks is on it.

A block's first line says what it is: `json POST <path> [status] [Header=value]` (`text` for a body that is no JSON),
the same with PUT, or `json GET <path>` is sent; the `json answer` and `json event` after it are compared;
`json emit <name>` holds arguments, the `json ack` after it their answer; `json on <name>` is what the socket is told.
"""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import socketio

from config.settings import load_settings
from sidecar.domain.errors import SidecarError
from sidecar.factory import create_app
from sidecar.http.errors import STATUS
from sidecar.sockets.errors import REFUSALS
from sidecar.wire.deployments import TYPES

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("protocol.md", "messages.md", "menu.md", "maim.md", "authorizations.md")
PAGE = "".join((ROOT / "docs" / name).read_text() for name in PAGES)
BLOCK = re.compile(r"^```(json|text|) *([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMESPACE = "/project-dashboard/ws"
WAIT_SECONDS = 15
TOLD_VALUES = ("success", "status", "code", "errors", "duplicate", "repaired", "project", "type", "ok", "truncated")
"""Of an answer: what must be the same as on the page. Of the rest the names must be the same."""


@dataclass
class Example:
    """A request of the page with what the page says comes back."""

    kind: str
    target: str
    body: str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    answer: Any = None
    event: Any = None
    told: list[tuple[str, Any]] = field(default_factory=list)


def examples(page: str) -> list[Example]:
    found: list[Example] = []
    for _language, info, body in BLOCK.findall(page):
        kind, *rest = info.split() or [""]
        if kind in ("POST", "PUT", "GET", "emit"):
            numbers = [int(word) for word in rest[1:] if word.isdigit()]
            headers = dict(word.split("=", 1) for word in rest[1:] if "=" in word)
            found.append(Example(kind, rest[0], body.rstrip("\n"), numbers[0] if numbers else 200, headers))
            if kind == "GET":
                found[-1].answer = json.loads(body)
        elif kind in ("answer", "ack"):
            found[-1].answer = json.loads(body)
        elif kind == "event":
            found[-1].event = json.loads(body)
        elif kind == "on":
            found[-1].told.append((rest[0], json.loads(body)))
    return found


def shape(value: Any) -> Any:
    """The names in a value; lists stand for their first item."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return None


def fits(said: Any, real: Any) -> bool:
    """Has `real` the names that the page says? Where one of them is null or empty nothing is compared."""
    if isinstance(said, dict) and isinstance(real, dict):
        return said.keys() == real.keys() and all(fits(said[name], real[name]) for name in said)
    if isinstance(said, list) and isinstance(real, list):
        return not said or not real or fits(said[0], real[0])
    return said is None or real is None or not isinstance(said, (dict, list))


class Browser:
    """A socket that keeps what it is told; one with the right to the page's project only."""

    def __init__(self, url: str, token: str):
        self._client = socketio.Client()
        self.told: dict[str, list[Any]] = defaultdict(list)
        self._client.on("*", lambda event, *args: self.told[event].append(args[0]), namespace=NAMESPACE)
        self._client.connect(
            url,
            auth={"token": token},
            namespaces=[NAMESPACE],
            socketio_path="project-dashboard/ws/",
            transports=["websocket"],
        )

    def ask(self, event: str, *args: Any) -> Any:
        return self._client.call(event, args, namespace=NAMESPACE, timeout=WAIT_SECONDS)

    def wait_for(self, event: str, wanted: Any) -> Any:
        """The first message of this name for which `wanted` holds."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            for body in list(self.told[event]):
                if wanted(body):
                    return body
            time.sleep(0.02)
        raise AssertionError(f"{event} did not come; came: {self.told[event]}")

    def close(self) -> None:
        self._client.disconnect()


def test_all_requests_of_the_page_are_answered_as_it_says(sidecar, name):
    """A page that shows what no server answers costs each of its readers an hour."""
    page = PAGE.replace("axi-star-cloud", name).replace("axi-*", f"{name[:10]}*").replace("123456789", name)
    page = page.replace(f'"since": {name}', '"since": 999999999').replace("another-project", f"{name}-other")
    all_examples = examples(page)
    assert len(all_examples) > 35
    browser = Browser(sidecar.url, sidecar.connection_token(sub="ada", rooms=[f"project:{name}"]))
    browser.ask("subscribe_project", name)
    try:
        for example in all_examples:
            if example.kind == "emit":
                emitted(browser, example)
            else:
                sent(sidecar, browser, example)
    finally:
        browser.close()


def sent(sidecar: Any, browser: Browser, example: Example) -> None:
    options = {"headers": example.headers}
    if example.kind in ("POST", "PUT"):
        body = example.body.encode()
        options = {"content": body, "headers": {"Content-Type": "application/json"} | example.headers}
    answer: httpx.Response = sidecar.request(example.kind, f"/project-dashboard{example.target}", **options)
    assert answer.status_code == example.status, (example, answer.text)
    real = answer.json()
    if example.answer is not None:
        assert fits(example.answer, real), (shape(example.answer), shape(real))
        if example.kind == "POST":
            same = [key for key in TOLD_VALUES if key in example.answer]
            assert {key: real[key] for key in same} == {key: example.answer[key] for key in same}
    if example.event is not None:
        event = browser.wait_for("event", lambda body: body["seq"] == int(real["event_id"]))
        assert event.keys() == example.event.keys()
        assert event["type"] == example.event["type"]
        said = dict(example.event["payload"])
        if "timestamp" not in json.loads(example.body):
            said["timestamp"] = event["payload"]["timestamp"]
        if str(said.get("deployment_id", "")).startswith("auto-"):
            said["deployment_id"] = real["deployment_id"]
        assert event["payload"] == said


def emitted(browser: Browser, example: Example) -> None:
    real = browser.ask(example.target, *json.loads(example.body))
    assert real.keys() == example.answer.keys(), real
    same = [key for key in TOLD_VALUES if key in example.answer]
    assert {key: real[key] for key in same} == {key: example.answer[key] for key in same}
    for event, said in example.told:
        body = browser.wait_for(event, lambda body, said=said: body.get("id") == said.get("id"))
        assert body.keys() == said.keys()
        assert body.get("type") == said.get("type")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory):
    """A sidecar put together and not started, to ask what it speaks."""
    made = create_app(load_settings(instance_dir=tmp_path_factory.mktemp("parts")))
    yield made
    made.core.database.close()


def test_every_webhook_type_is_on_the_page_with_an_example():
    posted = [body for _language, info, body in BLOCK.findall(PAGE) if info.startswith("POST")]
    shown = {word for body in posted for word in re.findall(r'"type": "(\w+)"', body)}
    assert sorted(set(TYPES) - shown) == []


def test_every_event_that_a_client_may_emit_is_on_the_page(parts):
    names = {name for handlers in parts.socketio.server.handlers.values() for name in handlers}
    assert {"subscribe_project", "heartbeat"} <= names
    assert [name for name in sorted(names - {"connect", "disconnect"}) if f"`{name}`" not in PAGE] == []


def test_every_error_code_is_on_the_page_with_its_status():
    def tree(error: type[SidecarError]) -> list[type[SidecarError]]:
        return [error, *(item for child in error.__subclasses__() for item in tree(child))]

    missing = [error.code for error in tree(SidecarError) if f"| {STATUS[error]} | `{error.code}` |" not in PAGE]
    missing += [refusal.code for refusal in REFUSALS.values() if f"`{refusal.code}`" not in PAGE]
    assert missing == []


def test_every_route_is_on_the_page(parts):
    def spelled(rule: str) -> str:
        return re.sub(r"<(?:\w+(?:\([^)]*\))?:)?(\w+)>", r"<\1>", rule)

    routes = {
        f"{method} {spelled(rule.rule)}"
        for rule in parts.app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert "GET /api/deliveries/<number>" in routes
    known = set(re.findall(r"(?:GET|POST|PUT|PATCH|DELETE) /[^\s`?\]]*", PAGE))
    known |= {f"POST {path}" for path in re.findall(r"`(/api/webhook[^`]*)`", PAGE)}
    assert sorted(routes - known) == []
