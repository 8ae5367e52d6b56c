"""One long connection to Lark, by the lark-oapi SDK: opened, heard until it ends, closed.

Needs lark-oapi (config/requirements-lark.txt). Taken from the SDK: how a connection is asked for, its frames, and how
long events are put together. The rest of its client doesn't fit a service, and is done here instead:

- it asks for the address without a limit in time, closes without one, and holds a lock meanwhile;
- it calls handlers in the loop that also has to send pings, and only those of the event types it knows;
- it drops clicks on cards that come as frames of the type `card`;
- it can't be stopped, knows no proxy, and what it logs may hold the key of the connection.

So each connection is a client of its own. What is used of it is private to the SDK: its version is pinned.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import json
import logging
import signal
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any
from urllib.parse import parse_qs, urlsplit

# The SDK is large, and stays: to look through it again and again meanwhile takes almost as long as to import it.
gc.disable()

from lark_oapi.core.enum import LogLevel
from lark_oapi.ws import client as sdk
from lark_oapi.ws.enum import FrameType
from lark_oapi.ws.exception import ClientException, ServerException
from lark_oapi.ws.pb.pbbp2_pb2 import Frame
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, ProxyError

gc.enable()

Json = dict[str, Any]
Handler = Callable[[bytes], Awaitable[Json | None]]
"""Given an event as it came (JSON); what Lark is answered. Raises NotTaken if Lark is to send it again."""

OPEN_SECONDS = 20.0
CLOSE_SECONDS = 3.0
STEADY_SECONDS = 5.0
"""A connection that lasted so long, or brought a frame, was a good one."""
DEFAULT_PING_SECONDS = 120
EVENTS = frozenset({"event", "card"})
AUTH_FAILED = 514
TOO_MANY_CONNECTIONS = 1000040350
MEANINGS = {
    1: "Lark is busy",
    403: "the app may not use long connections",
    AUTH_FAILED: "Lark doesn't accept the app's id and secret",
    1000040343: "an error within Lark",
    1000040344: "the app's id or secret is missing",
    TOO_MANY_CONNECTIONS: "the app has too many long connections (50)",
}

log = logging.getLogger("sidecar.lark")


class LongConnectionError(Exception):
    """There is no connection; another attempt may succeed. Its text holds no secret, and nothing that Lark has said."""


class LongConnectionRefused(LongConnectionError):
    """As it is set up now, every attempt would be refused."""


class NotTaken(Exception):
    """An event could not be handed on now."""


class LongConnection(sdk.Client):  # type: ignore[misc]  # the SDK has no types
    """Make, open and hear it in the SDK's own loop (`sdk.loop`); open it once."""

    def __init__(self, app_id: str, app_secret: str, api_url: str, handler: Handler):
        super().__init__(app_id, app_secret, LogLevel.CRITICAL, domain=api_url.rstrip("/"), auto_reconnect=False)
        sdk.logger.disabled = True
        self._handler = handler
        self._address = ""
        self._opened_at = 0.0
        self._frames = 0
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def steady(self) -> bool:
        return self._frames > 0 or time.monotonic() - self._opened_at > STEADY_SECONDS

    async def open(self) -> None:
        """Raises LongConnectionError."""
        asked = False
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                self._address = await _in_thread(self._get_conn_url)
                asked = True
                await self._dial()
        except ClientException as error:
            # The handshake says 514 of too many connections as well; of a wrong secret it can't be any more.
            code = TOO_MANY_CONNECTIONS if asked and error.code == AUTH_FAILED else error.code
            kind = LongConnectionError if code == TOO_MANY_CONNECTIONS else LongConnectionRefused
            raise kind(_meaning(code)) from None
        except ServerException as error:
            raise LongConnectionError(_meaning(error.code)) from None
        except Exception as error:
            raise LongConnectionError(_told(error)) from None
        self._opened_at = time.monotonic()
        self._begin(self._receive())
        self._begin(self._keep_alive())

    async def heard(self) -> str:
        """Waits for its end; why it did."""
        return await asyncio.shield(self._ended)

    async def close(self) -> None:
        """Let what has come be answered, and end it; within a few seconds, however broken it is."""
        self._cache._cron.cancel()
        pending = [task for task in self._tasks if task.get_name() == "answer"]
        if pending and self._conn is not None and not self._ended.done():
            await asyncio.wait(pending, timeout=CLOSE_SECONDS)
        for task in self._tasks:
            task.cancel()
        if self._conn is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._conn.close()
            self._conn.transport.abort()

    async def _dial(self) -> None:
        """Through the environment's proxy, if it has one; the SDK's own goes past it."""
        query = parse_qs(urlsplit(self._address).query)
        self._service_id = query["service_id"][0]
        try:
            self._conn = await connect(self._address)
        except InvalidHandshake as error:
            sdk._parse_ws_conn_exception(error)

    async def _receive(self) -> None:
        try:
            while True:
                self._begin(self._take(await self._conn.recv()), "answer")
        except ConnectionClosed as closed:
            self._ended.set_result(_why(closed))
        except Exception as error:  # whatever it is, it must not be taken for silence
            self._ended.set_result(f"it broke ({type(error).__name__})")

    async def _take(self, message: str | bytes) -> None:
        self._frames += 1
        try:
            frame = Frame()
            frame.ParseFromString(message)
            if frame.method == FrameType.CONTROL.value:
                await self._handle_control_frame(frame)
            elif frame.method == FrameType.DATA.value:
                await self._take_data(frame)
        except ConnectionClosed:
            log.warning("An event could not be answered: the connection has ended. Lark will send it again.")
        except Exception as error:
            log.warning("A frame could not be read: %s.", type(error).__name__)

    async def _take_data(self, frame: Frame) -> None:
        named = {header.key: header.value for header in frame.headers}
        if named["type"] not in EVENTS:
            return
        payload: bytes | None = frame.payload
        parts = int(named["sum"])
        if parts > 1:
            payload = self._combine(named["message_id"], parts, int(named["seq"]), frame.payload)
        if payload is None:
            return
        begin = time.monotonic()
        answer = await self._answered(payload)
        header = frame.headers.add()
        header.key, header.value = "biz_rt", str(round((time.monotonic() - begin) * 1000))
        frame.payload = json.dumps(answer).encode()
        await self._write_message(frame.SerializeToString())

    async def _answered(self, payload: bytes) -> Json:
        try:
            answer = await self._handler(payload)
        except Exception as error:
            why = str(error) if isinstance(error, NotTaken) else type(error).__name__
            log.warning("An event was not taken, Lark will send it again: %s.", why)
            return {"code": 500}
        if not answer:
            return {"code": 200}
        return {"code": 200, "data": base64.b64encode(json.dumps(answer, ensure_ascii=False).encode()).decode()}

    async def _keep_alive(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self._write_message(sdk._new_ping_frame(int(self._service_id)).SerializeToString())
                await asyncio.sleep(self._ping_interval or DEFAULT_PING_SECONDS)

    def _begin(self, work: Coroutine[Any, Any, None], name: str = "") -> None:
        """The loop itself keeps no task alive."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def run(work: Coroutine[Any, Any, int]) -> int:
    """Run it in the SDK's loop, cancel it on SIGTERM and SIGINT; what it returns."""
    result: int = sdk.loop.run_until_complete(_stoppable(work))
    return result


async def _stoppable(work: Coroutine[Any, Any, int]) -> int:
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    return await task


async def _in_thread(function: Callable[[], str]) -> str:
    """Its result, from a thread that may hang: nothing waits for it, not even the end of the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[str] = loop.create_future()

    def settle(result: str | None, error: Exception | None) -> None:
        if future.done():  # nobody waits any more
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result or "")

    def run() -> None:
        result, failure = None, None
        try:
            result = function()
        except Exception as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name="lark-endpoint", daemon=True).start()
    return await future


def _meaning(code: int) -> str:
    return f"{MEANINGS.get(code, 'Lark refused')} (code {code})"


def _told(error: Exception) -> str:
    """Why there is no connection. Texts of exceptions may hold its address, and so its key: few are passed on."""
    if isinstance(error, InvalidStatus):
        return f"Lark refused the WebSocket with HTTP {error.response.status_code}"
    if isinstance(error, ProxyError):
        return f"the proxy doesn't let it through ({type(error).__name__})"
    if isinstance(error, TimeoutError):
        return f"Lark did not answer within {OPEN_SECONDS:g} s"
    if isinstance(error, ssl.SSLError):
        return f"no trusted TLS connection ({error.reason})"
    if isinstance(error, OSError):
        return f"Lark can't be reached ({error.strerror or type(error).__name__})"
    return f"Lark's answer could not be used ({type(error).__name__})"


def _why(closed: ConnectionClosed) -> str:
    if closed.rcvd is not None and (closed.sent is None or closed.rcvd_then_sent):
        return f"Lark closed it with code {closed.rcvd.code}"
    if closed.sent is not None:
        return f"it was given up with code {closed.sent.code}"
    return "it was cut"
