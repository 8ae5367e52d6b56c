"""Pages of documentation: their blocks of code, and the blocks that are commands for a shell."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^( *)```(.*)$")


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code. An indented one, which these pages use for commands, has no language. `section` is the last
    heading above it."""

    language: str
    text: str
    section: str


def read(name: str) -> str:
    """A page, by its path from the root of the repository."""
    return (ROOT / name).read_text()


def blocks(page: str) -> list[Block]:
    """All blocks of code of a page, in order."""
    found: list[Block] = []
    section, lines, language = "", list[str](), None
    for line in [*page.splitlines(), ""]:
        fence = FENCE.match(line)
        if language:
            if fence and not fence[2]:
                found.append(Block(language, "\n".join(lines) + "\n", section))
                language, lines = None, []
            else:
                lines.append(line)
            continue
        if line.startswith("    ") or (lines and not line):
            lines.append(line[4:])
            continue
        if lines:
            found.append(Block("", "\n".join(lines).strip("\n") + "\n", section))
            lines = []
        if fence:
            language = fence[2].split(" ")[0] or "text"
        elif line.startswith("#"):
            section = line.lstrip("# ")
    if lines and not language:
        found.append(Block("", "\n".join(lines).strip("\n") + "\n", section))
    return found


def commands(page: str) -> list[Block]:
    return [block for block in blocks(page) if block.language in ("", "sh")]


def one(page: str, language: str, word: str = "") -> str:
    """The text of the only block of this language that holds the word."""
    (block,) = (block for block in blocks(page) if block.language == language and word in block.text)
    return block.text
