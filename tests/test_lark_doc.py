"""docs/lark.md explains every number of Lark that the code knows, as the code takes it, and what it names is there."""

from __future__ import annotations

import re
from pathlib import Path

from config.settings import load_settings
from sidecar.domain.authorizations import REASONS
from sidecar.wire.lark_codes import MEANINGS

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "lark.md").read_text()
ROW = re.compile(r"^\| (\d[\d, ]+) \| `(\w+)` \| (\w+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)


def rows() -> dict[int, tuple[str, str]]:
    """What the table says of each number: our code, and the reason."""
    return {int(number): (row[2], row[3]) for row in ROW.finditer(PAGE) for number in row[1].split(", ")}


def test_each_number_is_in_the_table_with_what_it_becomes():
    known = {
        number: (meaning.error.code, meaning.reason or meaning.error.reason) for number, meaning in MEANINGS.items()
    }
    assert rows() == known


def test_no_number_is_in_two_rows():
    numbers = [number for row in ROW.finditer(PAGE) for number in row[1].split(", ")]
    assert len(numbers) == len(set(numbers))


def test_each_reason_is_explained():
    assert [reason for reason in REASONS if reason not in PAGE] == []


def test_each_setting_that_is_named_exists():
    settings = (ROOT / "docs" / "settings.md").read_text()
    assert {name for name in re.findall(r"\bSIDECAR_[A-Z_]+", PAGE) if f"`{name}`" not in settings} == set()


def test_the_redirect_urls_are_those_that_the_sidecar_uses():
    assert f"| `{load_settings().lark_redirect}` |" in PAGE
    assert f"| `{load_settings(public_url='https://dashboard.example.com').lark_redirect}` |" in PAGE


def test_each_file_that_is_named_exists():
    for name in re.findall(r"\b(?:config|nginx)/[\w./-]+\.(?:json|yml|conf|service|txt|cjs)\b", PAGE):
        assert (ROOT / name).is_file(), name
    for name, anchor in re.findall(r"\]\(([\w/.-]+\.md)(?:#([\w-]+))?\)", PAGE):
        assert (ROOT / "docs" / name).is_file(), name
        assert not anchor or anchor in (ROOT / "docs" / name).read_text().lower().replace(" ", "-"), anchor
