"""The sidecar is killed and started again: real clients come back by themselves, and what was promised holds."""

from __future__ import annotations

import os
import signal
from typing import Any

from tests.bots.conftest import Connect
from tests.bots.peers import VERSIONS, envelope, text_message
from tests.bots.raw import RawBot, new_key
from tests.programs import wait_until

OLD, NEW = VERSIONS


def test_bots_come_back_after_a_crash(start_sidecar: Any, connect: Connect):
    server = start_sidecar(SIDECAR_RATE_LIMIT="off")
    url = server.url.replace("http", "ws", 1) + "/ws"
    keys = {user: new_key(server, user).key for user in ("old", "new", "away")}
    bots = {"old": connect(OLD, url, keys["old"], "qq"), "new": connect(NEW, url, keys["new"], "qq")}
    # Acknowledged before the crash: delivered once, whoever asks again.
    seen = envelope(text_message("before", (keys["new"], "qq")))
    bots["old"].send_frame(seen)
    bots["old"].acked(seen["msg_id"])
    assert bots["new"].next_text() == "before"
    kept = envelope(text_message("kept", (keys["away"], "qq")), queue=True)
    bots["old"].send_frame(kept)
    bots["old"].acked(kept["msg_id"])

    for bot in bots.values():
        bot.next("connect")
    server.kill()
    for bot in bots.values():
        wait_until(lambda bot=bot: not bot.connected, "it has noticed")
    server.start()
    for bot in bots.values():
        bot.next("connect")

    bots["old"].send_text("after, from old", to=(keys["new"], "qq"))
    assert bots["new"].next_text() == "after, from old"
    bots["new"].send_text("after, from new", to=(keys["old"], "qq"))
    assert bots["old"].next_text() == "after, from new"
    assert connect(NEW, url, keys["away"], "qq").next_text() == "kept"
    bots["old"].send_frame(seen)
    bots["old"].acked(seen["msg_id"])
    bots["old"].send_text("last", to=(keys["new"], "qq"))
    assert bots["new"].next_text() == "last"
    assert bots["new"].texts() == ["before", "after, from old", "last"]
    assert "Traceback" not in server.output()


def test_a_stop_says_goodbye(start_sidecar: Any):
    """With a code after which a client comes back."""
    server = start_sidecar()
    key = new_key(server, "bob").key
    with RawBot(server, key, "qq", "websocket") as old, RawBot(server, key, "qq", "socketio") as new:
        os.kill(server.pid, signal.SIGTERM)
        assert (old.closed(), new.closed()) == (1012, 1012)
    assert server.stop() == 0
