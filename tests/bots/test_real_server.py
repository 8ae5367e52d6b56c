"""The real clients with the real servers: what the tests with our own server compare it with."""

from __future__ import annotations

import pytest

from tests.bots.peers import VERSIONS, Bots, RealClient, RealServer, envelope, text_message

USERS = {"key-a": "user-a", "key-b": "user-b"}


@pytest.mark.parametrize("version", VERSIONS)
def test_two_clients_talk(version: str):
    with (
        RealServer(version, USERS) as server,
        Bots(version) as bots,
        RealClient(bots, server.ws_url, "key-a", "wechat", custom=["reply"]) as one,
        RealClient(bots, server.ws_url, "key-b", "qq") as two,
    ):
        assert one.connect()
        assert two.connect()
        sent = one.send_text("hello B", to=("key-b", "qq"))
        assert two.next_message() == sent
        two.send_text("hello A", to=("key-a", "wechat"))
        assert one.next_text() == "hello A"
        assert one.send_custom("notification", {"title": "t"})
        assert one.next_custom() == ("reply", {"echo": {"title": "t"}})
        frame = envelope(text_message("once", to=("key-b", "qq")))
        assert one.send_frame(frame)
        assert one.send_frame(frame)
        assert [one.acked(frame["msg_id"])["type"] for _ in range(2)] == ["sys_ack"] * 2
        one.send_text("last", to=("key-b", "qq"))
        assert two.next_text() == "once"
        assert two.next_text() == "last"
