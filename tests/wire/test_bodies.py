"""Bodies: what real senders post becomes an object, anything else a refusal with a reason, in linear time."""

from __future__ import annotations

import json
from contextlib import suppress
from urllib.parse import quote_plus

import pytest

from sidecar.domain.errors import Invalid, SidecarError, Unparsable, UnsupportedMedia
from sidecar.wire.bodies import MAX_DEPTH, MAX_NODES, parse_body
from tests.alarms import alarm

pytest.importorskip("hypothesis", reason="hypothesis is not installed (tests/requirements.txt)")

from hypothesis import given
from hypothesis import strategies as st

JSON = "application/json"
MEBIBYTE = 2**20


def body(raw: bytes | str, content_type: str | None = JSON) -> dict[str, object]:
    return parse_body(raw.encode() if isinstance(raw, str) else raw, content_type).value


def refused(raw: bytes | str, content_type: str | None = JSON) -> SidecarError:
    with pytest.raises(SidecarError) as raised:
        body(raw, content_type)
    return raised.value


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "application/json",
        "application/json; charset=utf-8",
        "APPLICATION/JSON",
        "text/json",
        "text/plain",
        "text/plain;charset=UTF-8",
        "application/problem+json",
        "application/vnd.ci.v1+json",
        "application/x-www-form-urlencoded",
        "application/octet-stream",
    ],
)
def test_json_under_the_types_that_scripts_send(content_type):
    assert body('{"a": 1}', content_type) == {"a": 1}


@pytest.mark.parametrize(
    "content_type", ["application/xml", "text/html", "multipart/form-data; boundary=x", "json", "*/*"]
)
def test_other_types_are_told_what_to_send(content_type):
    error = refused('{"a": 1}', content_type)
    assert isinstance(error, UnsupportedMedia)
    assert error.detail == "Send application/json."


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"\xef\xbb\xbf" + b'{"a": 1}', {"a": 1}),
        (b' \r\n {"a": 1}\n\n', {"a": 1}),
        (b"{}", {}),
        ('{"状态": "成功 ✅"}'.encode(), {"状态": "成功 ✅"}),
        (b'{"a": "\\ud83d\\ude00"}', {"a": "😀"}),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b'{"a": "\\u0000x"}', {"a": "\ufffdx"}),
        (b'{"a": "x\\ud800y"}', {"a": "x\ufffdy"}),
        (b'{"\\udc00": ["\\ud800"]}', {"\ufffd": ["\ufffd"]}),
        (b'{"a": 1e308, "b": -0.5, "c": ' + b"9" * 4_000 + b"}", {"a": 1e308, "b": -0.5, "c": 10**4_000 - 1}),
        (b'{"a": "[[[[{{{{ \\" ' + b"[" * 100 + b'"}', {"a": '[[[[{{{{ " ' + "[" * 100}),
    ],
)
def test_json_as_it_may_come(raw, value):
    parsed = parse_body(raw, JSON)
    assert parsed.value == value
    assert not parsed.repaired


def test_what_was_read_can_be_stored_and_sent():
    """Protects the journal and every browser from text that UTF-8 or PostgreSQL can't hold."""
    text = json.dumps(body('{"a": "\\ud800\\u0000", "\\udfff": {"b": ["\\udc00"]}}'), ensure_ascii=False)
    assert "\x00" not in text.encode().decode()


LINES = [
    "plain text",
    "",
    'he said "hi"',
    "C:\\temp\\new",
    "ends with a backslash\\",
    '"',
    '""',
    "\\",
    "tab\there",
    "成功 ✅ 👨‍👩‍👧",
    '{"json": ["x"]}',
    '"message": ""x""',
    "\x1b[31mred\x1b[0m",
    "[" * 100,
    "{" * 100,
    "}}]]",
    "NaN",
    "'single'",
    "x" * 5_000,
]


@pytest.mark.parametrize("field", ["message", "logs", "step_logs", "error_message", "errorMessage"])
@pytest.mark.parametrize("line", LINES)
def test_a_line_that_was_quoted_twice_is_repaired(line, field):
    """Protects each log line of the guide's workflow: `"message": "$(jq -R -s .)"` puts quotes into quotes. (A line
    of brackets used to be refused as nested too deeply.)"""
    quoted = json.dumps(line + "\n", ensure_ascii=False)
    parsed = parse_body(
        f'{{\n  "type": "log_entry",\n  "{field}": "{quoted}",\n  "source": "workflow"\n}}'.encode(), JSON
    )
    assert parsed.repaired
    assert parsed.value == {"type": "log_entry", field: line + "\n", "source": "workflow"}


