"""Badges over HTTP: who sees which, and what a proxy may keep."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

import httpx
import pytest

from tests.servers import RunningSidecar

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSidecar]:
    folder: Path = tmp_path_factory.mktemp("badges")
    with RunningSidecar(folder, {"SIDECAR_RATE_LIMIT": "off", "SIDECAR_PUBLIC_BADGES": "shop, axi-*"}) as started:
        yield started


def post(server: RunningSidecar, project: str, id: str, status: str) -> None:
    kind = "deployment_completed" if status in ("success", "failed") else "deployment_started"
    body = {"type": kind, "project": project, "deployment_id": id, "status": status}
    assert server.post("/api/webhooks/deployment", body).status_code == 200


def badge(server: RunningSidecar, project: str, token: str | None = "", **query: str) -> httpx.Response:
    return server.get(f"/api/badges/{quote(project, safe='')}.svg", token, params=query)


def said(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "image/svg+xml; charset=utf-8"
    return [item.text or "" for item in ElementTree.fromstring(answer.content).iter(f"{SVG}text")]


def test_a_public_badge_needs_no_token_and_says_what_it_covers(server):
    for number, status in enumerate(["success", "success", "failed", "running"]):
        post(server, "axi-shop", f"axi-{number}", status)
    assert said(badge(server, "axi-shop")) == ["deploy", "running"]
    assert said(badge(server, "axi-shop", kind="status")) == ["deploy", "running"]
    label, message = said(badge(server, "axi-shop", kind="last"))
    assert (label, message[:8], message[-4:]) == ("last deploy", "axi-3 · ", " UTC")
    assert said(badge(server, "axi-shop", kind="success-rate")) == ["deploy, 30 days", "66 %"]
    assert said(badge(server, "axi-shop", kind="success-rate", label="商店")) == ["商店", "66 %"]


def test_a_project_without_deployments_says_so(server):
    for kind in ("status", "last", "success-rate"):
        assert said(badge(server, "axi-never-seen", kind=kind))[1] == "none"


@pytest.mark.parametrize("project", ["hidden", "shop2", "Shop", "hidden-axi-", "never-seen"])
def test_who_may_not_see_a_project_learns_nothing_of_it(server, project):
    if project != "never-seen":
        post(server, project, project, "success")
    assert badge(server, project).status_code == 401
    other = badge(server, project, server.new_token("deployments:read", projects=["another"]))
    assert other.status_code == 404
    assert other.json()["detail"] == "There is no such project, or the token does not give the right to see it."
    assert badge(server, project, server.new_token("webhooks:write")).status_code == 403
    assert badge(server, project, "sct_nonsense").status_code == 401
    allowed = server.new_token("deployments:read", projects=[project])
    assert said(badge(server, project, allowed))[1] == ("none" if project == "never-seen" else "success")


def test_a_badge_is_asked_for_again_and_answered_304_while_it_is_the_same(server):
    post(server, "shop", "shop-1", "running")
    first = badge(server, "shop")
    assert first.headers["Cache-Control"] == "no-cache"
    again = server.get("/api/badges/shop.svg", "", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
    post(server, "shop", "shop-1", "success")
    changed = server.get("/api/badges/shop.svg", "", headers={"If-None-Match": first.headers["ETag"]})
    assert said(changed) == ["deploy", "success"]


def test_only_its_reader_may_keep_what_is_not_public(server):
    post(server, "secret", "secret-1", "success")
    answer = badge(server, "secret", server.token)
    assert answer.headers["Cache-Control"] == "private, no-cache"
    assert "Authorization" in answer.headers["Vary"]


def test_a_badge_that_is_opened_as_a_page_can_do_nothing(server):
    headers = badge(server, "shop").headers
    assert headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("query", [{"kind": "all"}, {"kind": ""}, {"label": "x" * 61}, {"label": "a\x00b"}])
def test_bad_parameters_are_named(server, query):
    answer = badge(server, "shop", **query)
    assert answer.status_code == 400
    assert [item["path"] for item in answer.json()["errors"]] == list(query)


def test_after_the_deletion_of_a_project_its_badge_says_none(server):
    post(server, "axi-gone", "axi-gone", "success")
    assert said(badge(server, "axi-gone"))[1] == "success"
    assert server.request("DELETE", "/api/projects/axi-gone").status_code == 200
    assert [said(badge(server, "axi-gone", kind=kind))[1] for kind in ("status", "success-rate")] == ["none", "none"]
