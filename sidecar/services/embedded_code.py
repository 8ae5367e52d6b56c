"""Running an embedder's own code (hooks, handlers): functions or coroutines, whatever they raise."""

from __future__ import annotations

import asyncio
import importlib
import traceback
from collections.abc import Awaitable
from typing import Any

import gevent

from sidecar.domain.errors import Invalid
from sidecar.observability.logs import described


class Coroutines:
    """The one asyncio loop of its owner, in a greenlet: what a coroutine awaits must be asyncio's."""

    def __init__(self, name: str):
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None

    def result(self, awaitable: Awaitable[Any]) -> Any:
        """What it comes to; whoever leaves before (a time-out) ends it."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            gevent.spawn(self._loop.run_forever).name = self._name

        async def whole() -> Any:
            try:
                return await awaitable
            except (SystemExit, KeyboardInterrupt) as error:  # asyncio would let it end the loop, and so the process
                raise RuntimeError from error

        future = asyncio.run_coroutine_threadsafe(whole(), self._loop)
        try:
            return future.result()
        finally:
            future.cancel()  # if it has not come back


def placed(error: BaseException) -> str:
    """Its class and where it was raised. What it says may be a key, or a part of a message."""
    error = error.__cause__ or error
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} at {frames[-1].filename}:{frames[-1].lineno}" if frames else type(error).__name__


def imported(path: str, setting: str) -> Any:
    """The object that `package.module:object` names. Raises Invalid naming the setting."""
    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:
        raise Invalid(f"{setting}: {path} can't be imported: {described(error)}") from None
