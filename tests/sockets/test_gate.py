"""The door: what is refused before a 101 or a session, and how it is told."""

from __future__ import annotations

import http.client
import json
import socket

import pytest

from tests.servers import RunningSidecar
from tests.sockets.clients import Polling, closed_by_server

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = {
    "Host": "127.0.0.1",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}
ENGINE = "/socket.io/?EIO=4&transport=websocket"


def ask(
    server: RunningSidecar, target: str, headers: dict[str, str | None] | None = None, start: str = "GET {} HTTP/1.1"
) -> tuple[int, str]:
    """Status and all of the answer's text to a handshake whose headers are changed so (None takes one away)."""
    lines = [start.format(target)]
    lines += [f"{name}: {value}" for name, value in (UPGRADE | (headers or {})).items() if value is not None]
    with socket.create_connection(("127.0.0.1", server.port), timeout=15) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        answer = http.client.HTTPResponse(connection, method=start.split(" ")[0])
        answer.begin()
        body = b"" if answer.status == 101 else answer.read()
    return answer.status, f"{answer.headers}{body.decode()}"


def test_a_good_handshake_is_101(sidecar):
    status, text = ask(sidecar, ENGINE)
    assert status == 101
    assert "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in text, "the answer to RFC 6455's own example key"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/healthz",
        "/api/webhooks/deployment",
        "/socket.io/x/",
        "/socket.ioX/",
        "/socket.io//",
        "//socket.io/",
        "/SOCKET.IO/",
        "/project-dashboard/ws/rooms/",
        "/project-dashboard/ws/rooms/lobby",
        "/project-dashboard/",
        "/ws/x",
        "/nowhere/socket.io/",
    ],
)
def test_a_path_that_is_not_the_engines_is_never_101(sidecar, path: str):
    """gevent-websocket would upgrade any path before the application is asked."""
    status, _ = ask(sidecar, f"{path}?EIO=4&transport=websocket")
    assert status != 101
    assert 200 <= status < 500


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1.evil.example", "http://localhost"]
)
@pytest.mark.parametrize("path", ["/socket.io/", "/project-dashboard/ws/"])
def test_a_foreign_origin_is_403_before_101(sidecar, origin: str, path: str):
    status, text = ask(sidecar, f"{path}?EIO=4&transport=websocket", {"Origin": origin})
    assert status == 403
    assert '"bad_origin"' in text
    polled = sidecar.get(f"{path}?EIO=4&transport=polling", headers={"Origin": origin})
    assert polled.status_code == 403
    assert "access-control-allow-origin" not in polled.headers


def test_our_own_origin_and_allowed_ones_come_in(start_sidecar):
    server = start_sidecar(SIDECAR_ALLOWED_ORIGINS="https://a.example, https://b.example")
    host = f"127.0.0.1:{server.port}"
    for origin in (f"http://{host}", "https://a.example", "https://B.example"):
        assert ask(server, ENGINE, {"Host": host, "Origin": origin})[0] == 101, origin
    assert ask(server, ENGINE, {"Host": host, "Origin": "https://c.example"})[0] == 403
    answer = server.get("/socket.io/?EIO=4&transport=polling", headers={"Origin": "https://a.example"})
    assert answer.headers["access-control-allow-origin"] == "https://a.example"
    assert answer.headers["access-control-allow-credentials"] == "true"


def test_with_a_public_url_other_hosts_are_refused(start_sidecar):
    server = start_sidecar(SIDECAR_PUBLIC_URL="https://deploy.example")
    assert ask(server, ENGINE, {"Host": "deploy.example", "Origin": "https://deploy.example"})[0] == 101
    status, text = ask(server, ENGINE, {"Host": "rebound.example"})
    assert (status, '"bad_host"' in text) == (400, True)


