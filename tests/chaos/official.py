"""The pages of the official client: a node process of many sockets (tests/node/crowd.mjs)."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pytest

from tests.chaos.pages import Plan, Report
from tests.programs import DEADLINE_SECONDS, NODE, require


class OfficialPages:
    """Called as LightPages are."""

    def __init__(self, plans: Sequence[Plan], port: int, path: str, token: str):
        node = require("node")
        if not (NODE / "node_modules" / "socket.io-client").exists():
            pytest.skip("socket.io-client is not installed (npm ci --prefix tests/node)")
        self._process = subprocess.Popen(
            [node, str(NODE / "crowd.mjs")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        url = f"http://127.0.0.1:{port}"
        self._ask("open", url=url, path=path, token=token, plans=[asdict(plan) for plan in plans])

    def begin(self, names: Sequence[str]) -> None:
        self._ask("begin", names=list(names))

    def progress(self) -> dict[str, Report]:
        found: dict[str, Report] = self._ask("progress")
        return found

    def report(self) -> dict[str, Report]:
        found: dict[str, Report] = self._ask("report")
        return found

    def quiet(self) -> None:
        self._ask("quiet")

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _ask(self, op: str, **fields: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"op": op, **fields}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": "the node process ended"}
        assert "error" not in answer, answer["error"]
        return answer["value"]
