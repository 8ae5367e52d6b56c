"""A TCP proxy that breaks: it cuts, stalls and resumes connections, also after so many bytes, in the middle of a frame.

It stands between clients and servers and knows nothing of what passes. All of it runs in the loop's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any

from tests.chaos.loop import Loop

_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Listens on `port`; each connection goes to one of `targets` that takes it, chosen at random."""

    def __init__(self, loop: Loop, targets: Sequence[int], chooser: random.Random):
        self.targets = list(targets)
        self.cuts = 0
        self.stalls = 0
        self.fragile = 0.0
        """Which part of the new connections is cut after some of the server's bytes."""
        self._loop = loop
        self._random = chooser
        self._links: set[_Link] = set()
        self._closed = False
        self._server = loop.run(self._listen())
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def _listen(self) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        return await loop.create_server(lambda: _Link(self).client, "127.0.0.1", 0)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self, part: float) -> None:
        """Cut this part of the connections now: a reset, an end, or one that the server hears nothing of."""
        self._loop.call(lambda: self._each(part, lambda link: link.cut(self._random.choice(("reset", "end", "mute")))))

    def cut_later(self, part: float) -> None:
        """Cut this part of them after some more of the server's bytes."""
        self._loop.call(lambda: self._each(part, lambda link: link.cut_after(self._some_bytes())))

    def stall(self, part: float) -> None:
        """Nothing passes on this part of the connections until `resume`."""

        def stall(link: _Link) -> None:
            self.stalls += 1
            link.stall(True)

        self._loop.call(lambda: self._each(part, stall))

    def resume(self) -> None:
        self._loop.call(lambda: self._each(1.0, lambda link: link.stall(False)))

    def mend(self) -> None:
        """From now on nothing is cut or stalled that nobody asks for."""

        def mend(link: _Link) -> None:
            link.cut_after(None)
            link.stall(False)

        self.fragile = 0.0
        self._loop.call(lambda: self._each(1.0, mend))

    def close(self) -> None:
        async def close() -> None:
            self._closed = True
            self._server.close()
            for link in list(self._links):
                link.abort()
            await asyncio.sleep(0)

        self._loop.run(close())

    def _each(self, part: float, act: Callable[[_Link], None]) -> None:
        for link in list(self._links):
            if self._random.random() < part and not link.muted:
                act(link)

    def _some_bytes(self) -> int:
        return self._random.choice((1, 300, 2_000, 8_000, 30_000))

    def took(self, link: _Link) -> None:
        if self._closed:  # taken from the kernel before it was closed
            link.abort()
            return
        self._links.add(link)
        if self._random.random() < self.fragile:
            link.cut_after(self._some_bytes())
        link.task = asyncio.get_running_loop().create_task(self._reach(link))

    def ended(self, link: _Link) -> None:
        self._links.discard(link)

    async def _reach(self, link: _Link) -> None:
        loop = asyncio.get_running_loop()
        for port in self._random.sample(self.targets, len(self.targets)):
            with contextlib.suppress(OSError):
                await loop.create_connection(lambda: link.server, "127.0.0.1", port)
                return
        link.abort()


class _Link:
    """One connection through the proxy: `client` and `server` are its two sides."""

    def __init__(self, proxy: Proxy):
        self.proxy = proxy
        self.client = _Side(self)
        self.server = _Side(self)
        self.client.other, self.server.other = self.server, self.client
        self.muted = False
        self.stalled = False
        self.task: asyncio.Task[None] | None = None
        self._bytes_left: int | None = None

    def opened(self, side: _Side) -> None:
        if side is self.client:
            side.pause(True)  # until the server is reached
            self.proxy.took(self)
        elif self.client.transport is None or self.client.transport.is_closing():
            self.abort()
        else:
            self.client.pause(self.stalled)
            side.pause(self.stalled)

    def passed(self, side: _Side, data: bytes) -> None:
        if self.muted:
            return
        if side is self.server and self._bytes_left is not None:
            data, self._bytes_left = data[: self._bytes_left], self._bytes_left - len(data)
            side.other.write(data)
            if self._bytes_left <= 0:
                self.cut("end")
            return
        side.other.write(data)

    def ended(self, side: _Side) -> None:
        if not self.muted or side is self.server:
            self.abort()

    def cut_after(self, count: int | None) -> None:
        self._bytes_left = count

    def cut(self, how: str) -> None:
        """`mute`: the server's side stays open and hears nothing, as of a laptop that was shut."""
        self.proxy.cuts += 1
        if how == "mute":
            self.muted = True
            if self.client.transport is not None:
                self.client.transport.close()
        elif how == "reset":
            self.abort()
        else:
            for side in (self.client, self.server):
                if side.transport is not None:
                    side.transport.close()

    def stall(self, stalled: bool) -> None:
        self.stalled = stalled
        if self.server.transport is not None:
            self.client.pause(stalled)
            self.server.pause(stalled)

    def abort(self) -> None:
        self.proxy.ended(self)
        for side in (self.client, self.server):
            if side.transport is not None and not side.transport.is_closing():
                side.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                side.transport.abort()


class _Side(asyncio.Protocol):
    other: _Side

    def __init__(self, link: _Link):
        self._link = link
        self._full = False
        self._paused = False
        self._early = b""
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._early:
            transport.write(self._early)
        self._link.opened(self)

    def data_received(self, data: bytes) -> None:
        self._link.passed(self, data)

    def connection_lost(self, _error: Exception | None) -> None:
        self._link.ended(self)

    def pause_writing(self) -> None:
        self.other.hold(True)

    def resume_writing(self) -> None:
        self.other.hold(False)

    def write(self, data: bytes) -> None:
        if self.transport is None:  # not connected yet; older asyncio reads on though it was paused at once
            self._early += data
        elif not self.transport.is_closing():
            self.transport.write(data)

    def hold(self, full: bool) -> None:
        """The other side takes no more for now."""
        self._full = full
        self._apply()

    def pause(self, paused: bool) -> None:
        self._paused = paused
        self._apply()

    def _apply(self) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        if self._full or self._paused:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()
