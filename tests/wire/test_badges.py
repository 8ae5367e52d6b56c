"""Badges as SVG: well-formed whatever a project is called, nothing in it but boxes and text, as wide as its text."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.domain.badges import Badge
from sidecar.wire.badges import badge_svg

SVG = "{http://www.w3.org/2000/svg}"
ELEMENTS = {f"{SVG}{name}" for name in ("svg", "title", "clipPath", "rect", "g", "text")}
ATTRIBUTES = {
    *("width", "height", "viewBox", "role", "aria-label", "id", "rx", "x", "y", "fill"),
    *("clip-path", "font-family", "font-size", "textLength", "lengthAdjust"),
}
HOSTILE = [
    '"><script>alert(1)</script>',
    "' onload='alert(1)",
    "]]><!--",
    "&amp;<&gt;",
    "</text></svg><svg/onload=alert(1)>",
    "\x00\x07\x0b\ufffe\ud800",
    "<!DOCTYPE x [<!ENTITY a 'b'>]>&a;",
    "\u202egnirts",
    "",
]


def read(text: str) -> tuple[ElementTree.Element, list[str]]:
    """The document, and the texts that it shows."""
    root = ElementTree.fromstring(text.encode())
    return root, [item.text or "" for item in root.iter(f"{SVG}text")]


def assert_harmless(text: str) -> None:
    root, _ = read(text)
    for element in root.iter():
        assert element.tag in ELEMENTS
        assert set(element.attrib) <= ATTRIBUTES
    assert not re.search(r"(href|url\((?!#r\))|<!|<\?)", re.sub(r">[^<]*<|aria-label=(\"[^\"]*\"|'[^']*')", "><", text))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_text(name):
    made = badge_svg(Badge(name, name, "grey", f"{name}: {name}"))
    assert_harmless(made)
    root, texts = read(made)
    clean = re.sub(r"[\x00\x07\x0b\ufffe\ud800]", "\ufffd", name)
    assert texts == [clean, clean]
    assert root.attrib["aria-label"] == f"{clean}: {clean}" == root.findtext(f"{SVG}title")


@given(st.text(), st.text(), st.sampled_from(["green", "red", "amber", "blue", "grey"]))
def test_any_text_makes_a_well_formed_badge(label, message, colour):
    made = badge_svg(Badge(label, message, colour, f"{message}{label}"))
    assert_harmless(made)
    root, _ = read(made)
    width = int(root.attrib["width"])
    boxes = [item for item in root.iter(f"{SVG}rect") if "fill" in item.attrib]
    assert sum(int(box.attrib["width"]) for box in boxes) == width
    ends = [int(text.attrib["x"]) + int(text.attrib["textLength"]) for text in root.iter(f"{SVG}text")]
    assert ends[0] <= int(boxes[0].attrib["width"])
    assert ends[1] <= width


@pytest.mark.parametrize(
    ("text", "pixels"),
    [("iiii", 12), ("WWWW", 44), ("部署", 22), ("部署成功", 44), ("e\u0301", 7), ("🎉", 11), ("Ж", 7), ("", 0)],
)
def test_a_text_has_the_room_that_it_needs(text, pixels):
    root, _ = read(badge_svg(Badge("", text, "grey", "")))
    assert int(list(root.iter(f"{SVG}text"))[1].attrib["textLength"]) == pixels
