"""An installation in a folder of its own, without a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from config.settings import load_settings
from sidecar.core import Core, open_core


class Clock:
    """Unix seconds that pass only when a test says so."""

    def __init__(self, now: float = 1_800_000_000.0):
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def core(tmp_path: Path) -> Iterator[Core]:
    opened = open_core(load_settings(instance_dir=tmp_path / "instance"))
    yield opened
    opened.close()
