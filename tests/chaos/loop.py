"""An asyncio loop in a thread of its own: the proxies and the light pages live there, the test calls in."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
CALL_SECONDS = 60.0


class Loop:
    """Everything in it runs in one thread, so nothing of it needs a lock."""

    def __init__(self, enter: Callable[[], None] = lambda: None) -> None:
        """`enter` is called first in its thread."""
        self.asyncio = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(enter,), name="chaos-loop")
        self._thread.start()

    def _run(self, enter: Callable[[], None]) -> None:
        enter()
        self.asyncio.run_forever()

    def call(self, function: Callable[[], T]) -> T:
        """Run it there and give what it returns."""

        async def run() -> T:
            return function()

        return self.run(run())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.asyncio).result(CALL_SECONDS)

    def close(self) -> None:
        """After all that lives in it has closed its transports."""
        self.run(_end_tasks())
        self.asyncio.call_soon_threadsafe(self.asyncio.stop)
        self._thread.join()
        self.asyncio.close()


async def _end_tasks() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.sleep(0.05)  # closed transports tell their protocols in the next turns of the loop
