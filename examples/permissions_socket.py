#!/usr/bin/env python3
"""The menu's version over HTTP and the permission socket, as a client of the older server uses them.

    .venv/bin/python examples/permissions_socket.py http://127.0.0.1:8091 https://dashboard.example/project-dashboard

Without a token: both are for everybody. Each address given (direct, through nginx) is asked in the same way; none is
SIDECAR_URL, or this machine. It ends with 0 if everything was as it should be.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import httpx
import websocket

KEYS = ["version", "timestamp", "checksum", "changes", "author", "description"]
WAIT_SECONDS = 10
LOCAL = f"http://127.0.0.1:{os.environ.get('SIDECAR_PORT') or 8091}"
ASKED: list[tuple[dict[str, Any], str]] = [
    ({"type": "heartbeat"}, "heartbeat_response"),
    (
        {"type": "permission_check", "resource": "menu:home", "action": "view", "request_id": "1"},
        "permission_check_response",
    ),
]


def main(addresses: list[str]) -> int:
    good = True
    for address in addresses:
        for path in ("/api/menu/version", "/api/menu/version/"):
            good &= show_version(address.rstrip("/") + path)
        good &= show_socket(address.rstrip("/").replace("http", "ws", 1) + "/ws/permissions/anonymous")
    print("SUCCESS" if good else "FAILED")
    return 0 if good else 1


def show_version(address: str) -> bool:
    answer = httpx.get(address, timeout=WAIT_SECONDS)
    keys = list(answer.json()) if answer.status_code == 200 else []
    print(f"GET {address}\n  {answer.status_code} {' '.join(keys)}")
    return keys == KEYS


def show_socket(address: str) -> bool:
    """The confirmation comes before anything is said; then each message is answered."""
    socket = websocket.create_connection(address, timeout=WAIT_SECONDS, subprotocols=["menu-protocol"])
    print(f"WebSocket {address}\n  subprotocol {socket.subprotocol}")
    try:
        good = heard(socket) == "connection_confirmed"
        for message, answer in ASKED:
            print(f"  > {json.dumps(message)}")
            socket.send(json.dumps(message))
            good &= heard(socket) == answer
    finally:
        socket.close()
    return good


def heard(socket: websocket.WebSocket) -> object:
    """The type of the next frame."""
    text = socket.recv()
    print(f"  < {text}")
    frame = json.loads(text)
    return frame.get("type")


if __name__ == "__main__":
    try:
        given = sys.argv[1:] or [os.environ.get("SIDECAR_URL") or LOCAL]
        sys.exit(main(given))
    except (httpx.HTTPError, OSError, ValueError, websocket.WebSocketException) as error:
        print(f"FAILED: {error}", file=sys.stderr)
        sys.exit(1)
