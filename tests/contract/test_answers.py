"""The comparison of every answer with the document of the API finds what is wrong."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.contract.answers import check

pytest.importorskip("jsonschema_rs")

PREFIX = "/project-dashboard"
EVENT = {"type": "test", "payload": {}, "timestamp": "2026-11-21T04:29:00.123Z", "seq": 1, "epoch": "e", "offset": "1"}
EVENTS = {"items": [EVENT], "next": None, "seq": 1, "epoch": "e", "offset": "1"}
PROBLEM = {
    "type": "about:blank#not_found",
    "title": "Not found",
    "status": 404,
    "detail": "No.",
    "code": "not_found",
    "errors": [],
    "request_id": "r",
    "success": False,
    "message": "No.",
}


def answer(
    status: int, body: Any, path: str = "/api/deployments/a/b/events", method: str = "GET", media: str | None = None
) -> httpx.Response:
    media = media or ("application/json" if status == 200 else "application/problem+json")
    request = httpx.Request(method, f"http://127.0.0.1{path}")
    if isinstance(body, bytes):
        return httpx.Response(status, content=body, headers={"Content-Type": media}, request=request)
    return httpx.Response(status, json=body, headers={"Content-Type": media}, request=request)


@pytest.mark.parametrize(
    "right",
    [
        answer(200, EVENTS),
        answer(200, EVENTS, f"{PREFIX}/api/deployments/a/b/events/"),
        answer(200, EVENTS, "/api/deployments/a%2Fb/events?limit=1"),
        answer(200, b"", method="HEAD"),
        answer(404, PROBLEM),
        answer(404, PROBLEM, "/api/nothing"),
        answer(405, PROBLEM, method="BREW"),
        answer(200, b"", method="OPTIONS", media="text/html"),
        answer(304, b"", "/api/openapi.json"),
        answer(200, b"a line", "/api/deployments/a/logs", media="text/plain; charset=utf-8"),
        answer(400, b"", "/ws"),
    ],
)
def test_what_the_document_tells_is_right(right):
    check(right, PREFIX)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (answer(500, PROBLEM), "no such status"),
        (answer(409, PROBLEM), "no such status"),
        (answer(200, EVENTS, "/api/nothing"), "/api/nothing 200"),
        (answer(200, EVENTS, method="PATCH"), "PATCH"),
        (answer(200, EVENTS | {"colour": "red"}), "colour"),
        (answer(200, {"items": []}), "required property"),
        (answer(200, EVENTS | {"seq": "1"}), "seq: "),
        (answer(200, EVENTS | {"items": [EVENT | {"volatile": True}]}), "volatile"),
        (answer(200, EVENTS | {"items": [EVENT | {"timestamp": "today"}]}), "items/0/timestamp"),
        (answer(404, PROBLEM | {"code": "conflict"}), "code"),
        (answer(404, {"success": False}), "required property"),
        (answer(404, PROBLEM, media="application/json"), "no such media type"),
        (answer(200, b"<p>", media="text/html"), "no such media type"),
        (answer(200, b""), "EOF|Expecting value"),
    ],
)
def test_what_it_does_not_tell_is_found(wrong, why):
    with pytest.raises((AssertionError, ValueError), match=why):
        check(wrong, PREFIX)
