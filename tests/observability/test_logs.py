"""The shape of log lines: masked whatever form a secret comes in, and bounded when input is bad."""

from __future__ import annotations

import json
import logging

import pytest
import structlog

from sidecar.observability.logs import RateLimited, configure_logs

TOKEN = f"sct_{'a' * 12}_{'S' * 43}"
KEPT = "S" * 43


@pytest.fixture(autouse=True)
def _as_before():
    """Give the process its logging back."""
    levels = {name: logging.getLogger(name).level for name in ("engineio", "socketio", "geventwebsocket", "alembic")}
    yield
    structlog.reset_defaults()
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def lines(capsys) -> list[str]:
    return capsys.readouterr().out.splitlines()


VALUES = [
    {"text": TOKEN},
    {"text": f"GET /x?token={KEPT} HTTP/1.1"},
    {"text": f"Authorization: Bearer {KEPT}"},
    {"text": f"postgresql://me:{KEPT}@db/x"},
    {"nested": {"deep": [{"er": TOKEN}]}},
    {"listed": [TOKEN, 1, None]},
]


@pytest.mark.parametrize("format", ["console", "json"])
@pytest.mark.parametrize("values", VALUES)
def test_secrets_are_masked_wherever_they_stand(capsys, format, values):
    configure_logs("info", format)
    structlog.get_logger("test").info(f"said {TOKEN}", **values)
    (line,) = lines(capsys)
    assert KEPT not in line
    assert "[redacted]" in line


@pytest.mark.parametrize("format", ["console", "json"])
def test_a_traceback_is_masked_too(capsys, format):
    """An exception's text often repeats what it was given."""
    configure_logs("info", format)
    try:
        raise ValueError(f"bad header {TOKEN}")
    except ValueError as error:
        structlog.get_logger("test").error("failed", exc_info=error)
    text = "\n".join(lines(capsys))
    assert "ValueError: bad header [redacted]" in text
    assert KEPT not in text


def test_json_is_one_object_a_line(capsys):
    configure_logs("info", "json")
    structlog.contextvars.bind_contextvars(request_id="r1")
    try:
        structlog.get_logger("test").warning("two\nlines", who="Ünal")
    finally:
        structlog.contextvars.clear_contextvars()
    (line,) = lines(capsys)
    parsed = json.loads(line)
    assert parsed.pop("timestamp").endswith("Z")
    assert parsed == {"event": "two\nlines", "who": "Ünal", "level": "warning", "request_id": "r1"}
    assert "Ünal" in line


@pytest.mark.parametrize(("level", "count"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_lines_below_the_level_are_not_written(capsys, level, count):
    configure_logs(level, "console")
    log = structlog.get_logger("test")
    for write in (log.debug, log.info, log.warning, log.error):
        write("line")
    assert len(lines(capsys)) == count


def test_a_flood_of_bad_input_is_one_line_and_a_count(capsys):
    """Bad input must not become a flood of log lines, and what was kept back is said."""
    configure_logs("info", "json")
    now = [100.0]
    limited = RateLimited(structlog.get_logger("test"), seconds=10, clock=lambda: now[0])
    for _ in range(50):
        limited.warning("bad.packet")
    limited.warning("bad.frame")
    now[0] += 10
    limited.warning("bad.packet")
    told = [(line["event"], line["kept_back"]) for line in map(json.loads, lines(capsys))]
    assert told == [("bad.packet", 0), ("bad.frame", 0), ("bad.packet", 49)]