@pytest.mark.parametrize("line", LINES)
def test_valid_json_is_never_repaired(line):
    value = {"message": line, "logs": f'"message": ""{line}""', "errorMessage": ""}
    parsed = parse_body(json.dumps(value).encode(), JSON)
    assert parsed.value == value
    assert not parsed.repaired


def test_raw_line_ends_and_tabs_in_a_string_are_taken():
    parsed = parse_body(b'{"logs": "one\ntwo\r\n\tthree"}', JSON)
    assert parsed.value == {"logs": "one\ntwo\r\n\tthree"}
    assert parsed.repaired


@pytest.mark.parametrize(
    ("raw", "where"),
    [
        ("", "Expecting value at line 1, column 1"),
        ("   ", "Expecting value at line 1, column 4"),
        ("hello", "Expecting value at line 1, column 1"),
        ('{"a": 1', "Expecting ',' delimiter at line 1, column 8"),
        ('{\n  "a": 1,\n}', "Expecting property name enclosed in double quotes at line 3, column 1"),
        ('{"a": 1} x', "Extra data at line 1, column 10"),
        ('{"logs": "he said "hi""}', "Expecting ',' delimiter at line 1, column 20"),
        ('{"a": "C:\\path"}', "Invalid \\escape at line 1, column 10"),
        ("{'a': 1}", "Expecting property name enclosed in double quotes at line 1, column 2"),
        ('{"duration": }', "Expecting value at line 1, column 14"),
    ],
)
def test_what_is_not_json_says_where(raw, where):
    error = refused(raw)
    assert isinstance(error, Unparsable)
    assert where in error.detail
    assert [field.message for field in error.fields] == [where]


@pytest.mark.parametrize("raw", ["[]", "[1]", '"text"', "1", "null", "true"])
def test_json_that_is_no_object(raw):
    error = refused(raw)
    assert isinstance(error, Invalid)
    assert [field.message for field in error.fields] == ["must be an object"]


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 5_000])
def test_numbers_that_json_or_a_browser_can_t_hold(word):
    for raw in (f'{{"a": {word}}}', f'{{"a": [{{"b": {word}}}]}}'):
        assert isinstance(refused(raw), Unparsable)


@pytest.mark.parametrize("raw", [b"\xff{}", b'{"a": "\xe9"}', b'{"a": "\xed\xa0\x80"}', '{"a": 1}'.encode("utf-16")])
def test_what_is_not_utf_8(raw):
    error = refused(raw)
    assert isinstance(error, Unparsable)
    assert error.detail.startswith("The body is not UTF-8")


@pytest.mark.parametrize(("open", "close"), [("[", "]"), ('{"a":', "}")])
def test_depth_is_bounded(open, close):
    assert body('{"a":' + open * (MAX_DEPTH - 1) + "1" + close * (MAX_DEPTH - 1) + "}")
    error = refused('{"a":' + open * MAX_DEPTH + "1" + close * MAX_DEPTH + "}")
    assert error.detail == f"The body is nested deeper than {MAX_DEPTH} levels."


def test_the_number_of_values_is_bounded():
    assert body(json.dumps({"a": [0] * (MAX_NODES - 2)}))
    assert isinstance(refused(json.dumps({"a": [0] * (MAX_NODES - 1)})), Invalid)


class TestForm:
    FORM = "application/x-www-form-urlencoded"

    def test_json_as_payload(self):
        raw = "payload=" + quote_plus('{"a": "b c&d=é+"}') + "&other=1"
        assert body(raw, self.FORM) == {"a": "b c&d=é+"}

    @pytest.mark.parametrize(
        "raw",
        [
            "payload=",
            "payload",
            "payload=%7B",
            "payload=%FF%FE",
            "payload=" + quote_plus('"text"'),
            "payload=%7B%7D" + "&a=1" * 200,
            "a=1&b=2",
        ],
    )
    def test_a_form_without_readable_payload(self, raw):
        assert isinstance(refused(raw, self.FORM), Invalid)

    def test_another_media_type_is_no_form(self):
        assert isinstance(refused("payload=%7B%7D", JSON), Unparsable)


