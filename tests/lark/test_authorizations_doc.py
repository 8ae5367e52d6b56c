"""The commands of docs/authorizations.md, run as they stand against a real sidecar and the local platform."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.lark.flow import Flow
from tests.lark.stage import APP_ID

PAGE = Path(__file__).resolve().parents[2] / "docs" / "authorizations.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```\n\n```json\n(.*?)^```", re.MULTILINE | re.DOTALL)


def same_shape(said: Any, real: Any) -> bool:
    """Has `real` the names that the page says, with values of those types where neither is null?"""
    if isinstance(said, dict) and isinstance(real, dict):
        return said.keys() == real.keys() and all(same_shape(said[name], real[name]) for name in said)
    return said is None or real is None or type(said) is type(real)


@pytest.mark.skipif(shutil.which("jq") is None or shutil.which("curl") is None, reason="needs curl and jq")
def test_the_commands_of_the_page_are_answered_as_it_says(flow: Flow, tmp_path: Path):
    blocks = BLOCK.findall(PAGE.read_text())
    assert len(blocks) == 4
    scopes = ["authorizations:write", "authorizations:read"]
    token = flow.server.post("/api/tokens", {"name": "page", "scopes": scopes}).json()["token"]
    environment = os.environ | {"SIDECAR_URL": flow.server.url, "SIDECAR_TOKEN": token}
    begun = None
    for commands, said in blocks:
        if "/token" in commands:
            assert flow.authorize(begun).status_code == 200
        given = commands.replace("cli_x", APP_ID)
        if begun is not None:
            given = f"SESSION={begun['session_id']}\n{given}"
        done = subprocess.run(
            ["bash", "-c", given], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        real = json.loads(done.stdout)
        assert same_shape(json.loads(said), real), (said, real)
        if begun is None:
            begun = real
    assert begun is not None
    assert begun["state"] == "pending"
    assert flow.session(begun)["state"] == "completed"
