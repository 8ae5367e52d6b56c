"""A posted body as a JSON object: bounded, strict first, then the few repairs that real senders need.

Nothing of the input is echoed in an error.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from sidecar.domain.errors import FieldError, Invalid, Unparsable, UnsupportedMedia

MAX_DEPTH = 32
MAX_NODES = 50_000
MAX_FORM_FIELDS = 100

_DOUBLED = re.compile(
    r'("(?:message|logs|step_logs|error_message|errorMessage)"\s{0,20}:\s{0,20})""([^"\\]*(?:\\.[^"\\]*)*)""', re.DOTALL
)
_STRINGS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
"""An unclosed one goes to the end, so that no start is scanned twice."""
_NO_BRACKETS = re.compile(r"[^\[\]{}]+")
_UNTYPED = ("application/x-www-form-urlencoded", "text/plain", "application/octet-stream")


@dataclass(frozen=True, slots=True)
class ParsedBody:
    """`repaired` tells that the body was not JSON as it came."""

    value: dict[str, Any]
    repaired: bool


def parse_body(raw: bytes, content_type: str | None, unique: bool = False) -> ParsedBody:
    """The object in a body. JSON is taken under its own media types and under those that `curl -d` and plain
    scripts send; a form may carry it as `payload=`. With `unique` no object may name a field twice (otherwise the last
    one counts). Raises Unparsable, Invalid or UnsupportedMedia."""
    text = _text(raw)
    media = (content_type or "").partition(";")[0].strip().lower()
    if media == "application/x-www-form-urlencoded" and text.startswith("payload="):
        text = _form_payload(text)
    elif media and media not in _UNTYPED and not re.fullmatch(r"(application|text)/([\w.-]+\+)?json", media):
        raise UnsupportedMedia("Send application/json.")
    value, read, strict = _load(text)
    if unique:
        _check_unique(read)
    if not isinstance(value, dict):
        raise Invalid("The body must be a JSON object.", (FieldError("", "must be an object"),))
    return ParsedBody(_clean(value, [0]) if _may_be_unclean(text) else value, not strict)


def parse_message(text: str) -> Any:
    """What a message of a WebSocket says, as JSON. Raises Unparsable."""
    value = _decode(text, True)
    return _clean(value, [0]) if _may_be_unclean(text) else value


def sound(value: Any) -> Any:
    """A value that another parser has read from JSON, as `parse_message` would have read it. Raises Unparsable or
    Invalid."""
    return _clean(value, [0])


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unparsable(f"The body is not UTF-8 (byte {error.start}).") from None


def _form_payload(text: str) -> str:
    try:
        return parse_qs(text, max_num_fields=MAX_FORM_FIELDS, strict_parsing=True)["payload"][0]
    except (ValueError, KeyError):
        raise Unparsable("The form has no readable field `payload`.") from None


def _load(text: str) -> tuple[Any, str, bool]:
    """The value, the text that it was read from, and whether that is strictly what came. A line that stands in doubled
    quotes is outside of strings until it is repaired, so that its brackets look like nesting before."""
    problem: Unparsable | None = None
    for candidate, strict in _candidates(text):
        try:
            return _decode(candidate, strict), candidate, strict
        except Unparsable as error:
            problem = problem or error
    assert problem is not None
    raise problem


def _candidates(text: str) -> Iterator[tuple[str, bool]]:
    """The body as it came, read strictly, then with raw line ends in strings; then repaired."""
    yield text, True
    yield text, False
    repaired = _DOUBLED.sub(r'\1"\2"', text)
    if repaired != text:
        yield repaired, False


def _decode(text: str, strict: bool) -> Any:
    """Raises Unparsable."""
    _check_depth(text)
    try:
        return json.loads(text, strict=strict, parse_constant=_refuse_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        problem = FieldError("", f"{error.msg} at {where}")
        raise Unparsable(f"The body is not JSON: {problem.message}.", (problem,)) from None
    except RecursionError:
        raise Unparsable(f"The body is nested deeper than {MAX_DEPTH} levels.") from None
    except ValueError:  # an integer of thousands of digits
        raise Unparsable("The body holds a number that is out of range.") from None


def _check_unique(text: str) -> None:
    """(Of a text that has been read.)"""

    def check(pairs: list[tuple[str, Any]]) -> None:
        if len({name for name, _ in pairs}) < len(pairs):
            raise Invalid("An object in the body names a field twice.", (FieldError("", "names a field twice"),))

    json.loads(text, strict=False, object_pairs_hook=check)


def _check_depth(text: str) -> None:
    """Nesting, counted outside of strings, before any recursive parser sees it."""
    depth = 0
    outside = _STRINGS.sub("", text) if "\\" in text else "".join(text.split('"')[::2])
    for bracket in _NO_BRACKETS.sub("", outside):
        if bracket in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise Unparsable(f"The body is nested deeper than {MAX_DEPTH} levels.")
        else:
            depth -= 1


def _refuse_constant(name: str) -> None:
    raise Unparsable(f"The body holds {name}, which is not JSON.")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise Unparsable("The body holds a number that is out of range.")
    return number


def _may_be_unclean(text: str) -> bool:
    """Might `_clean` find fault with what this JSON says? A lone surrogate can only be written as an escape; a value
    is the first one, or follows a comma or an opening bracket."""
    return "\\u" in text or "\x00" in text or 1 + text.count(",") + text.count("[") + text.count("{") > MAX_NODES


def _clean(value: Any, nodes: list[int], depth: int = 0) -> Any:
    """Text that every store and client can hold: no lone surrogates, no NUL. Counts what it walks."""
    nodes[0] += 1
    if nodes[0] > MAX_NODES:
        raise Invalid(f"The body holds more than {MAX_NODES} values.")
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, (list, dict)) and depth == MAX_DEPTH:
        raise Unparsable(f"The body is nested deeper than {MAX_DEPTH} levels.")
    if isinstance(value, list):
        return [_clean(item, nodes, depth + 1) for item in value]
    if isinstance(value, dict):
        return {clean_text(key): _clean(item, nodes, depth + 1) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        raise Unparsable("The body holds a number that is out of range.")
    return value


def clean_text(text: str) -> str:
    """Without lone surrogates and NULs."""
    if "\x00" in text:
        text = text.replace("\x00", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


_PROJECTS = re.compile(r'"project(?:Id)?"\s{0,20}:\s{0,20}("[^"\\]*(?:\\.[^"\\]*)*")')


def names_project(raw: bytes, name: str) -> bool:
    """Does a body, of which nothing else may be known, say that it is about this project?"""
    for text in _PROJECTS.findall(raw.decode("utf-8", "replace")):
        try:
            if json.loads(text, strict=False).strip() == name:
                return True
        except json.JSONDecodeError:
            continue
    return False
