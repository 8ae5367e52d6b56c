"""The local platform for tests of authorizations, and what a user does on it."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from examples.fake_lark import Console, FakeLark

HTTP = httpx.Client(limits=httpx.Limits(max_keepalive_connections=0), timeout=30)
"""Made once, which is what takes long; holds no connection."""
APP_ID = "cli_0123456789abcdef"
APP_SECRET = "app-secret-of-the-test"
VERIFICATION_TOKEN = "verification-token-of-the-test"
ENCRYPT_KEY = "encrypt-key-of-the-test"
REDIRECT_URI = "http://127.0.0.1:8091/callback"
VERIFIER = "v" * 64

CARD = {
    "config": {"update_multi": True},
    "header": {"template": "blue", "title": {"tag": "plain_text", "content": "用户授权请求"}},
    "elements": [
        {"tag": "div", "text": {"tag": "lark_md", "content": "**请授权**\n<b> &#38; &#42;"}},
        {
            "tag": "action",
            "actions": [
                {
                    "tag": "button",
                    "type": "primary",
                    "text": {"tag": "plain_text", "content": "授权"},
                    "url": "https://example.com/authorize",
                    "value": {"session_id": "s1", "action": "authorize"},
                },
                {
                    "tag": "button",
                    "text": {"tag": "plain_text", "content": "取消"},
                    "value": {"session_id": "s1", "action": "reject"},
                },
            ],
        },
    ],
}
DONE = {
    "config": {"update_multi": True},
    "header": {"template": "green", "title": {"tag": "plain_text", "content": "授权成功"}},
    "elements": [{"tag": "div", "text": {"tag": "lark_md", "content": "done"}}],
}


def console(**more: Any) -> Console:
    """An app as the tests have it in the console; events that are not answered come again at once."""
    given: dict[str, Any] = {
        "redirect_uris": [REDIRECT_URI],
        "verification_token": VERIFICATION_TOKEN,
        "encrypt_key": ENCRYPT_KEY,
        "retry_seconds": (0.2, 0.2, 0.2),
        "jitter_seconds": 0,
        "reconnect_seconds": 1,
    }
    return Console(APP_ID, APP_SECRET, **given | more)


def challenge_of(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


def authorize_url(lark: FakeLark, **more: str | None) -> str:
    """A good one, but for what `more` says; None leaves a parameter out."""
    query: dict[str, str | None] = {
        "client_id": APP_ID,
        "response_type": "code",
        "redirect_uri": REDIRECT_URI,
        "scope": "offline_access",
        "state": "the-state",
        "code_challenge": challenge_of(VERIFIER),
        "code_challenge_method": "S256",
    }
    asked = {name: value for name, value in (query | more).items() if value is not None}
    return f"{lark.url}/open-apis/authen/v1/authorize?{urlencode(asked)}"


def query_of(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def granted_code(lark: FakeLark, open_id: str = "ou_ada", **more: str | None) -> str:
    """The code that a user's consent gives."""
    answer = lark.grant_now(authorize_url(lark, **more), open_id)
    return query_of(answer["location"])["code"]


def require_sdk() -> None:
    if importlib.util.find_spec("lark_oapi") is None:
        pytest.skip("lark-oapi is not installed (config/requirements-lark.txt)")


SDK = Path(__file__).with_name("sdk.py")


def sdk(what: str, **given: Any) -> Any:
    """Run a part of sdk.py to its end; what it prints last."""
    require_sdk()
    done = subprocess.run(
        [sys.executable, str(SDK), what], input=json.dumps(given), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def sdk_listening(log: Path, **given: Any) -> Iterator[IO[str]]:
    """`sdk.py listen`; gives its output's lines."""
    require_sdk()
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, str(SDK), "listen"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(given))
    process.stdin.close()
    try:
        yield process.stdout
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
