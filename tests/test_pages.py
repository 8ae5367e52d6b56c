"""The pages for people: links lead somewhere, what must be short is short, every command is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sidecar.cli.main import cli

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(path for path in ROOT.glob("*.md")) + sorted(
    path for folder in ("docs", "examples") for path in (ROOT / folder).rglob("*.md")
)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    """A page that was renamed leaves links to nowhere behind."""
    broken = []
    for path, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)]*))?\)", page.read_text()):
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(f"{path}#{anchor}")
    assert broken == []


def test_short_pages_stay_short():
    """Nobody reads a long one."""
    assert len((ROOT / "README.md").read_text().splitlines()) < 150
    long = [page.name for page in (ROOT / "docs" / "design").glob("*.md") if len(page.read_text().splitlines()) > 80]
    assert long == []


def test_the_readme_names_every_command():
    page = (ROOT / "README.md").read_text()
    assert [name for name in cli.commands if f"`{name}" not in page] == []


def test_the_readme_names_only_make_targets_that_exist():
    targets = set(re.findall(r"(?:^    |`|=\S+ )make ([a-z-]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert {"run", "test"} <= targets
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert sorted(targets - known) == []
