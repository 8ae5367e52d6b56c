"""MaimClient and a running sidecar."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from sidecar.client.maim import APIMessageBase, ClientConfig, MaimClient, text_message
from tests.client.maim_server import WAIT_SECONDS, until
from tests.servers import RunningSidecar


class Told:
    """What an on_message was told."""

    def __init__(self) -> None:
        self.messages: list[APIMessageBase] = []
        self.metadata: list[dict[str, Any]] = []

    def __call__(self, message: APIMessageBase, metadata: dict[str, Any]) -> None:
        self.messages.append(message)
        self.metadata.append(metadata)

    @property
    def texts(self) -> list[str]:
        return [message.message_segment.data for message in self.messages]


def new_key(server: RunningSidecar, user: str, **more: object) -> tuple[str, str, str]:
    """The key, the address that may stand for it, and its id."""
    answer = server.post("/api/maim/keys", {"user": user, **more})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    return body["key"], body["address"], body["id"]


def config(server: RunningSidecar, key: str, platform: str = "qq", **options: Any) -> ClientConfig:
    url = f"ws://127.0.0.1:{server.port}/project-dashboard/ws"
    return ClientConfig(url, key, platform, **{"reconnect_delay": 0.1, **options})


@pytest.mark.parametrize("in_query", [False, True])
def test_two_users_talk(sidecar, name, in_query):
    key_a, address_a, _ = new_key(sidecar, f"{name}-a")
    key_b, _, _ = new_key(sidecar, f"{name}-b")
    told_a, told_b = Told(), Told()
    with (
        MaimClient(config(sidecar, key_a, "wechat", on_message=told_a, key_in_query=in_query)) as one,
        MaimClient(config(sidecar, key_b, "qq", on_message=told_b, key_in_query=in_query)) as two,
    ):
        sent = text_message("hello", key_b, "qq", "wechat")
        sent.message_segment.extra["style"] = "bold"
        assert one.send_message(sent, wait_seconds=WAIT_SECONDS)
        until(lambda: told_b.messages)
        assert told_b.messages == [sent]
        assert told_b.metadata[0]["target_user"] == f"{name}-b"
        assert two.send_message(text_message("by address", address_a, "wechat"), wait_seconds=WAIT_SECONDS)
        until(lambda: told_a.texts == ["by address"])


def test_refusals_say_why(sidecar, name):
    key, _, _ = new_key(sidecar, name, platforms=["qq"])
    for wanted, words in [
        (config(sidecar, "smk_unknown"), "HTTP 401 (the API key is not known)"),
        (config(sidecar, key, "wechat"), "HTTP 403 (the platform is not allowed for this API key)"),
    ]:
        client = MaimClient(wanted)
        assert not client.connect()
        assert words in str(client.last_error)
        client.stop()


def test_a_revoked_key_is_shut_out(sidecar, name):
    key, _, id = new_key(sidecar, name)
    ends: list[str | None] = []
    client = MaimClient(config(sidecar, key, on_disconnect=lambda uuid, error: ends.append(error)))
    try:
        assert client.connect()
        assert sidecar.request("DELETE", f"/api/maim/keys/{id}").status_code == 200
        until(lambda: "HTTP 401" in str(client.last_error))
        assert "4401 revoked" in str(ends[0])
    finally:
        client.stop()


def test_a_platform_of_other_letters(sidecar, name):
    key, _, _ = new_key(sidecar, name)
    told = Told()
    with MaimClient(config(sidecar, key, "微信", on_message=told)) as client:
        assert client.send_message(text_message("你好", key, "微信"), wait_seconds=WAIT_SECONDS)
        until(lambda: told.texts == ["你好"])


def test_a_queued_message_waits_for_its_receiver(sidecar, name):
    key_a, _, _ = new_key(sidecar, f"{name}-a")
    key_b, _, _ = new_key(sidecar, f"{name}-b")
    told = Told()
    with MaimClient(config(sidecar, key_a)) as one:
        assert one.send_message(text_message("kept", key_b, "qq"), queue=True, wait_seconds=WAIT_SECONDS)
        assert one.send_message(text_message("too", key_b, "qq"), ttl_seconds=600, wait_seconds=WAIT_SECONDS)
    with MaimClient(config(sidecar, key_b, on_message=told)):
        until(lambda: told.texts == ["kept", "too"])
    told_later = Told()
    with MaimClient(config(sidecar, key_b, on_message=told_later)) as two:
        assert two.send_message(text_message("to myself", key_b, "qq"), wait_seconds=WAIT_SECONDS)
        until(lambda: told_later.texts == ["to myself"])


def test_custom_messages_and_another_platform(sidecar, name):
    key, _, _ = new_key(sidecar, name)
    told: list[object] = []
    handlers: dict[str, Callable[[Any], object]] = {"note": told.append}
    with MaimClient(config(sidecar, key, "lark", custom_handlers=handlers)) as client:
        payload = {"title": "t", "message_dim": {"api_key": key, "platform": "qq"}}
        assert client.send_custom_message("note", payload, target_platform="lark", wait_seconds=WAIT_SECONDS)
        until(lambda: told == [payload])


def test_nothing_is_lost_or_doubled_over_restarts(start_sidecar):
    """Messages of a sender who does not wait, while the server is killed: each arrives once."""
    server = start_sidecar(SIDECAR_RATE_LIMIT="off")
    key_a, _, _ = new_key(server, "a")
    key_b, _, _ = new_key(server, "b")
    told = Told()
    options = {"max_reconnect_attempts": 0, "max_reconnect_delay": 0.5}
    with (
        MaimClient(config(server, key_a, on_message=told, **options)),
        MaimClient(config(server, key_b, **options)) as sender,
    ):
        stop = threading.Event()
        sent: list[str] = []

        def send() -> None:
            while not stop.is_set():
                if sender.get_stats()["messages_pending"] < 200:  # a thousand are kept
                    text = str(len(sent))
                    sent.append(text)
                    sender.send_message(text_message(text, key_a, "qq"), queue=True)
                stop.wait(0.005)

        thread = threading.Thread(target=send)
        thread.start()
        try:
            for _ in range(2):
                seen = len(told.messages)
                until(lambda seen=seen: len(told.messages) > seen + 20)
                server.kill()
                server.start()
        finally:
            stop.set()
            thread.join()
        until(lambda: len(told.messages) >= len(sent) and sender.get_stats()["messages_pending"] == 0)
        assert sorted(told.texts, key=int) == sent


def test_a_message_too_large_for_the_sidecar(start_sidecar):
    server = start_sidecar(SIDECAR_MAX_BODY_BYTES="10000")
    key, _, _ = new_key(server, "a")
    told = Told()
    with MaimClient(config(server, key, on_message=told)) as client:
        assert not client.send_message(text_message("x" * 20_000, key, "qq"), wait_seconds=WAIT_SECONDS)
        assert client.send_message(text_message("small", key, "qq"), wait_seconds=WAIT_SECONDS)
        until(lambda: told.texts == ["small"])
