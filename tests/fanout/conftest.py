from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fanout.stages import Stage


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    opened = Stage(tmp_path)
    yield opened
    opened.close()
