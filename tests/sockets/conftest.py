from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.programs import JsClient
from tests.servers import RunningSidecar
from tests.sockets.clients import Page, RawWebSockets

Open = Callable[..., Page]


@pytest.fixture
def page(js: JsClient, sidecar: RunningSidecar) -> Iterator[Open]:
    """`page(token=…)` opens a socket to the shared sidecar (as its admin unless told otherwise; `token=None` sends
    none), `page(server=…)` to another."""
    opened: list[Page] = []

    def open_page(namespace: str = "/", server: RunningSidecar | None = None, **options: Any) -> Page:
        server = server or sidecar
        options.setdefault("token", server.token)
        opened.append(Page(js, server, namespace, **options))
        return opened[-1]

    yield open_page
    for one in opened:
        one.disconnect()


@pytest.fixture
def raw() -> Iterator[RawWebSockets]:
    """`raw(server)` opens a bare WebSocket, `raw.joined(server)` one in the root namespace."""
    sockets = RawWebSockets()
    yield sockets
    sockets.close()
