"""Hooks for a sidecar of the tests (SIDECAR_MAIM_HOOKS): coroutines, well-behaved and not."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

Metadata = dict[str, Any]


class Coroutines:
    """Lets in whose key begins with `key-`; the rest of the key is the user."""

    def __init__(self) -> None:
        self.custom_handlers = {"exit": self.exit, "hang": self.hang, "fail": self.fail, "who": self.who}
        self.seen: list[str] = []

    def use(self, server: Any) -> None:
        self.server = server

    async def on_auth(self, metadata: Metadata) -> bool:
        await asyncio.sleep(0)
        return str(metadata["api_key"]).startswith("key-")

    async def on_auth_extract_user(self, metadata: Metadata) -> str:
        await asyncio.sleep(0)
        return str(metadata["api_key"]).removeprefix("key-")

    async def on_connect(self, uuid: str, metadata: Metadata) -> None:
        self.seen.append(f"+{metadata['user']}")

    async def on_disconnect(self, uuid: str, metadata: Metadata) -> None:
        self.seen.append(f"-{metadata['user']}")

    async def on_message(self, message: dict[str, Any], metadata: Metadata) -> bool:
        await asyncio.sleep(0)
        return message["message_segment"]["data"] != "keep it"

    async def exit(self, envelope: dict[str, Any], metadata: Metadata) -> None:
        sys.exit(3)

    async def hang(self, envelope: dict[str, Any], metadata: Metadata) -> None:
        await asyncio.sleep(60)

    async def fail(self, envelope: dict[str, Any], metadata: Metadata) -> None:
        raise KeyError(metadata["api_key"])

    async def who(self, envelope: dict[str, Any], metadata: Metadata) -> None:
        await asyncio.sleep(0)
        self.server.send_custom_message("seen", self.seen, connection_uuid=metadata["uuid"])


hooks = Coroutines()
