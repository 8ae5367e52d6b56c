"""Badges as SVG: two boxes with text, for pages that show them as images. Nothing in it is loaded, run or taken from
elsewhere; a name from outside is text, and everything that XML can't hold is gone.

How wide a text is depends on fonts that only the reader has: widths are those of DejaVu Sans and Verdana, and
`textLength` has the reader's own font drawn as wide.
"""

from __future__ import annotations

import re
import unicodedata
from xml.sax.saxutils import escape, quoteattr

from sidecar.domain.badges import AMBER, BLUE, GREEN, GREY, RED, Badge

HEIGHT = 20
PAD = 6
LABEL_CHARACTERS = 60
FONT = "Verdana,DejaVu Sans,Noto Sans CJK SC,sans-serif"

_FILLS = {GREEN: "#2e7d32", RED: "#c62828", AMBER: "#8a5a00", BLUE: "#1565c0", GREY: "#5f6b7a"}
"""White text on each has a contrast of 4.5 or more."""
_NOT_IN_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# Of the 95 printable characters of ASCII, from the space on, in tenths of a pixel at 11 pixels.
_WIDTHS = (
    *(35, 44, 51, 92, 70, 105, 86, 30, 43, 43, 55, 92, 35, 40, 35, 37, 70, 70, 70, 70, 70, 70, 70, 70, 70, 70),
    *(37, 37, 92, 92, 92, 58, 110, 75, 75, 77, 85, 70, 63, 85, 83, 32, 32, 72, 61, 95, 82, 87, 66, 87, 76, 70),
    *(67, 81, 75, 109, 75, 67, 75, 43, 37, 43, 92, 55, 55, 67, 70, 60, 70, 68, 39, 70, 70, 31, 31, 64, 31, 107),
    *(70, 67, 70, 70, 45, 57, 43, 70, 65, 90, 65, 65, 58, 70, 37, 70, 92),
)
_WIDE, _OTHER = 110, 72


def badge_svg(badge: Badge) -> str:
    """One SVG document, without a line end."""
    label, message, title = (_NOT_IN_XML.sub("\ufffd", text) for text in (badge.label, badge.message, badge.title))
    left, right = (round(_width(text) + 2 * PAD) for text in (label, message))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="{HEIGHT}" '
        f'viewBox="0 0 {left + right} {HEIGHT}" role="img" aria-label={quoteattr(title)}>'
        f"<title>{escape(title)}</title>"
        f'<clipPath id="r"><rect width="{left + right}" height="{HEIGHT}" rx="3"/></clipPath>'
        f'<g clip-path="url(#r)"><rect width="{left}" height="{HEIGHT}" fill="#444d56"/>'
        f'<rect x="{left}" width="{right}" height="{HEIGHT}" fill="{_FILLS[badge.colour]}"/></g>'
        f'<g fill="#fff" font-family="{FONT}" font-size="11">'
        f"{_text(label, PAD, left - 2 * PAD)}{_text(message, left + PAD, right - 2 * PAD)}</g></svg>"
    )


def _text(text: str, x: int, width: int) -> str:
    return f'<text x="{x}" y="14" textLength="{width}" lengthAdjust="spacingAndGlyphs">{escape(text)}</text>'


def _width(text: str) -> float:
    """In pixels."""
    return sum(_width_of(character) for character in text) / 10


def _width_of(character: str) -> int:
    if " " <= character <= "~":
        return _WIDTHS[ord(character) - 32]
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return _WIDE if unicodedata.east_asian_width(character) in ("W", "F") or character == "…" else _OTHER
