"""`stranger`: somebody with a clone beside a sidecar that runs; `begin` makes one beside a new sidecar."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs import pages
from tests.docs.stranger import Stranger
from tests.programs import listening, running, wait_until
from tests.servers import RunningSidecar

Begin = Callable[..., Stranger]


@pytest.fixture
def begin(tmp_path: Path, start_sidecar: Callable[..., RunningSidecar]) -> Iterator[Begin]:
    """`begin(SIDECAR_OPEN="true")`: with these settings."""
    strangers: list[Stranger] = []

    def start(**settings: Any) -> Stranger:
        server = start_sidecar(SIDECAR_RATE_LIMIT="off", **settings)
        strangers.append(Stranger(tmp_path / f"clone-{len(strangers)}", server))
        return strangers[-1]

    yield start
    for stranger in strangers:
        stranger.close()


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stranger]:
    """One for a worker's tests: the pages' names don't meet."""
    folder = tmp_path_factory.mktemp("stranger")
    server = RunningSidecar(folder / "sidecar", {"SIDECAR_RATE_LIMIT": "off"})
    server.start()
    somebody = Stranger(folder / "clone", server)
    yield somebody
    somebody.close()
    server.stop()
    assert "Traceback" not in server.output(), server.output()


@pytest.fixture
def serve_site(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """`serve_site(stranger, port, page)`: the quickstart's back end in Python with this page, as the quickstart starts
    it."""
    with contextlib.ExitStack() as stack:

        def serve(stranger: Stranger, port: int, page: str) -> None:
            quickstart = pages.read("docs/quickstart.md")
            (stranger.folder / "backend.py").write_text(pages.one(quickstart, "python"))
            (stranger.folder / "index.html").write_text(stranger.here(page))
            token = stranger.sidecar.new_token("tokens:issue", "deployments:read", projects=["my-project"])
            commands = next(block.text for block in pages.commands(quickstart) if "flask" in block.text)
            text = stranger.here(commands).replace("5000", str(port)).replace("SIDECAR_TOKEN=", "SIDECAR_TOKEN=", 1)
            head, last = text.strip().rsplit("\n", 1)
            script = f"{head}\nBACKEND_TOKEN={token}\nexport {last.split(' ', 1)[0]}\nexec {last.split(' ', 1)[1]}"
            output = tmp_path / "backend.output"
            stack.enter_context(running(["bash", "-c", script], output, stranger.environment, stranger.folder))
            wait_until(lambda: listening(port), f"the back end listens, see {output}")

        yield serve
