"""`sidecar maim key`: keys made, taken over, listed and revoked."""

from __future__ import annotations

import subprocess

import pytest
import websocket

from tests.programs import wait_until
from tests.servers import RunningSidecar
from tests.sockets.clients import Plain


def run(server: RunningSidecar, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[str]:
    """`sidecar maim key …` with this on its standard input."""
    return server.cli("maim", "key", *arguments, stdin=given)


def connects(server: RunningSidecar, key: str, platform: str = "qq") -> bool:
    try:
        Plain(server, f"/ws?api_key={key}&platform={platform}", token="").close()
    except websocket.WebSocketBadStatusException:
        return False
    return True


def test_a_key_is_made_listed_and_revoked_under_a_running_server(sidecar, name):
    options = ("--tenant", "shop", "--platform", "qq", "--platform", "微信", "--name", "the bot")
    made = run(sidecar, "create", "--user", name, *options)
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    words = made.stderr.split()
    id = words[words.index("Key") + 1]
    assert f"Key {id} of shop/{name}; address sma_{id}" in made.stderr
    assert key not in made.stderr
    assert connects(sidecar, key)
    assert not connects(sidecar, key, "wechat")
    listed = run(sidecar, "list").stdout
    assert f"{id}  shop/{name}  the bot  qq 微信  sma_{id}  active" in listed
    assert key not in listed
    one = Plain(sidecar, f"/ws?api_key={key}&platform=qq", token="")
    revoked = run(sidecar, "revoke", id)
    assert revoked.stdout == f"Key {id} is revoked.\n"
    assert one.closed() == 4401
    one.close()
    wait_until(lambda: not connects(sidecar, key), "it is not known any more")
    assert f"sma_{id}  revoked" in run(sidecar, "list").stdout
    again = run(sidecar, "revoke", id)
    assert again.returncode != 0
    assert "Traceback" not in again.stderr


def test_a_key_that_clients_have_is_taken_over_and_not_shown(sidecar, name):
    key = f"old-{name}"
    made = run(sidecar, "create", "--user", name, "--key-stdin", given=f"{key}\n".encode())
    assert (made.returncode, made.stdout) == (0, ""), made.stderr
    assert key not in made.stderr
    assert connects(sidecar, key)
    again = run(sidecar, "create", "--user", "eve", "--key-stdin", given=key.encode())
    assert again.returncode != 0
    assert "There is this key already" in again.stderr
    assert key not in again.stdout + again.stderr


@pytest.mark.parametrize("given", [b"", b"two words", b"\xff\xfe"])
def test_what_can_be_no_key_is_told_and_not_shown(sidecar, name, given: bytes):
    made = run(sidecar, "create", "--user", name, "--key-stdin", given=given)
    assert (made.returncode, made.stdout) == (1, ""), made.stderr
    assert "key must be 1 to 256 visible ASCII characters" in made.stderr
    assert "Traceback" not in made.stderr
    assert len(given) < 5 or given.decode().strip() not in made.stderr


@pytest.mark.parametrize("options", [("--user", "u", "--platform", ""), ()])
def test_bad_names_are_told(sidecar, options: tuple[str, ...]):
    made = run(sidecar, "create", *options)
    assert made.returncode != 0
    assert made.stdout == ""
    assert "Traceback" not in made.stderr
