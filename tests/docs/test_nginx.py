"""docs/nginx.md, and what docs/troubleshooting.md says of nginx: run with a real one, each symptom produced."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.docs import pages
from tests.programs import NODE, Nginx, free_port, require, running_nginx

PAGE = pages.read("docs/nginx.md")
CONF = pages.read("nginx/sidecar.conf")
CHECKS = next(block.text for block in pages.commands(PAGE) if block.section == "Does it work?")
API, HANDSHAKE = re.findall(r"^curl (?:.*\\\n)*.*$", CHECKS, re.MULTILINE)
UPGRADE_LINES = ("proxy_set_header Upgrade ", "proxy_set_header Connection ")
OTHER_SITE = "server { listen 80; return 404; }\n"
"""The first server of a port takes every name that no other has, as Debian's default site does."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nginx")


def without(text: str, *begins: str) -> str:
    lines = [line for line in text.splitlines(keepends=True) if not line.strip().startswith(begins)]
    assert len(text.splitlines()) - len(lines) == len(begins)
    return "".join(lines)


def asked(site: Nginx, command: str) -> subprocess.CompletedProcess[bytes]:
    """The page's command, as it stands, at this nginx."""
    require("curl")
    assert CHECKS.startswith("SITE=")
    return subprocess.run(
        ["bash", "-c", command], env={"SITE": site.url, "PATH": "/usr/bin:/bin"}, capture_output=True, check=False
    )


@contextmanager
def joined(folder: Path, command: str, sidecar: Any, site: str = "") -> Iterator[Nginx]:
    """An nginx whose files are where these commands put them."""
    etc = folder / "etc"
    for name in ("conf.d", "snippets"):
        (etc / name).mkdir(parents=True)
    kept = [line for line in command.splitlines() if "nginx -t" not in line and not line.startswith("#")]
    script = "\n".join(kept).replace("sudo ", "").replace("/etc/nginx", str(etc))
    subprocess.run(["sh", "-ec", script], cwd=pages.ROOT, check=True, timeout=30)
    parts = [path.read_text() for path in sorted((etc / "conf.d").iterdir())]
    for path in (etc / "snippets").iterdir():
        site = site.replace(f"include snippets/{path.name};", path.read_text())
    with running_nginx(folder / "run", "\n".join([*parts, site]), sidecar.port) as nginx:
        yield nginx


def test_a_site_of_its_own_and_both_checks(sidecar: Any, tmp_path: Path) -> None:
    commands = next(block.text for block in pages.commands(PAGE) if block.section == "A site of its own")
    with joined(tmp_path, commands, sidecar) as site:
        assert "server_name dashboard.example.com;" in (site.folder / "nginx.conf").read_text()
        told = asked(site, API).stdout
        assert told.startswith(b"HTTP/1.1 200 ")
        assert b'"name":"sidecar"' in told
        told = asked(site, HANDSHAKE.replace("-m 2", "-m 0.5")).stdout
        assert told.startswith(b"HTTP/1.1 101 Switching Protocols")
        assert b'"sid"' in told


def test_beside_an_application(sidecar: Any, tmp_path: Path) -> None:
    commands = next(block.text for block in pages.commands(PAGE) if block.section.startswith("Beside"))
    line = re.search(r"in your server block:  (include .*;)", commands)
    assert line
    own = f"server {{ listen 80; location / {{ return 418; }} {line[1]} }}"
    with joined(tmp_path, commands, sidecar, own) as site:
        assert asked(site, API).stdout.startswith(b"HTTP/1.1 200 ")
        assert asked(site, f"curl -i {site.url}/").stdout.startswith(b"HTTP/1.1 418")


def test_the_readme_s_two_lines_are_the_page_s(tmp_path: Path) -> None:
    (readme,) = (block.text for block in pages.commands(pages.read("README.md")) if "nginx" in block.text)
    (page,) = (block.text for block in pages.commands(PAGE) if block.section == "A site of its own")
    assert {line.partition("  #")[0].rstrip() for line in readme.splitlines()} < set(page.splitlines())


def test_another_server_block_answers_404_in_nginx_s_words(sidecar: Any, folder: Path) -> None:
    site_text = OTHER_SITE + CONF.replace("server_name _;", "server_name dashboard.example.com;")
    with running_nginx(folder / "other", site_text, sidecar.port) as site:
        told = asked(site, API).stdout
        assert told.startswith(b"HTTP/1.1 404 ")
        assert b"<center>nginx" in told
        named = asked(site, API.replace("curl ", "curl -H 'Host: dashboard.example.com' "))
        assert named.stdout.startswith(b"HTTP/1.1 200 ")


def test_missing_upgrade_headers_are_told(sidecar: Any, folder: Path) -> None:
    """Both pages say that the handshake is then answered 400 about `Upgrade: websocket`."""
    with running_nginx(folder / "upgrade", without(CONF, *UPGRADE_LINES), sidecar.port) as site:
        told = asked(site, HANDSHAKE).stdout
        assert told.startswith(b"HTTP/1.1 400 ")
        assert b"`Upgrade: websocket`" in told
        polling = f"curl -i '{site.url}/project-dashboard/ws/?EIO=4&transport=polling'"
        assert asked(site, polling).stdout.startswith(b"HTTP/1.1 200 ")
    for page in (PAGE, pages.read("docs/troubleshooting.md")):
        assert "400 about `Upgrade: websocket`" in page


def test_a_sidecar_that_is_away_is_502(folder: Path) -> None:
    class Nobody:
        port = free_port()

    with running_nginx(folder / "away", CONF, Nobody.port) as site:
        assert asked(site, API).stdout.startswith(b"HTTP/1.1 502 ")


WATCH = """
import WebSocket from 'ws';
const socket = new WebSocket(process.argv[1], process.argv[2] ? JSON.parse(process.argv[2]) : []);
socket.on('open', () => console.log('open'));
socket.on('close', (code) => console.log(code));
"""


def test_a_proxy_s_time_out_closes_with_1006(sidecar: Any, folder: Path) -> None:
    """As a browser sees it; the time-out here is below the ping interval, as the page says of such proxies."""
    require("node")
    if not (NODE / "node_modules" / "ws").exists():
        pytest.skip("ws is not installed (npm ci --prefix tests/node)")
    short = re.sub(r"proxy_read_timeout\s+75s;", "proxy_read_timeout 500ms;", CONF)
    assert short != CONF
    token = sidecar.connection_token(sub="ada")
    with running_nginx(folder / "short", short, sidecar.port) as site:
        address = f"{site.url.replace('http', 'ws')}/project-dashboard"
        for target, offered in (
            (f"{address}/ws/?EIO=4&transport=websocket", "[]"),
            (f"{address}/ws/rooms/general/", f'["sidecar.v1","bearer.{token}"]'),
        ):
            done = subprocess.run(
                [require("node"), "--input-type=module", "-e", WATCH, target, offered],
                cwd=NODE,
                capture_output=True,
                text=True,
                check=True,
                timeout=30,
            )
            assert done.stdout.split() == ["open", "1006"]


def test_the_locations_that_it_names_are_those_of_the_file() -> None:
    table = PAGE.partition("## What goes where")[2].partition("\n\nAll else")[0]
    named = set(
        re.findall(r"`(?:= )?(/[^`]*)`", "".join(row.split("|")[1] for row in table.splitlines() if "`" in row))
    )
    written = set(re.findall(r"^    location (?:= |\^~ )?(/\S*)", CONF, re.MULTILINE))
    assert {path.rstrip("/") for path in named} == {path.rstrip("/") for path in written} - {
        "/project-dashboard/metrics"
    }
