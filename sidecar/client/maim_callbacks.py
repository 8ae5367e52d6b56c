"""Runs a client's callbacks: in order, one at a time, in a thread of their own, so that a slow one delays no
acknowledgement. Plain and async functions; one that fails is logged and harms nothing."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import inspect
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

MAX_WAITING = 10_000
MAX_WAITING_BYTES = 256 * 2**20
"""So many callbacks, of so many bytes of messages, wait for their turn; then no connection reads on."""

Job = tuple[Callable[..., object], tuple[Any, ...], int]


class Callbacks:
    """`failed` is called for each callback that raised. Async ones run in a loop of their own that lives until `stop`,
    so what they start goes on."""

    def __init__(self, log: logging.Logger, failed: Callable[[], object]):
        self._log = log
        self._failed = failed
        self._jobs: deque[Job] = deque()
        self._bytes = 0
        self._news = threading.Condition()
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread: threading.Thread | None = None
        self._thread = threading.Thread(target=self._run, name="maim-callbacks", daemon=True)
        self._thread.start()

    def put(self, function: Callable[..., object], *args: Any, size: int = 0) -> None:
        """Have it called; waits while too many others wait. After `stop` nothing is called any more."""
        with self._news:
            self._news.wait_for(self._has_room)
            if not self._stopping:
                self._jobs.append((function, args, size))
                self._bytes += size
                self._news.notify_all()

    def stop(self, seconds: float) -> bool:
        """Take no more, let those that wait run, and end. False if that takes longer; a callback may call it too."""
        with self._news:
            self._stopping = True
            self._news.notify_all()
        if threading.current_thread() in (self._thread, self._loop_thread):
            return True
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._cancel()
        return not self._thread.is_alive()

    def _has_room(self) -> bool:
        return self._stopping or (len(self._jobs) < MAX_WAITING and self._bytes < MAX_WAITING_BYTES)

    def _run(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._jobs or self._stopping)
                if not self._jobs:
                    break
                function, args, size = self._jobs.popleft()
                self._bytes -= size
                self._news.notify_all()
            self._call(function, args)
        self._end_loop()

    def _call(self, function: Callable[..., object], args: tuple[Any, ...]) -> None:
        try:
            result = function(*args)
            if inspect.isawaitable(result):
                asyncio.run_coroutine_threadsafe(_finished(result), self._running_loop()).result()
        except concurrent.futures.CancelledError:
            self._log.warning("A callback was ended, because the client was stopped.")
        except Exception:
            self._failed()
            self._log.exception("A callback failed.")

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._loop_thread = threading.Thread(target=self._loop.run_forever, name="maim-async", daemon=True)
            self._loop_thread.start()
        return self._loop

    def _cancel(self) -> None:
        if self._loop is not None:
            loop = self._loop
            with contextlib.suppress(RuntimeError):  # it has just been closed
                loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(loop)])

    def _end_loop(self) -> None:
        if self._loop is None or self._loop_thread is None:
            return
        asyncio.run_coroutine_threadsafe(_cancel_others(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._loop_thread.join()
        self._loop.close()


async def _finished(result: Awaitable[object]) -> None:
    await result


async def _cancel_others() -> None:
    """What callbacks have started and nobody waits for."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
