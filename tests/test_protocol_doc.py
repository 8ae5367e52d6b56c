"""docs/protocol.md, messages.md, menu.md, maim.md and authorizations.md, read as one page, against a real server: every
request on it is sent, every answer and event compared, and all that the code speaks is on it.

A block's first line says what it is: `json POST <path> [status] [Header=value]` (`text` for a body that is no JSON),
the same with PUT, or `json GET <path>` is sent; the `json answer` and `json event` after it are compared;
`json emit <name>` holds arguments, the `json ack` after it their answer; `json on <name>` is what the socket is told.
What would have to be waited for, or broken first, is compared with the documents of the API and of the sockets:
`json told <name>` (also those with `on`, `event` and `ack` are), `json said <channel> <name>` and `json like <METHOD>
<path> <status>`.
"""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
import socketio
from pydantic import BaseModel

from config.settings import Settings, load_settings
from sidecar.domain.access import SCOPES
from sidecar.domain.errors import SidecarError
from sidecar.drain import CLOSE_RESTART
from sidecar.factory import create_app
from sidecar.http.errors import STATUS
from sidecar.http.openapi import document
from sidecar.http.operations import DECLARED
from sidecar.sockets.contract import BOT_CODES, CLOSE_CODES, TOKEN_CODES
from sidecar.sockets.errors import REFUSALS
from sidecar.wire.bots import BARE_MESSAGE
from sidecar.wire.deployments import TYPES
from sidecar.wire.news import EVENT_TYPES
from sidecar.wire.spoken import EventType, Frame, Message
from sidecar.wire.told import ANYTHING, PERMISSIONS_FRAMES, REFERRED, ROOM_FRAMES, Since
from tests.contract.spoken import declared, spoken

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("protocol.md", "messages.md", "menu.md", "maim.md", "authorizations.md")
PAGE = "".join((ROOT / "docs" / name).read_text() for name in PAGES)
BLOCK = re.compile(r"^```(json|text|) *([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMESPACE = "/project-dashboard/ws"
WAIT_SECONDS = 60
TOLD_VALUES = ("success", "status", "code", "errors", "duplicate", "repaired", "project", "type", "ok", "truncated")
"""Of an answer: what must be the same as on the page. Of the rest the names must be the same."""


@dataclass
class Example:
    """A request of the page with what the page says comes back."""

    kind: str
    target: str
    body: str
    status: int = 200
    headers: dict[str, str] = dataclass_field(default_factory=dict)
    answer: Any = None
    event: Any = None
    told: list[tuple[str, Any]] = dataclass_field(default_factory=list)


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
    """A socket that keeps what it is told; one with the right to the page's project and room only."""

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
    browser = Browser(sidecar.url, sidecar.connection_token(sub="ada", rooms=[f"project:{name}", f"room:{name}"]))
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


def names_of(name: str) -> list[str]:
    """How a page may write a name of the wire."""
    return [f"`{name}`", f'"{name}"', f'"type":"{name}"', f"on {name}\n", f"**{name}**"]


@pytest.mark.parametrize("kind", [EventType, Frame, Message])
def test_all_that_sockets_are_told_and_may_say_is_on_the_page(kind):
    names = {str(found) for found in declared() if isinstance(found, kind)} - {str(ANYTHING), str(BARE_MESSAGE)}
    assert len(names) > 5
    assert [name for name in sorted(names) if not any(form in PAGE for form in names_of(name))] == []


def fields_of(model: type[BaseModel]) -> set[str]:
    """Of a form, and of those in it."""
    found = set()
    for name, field in model.model_fields.items():
        found.add(name)
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                found |= fields_of(part)
    return found


@pytest.mark.parametrize("name", sorted(EVENT_TYPES))
def test_every_field_of_an_events_payload_is_on_the_page(name):
    """Also those that any report may carry."""
    model = next(type.body for type in EVENT_TYPES if type == name)
    assert [field for field in sorted(fields_of(model)) if not re.search(rf"\b{field}\b", PAGE)] == []


@pytest.mark.parametrize(
    ("page", "frames"), [("messages.md", ROOM_FRAMES), ("menu.md", PERMISSIONS_FRAMES)], ids=["rooms", "permissions"]
)
def test_every_field_of_a_frame_is_on_its_page(page, frames):
    text = (ROOT / "docs" / page).read_text()
    fields = {field for frame in frames for field in frame.body.model_fields}
    assert [field for field in sorted(fields) if not re.search(rf"\b{field}\b", text)] == []


def test_every_field_that_a_client_may_send_is_on_the_page():
    given = {field for found in declared() if isinstance(found, Message) for field in found.body.model_fields}
    given |= {field for model in REFERRED for field in model.model_fields} | set(Since.model_fields)
    assert {"since", "username", "acked_msg_id"} - given <= {"acked_msg_id"}
    assert [field for field in sorted(given) if not re.search(rf"\b{field}\b", PAGE)] == []


def test_what_the_page_shows_of_sockets_has_the_form_of_their_document(sidecar):
    heard = spoken(sidecar)
    shown = 0
    asked: tuple[str, list[Any]] = ("", [])
    for language, info, text in BLOCK.findall(PAGE):
        kind, *rest = info.split() or [""]
        if language != "json" or kind not in ("event", "on", "told", "emit", "ack", "said"):
            continue
        shown += 1
        body = json.loads(text)
        if kind == "emit":
            asked = (rest[0], body)
        elif kind == "ack":
            heard.asked(*asked, [body])
        elif kind == "said":
            heard.said(*rest, body)
        else:
            heard.told(rest[0] if rest else "event", [body])
    assert shown > 25


def test_what_the_page_shows_of_answers_has_the_form_of_their_document(parts):
    jsonschema_rs = pytest.importorskip("jsonschema_rs", reason="jsonschema-rs is not installed")
    rules = parts.app.url_map.iter_rules()
    whole = document(rules, parts.app.view_functions)
    shown = [(info.split()[1:], json.loads(text)) for _, info, text in BLOCK.findall(PAGE) if info.startswith("like ")]
    assert len(shown) > 1
    for (method, path, status), body in shown:
        told = whole["paths"][path][method.lower()]["responses"][status]
        if "$ref" in told:
            told = whole["components"]["responses"][told["$ref"].rpartition("/")[2]]
        (media,) = told["content"].values()
        schema = {"allOf": [media["schema"]], "components": {"schemas": whole["components"]["schemas"]}}
        assert list(jsonschema_rs.Draft202012Validator(schema, validate_formats=True).iter_errors(body)) == [], path


def test_every_example_of_the_page_is_compared_with_something():
    """authorizations.md has tests of its own (tests/lark)."""
    own = "".join((ROOT / "docs" / name).read_text() for name in PAGES if name != "authorizations.md")
    kinds = {info.partition(" ")[0] for language, info, _ in BLOCK.findall(own) if language in ("json", "text")}
    known = {"POST", "PUT", "GET", "emit", "answer", "ack", "event", "on", "told", "said", "like", "connect_error"}
    assert kinds <= known


def test_a_refused_connection_is_told_what_the_page_says(sidecar):
    (said,) = [json.loads(body) for _, info, body in BLOCK.findall(PAGE) if info == "connect_error"]
    told: list[Any] = []
    client = socketio.Client(reconnection=False)
    client.on("connect_error", told.append, namespace=NAMESPACE)
    with pytest.raises(socketio.exceptions.ConnectionError):
        client.connect(sidecar.url, namespaces=[NAMESPACE], transports=["websocket"])
    assert told == [said]


def test_every_setting_on_the_page_is_one():
    clients = {"SIDECAR_URL", "SIDECAR_TOKEN"}
    settings = {f"SIDECAR_{name.upper()}" for name in Settings.model_fields}
    named = set(re.findall(r"\bSIDECAR_[A-Z_]+", PAGE)) - clients
    assert len(named) > 15
    assert sorted(named - settings) == []


def test_every_scope_is_on_the_page():
    (table,) = re.findall(r"^\| scope \| gives \|\n(?:\|.*\n)+", PAGE, re.MULTILINE)
    assert (
        set(re.findall(r"`([a-z]+(?::[a-z]+)?)`", "".join(line.split("|")[1] for line in table.splitlines()))) == SCOPES
    )


def test_every_parameter_is_named_where_its_address_is(parts):
    missing = []
    for rule in parts.app.url_map.iter_rules():
        declaration = getattr(parts.app.view_functions[rule.endpoint], DECLARED, None)
        path = re.sub(r"<(?:\w+(?:\([^)]*\))?:)?(\w+)>", r"<\1>", rule.rule)
        near = "\n".join(part for part in re.split(r"\n(?=#)", PAGE) if path in part)
        names = declaration.query.declared if declaration is not None else ()
        missing += [f"{path}?{name}" for name in names if not re.search(rf"(?<![\w-]){name}(?![\w-])", near)]
    assert missing == []


def test_every_refusal_of_a_handshake_is_on_the_page():
    """Those before Socket.IO is reached."""
    text = PAGE.partition("### 4.4 Refusals")[2].partition("### 4.5")[0]
    found = set(re.findall(r'_Refusal\(\s*"(\d{3}) [^"]*", "(\w+)"', (ROOT / "sidecar/sockets/gate.py").read_text()))
    assert {("403", "bad_origin"), ("413", "too_large")} <= found
    assert [f"{status} {code}" for status, code in sorted(found) if not re.search(rf"\b{status}\b", text)] == []
    assert [code for _, code in sorted(found) if f"`{code}`" not in PAGE and f'"{code}"' not in PAGE] == []


def test_every_close_code_is_on_the_page():
    codes = {*CLOSE_CODES, *TOKEN_CODES, *BOT_CODES, str(CLOSE_RESTART)} - {"1000"}
    assert [code for code in sorted(codes) if not re.search(rf"\b{code}\b", PAGE)] == []


def test_every_error_code_is_on_the_page_with_its_status():
    def tree(error: type[SidecarError]) -> list[type[SidecarError]]:
        return [error, *(item for child in error.__subclasses__() for item in tree(child))]

    known = {(str(STATUS[error]), error.code) for error in tree(SidecarError)}
    known |= {("400", "bad_request"), ("405", "method_not_allowed")}  # of requests that Werkzeug refuses
    rows = set(re.findall(r"^\| (\d{3}) \| `(\w+)` \|", PAGE, re.MULTILINE))
    assert rows - known == set()
    missing = [code for status, code in sorted(known - rows)]
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