def filled(unit: str, before: str = "", after: str = "") -> str:
    count = (MEBIBYTE - len(before) - len(after)) // len(unit.encode())
    return before + unit * count + after


HOSTILE = {
    "quotes": filled('"'),
    "quotes-in-object": filled('"', "{", "}"),
    "backslashes": filled("\\"),
    "backslashes-in-string": filled("\\", '{"a": "'),
    "escaped-quotes-unclosed": filled('\\"', '{"message": ""'),
    "unclosed-string": filled("a", '{"a": "'),
    "opening-brackets": filled("["),
    "opening-braces": filled('{"a":'),
    "closing-brackets": filled("]"),
    "brackets-and-quotes": filled('["'),
    "doubled-fields": filled('"message":""', "{"),
    "doubled-fields-with-text": filled('"message":""a'),
    "doubled-fields-escaped": filled('\\"message\\":\\"\\"', '{"a":"'),
    "doubled-fields-with-backslash": filled('"message":""\\"'),
    "names-without-value": filled('"message"'),
    "names-with-spaces": filled('"message"' + " " * 20),
    "names-with-colon": filled('"logs":'),
    "one-long-doubled-line": filled("x", '{"message": ""', '""}'),
    "one-long-unclosed-line": filled("x", '{"message": ""'),
    "spaces": filled(" "),
    "commas": filled(",", "{", "}"),
    "digits": filled("9", '{"a": ', "}"),
    "many-long-integers": filled("9" * 4_000 + ",", '{"a": [', "1]}"),
    "fractions": filled("0.1e1,", '{"a": [', "1]}"),
    "one-long-fraction": filled("0", '{"a": 0.', "}"),
    "many-keys": filled('"k":0,', "{", '"z":0}'),
    "surrogates": filled("\\ud800", '{"a": "', '"}'),
    "nulls": filled("\\u0000", '{"a": "', '"}'),
    "comments": filled("//\n", "{", "}"),
    "ampersands": filled("&", "payload="),
    "percent": filled("%7B", "payload="),
}


@pytest.mark.parametrize("content_type", [JSON, "application/x-www-form-urlencoded"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_megabyte_ends_quickly(kind, content_type):
    """Protects every other request: the parser runs on the event loop."""
    with alarm(), suppress(SidecarError):
        parse_body(HOSTILE[kind].encode(), content_type)


@pytest.mark.parametrize("unit", ["[", '{"a":', '[{"a":'])
def test_nesting_of_a_hundred_thousand_is_refused_before_any_recursion(unit):
    assert refused('{"a":' + unit * 100_000).detail == f"The body is nested deeper than {MAX_DEPTH} levels."


def test_an_error_never_repeats_what_came_in():
    for raw in ('{"a": hunter2}', '{"a": "hunter2', "hunter2", '["hunter2"]', b'{"a": "hunter2\xff'):
        error = refused(raw)
        assert "hunter2" not in error.detail + repr(error.fields)


@given(
    st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
)
def test_any_bytes_give_an_object_or_a_refusal(raw):
    for content_type in (JSON, "application/x-www-form-urlencoded", None):
        try:
            value = parse_body(raw, content_type).value
        except SidecarError:
            continue
        json.dumps(value, allow_nan=False)


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.text() | st.integers(), st.lists, max_leaves=5)))
def test_any_json_object_comes_back_as_it_was(value):
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return
    if "\x00" not in repr(value) and "\\x00" not in repr(value):
        assert body(json.dumps(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":2}', '{"b":[{"a":1,"a":1}]}', '{"a":1,"\\u0061":2}', '{"message":""x"","message":"y"}',
        '{"a":"x\\ny","a":2}', '\ufeff{"a":1,"a":2}',
    ],
)  # fmt: skip
def test_where_it_matters_no_field_is_named_twice(text: str):
    assert parse_body(text.encode(), None).value
    with pytest.raises(Invalid) as caught:
        parse_body(text.encode(), None, unique=True)
    assert not isinstance(caught.value, Unparsable)


@pytest.mark.parametrize("text", ['{"a":1,"b":{"a":1}}', '{"message": ""say [x\\n""}', '{"a":"x\ny"}', "payload={}"])
def test_where_it_matters_the_same_repairs_are_made(text: str):
    """What could only be read after a repair used to be looked through unrepaired, and failed as our own fault."""
    media = "application/x-www-form-urlencoded"
    assert parse_body(text.encode(), media, unique=True) == parse_body(text.encode(), media)
