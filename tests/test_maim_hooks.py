"""Hooks that are coroutines, in a real server."""

from __future__ import annotations

import pytest

from tests.programs import wait_until
from tests.servers import RunningSidecar
from tests.services.bots import frame, message
from tests.sockets.clients import Plain
from tests.sockets.test_maim import refusal


@pytest.fixture
def server(start_sidecar) -> RunningSidecar:
    return start_sidecar(SIDECAR_MAIM_HOOKS="tests.maim_hooks:hooks", SIDECAR_RATE_LIMIT="off")


def test_the_server_outlives_them(server):
    """One that exits used to take the process with it."""
    one, two = (Plain(server, f"/ws?api_key=key-{user}&platform=qq&uuid={user}", token="") for user in ("ada", "bob"))
    assert refusal(server, "/ws?api_key=other&platform=qq") == 401
    for kind in ("fail", "exit", "fail"):
        assert one.say(**frame(None, f"custom_{kind}"))["type"] == "sys_ack"
    hanging = Plain(server, "/ws?api_key=key-eve&platform=wechat", token="")
    assert hanging.say(**frame(None, "custom_hang"))["type"] == "sys_ack"
    for text in ("keep it", "hello"):
        assert one.say(**frame(message("key-bob", text=text)))["type"] == "sys_ack"
    assert two.next()["payload"] == message("key-bob")
    one.close()

    def seen() -> list[str]:
        assert two.say(**frame(None, "custom_who"))["type"] == "sys_ack"
        found: list[str] = two.next()["payload"]
        return found

    wait_until(lambda: "-ada" in seen(), "the end was told")
    assert seen()[:2] == ["+ada", "+bob"]
    figures = server.get("/metrics").text
    assert 'sidecar_maim_hooks_failed_total{hook="custom_handler"} 3.0' in figures
    two.close()
    hanging.close()
    assert server.stop() == 0
    assert "key-ada" not in server.output()
    assert "Traceback" not in server.output()
