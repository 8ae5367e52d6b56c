"""Secrets that slip into log lines are cut out before they are stored or sent. Shapes only; nothing is guessed.

Every expression reads a character a bounded number of times, whatever the text: runs are matched possessively and
consumed even where they turn out to be harmless. (Single characters only: Python before 3.11.5, Debian 12's among
them, matches possessive groups wrongly, gh-106052.)
"""

from __future__ import annotations

import re

MARK = "[redacted]"

_SHAPES = re.compile(
    r"""
      sct_[0-9a-f]{12}_[A-Za-z0-9_-]{20,}+                         # our own tokens
    | smk_[A-Za-z0-9_-]{20,255}+                                   # and bots' keys
    | whs_[0-9a-f]{12}_[A-Za-z0-9_-]{20,}+                         # and webhook secrets
    | gh[pousr]_[A-Za-z0-9]{20,255}+ | github_pat_[A-Za-z0-9_]{20,255}+
    | glpat-[A-Za-z0-9_-]{20,255}+
    | xox[abeoprs]-[A-Za-z0-9-]{10,255}+
    | \b(?:AKIA|ASIA)[0-9A-Z]{16}\b
    """,
    re.VERBOSE,
)
_KEY_BEGINS = re.compile(r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----")
_KEY_ENDS = re.compile(r"-----END [A-Z ]{0,30}KEY-----")
_KEY_CHARACTERS = 20_000
_JWT = re.compile(r"eyJ[A-Za-z0-9_-]{8,}+(\.[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,}+)?")
_HEADER = re.compile(
    r"(?i)\b(authorization[\"']?\s{0,4}[:=]\s{0,4}[\"']?(?:bearer|token|basic)\s{1,4})[A-Za-z0-9._~+/=-]{6,}+"
)
_PARAMETER = re.compile(r"(?i)([?&](?:token|api_key|access_token|apikey)=)[^&\s\"'<>#]++")
_USERINFO = re.compile(r"(?i)\b([a-z][a-z0-9+.-]{1,20}+://[^\s/:@]{0,100}+:)[^\s/@]{1,200}+(?=@)")

_MARKERS = re.compile(
    r"""
      _ (?: (?<=sct_) | (?<=smk_) | (?<=whs_) | (?<=gh[pousr]_) | (?<=github_pat_) )
    | - (?: (?<=glpat-) | (?<=xox[abeoprs]-) | ----BEGIN )
    | I(?<=AKI)A | I(?<=ASI)A | J(?<=eyJ)
    | ://
    | = (?: (?<=(?i:token)=) | (?<=(?i:api_key)=) | (?<=(?i:apikey)=) )
    | z(?<=(?i:authoriz))(?i:ation) | Z(?<=(?i:authoriz))(?i:ation)
    """,
    re.VERBOSE,
)
"""What some part of every shape above looks like. Each alternative begins with a character that is rare in text and
looks back from there, so that `re` skips all others: ten times as fast as from the front."""


def redact(text: str) -> str:
    """The text with token shapes replaced by `[redacted]`. Costs a single scan where there is none."""
    if _MARKERS.search(text) is None:
        return text
    text = _without_keys(_SHAPES.sub(MARK, text))
    text = _JWT.sub(lambda match: MARK if match[1] else match[0], text)
    text = _HEADER.sub(rf"\1{MARK}", text)
    text = _PARAMETER.sub(rf"\1{MARK}", text)
    return _USERINFO.sub(rf"\1{MARK}", text)


def _without_keys(text: str) -> str:
    """Private keys in PEM, up to their end line; one that is cut off, up to the next line of dashes."""
    parts, at = [], 0
    while (begin := _KEY_BEGINS.search(text, at)) is not None:
        parts += [text[at : begin.start()], MARK]
        most = min(begin.end() + _KEY_CHARACTERS, len(text))
        dashes = text.find("-----", begin.end(), most)
        end = None if dashes < 0 else _KEY_ENDS.match(text, dashes)
        at = end.end() if end is not None else most if dashes < 0 else dashes
    return "".join([*parts, text[at:]])


def redact_tree(value: object) -> object:
    """The same for every text inside lists and objects; keys stay. The value's depth is bounded by its reader."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        return [redact_tree(item) for item in value]
    if isinstance(value, dict):
        return {key: redact_tree(item) for key, item in value.items()}
    return value
