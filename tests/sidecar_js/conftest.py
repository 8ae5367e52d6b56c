"""One window and one web site for all of these tests; each opens the page anew."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chromium import Browser, Chromium
from tests.servers import RunningSidecar
from tests.sidecar_js.site import Site, allowing


@pytest.fixture(scope="package")
def shared_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, RunningSidecar]]:
    """The site, and a sidecar that its page may talk to."""
    site = Site()
    server = RunningSidecar(tmp_path_factory.mktemp("sidecar"), allowing(site))
    server.start()
    site.sidecar = server.url
    yield site, server
    site.close()
    server.stop()
    assert "Traceback" not in server.output(), server.output()


@pytest.fixture(scope="package")
def window(chromium: Chromium) -> Iterator[Browser]:
    with Browser(chromium) as browser:
        yield browser


@pytest.fixture
def site(shared_site: tuple[Site, RunningSidecar]) -> Site:
    """Its tokens are connection tokens for ada."""
    site, server = shared_site
    site.asked = 0
    site.token = lambda: server.connection_token(sub="ada")
    return site


@pytest.fixture
def server(shared_site: tuple[Site, RunningSidecar], site: Site) -> RunningSidecar:
    return shared_site[1]


@pytest.fixture
def page(window: Browser, site: Site) -> Iterator[Browser]:
    window.open(site.url)
    window.evaluate("localStorage.clear()")
    window.wait_for("window.Sidecar")
    yield window
    window.open("about:blank")
