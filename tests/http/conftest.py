"""Browsers that watch what is posted."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.programs import JsClient
from tests.servers import RunningSidecar
from tests.sockets.clients import Page

QUICK = {"reconnectionDelay": 50, "reconnectionDelayMax": 200}


@pytest.fixture
def browser(js: JsClient, sidecar: RunningSidecar) -> Iterator[Callable[..., Page]]:
    """`browser(room)` connects one that is in the room: with an admin's token, or as `user`."""
    opened: list[Page] = []

    def connect(room: str, user: str | None = None, server: RunningSidecar | None = None) -> Page:
        at = server or sidecar
        token = at.token if user is None else at.connection_token(sub=user)
        page = Page(js, at, token=token, **QUICK).connected()
        opened.append(page)
        assert page.call("subscribe_room", room)["ok"]
        return page

    yield connect
    for page in opened:
        page.disconnect()