@pytest.mark.parametrize(
    ("query", "headers", "start", "status"),
    [
        ("transport=websocket", {}, "GET {} HTTP/1.1", 400),
        ("EIO=3&transport=websocket", {}, "GET {} HTTP/1.1", 400),
        ("EIO=&transport=websocket", {}, "GET {} HTTP/1.1", 400),
        ("EIO=4", {}, "GET {} HTTP/1.1", 400),
        ("EIO=4&transport=polling", {}, "GET {} HTTP/1.1", 400),
        ("EIO=4&transport=websocket", {"Sec-WebSocket-Key": None}, "GET {} HTTP/1.1", 400),
        ("EIO=4&transport=websocket", {"Sec-WebSocket-Key": "test"}, "GET {} HTTP/1.1", 400),
        ("EIO=4&transport=websocket", {"Sec-WebSocket-Key": "c2hvcnQ="}, "GET {} HTTP/1.1", 400),
        ("EIO=4&transport=websocket", {"Sec-WebSocket-Key": "é" * 24}, "GET {} HTTP/1.1", 400),
        ("EIO=4&transport=websocket", {"Sec-WebSocket-Version": None}, "GET {} HTTP/1.1", 426),
        ("EIO=4&transport=websocket", {"Sec-WebSocket-Version": "8"}, "GET {} HTTP/1.1", 426),
        ("EIO=4&transport=websocket", {"Connection": "close"}, "GET {} HTTP/1.1", 400),
        ("EIO=4&transport=websocket", {"Connection": "notupgrade"}, "GET {} HTTP/1.1", 400),
        ("EIO=4&transport=websocket", {}, "GET {} HTTP/1.0", 400),
        ("EIO=4&transport=websocket", {"Upgrade": None}, "GET {} HTTP/1.1", 400),
        ("EIO=4&transport=websocket&sid=unknown", {"Upgrade": None}, "GET {} HTTP/1.1", 400),
        ("EIO=4&transport=polling&sid=unknown", {"Upgrade": None}, "GET {} HTTP/1.1", 400),
        ("EIO=4&transport=carrier-pigeon", {"Upgrade": None}, "GET {} HTTP/1.1", 400),
    ],
)
def test_a_bad_handshake_is_refused_with_its_reason(sidecar, query, headers, start, status):
    found, text = ask(sidecar, f"/socket.io/?{query}", headers, start)
    assert found == status, text
    if status == 426:
        assert "Sec-WebSocket-Version: 13" in text


def test_a_websocket_whose_upgrade_headers_a_proxy_has_dropped_is_told_so(sidecar):
    status, text = ask(sidecar, ENGINE, {"Upgrade": None, "Connection": "close"})
    assert status == 400
    assert "Upgrade: websocket" in json.loads(text.rpartition("\n\n")[2])["message"]


@pytest.mark.parametrize("connection", ["upgrade", "keep-alive, Upgrade", "Upgrade , keep-alive"])
def test_a_connection_header_with_several_words_is_fine(sidecar, connection: str):
    assert ask(sidecar, ENGINE, {"Connection": connection})[0] == 101


def test_beyond_the_limit_of_connections_newcomers_get_503_and_those_inside_go_on(start_sidecar, raw):
    server = start_sidecar(SIDECAR_MAX_CONNECTIONS="2")
    polling = Polling(server)
    inside = raw(server)
    status, text = ask(server, ENGINE)
    assert status == 503
    assert "Retry-After: " in text
    refused = server.get("/socket.io/?EIO=4&transport=polling")
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0
    assert polling.connect(server.token)[0].startswith("40{"), "those inside go on"
    inside.close()
    assert server.get("/healthz").status_code == 200
    polling.post("1")
    polling.close()


class TestPollingPosts:
    def test_one_too_large_is_413_at_once_and_the_session_of_others_lives(self, start_sidecar):
        """Told by its Content-Length alone, without waiting for a body that the client may never send."""
        server = start_sidecar(SIDECAR_MAX_BODY_BYTES="2000")
        polling = Polling(server)
        headers = {"Upgrade": None, "Connection": None, "Content-Length": "2001"}
        for more in ({}, {"Upgrade": "websocket", "Connection": "Upgrade"}):
            target = f"/socket.io/?EIO=4&transport=polling&sid={polling.handshake['sid']}"
            status, text = ask(server, target, headers | more, "POST {} HTTP/1.1")
            assert status == 413, text
            assert '"too_large"' in text
        assert polling.connect(server.token)[0].startswith("40{")
        polling.close()

    def test_one_without_a_length_is_411(self, sidecar):
        polling = Polling(sidecar)
        target = f"/socket.io/?EIO=4&transport=polling&sid={polling.handshake['sid']}"
        headers = {"Upgrade": None, "Connection": None, "Transfer-Encoding": "chunked"}
        assert ask(sidecar, target, headers, "POST {} HTTP/1.1")[0] == 411
        polling.close()

    def test_an_unknown_packet_ends_the_session_and_is_answered(self, sidecar):
        """The stock server waits for the refused client to read its queue, with the request unanswered for ever."""
        for packet in ("2", "7", "0"):
            polling = Polling(sidecar)
            assert polling.post(packet).status_code == 400
            assert polling.ended()
            polling.close()


def test_a_frame_above_the_limit_ends_the_connection(start_sidecar, raw):
    server = start_sidecar(SIDECAR_MAX_BODY_BYTES="2000")
    one = raw(server)
    one.send("4" + "x" * 3000)
    assert closed_by_server(one)
    one.close()
