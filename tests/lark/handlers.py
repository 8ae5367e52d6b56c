"""An embedder's handlers of events for a sidecar of the tests (SIDECAR_LARK_HANDLERS). Each writes down what it was
given, a line in the file that the environment names."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import gevent

Given = dict[str, Any]
SLOW_SECONDS = 4.0
"""More than the platform waits."""


class Handlers:
    def __init__(self) -> None:
        self.handlers = {
            "im.message.receive_v1": self.message,
            "approval.instance": self.slow,
            "calendar.calendar.changed_v4": self.unlucky,
            "contact.user.updated_v3": self.coroutine,
            "vc.meeting.started": self.leaves,
            "card.action.trigger": self.other_card,
            "task.odd": lambda event, told: object(),
        }

    def use(self, sidecar: Any) -> None:
        self._sidecar = sidecar

    def message(self, event: Given, told: Given) -> Given:
        write(told, event)
        self._sidecar.send_websocket_message("lark", {"content": event["text"]})
        return {"seen": event["text"]}

    def slow(self, event: Given, told: Given) -> Given:
        gevent.sleep(SLOW_SECONDS)
        write(told, event)
        return {"late": True}

    def unlucky(self, event: Given, told: Given) -> Given:
        """Fails the first time."""
        write(told, event)
        if len(written(told["event_id"])) == 1:
            raise RuntimeError("as asked: secret-of-a-handler")
        return {"at last": True}

    async def coroutine(self, event: Given, told: Given) -> Given:
        await asyncio.sleep(0)
        write(told, event)
        return {"awaited": True}

    def leaves(self, event: Given, told: Given) -> None:
        write(told, event)
        sys.exit(3)

    def other_card(self, event: Given, told: Given) -> Given:
        write(told, event)
        return {"toast": {"type": "success", "content": "谢谢"}}


def write(told: Given, event: Given) -> None:
    with open(os.environ["HANDLED_FILE"], "a") as file:
        file.write(json.dumps({"told": told, "event": event}) + "\n")


def written(event_id: str) -> list[Given]:
    with open(os.environ["HANDLED_FILE"]) as file:
        return [line for line in map(json.loads, file) if line["told"]["event_id"] == event_id]


handlers = Handlers()
