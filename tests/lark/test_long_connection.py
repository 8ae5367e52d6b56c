"""`python -m sidecar lark-events`: clicks and events over the real SDK's long connection do what they do over HTTP."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lark.flow import Flow, title_of
from tests.lark.stage import HTTP, require_sdk
from tests.programs import ROOT, running, stop, wait_until


@contextmanager
def hearing(flow: Flow, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process `lark-events`, connected."""
    flow.others.append(log)
    opened = flow.lark.connections.opened
    command = [sys.executable, "-m", "sidecar", "lark-events"]
    with running(command, log, flow.server.environment, ROOT) as process:
        wait_until(lambda: flow.lark.connections.opened > opened, "the long connection is open")
        yield process


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flow]:
    require_sdk()
    folder = tmp_path_factory.mktemp("heard")
    settings = {"SIDECAR_LARK_FALLBACK_TO_HTTP": "false", "SIDECAR_LARK_HEARTBEAT_SECONDS": "1"}
    with Flow(folder, **settings) as flow:
        flow.lark.console.delivery = "websocket"
        with hearing(flow, folder / "events.log"):
            yield flow
        flow.server.stop()
        flow.check_nothing_told()


def test_the_whole_way(heard: Flow, name: str):
    begun = heard.start(name, open_id="ou_ada")
    message = heard.send_card(begun)
    shown = heard.lark.click(message.message_id, "ou_ada", button=0)
    assert shown == {"toast": {"type": "info", "content": "请点击链接完成授权"}}
    assert heard.authorize(begun).status_code == 200
    heard.wait_card(message, "授权成功")
    assert heard.session(begun)["method"] == "websocket_card"
    assert heard.token(name).status_code == 200


def test_cancelled_on_the_card(heard: Flow, name: str):
    begun = heard.start(name, open_id="ou_ada")
    message = heard.send_card(begun)
    assert heard.lark.click(message.message_id, "ou_eve", value=button_value(message, 1)).get("error")
    assert heard.lark.click(message.message_id, "ou_ada", button=1)["toast"]["content"] == "已取消授权"
    assert (title_of(message.versions[-1]), message.changes) == ("已取消授权", ["callback"])
    assert heard.state(begun) == ("rejected", "user_rejected")


def button_value(message, number: int) -> object:
    return message.versions[0]["elements"][1]["actions"][number]["value"]


def test_a_long_event_and_one_of_a_kind_that_nobody_handles(heard: Flow):
    heard.lark.console.part_bytes = 1000
    delivery = heard.lark.platform.deliveries[heard.lark.push("im.message.receive_v1", {"text": "长" * 5000})]
    wait_until(lambda: len(delivery.attempts) == 1, "it was delivered")
    heard.lark.console.part_bytes = 100_000
    assert delivery.attempts[0]["answer"] == {}


def test_an_event_again_is_answered_as_before(heard: Flow, name: str):
    begun = heard.start(name, open_id="ou_ada")
    message = heard.send_card(begun)
    heard.lark.click(message.message_id, "ou_ada", button=1)
    (delivery,) = [
        one
        for one in heard.lark.platform.deliveries.values()
        if one.payload["event"].get("context", {}).get("open_message_id") == message.message_id
    ]
    assert heard.lark.resend(delivery.event_id) == {"answer": delivery.attempts[0]["answer"]}


def test_over_http_nothing_is_taken_then(heard: Flow):
    assert HTTP.post(f"{heard.server.url}/callback/lark", json={}).status_code == 404


def test_its_connection_is_a_figure(heard: Flow):
    def figure() -> str:
        text: str = heard.server.get("/metrics").text
        return next(line for line in text.splitlines() if line.startswith("lark_service_websocket_connection_status{"))

    wait_until(lambda: figure().endswith(" 1.0"), "the connection is up")


def test_cut_it_connects_again(heard: Flow, name: str):
    opened = heard.lark.connections.opened
    heard.lark.connections.drop()
    wait_until(lambda: heard.lark.connections.opened > opened, "it is connected again")
    begun = heard.start(name, open_id="ou_ada")
    message = heard.send_card(begun)
    assert heard.lark.click(message.message_id, "ou_ada", button=1)["toast"]["content"] == "已取消授权"


def test_while_the_sidecar_is_away_an_event_is_not_lost(heard: Flow):
    """Lark is told that it failed, and sends it again."""
    heard.server.stop()
    heard.lark.console.retry_seconds = (0.5,) * 40
    delivery = heard.lark.platform.deliveries[heard.lark.push("im.message.receive_v1", {"text": "later"})]
    wait_until(lambda: len(delivery.attempts) >= 1, "it was tried")
    assert "error" in delivery.attempts[0]
    heard.server.start()
    wait_until(lambda: delivery.attempts[-1].get("answer") == {}, "it was taken")


def test_two_share_the_work_and_one_that_ends_does_not_stop_it(heard: Flow, name: str):
    with hearing(heard, heard.server.instance.parent / "second.log") as second:
        wait_until(lambda: len(heard.lark.connections) == 2, "two connections")
        for number in range(6):
            begun = heard.start(f"{name}-{number}", open_id="ou_ada")
            message = heard.send_card(begun)
            assert heard.lark.click(message.message_id, "ou_ada", button=1)["toast"]["content"] == "已取消授权"
        assert stop(second) == 0
    wait_until(lambda: len(heard.lark.connections) == 1, "one connection")
    begun = heard.start(f"{name}-last", open_id="ou_ada")
    assert heard.lark.click(heard.send_card(begun).message_id, "ou_ada", button=1)["toast"]["content"] == "已取消授权"
