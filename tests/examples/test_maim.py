"""examples/maim: each bot against a running sidecar, as a user runs it."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sidecar.client.maim import APIMessageBase, ClientConfig, MaimClient, text_message
from tests.bots.peers import python_of
from tests.chromium import Browser
from tests.pages import fill
from tests.programs import NODE, ROOT, require
from tests.servers import RunningSidecar

EXAMPLES = ROOT / "examples" / "maim"
WAIT_SECONDS = 30.0
ALONE = ["python_websockets.py", "python_aiohttp.py", "node_ws.mjs", "node_socketio.mjs"]


class Program:
    """An example that runs; what it prints comes line by line."""

    def __init__(self, command: list[str], environment: dict[str, str]):
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAIM_", "SIDECAR_"))}
        self._lines: list[str] = []
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=inherited | environment
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first line, now or later, that holds this."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            ended = not self._reader.is_alive()
            for line in self._lines:
                if found := re.search(pattern, line):
                    return found
            assert not ended, f"no {pattern}; it ended with {self._lines}"
            assert time.monotonic() < deadline, f"no {pattern}; instead {self._lines}"
            time.sleep(0.02)

    def close(self) -> None:
        """Ctrl+C."""
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        assert "Traceback" not in "".join(self._lines), self._lines

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line)


def new_key(server: RunningSidecar, user: str) -> dict[str, str]:
    answer = server.post("/api/maim/keys", {"user": user})
    assert answer.status_code == 200, answer.text
    body: dict[str, str] = answer.json()
    return body


def ws_url(server: RunningSidecar) -> str:
    return f"ws://127.0.0.1:{server.port}/project-dashboard/ws"


@contextmanager
def example(server: RunningSidecar, folder: Path, file: str, *arguments: str, **environment: str) -> Iterator[Program]:
    """A Node one runs where its packages are, as after `npm install`."""
    if file.endswith(".mjs"):
        if not (NODE / "node_modules" / "ws").exists():
            pytest.skip("ws is not installed (npm ci --prefix tests/node)")
        shutil.copy(EXAMPLES / file, folder / file)
        if not (folder / "node_modules").exists():
            (folder / "node_modules").symlink_to(NODE / "node_modules")
        command = [require("node"), str(folder / file)]
    else:
        # aiohttp is what maim_message 0.7 stands on; in our own environment it would cost each server's start a tenth.
        python = python_of("0.7.5") if "aiohttp" in file else sys.executable
        command = [str(python), str(EXAMPLES / file)]
    program = Program([*command, *arguments], {"MAIM_URL": ws_url(server), **environment})
    try:
        yield program
    finally:
        program.close()


@contextmanager
def bot(server: RunningSidecar, key: str, platform: str) -> Iterator[tuple[MaimClient, list[APIMessageBase]]]:
    """A connected client of ours, and what it was told."""
    told: list[APIMessageBase] = []

    def on_message(message: APIMessageBase, metadata: dict[str, Any]) -> None:
        told.append(message)

    with MaimClient(ClientConfig(ws_url(server), key, platform, on_message=on_message)) as client:
        assert client.is_connected(), client.last_error
        yield client, told


def wait_told(told: list[APIMessageBase], number: int = 1) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while len(told) < number:
        assert time.monotonic() < deadline, told
        time.sleep(0.02)


def payload_of(line: re.Match[str]) -> dict[str, Any]:
    payload: dict[str, Any] = json.loads(line[1])
    return payload


@pytest.mark.parametrize("query", ["", "1"], ids=["headers", "query"])
@pytest.mark.parametrize("file", ALONE)
def test_a_bot_writes_to_itself(sidecar, name, tmp_path, file, query):
    key = new_key(sidecar, name)["key"]
    with example(sidecar, tmp_path, file, "Grüße 你好", MAIM_KEY=key, MAIM_PLATFORM="qq", MAIM_QUERY=query) as program:
        program.wait_for(r"^acknowledged msg_[0-9a-f]{12}_\d+")
        payload = payload_of(program.wait_for(r"^sys_std (.*)"))
        assert payload["message_segment"] == {"type": "text", "data": "Grüße 你好"}
        assert payload["message_dim"] == {"api_key": key, "platform": "qq"}


@pytest.mark.parametrize("file", ALONE)
def test_a_bot_writes_to_somebody_else_and_acknowledges_what_comes(sidecar, name, tmp_path, file):
    """What waited for it and was acknowledged does not come again."""
    one, two = new_key(sidecar, f"{name}-one"), new_key(sidecar, f"{name}-two")
    with bot(sidecar, two["key"], "wechat") as (client, told):
        waiting = text_message("waited for you", one["address"], "qq", "wechat")
        assert client.send_message(waiting, queue=True, wait_seconds=WAIT_SECONDS)
        to = {"MAIM_TO_KEY": two["address"], "MAIM_TO_PLATFORM": "wechat"}
        with example(sidecar, tmp_path, file, MAIM_KEY=one["key"], MAIM_PLATFORM="qq", **to) as program:
            assert payload_of(program.wait_for(r"^sys_std (.*)")) == waiting.to_dict()
            wait_told(told)
            assert str(told[0].message_segment.data).startswith("Hello from ")
            assert told[0].get_message_platform() == "qq"
            sent = text_message("live", one["key"], "qq", "wechat")
            assert client.send_message(sent, queue=True, wait_seconds=WAIT_SECONDS)
            program.wait_for(r"^sys_std .*live")
        with bot(sidecar, one["key"], "qq") as (_, later):
            assert client.send_message(text_message("last", one["key"], "qq"), wait_seconds=WAIT_SECONDS)
            wait_told(later)
            assert [message.message_segment.data for message in later] == ["last"]


@pytest.mark.parametrize("file", ["node_ws.mjs", "node_socketio.mjs"])
def test_a_bot_with_a_wrong_key_says_so(sidecar, tmp_path, file):
    with example(sidecar, tmp_path, file, MAIM_KEY="smk_wrong") as program:
        program.wait_for("401" if file == "node_ws.mjs" else "key")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture
def page_origin() -> Iterator[str]:
    """Where the folder of the examples is served, as `python -m http.server` does."""
    handler = partial(Quiet, directory=str(EXAMPLES))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_page_writes_to_itself_and_to_somebody_else(start_sidecar, name, browser: Browser, page_origin):
    sidecar = start_sidecar(SIDECAR_ALLOWED_ORIGINS=page_origin)
    one, two = new_key(sidecar, f"{name}-one"), new_key(sidecar, f"{name}-two")
    with bot(sidecar, two["key"], "wechat") as (client, told):
        browser.open(f"{page_origin}/browser.html")
        fill(browser, "#connect [name=url]", ws_url(sidecar))
        fill(browser, "#connect [name=key]", one["key"])
        fill(browser, "#connect [name=platform]", "web")
        browser.evaluate("document.querySelector('#connect button').click(); null")
        browser.wait_for("document.getElementById('state').textContent === 'connected'")
        browser.evaluate("document.querySelector('#send button').click(); null")
        browser.wait_for("document.getElementById('log').textContent.includes('acknowledged msg_')")
        browser.wait_for("document.getElementById('log').textContent.includes('sys_std {')")
        fill(browser, "#send [name=key]", two["address"])
        fill(browser, "#send [name=platform]", "wechat")
        fill(browser, "#send [name=text]", "<b>from a page</b>")
        browser.evaluate("document.querySelector('#send button').click(); null")
        wait_told(told)
        assert (told[0].message_segment.data, told[0].get_message_platform()) == ("<b>from a page</b>", "web")
        answer = text_message("<img src=x onerror=alert(1)>", one["key"], "web")
        assert client.send_message(answer, queue=True, wait_seconds=WAIT_SECONDS)
        browser.wait_for("document.getElementById('log').textContent.includes('onerror')")
        assert browser.evaluate("document.querySelectorAll('#log *').length") == 0
        assert [error for error in browser.errors if "favicon" not in error] == []
        fill(browser, "#connect [name=key]", "smk_wrong")
        browser.evaluate("document.querySelector('#connect button').click(); null")
        browser.wait_for("document.getElementById('state').textContent === 'closed (1006)'")


def test_the_echo_bot(sidecar, name, tmp_path):
    key = new_key(sidecar, name)["key"]
    with example(sidecar, tmp_path, "echo_bot.py", MAIM_KEY=key) as program:
        program.wait_for("^ready")
        with bot(sidecar, key, "qq") as (client, told):
            assert client.send_message(text_message("hello", key, "echo", "qq"), wait_seconds=WAIT_SECONDS)
            wait_told(told)
            assert told[0].message_segment.data == "You said: hello"
            assert told[0].get_message_platform() == "echo"


def test_the_bridge(sidecar, name, tmp_path):
    own, ada, bob = (new_key(sidecar, f"{name}-{who}") for who in ("bridge", "ada", "bob"))
    peers = [f"wechat={ada['address']}", f"qq={bob['address']}"]
    with example(sidecar, tmp_path, "bridge.py", *peers, MAIM_KEY=own["key"]) as program:
        program.wait_for("^ready")
        with (
            bot(sidecar, ada["key"], "wechat") as (ada_client, ada_told),
            bot(sidecar, bob["key"], "qq") as (bob_client, bob_told),
        ):
            sent = text_message("from ada", own["address"], "wechat", "wechat")
            assert ada_client.send_message(sent, wait_seconds=WAIT_SECONDS)
            wait_told(bob_told)
            assert bob_told[0].message_info == sent.message_info
            assert bob_told[0].message_segment == sent.message_segment
            assert bob_client.send_message(text_message("from bob", own["address"], "qq"), wait_seconds=WAIT_SECONDS)
            wait_told(ada_told)
            assert ada_told[0].message_segment.data == "from bob"
        program.wait_for("^wechat -> qq ok")
        program.wait_for("^qq -> wechat ok")
