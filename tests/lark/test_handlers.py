"""SIDECAR_LARK_HANDLERS: an embedder's handlers get what the platform tells, once each, and delay no answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.fake_lark import Delivery
from tests.lark.flow import PAST, Flow
from tests.lark.stage import APP_ID
from tests.programs import wait_until


class Handled:
    """What the handlers have written down."""

    def __init__(self, file: Path, flow: Flow):
        self._file = file
        self.flow = flow

    def lines(self, event_id: str) -> list[dict[str, Any]]:
        lines = map(json.loads, self._file.read_text().splitlines())
        return [line for line in lines if line["told"]["event_id"] == event_id]

    def push(self, kind: str, **event: Any) -> Delivery:
        """Have the platform tell of an event; the delivery after its first attempt."""
        delivery = self.flow.lark.platform.deliveries[self.flow.lark.push(kind, event)]
        wait_until(lambda: len(delivery.attempts) > 0, "it was delivered")
        return delivery


@pytest.fixture(scope="module")
def handled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Handled]:
    folder = tmp_path_factory.mktemp("handlers")
    file = folder / "handled"
    file.touch()
    environment = {"SIDECAR_LARK_HANDLERS": "tests.lark.handlers:handlers", "HANDLED_FILE": str(file)}
    with Flow(folder, **environment) as flow:
        yield Handled(file, flow)
        flow.server.stop()
        flow.check_nothing_told()
        assert "secret-of-a-handler" not in flow.server.output()


def test_an_event_is_handled_and_its_answer_given(handled: Handled):
    delivery = handled.push("im.message.receive_v1", text="你好")
    assert delivery.attempts[0]["answer"] == {"seen": "你好"}
    (line,) = handled.lines(delivery.event_id)
    assert line["event"] == {"text": "你好"}
    assert line["told"] == {
        "app_id": APP_ID,
        "event_id": delivery.event_id,
        "event_type": "im.message.receive_v1",
        "transport": "http",
    }


def test_told_again_it_is_not_handled_again(handled: Handled):
    delivery = handled.push("im.message.receive_v1", text="once")
    for _ in range(3):
        assert handled.flow.lark.resend(delivery.event_id) == {"answer": {"seen": "once"}}
    assert len(handled.lines(delivery.event_id)) == 1
    assert "error" in handled.flow.lark.resend(delivery.event_id, replay=True)


def test_a_coroutine(handled: Handled):
    assert handled.push("contact.user.updated_v3").attempts[0]["answer"] == {"awaited": True}


def test_a_slow_one_goes_on_behind_the_answer(handled: Handled):
    delivery = handled.push("approval.instance", id=1)
    assert delivery.attempts[0]["answer"] == {}
    assert handled.lines(delivery.event_id) == []
    wait_until(lambda: len(handled.lines(delivery.event_id)) == 1, "it is handled")
    wait_until(
        lambda: handled.flow.lark.resend(delivery.event_id) == {"answer": {"late": True}}, "the answer is known later"
    )
    assert len(delivery.attempts) < 30
    assert len(handled.lines(delivery.event_id)) == 1


@pytest.mark.parametrize("kind", ["calendar.calendar.changed_v4", "vc.meeting.started"])
def test_one_that_fails_is_called_again(handled: Handled, kind: str):
    delivery = handled.push(kind)
    assert delivery.attempts[0]["answer"] == {}
    assert len(handled.lines(delivery.event_id)) == 1
    make_due(handled.flow, delivery.event_id)
    wait_until(lambda: len(handled.lines(delivery.event_id)) == 2, "it is called again")
    if kind.startswith("calendar"):
        wait_until(
            lambda: handled.flow.lark.resend(delivery.event_id) == {"answer": {"at last": True}}, "it has done it"
        )


def make_due(flow: Flow, event_id: str) -> None:
    """As if enough time had passed since it failed."""

    query = "UPDATE lark_events SET claimed_until = :past WHERE event_id = :event_id"
    wait_until(lambda: flow.execute(query, past=PAST, event_id=event_id) == 1, "it is known")


def test_clicks_on_cards_of_others_are_theirs(handled: Handled, name: str):
    flow = handled.flow
    begun = flow.start(name, open_id="ou_ada")
    message = flow.send_card(begun)
    other = flow.lark.click(message.message_id, "ou_ada", value={"vote": "yes"})
    assert other == {"toast": {"type": "success", "content": "谢谢"}}
    own = flow.lark.click(message.message_id, "ou_ada", button=1)
    assert own["toast"]["content"] == "已取消授权"


def test_an_answer_that_is_none(handled: Handled):
    assert handled.push("task.odd").attempts[0]["answer"] == {}


def test_killed_while_it_is_handled_it_is_handled_after_the_start(handled: Handled):
    """What was answered to the platform is not sent again by it."""
    delivery = handled.push("approval.instance", id=2)
    handled.flow.server.kill()
    assert handled.lines(delivery.event_id) == []
    handled.flow.server.start()
    handled.flow.forget_lease()
    make_due(handled.flow, delivery.event_id)
    wait_until(lambda: len(handled.lines(delivery.event_id)) == 1, "it is handled")
