"""docs/maim-clients.md: its programs run, its certificates work, its table is whole."""

from __future__ import annotations

import json
import logging
import os
import re
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve

from sidecar.client.maim import ClientConfig, MaimClient, create_ssl_client_config, text_message
from tests.chaos.loop import Loop
from tests.client.maim_server import WAIT_SECONDS, until
from tests.programs import ROOT, free_port, require, running_nginx
from tests.servers import RunningSidecar

PAGE = (ROOT / "docs" / "maim-clients.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)


def run(program: str, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_first_bot(sidecar: RunningSidecar, name: str, tmp_path: Path):
    key = sidecar.post("/api/maim/keys", {"user": name, "platforms": ["qq"]}).json()["key"]
    url = f"ws://127.0.0.1:{sidecar.port}/project-dashboard/ws"
    assert sorted(run(PROGRAMS[0], tmp_path, MAIM_URL=url, MAIM_KEY=key).split("\n")) == ["", "Hello", "True None"]
    refused = run(PROGRAMS[0], tmp_path, MAIM_URL=url, MAIM_KEY="smk_wrong")
    assert "HTTP 401" in refused
    assert "False" in refused


def test_the_other_programs(tmp_path: Path):
    messages, several, tls, original = PROGRAMS[1:]
    assert run(messages, tmp_path) == "lark Ada\n"
    assert run(several, tmp_path) == "2 {}\n"
    url = "wss://bots.example/project-dashboard/ws"
    assert run(tls, tmp_path) == f"{url} True {url.replace('example/', 'example:443/')}\n"
    compile(original, "original", "exec")


def test_the_table_names_every_field():
    part = PAGE.partition("## Configuration")[2].partition("\n## ")[0] + PAGE.partition("## TLS")[2]
    named = set(re.findall(r"`(\w+)(?:\([^)]*\))?`", part))
    assert {field.name for field in fields(ClientConfig)} <= named


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require("openssl")
    folder = tmp_path_factory.mktemp("certificates")
    for block in COMMANDS:
        subprocess.run(["/bin/sh", "-e", "-c", block], cwd=folder, check=True, capture_output=True, timeout=60)
    return folder


def context(certificates: Path, mutual: bool = False) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    if mutual:
        made.load_verify_locations(certificates / "ca.pem")
        made.verify_mode = ssl.CERT_REQUIRED
    return made


@contextmanager
def tls_server(tls: ssl.SSLContext) -> Iterator[str]:
    """The URL of a server that acknowledges. It is one of asyncio: two threads may not share a TLS connection."""
    loop = Loop()

    async def acknowledge(connection: ServerConnection) -> None:
        async for text in connection:
            frame = json.loads(text)
            await connection.send(json.dumps({"type": "sys_ack", "meta": {"acked_msg_id": frame["msg_id"]}}))

    async def start() -> Server:
        quiet = logging.getLogger("tests.tls_server")
        quiet.disabled = True
        return await serve(acknowledge, "127.0.0.1", 0, ssl=tls, max_size=None, logger=quiet)

    async def stop(server: Server) -> None:
        server.close()
        await server.wait_closed()

    server = loop.run(start())
    port = next(iter(server.sockets)).getsockname()[1]
    try:
        yield f"wss://127.0.0.1:{port}/ws"
    finally:
        loop.run(stop(server))
        loop.close()  # ends a handshake that is under way, too


@pytest.fixture(scope="module")
def url(certificates: Path) -> Iterator[str]:
    with tls_server(context(certificates)) as url:
        yield url


def connects(url: str, **options: Any) -> str | None:
    """None if it does, else why not."""
    client = MaimClient(ClientConfig(url, "key", auto_reconnect=False, **options))
    try:
        if not client.connect():
            return str(client.last_error)
        sent = client.send_message(text_message("hello", "key", "qq"), wait_seconds=WAIT_SECONDS)
        return None if sent else str(client.last_error)
    finally:
        client.stop()


def test_the_certificates_of_the_page(url: str, certificates: Path):
    ca = str(certificates / "ca.pem")
    other_name = url.replace("127.0.0.1", "127.1")  # the same address, but not a name in the certificate
    assert connects(url, ssl_ca_certs=ca) is None
    assert connects(url.replace("127.0.0.1", "localhost"), ssl_ca_certs=ca) is None
    assert "no trusted TLS connection" in str(connects(url))
    assert "no trusted TLS connection" in str(connects(other_name, ssl_ca_certs=ca))
    assert connects(other_name, ssl_ca_certs=ca, ssl_check_hostname=False) is None
    assert "no trusted TLS connection" in str(connects(url, ssl_check_hostname=False))
    assert connects(url, ssl_verify=False) is None
    assert "a certificate can't be read" in str(connects(url, ssl_ca_certs=ca + ".not"))


def test_mutual_tls(certificates: Path):
    ca, certificate, key = (str(certificates / name) for name in ("ca.pem", "bot.pem", "bot.key"))
    with tls_server(context(certificates, mutual=True)) as url:
        assert connects(url, ssl_ca_certs=ca) is not None
        assert connects(url, ssl_ca_certs=ca, ssl_certfile=certificate, ssl_keyfile=key) is None
        both = certificates / "both.pem"
        both.write_text(Path(key).read_text() + Path(certificate).read_text())
        assert connects(url, ssl_ca_certs=ca, ssl_certfile=str(both)) is None


def test_mutual_tls_at_nginx(sidecar: RunningSidecar, name: str, certificates: Path, tmp_path: Path):
    """The shipped site with the page's lines, before a running sidecar."""
    key = sidecar.post("/api/maim/keys", {"user": name}).json()["key"]
    port = free_port()
    lines = {
        "# listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "# ssl_certificate     /etc/ssl/certs/dashboard.pem;": f"ssl_certificate {certificates}/server.pem;",
        "# ssl_certificate_key /etc/ssl/private/dashboard.key;": (
            f"ssl_certificate_key {certificates}/server.key;\n"
            f"ssl_client_certificate {certificates}/ca.pem; ssl_verify_client on;"
        ),
    }
    site = (ROOT / "nginx" / "sidecar.conf").read_text()
    for shipped, ours in lines.items():
        assert shipped in site
        site = site.replace(shipped, ours)
    told: list[str] = []
    ca, certificate, private = (str(certificates / file) for file in ("ca.pem", "bot.pem", "bot.key"))
    with running_nginx(tmp_path, site, sidecar.port):
        wanted = create_ssl_client_config(
            host="127.0.0.1", port=port, path="/project-dashboard/ws", api_key=key, platform="qq",
            ssl_ca_certs=ca, ssl_certfile=certificate, ssl_keyfile=private,
            on_message=lambda message, metadata: told.append(message.message_segment.data),
        )  # fmt: skip
        assert "HTTP 400" in str(connects(wanted.url, ssl_ca_certs=ca))
        with MaimClient(wanted) as client:
            assert client.send_message(text_message("through TLS", key, "qq"), wait_seconds=WAIT_SECONDS)
            until(lambda: told == ["through TLS"])


def test_many_threads_in_one_tls_connection(url: str, certificates: Path):
    """OpenSSL allows but one at a time: connections failed, or ended, now and then."""
    ca = str(certificates / "ca.pem")
    assert [connects(url, ssl_ca_certs=ca) for _ in range(100)] == [None] * 100
    with MaimClient(ClientConfig(url, "key", ssl_ca_certs=ca)) as client:

        def send() -> None:
            for _ in range(100):
                assert client.send_message(text_message("x" * 50_000, "key", "qq"), wait_seconds=WAIT_SECONDS)

        threads = [threading.Thread(target=send) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stats = client.get_stats()
        assert (stats["messages_acked"], stats["connect_attempts"]) == (400, 1)
