"""The real maim_message server of one version, with the small application that routes: what comes for a key's user goes
to that user. Runs in an environment of tests/bots. Arguments: a port, and a JSON object of keys and their users. It
serves until it is killed: its own stop waits for clients for half a minute."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from typing import Any

from maim_message.message import APIMessageBase
from maim_message.server import ServerConfig, WebSocketServer


async def main(port: int, users: dict[str, str]) -> None:
    async def on_auth(metadata: dict[str, Any]) -> bool:
        return metadata["api_key"] in users

    async def on_auth_extract_user(metadata: dict[str, Any]) -> str:
        return users[metadata["api_key"]]

    async def on_message(message: APIMessageBase, metadata: dict[str, Any]) -> None:
        await server.send_message(message)

    async def on_notification(frame: dict[str, Any], metadata: dict[str, Any]) -> None:
        echo = {"echo": frame["payload"]}
        await server.send_custom_message("custom_reply", echo, connection_uuid=metadata["uuid"])

    config = ServerConfig(
        host="127.0.0.1",
        port=port,
        path="/ws",
        on_auth=on_auth,
        on_auth_extract_user=on_auth_extract_user,
        on_message=on_message,
    )
    server = WebSocketServer(config)
    server.register_custom_handler("notification", on_notification)
    await server.start()
    await asyncio.Event().wait()


# Nothing holds the task in which 0.7.5 listens: the garbage collector would end it.
gc.disable()
asyncio.run(main(int(sys.argv[1]), json.loads(sys.argv[2])))
