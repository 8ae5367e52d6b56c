"""docs/messages.md and docs/menu.md: what is run in a shell, in Python and in a browser. (tests/test_protocol_doc.py
sends the requests that they show.)"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable

import pytest

from tests.docs import pages
from tests.docs.stranger import Stranger
from tests.programs import NODE, require

MESSAGES = pages.read("docs/messages.md")
MENU = pages.read("docs/menu.md")
IN_NODE = "import WebSocket from 'ws'; const [token] = process.argv.slice(1);"


def command(section: str) -> str:
    (text,) = (block.text for block in pages.commands(MESSAGES) if block.section == section)
    return text


def test_a_shell_sends_and_python_does(stranger: Stranger) -> None:
    first = next(block.text for block in pages.commands(MESSAGES) if "token create" in block.text)
    token = stranger.follow(first).strip()
    url = f"{stranger.sidecar.url}/project-dashboard"
    told = stranger.follow(
        command("From a shell").replace("https://HOST/project-dashboard", url), SIDECAR_URL=url, SIDECAR_TOKEN=token
    )
    assert json.loads(told)["room"] == "general"
    (stranger.folder / "snippet.py").write_text(pages.one(MESSAGES, "python"))
    told = stranger.follow(".venv/bin/python snippet.py", SIDECAR_URL=url, SIDECAR_TOKEN=token)
    assert "'room': 'general'" in told
    assert stranger.sidecar.get("/api/live-push").json()["items"] == []


def test_a_browser_hears_what_it_says(stranger: Stranger) -> None:
    """The token of the page, in the page's lines."""
    require("node")
    if not (NODE / "node_modules" / "ws").exists():
        pytest.skip("ws is not installed (npm ci --prefix tests/node)")
    back_end = stranger.sidecar.new_token("tokens:issue", "rooms:read", "messages:send")
    asked = command("In the browser").replace("https://HOST", stranger.sidecar.url)
    token = json.loads(stranger.follow(asked, BACKEND_TOKEN=back_end))["token"]
    script = pages.one(MESSAGES, "js", "wss://HOST").replace("wss://HOST", f"ws://127.0.0.1:{stranger.sidecar.port}")
    done = heard(
        f"{script}; let heard = 0; socket.on('message', () => {{ if (++heard === 2) socket.close(); }});", token
    )
    assert re.findall(r"type: '(\w+)'", done) == ["connection_status", "chat_message"]


def test_a_browser_is_confirmed_for_its_permissions(stranger: Stranger) -> None:
    require("node")
    if not (NODE / "node_modules" / "ws").exists():
        pytest.skip("ws is not installed (npm ci --prefix tests/node)")
    script = pages.one(MENU, "js").replace("wss://HOST", f"ws://127.0.0.1:{stranger.sidecar.port}")
    told = heard(
        f"{script}; socket.on('message', (data) => {{ console.log(String(data)); socket.close(); }});",
        stranger.sidecar.connection_token(sub="ada"),
    )
    assert json.loads(told)["user_id"] == "ada"


def heard(script: str, token: str) -> str:
    done = subprocess.run(
        [require("node"), "--input-type=module", "-e", IN_NODE + script, token],
        cwd=NODE,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_menu_is_imported_exported_and_imported_again(begin: Callable[..., Stranger]) -> None:
    stranger = begin()
    blocks = [block.text for block in pages.commands(MENU)]
    assert len(blocks) == 1
    lines = [line for line in blocks[0].splitlines() if "permissions_socket.py" not in line]
    dry, again = "menu import examples/menu.yaml --dry-run", "menu import menu.yaml"
    told = stranger.follow(
        f".venv/bin/python -m sidecar {dry}",
        *lines,
        ".venv/bin/python -m sidecar menu export --permissions > menu.yaml",
        f".venv/bin/python -m sidecar {again} --dry-run".replace("menu.yaml", str(stranger.folder / "menu.yaml")),
    )
    assert len(re.findall(r"^The menu: 9 ", told, re.MULTILINE)) == 2, "told, then done"
    assert re.search(r"^The menu: nothing to change \(version \d+\)\.$", told, re.MULTILINE)
