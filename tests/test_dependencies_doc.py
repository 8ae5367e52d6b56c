"""docs/dependencies.md names every pin with its version, and the vendored file is the one it says."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "dependencies.md").read_text()
BOTS = ["tests/bots/requirements-0.6.8.txt", "tests/bots/requirements-0.7.5.txt"]
FILES = ["requirements.txt", "config/requirements-lark.txt", "tests/requirements.txt", *BOTS]


def pins_of(text: str) -> list[str]:
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("-r")]


@pytest.mark.parametrize("file", FILES)
def test_every_pin_is_on_the_page_with_its_version(file):
    """An unexplained dependency is one that nobody dares to remove."""
    text = (ROOT / file).read_text()
    assert [pin for pin in pins_of(text) if not re.fullmatch(r"[a-z0-9\[\]-]+==[0-9.]+", pin)] == []
    chosen = pins_of(text.partition("# What it brings.")[0])
    assert chosen
    rows = [f"| {pin.replace('==', ' | ')} |" for pin in chosen]
    assert [row for row in rows if row not in PAGE] == []


def test_the_page_names_nothing_that_is_not_pinned():
    pinned = {pin for file in FILES for pin in pins_of((ROOT / file).read_text())}
    rows = re.findall(r"^\| ([a-z0-9-]+) \| ([0-9.]+) \|", PAGE, re.MULTILINE)
    assert len(rows) > 20
    assert [row for row in rows if "==".join(row) not in pinned] == []


def test_the_vendored_files_are_those_of_the_page():
    """A changed script in every browser would be seen here."""
    folder = ROOT / "sidecar" / "web" / "static" / "vendor"
    files = sorted(file for file in folder.iterdir() if file.suffix != ".LICENSE")
    assert files
    for file in files:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| {file.relative_to(ROOT)} |"))
        assert digest in row
        assert "sourceMappingURL" not in file.read_text()
    assert (folder / "socket.io.LICENSE").exists()
