"""MaimClient and the real maim_message 0.6.8: its server takes our client for one of its own, and its clients and ours
talk there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sidecar.client.maim import APIMessageBase, MaimClient, create_client_config, text_message
from tests.bots.peers import Bots, RealClient, RealServer
from tests.bots.peers import text_message as their_message
from tests.client.maim_server import WAIT_SECONDS, until

USERS = {"key-a": "user-a", "key-b": "user-b"}


@pytest.fixture(scope="module")
def real() -> Iterator[RealServer]:
    with RealServer("0.6.8", USERS) as server:
        yield server


def test_a_message_there_and_back(real):
    told: list[tuple[dict[str, Any], dict[str, Any]]] = []
    wanted = create_client_config(
        real.ws_url, "key-a", "wechat",
        on_message=lambda message, metadata: told.append((message.to_dict(), metadata)),
    )  # fmt: skip
    with MaimClient(wanted) as client:
        assert client.is_connected(), client.last_error
        sent = text_message("你好 \U0001f600", "key-a", "wechat", "wechat")
        assert client.send_message(sent, wait_seconds=WAIT_SECONDS)
        until(lambda: told)
        assert told[0][0] == sent.to_dict()
        assert told[0][1]["target_user"] == "user-a"
        assert client.get_stats()["messages_acked"] == 1


def test_custom_messages(real):
    told: list[object] = []
    with MaimClient(create_client_config(real.ws_url, "key-a")) as client:
        client.register_custom_handler("reply", told.append)
        assert client.send_custom_message("notification", {"title": "t"}, wait_seconds=WAIT_SECONDS)
        until(lambda: told == [{"echo": {"title": "t"}}])


def test_with_the_key_in_the_query(real):
    with MaimClient(create_client_config(real.ws_url, "key-b", key_in_query=True)) as client:
        assert client.send_message(text_message("hello", "key-b", "qq"), wait_seconds=WAIT_SECONDS)


def test_a_key_that_it_does_not_know_is_not_tried_for_ever(real):
    """It takes the connection in and closes it with 1000."""
    config = create_client_config(real.ws_url, "key-x", reconnect_delay=0.01, max_reconnect_attempts=3)
    client = MaimClient(config)
    try:
        client.connect()
        until(lambda: client.get_stats()["connect_attempts"] == 4 and not client.is_connected())
        assert "the server closed the connection: 1000 Authentication failed" in str(client.last_error)
    finally:
        client.stop()


def test_our_client_and_theirs_talk(real):
    told: list[APIMessageBase] = []

    def on_message(message: APIMessageBase, metadata: dict[str, Any]) -> None:
        told.append(message)

    config = create_client_config(real.ws_url, "key-a", "wechat", on_message=on_message)
    with Bots("0.6.8") as bots, RealClient(bots, real.ws_url, "key-b", "qq") as theirs, MaimClient(config) as ours:
        assert theirs.connect()
        sent = text_message("from ours", "key-b", "qq", "wechat")
        assert ours.send_message(sent, wait_seconds=WAIT_SECONDS)
        assert theirs.next_message() == sent.to_dict()
        answer = their_message("from theirs", to=("key-a", "wechat"))
        assert theirs.send(answer)
        until(lambda: told)
        assert told[0].to_dict() == answer
