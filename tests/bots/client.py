"""Real maim_message clients of one version, driven line by line: JSON commands on stdin, JSON lines of all that happens
on stdout. Runs in an environment of tests/bots, with nothing of this project in reach.

    {"id":1,"op":"open","client":"a","config":{…},"custom":["reply"]}     as ClientConfig takes it
    {"id":2,"op":"connect","client":"a"}
    {"id":3,"op":"send","client":"a","message":{…}}     an APIMessageBase as a dict
    {"id":4,"op":"send_custom","client":"a","type":"notification","payload":…}
    {"id":5,"op":"send_frame","client":"a","frame":{…}}    a whole envelope
    {"id":6,"op":"state","client":"a"}
    {"id":7,"op":"stop","client":"a"}

Each command is answered {"id":…,"value":…} or {"id":…,"error":…}, in no certain order. What comes by itself has
"client" and "what": connect, disconnect, frame (every one that arrived, acks too), message (what the application's
on_message gets) and custom (what a custom handler gets). End of stdin stops all clients and ends the process. It
decides nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

# The library prints: to where nobody takes it for an answer.
_answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)

from maim_message.client import ClientConfig, WebSocketClient
from maim_message.message import APIMessageBase

LINE_BYTES = 256 * 1024 * 1024


def tell(**line: Any) -> None:
    _answers.write(json.dumps(line) + "\n")
    _answers.flush()


class Watched(WebSocketClient):
    """The real client; it only tells what reaches it."""

    def __init__(self, name: str, config: ClientConfig):
        self.name = name
        super().__init__(config)

    async def _handle_connect_event(self, event: Any) -> None:
        await super()._handle_connect_event(event)
        tell(client=self.name, what="connect")

    async def _handle_disconnect_event(self, event: Any) -> None:
        await super()._handle_disconnect_event(event)
        tell(client=self.name, what="disconnect", error=event.error)

    async def _handle_message_event(self, event: Any) -> None:
        tell(client=self.name, what="frame", frame=event.payload)
        await super()._handle_message_event(event)


class Clients:
    def __init__(self) -> None:
        self._clients: dict[str, Watched] = {}

    async def open(self, client: str, config: dict[str, Any], custom: list[str]) -> None:
        async def on_message(message: APIMessageBase, metadata: dict[str, Any]) -> None:
            tell(client=client, what="message", message=message.to_dict(), metadata=metadata)

        def handler(kind: str) -> Any:
            async def on_custom(payload: Any) -> None:
                tell(client=client, what="custom", type=kind, payload=payload)

            return on_custom

        made = Watched(client, ClientConfig(on_message=on_message, **config))
        for kind in custom:
            made.register_custom_handler(kind, handler(kind))
        await made.start()
        self._clients[client] = made

    async def connect(self, client: str) -> bool:
        return await self._clients[client].connect()

    async def send(self, client: str, message: dict[str, Any]) -> bool:
        return await self._clients[client].send_message(APIMessageBase.from_dict(message))

    async def send_custom(self, client: str, type: str, payload: Any) -> bool:
        return await self._clients[client].send_custom_message(type, payload)

    async def send_frame(self, client: str, frame: dict[str, Any]) -> bool:
        found = self._clients[client]
        return await found.network_driver.send_message(found.get_connection_uuid(), frame)

    async def state(self, client: str) -> dict[str, Any]:
        found = self._clients[client]
        return {
            "connected": found.is_connected(),
            "last_error": found.get_last_error(),
            "uuid": found.get_connection_uuid(),
            "stats": found.get_stats(),
        }

    async def stop(self, client: str) -> None:
        await self._clients.pop(client).stop()

    async def stop_all(self) -> None:
        for client in list(self._clients):
            await self.stop(client)

    async def do(self, id: int, op: str, **arguments: Any) -> None:
        try:
            tell(id=id, value=await getattr(self, op)(**arguments))
        except Exception as error:
            tell(id=id, error=f"{type(error).__name__}: {error}")


async def main() -> None:
    reader = asyncio.StreamReader(limit=LINE_BYTES)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    clients, tasks = Clients(), set()
    while line := await reader.readline():
        task = asyncio.create_task(clients.do(**json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await clients.stop_all()
    os._exit(0)  # 0.6.8 leaves a thread that nothing would end


asyncio.run(main())
