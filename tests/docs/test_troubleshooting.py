"""docs/troubleshooting.md: its commands are run, and each symptom that it names is produced and told in its words.
(What nginx has to do with is in test_nginx.py.)"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import socketio

from tests.docs import pages
from tests.docs.stranger import Stranger
from tests.programs import require
from tests.servers import RunningSidecar

PAGE = pages.read("docs/troubleshooting.md")
WEBHOOK = "/project-dashboard/api/webhooks/deployment"
ENGINE = "/project-dashboard/ws/?EIO=4&transport=polling"
Say = Callable[..., Any]


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def quoted(title: str) -> list[str]:
    """What is written as code there."""
    return re.findall(r"`([^`]+)`", section(title))


def test_the_commands_answer(stranger: Stranger) -> None:
    """Also before anything was posted. (`tail` follows until it is ended.)"""
    require("ss")
    blocks = [block.text for block in pages.commands(PAGE)]
    text = "\n".join(blocks).replace("SITE=https://dashboard.example.com", f"SITE={stranger.sidecar.url}")
    text = text.replace("'sport = :8091'", f"'sport = :{stranger.sidecar.port}'")
    text = re.sub(r"^.*-m sidecar tail .*\n", "", text, flags=re.MULTILINE)
    handshake = next(iter(re.findall(r"^curl --http1\.1 (?:.*\\\n)*.*$", text, re.MULTILINE)))
    told = stranger.follow(text.replace(handshake, ""))
    assert '"ready":true' in told
    assert "X-Request-Id: " in told
    assert f"127.0.0.1:{stranger.sidecar.port}" in told
    assert '"scopes":["webhooks:write"]' in told
    done = stranger.run(f"SITE={stranger.sidecar.url}", handshake.replace("-m 2", "-m 0.5"))
    assert done.stdout.startswith("HTTP/1.1 101 ")


def test_the_handshake_is_that_of_the_nginx_page() -> None:
    found = [
        re.findall(r"^curl --http1\.1 (?:.*\\\n)*.*$", block.text, re.MULTILINE)
        for page in ("docs/troubleshooting.md", "docs/nginx.md")
        for block in pages.commands(pages.read(page))
    ]
    one, other = (commands for commands in found if commands)
    assert one == other


@pytest.mark.parametrize(
    ("status", "told", "authorization", "body"),
    [
        (401, "This needs a token", None, {"type": "test", "project": "p"}),
        (401, "must be `Token <token>`", "Token", {"type": "test", "project": "p"}),
        (401, "The token is not known", "Token sct_7f457be19c5c_cut", {"type": "test", "project": "p"}),
        (403, "The token lacks the scope", "reader", {"type": "test", "project": "p"}),
        (403, "deployment id", "of-one", {"type": "step_started", "deployment_id": "taken", "step_name": "b"}),
    ],
)
def test_a_token_that_is_refused_is_told_so(
    sidecar: RunningSidecar, name: str, status: int, told: str, authorization: str | None, body: dict[str, str]
) -> None:
    taken = {"type": "step_started", "project": f"{name}-other", "deployment_id": name, "step_name": "build"}
    sidecar.post(WEBHOOK, taken)
    token = {
        "reader": lambda: f"Token {sidecar.new_token('deployments:read')}",
        "of-one": lambda: f"Token {sidecar.new_token('webhooks:write', projects=[name])}",
    }.get(authorization or "", lambda: authorization)()
    posted = {"project": name} | body | ({"deployment_id": name} if "deployment_id" in body else {})
    headers = {} if token is None else {"Authorization": token}
    answer = sidecar.post(WEBHOOK, posted, token="", headers=headers)
    assert answer.status_code == status
    assert told in answer.json()["detail"]
    assert re.search(
        rf"^- {status}.*{re.escape(told)}", section("The token is refused").replace("\n  ", " "), re.MULTILINE
    )
    assert answer.headers["X-Request-Id"] == answer.json()["request_id"]


def test_a_signature_that_fits_nothing_has_the_page_s_code(sidecar: RunningSidecar) -> None:
    answer = sidecar.post(
        WEBHOOK, {"type": "test", "project": "p"}, token="", headers={"X-Hub-Signature-256": "sha256=" + "0" * 64}
    )
    assert (answer.status_code, answer.json()["code"]) == (401, "signature_mismatch")
    assert "signature_mismatch" in quoted("The token is refused")


def test_paths_that_collide_are_told_apart(sidecar: RunningSidecar) -> None:
    missing = sidecar.get("/project-dashboard/api/nothing")
    assert missing.json()["detail"].rstrip(".") in quoted("Another application answers")
    assert sidecar.get("/another-prefix/api/info").status_code == 404
    refused = sidecar.get(WEBHOOK)
    assert (refused.status_code, "POST" in refused.headers["Allow"]) == (405, True)
    for answer in (missing, refused, sidecar.get("/api/info")):
        assert "X-Request-Id" in answer.headers


def test_sockets_that_are_refused_are_told_in_the_page_s_words(begin: Callable[..., Stranger]) -> None:
    server = begin(SIDECAR_PUBLIC_URL="https://dashboard.example.com").sidecar
    words = quoted("The socket does not connect")
    old = server.get(ENGINE.replace("EIO=4", "EIO=3"), token="")
    assert (old.status_code, old.json()["message"].partition(":")[0] in words) == (400, True)
    foreign = server.get(ENGINE, token="", headers={"Origin": "https://other.example.com"})
    assert (foreign.status_code, foreign.json()["code"] in words) == (403, True)
    unknown = server.get(ENGINE, token="", headers={"Host": "other.example.com"})
    assert (unknown.status_code, unknown.json()["code"] in words) == (400, True)
    assert server.get(ENGINE, token="").status_code == 200, "through loopback it may be tried"


@pytest.fixture
def say(sidecar: RunningSidecar) -> Iterator[Say]:
    """What the server acknowledges to an event of a socket that may watch one project."""
    client = socketio.Client(reconnection=False, handle_sigint=False)
    token = sidecar.connection_token(sub="ada", rooms=["project:shop", "deployment:*"])
    client.connect(sidecar.url, auth={"token": token}, socketio_path="project-dashboard/ws/", transports=["websocket"])
    yield lambda event, *arguments: client.call(event, arguments, timeout=15)
    client.disconnect()


def test_the_wrong_room_stays_silent(sidecar: RunningSidecar, say: Say, name: str) -> None:
    text = section("The wrong room")
    assert say("subscribe_project", "shop")["ok"] is True
    posted = sidecar.post(WEBHOOK, {"type": "log_entry", "project": "Shop", "deployment_id": name, "message": "x"})
    assert posted.json()["recipients"] == 0, "`Shop` is not `shop`"
    assert "Shop" in [item["name"] for item in sidecar.get("/project-dashboard/api/projects").json()["items"]]
    assert say("subscribe_deployment", "shop")["ok"] is True, "a name is not checked to exist"
    refused = say("subscribe_project", "other")
    assert (refused["ok"], refused["code"]) == (False, "not_allowed")
    for word in ("`Shop` is not `shop`", "A name is not checked to exist", f"`{refused['code']}` on a subscribe"):
        assert word in text


def test_a_free_room_of_a_project_s_name_is_none_of_it(sidecar: RunningSidecar) -> None:
    client = socketio.Client(reconnection=False, handle_sigint=False)
    client.connect(sidecar.url, auth={"token": sidecar.token}, transports=["websocket"])
    try:
        assert client.call("subscribe_room", "project:shop", timeout=15)["room"] == "room:project:shop"
    finally:
        client.disconnect()
    assert "`room:project:shop`" in section("The wrong room")


def test_a_taken_port_is_told_with_its_process(sidecar: RunningSidecar, tmp_path: Any) -> None:
    done = sidecar.cli("serve", SIDECAR_PORT=str(sidecar.port), SIDECAR_INSTANCE_DIR=str(tmp_path / "instance"))
    assert done.returncode == 2
    assert f"process {sidecar.pid}" in done.stderr
    assert re.search(r"by which process and ends with 2", section("The port is taken"))


def test_what_could_not_be_used_is_found_again(stranger: Stranger) -> None:
    """The commands of "Nothing arrives", in their table."""
    refused = stranger.sidecar.post(WEBHOOK, {"status": "success"})
    number = re.search(r"delivery (\d+)", refused.json()["detail"])
    assert number
    stranger.sidecar.post(WEBHOOK, {"type": "test", "project": "my-project"})
    first, second = (
        command for command in quoted("Nothing arrives") if command.startswith(".venv/bin/python -m sidecar deliveries")
    )
    shown = first.split("deliveries")[0] + f"deliveries show {number[1]}"
    told = stranger.follow(first, shown, second)
    assert "quarantined" in told
    assert json.dumps({"status": "success"}, separators=(",", ":")) in told
    assert "my-project" in told
    assert stranger.sidecar.get(quoted("Nothing arrives")[1], token="").status_code == 200


def test_every_chapter_is_in_the_list_above() -> None:
    chapters = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    listed = re.findall(r"\[[^\]]+\]\(#([^)]*)\)", PAGE.partition("\n## ")[0])
    assert [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in chapters] == listed
