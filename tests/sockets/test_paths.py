"""Where clients arrive: four engine paths, two namespaces, both transports, with both clients."""

from __future__ import annotations

import pytest

from tests.programs import wait_until
from tests.sockets.clients import NAMESPACES, PythonPage, post_step

PATHS = (
    "/socket.io",
    "/project-dashboard/ws",
    "/project-dashboard/ws/socket.io",
    "/socket.io/socket.io",
    "/project-dashboard/socket.io",
    "/ws",
)


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize("slash", [True, False], ids=["slash", "no-slash"])
@pytest.mark.parametrize("path", PATHS)
def test_the_official_client_arrives_at_every_path(page, path: str, slash: bool, namespace: str):
    for transports in (["websocket"], ["polling"]):
        one = page(namespace, path=path, addTrailingSlash=slash, transports=transports)
        assert one.next("connect")["transport"] == transports[0]
        assert one.call("heartbeat")["ok"]


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize("path", PATHS)
def test_polling_is_upgraded_to_websocket_and_goes_on(sidecar, page, name: str, path: str, namespace: str):
    one = page(namespace, path=path, transports=["polling", "websocket"])
    one.connected()
    one.call("subscribe_project", name)
    seqs = [post_step(sidecar, name, name, step) for step in ("a", "b")]
    lines = one.lines()
    if not any(line["what"] == "upgrade" for line in lines):
        assert one.next("upgrade")["transport"] == "websocket"
    seqs.append(post_step(sidecar, name, name, "c"))
    assert one.wait_for(3) == seqs


@pytest.mark.parametrize("transport", ["websocket", "polling"])
@pytest.mark.parametrize(
    ("path", "namespace"),
    [("socket.io", "/"), ("project-dashboard/ws/socket.io", "/project-dashboard/ws"), ("project-dashboard/ws", "/")],
)
def test_the_python_client_subscribes_and_receives(sidecar, name: str, path: str, namespace: str, transport: str):
    with PythonPage(sidecar, namespace, path, transports=[transport], auth={"token": sidecar.token}) as one:
        assert one.call("subscribe_project", name)["ok"]
        seq = post_step(sidecar, name, name)
        wait_until(lambda: one.seqs == [seq], "the event")
        assert one.events[0]["payload"]["project"] == name


def test_one_connection_may_hold_both_namespaces(sidecar, page, name: str):
    """socket.io-client multiplexes them over one transport; each has rooms of its own."""
    root = page("/", forceNew=False).connected()
    other = page("/project-dashboard/ws", forceNew=False).connected()
    root.call("subscribe_project", name)
    first = post_step(sidecar, name, name)
    other.call("subscribe_project", name)
    second = post_step(sidecar, name, name, "next")
    assert root.wait_for(2) == [first, second]
    assert other.wait_for(1) == [second]
    root.disconnect()
    root.next("disconnect")
    third = post_step(sidecar, name, name, "third")
    assert other.wait_for(2) == [second, third]


def test_an_unknown_namespace_is_refused(page):
    assert page("/nowhere").refused() == ("Invalid namespace", None)
