"""The alert rules: promtool takes them, each fires when it should and is silent before, and all that they and the
docs name is exposed by a running sidecar."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from sidecar.domain.authorizations import REASONS
from sidecar.observability.lark_metrics import CALL_OUTCOMES, CALLBACK_OUTCOMES
from sidecar.observability.metrics import FAILURES, Metrics
from sidecar.sockets.errors import REFUSALS
from tests.programs import require

ROOT = Path(__file__).resolve().parent.parent.parent
RULES = ROOT / "config" / "prometheus" / "alerts.yml"
SCRAPE = ROOT / "config" / "prometheus" / "prometheus.yml"
CASES = sorted(Path(__file__).parent.glob("*alerts*_test.yml"))
PAGE = ROOT / "docs" / "monitoring.md"
RULES_TEXT = RULES.read_text()
PREFIXES = ("sidecar_", "lark_service_", "process_", "python_")


def promtool(*arguments: str, given: str = "") -> str:
    done = subprocess.run(
        [require("promtool"), *arguments], input=given, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def alerts() -> list[str]:
    return re.findall(r"- alert: (\w+)", RULES_TEXT)


def exposed(text: str) -> dict[str, str]:
    """Type of each metric in an exposition text."""
    return dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))


def test_promtool_takes_the_rules_and_the_example():
    assert f"{len(alerts())} rules found" in promtool("check", "rules", str(RULES))
    promtool("check", "config", str(SCRAPE))


@pytest.mark.parametrize("cases", CASES, ids=lambda path: path.name)
def test_each_alert_fires_when_it_should_and_is_silent_before(cases: Path):
    promtool("test", "rules", str(cases))


def test_each_alert_has_a_case_in_which_it_fires():
    cases = "".join(file.read_text() for file in CASES)
    fired = set(re.findall(r'alertname="(\w+)", alertstate="firing"', cases))
    fired |= set(re.findall(r"- alertname: (\w+)\n +eval_time: \w+\n +exp_alerts:\n", cases))
    assert fired == set(alerts())


def test_each_alert_says_how_bad_it_is_and_what_to_do():
    rules = RULES_TEXT.split("- alert: ")[1:]
    assert len(rules) == len(alerts()) > 10
    for rule in rules:
        assert re.search(r"severity: (warning|critical)\n", rule), rule
        for field in ("summary", "description"):
            assert re.search(rf"^          {field}: \S", rule, re.MULTILINE), rule


def test_every_metric_of_the_rules_is_exposed(sidecar):
    """A rule about a metric that doesn't exist never fires."""
    types = exposed(sidecar.get("/metrics", token="").text)
    named = set(re.findall(r"\b(?:sidecar|lark_service|process)_[a-z_]+", RULES_TEXT))
    assert len(named) > 10
    histograms = {name for name, type in types.items() if type == "histogram"}
    families = {
        name.removesuffix("_bucket").removesuffix("_count") if name.rpartition("_")[0] in histograms else name
        for name in named
    }
    assert families - set(types) == set()


def test_every_label_value_of_the_rules_exists():
    for values in re.findall(r'sockets_failed_total\{reason=~?"([^"]+)"', RULES_TEXT):
        assert set(values.split("|")) <= set(FAILURES)
    codes = {refusal.code for refusal in REFUSALS.values()}
    outcomes = re.findall(r'sidecar_lark_callbacks_total\{outcome=~?"([^"]+)"', RULES_TEXT)
    for word in "|".join(outcomes).split("|"):
        assert any(re.fullmatch(word, known) for known in CALLBACK_OUTCOMES), word
    for value in re.findall(r'sidecar_lark_requests_total\{outcome="([^"]+)"', RULES_TEXT):
        assert value in CALL_OUTCOMES
    for value in re.findall(r'auth_failure_total\{reason="([^"]+)"', RULES_TEXT):
        assert value in REASONS
    for values in re.findall(r'socket_errors_total\{code=~?"([^"]+)"', RULES_TEXT):
        assert set(values.split("|")) <= codes


@pytest.mark.parametrize("file", [RULES, PAGE], ids=lambda path: path.name)
def test_every_setting_that_is_named_exists(file: Path):
    settings = (ROOT / "docs" / "settings.md").read_text()
    named = set(re.findall(r"\bSIDECAR_[A-Z_]+", file.read_text()))
    assert {name for name in named if f"`{name}`" not in settings} == set()


def test_promtool_finds_nothing_wrong_with_the_figures(sidecar):
    """Of ours; names of Python's own collectors are not ours to choose."""
    text = sidecar.get("/metrics", token="").text
    ours = [block for block in text.split("# HELP ") if block.startswith("sidecar_") and "_created " not in block[:80]]
    promtool("check", "metrics", given="".join(f"# HELP {block}" for block in ours))


def test_the_page_has_a_row_for_each_metric_and_no_other():
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", PAGE.read_text(), re.MULTILINE)
    listed = [name for row in rows for name in re.findall(r"\w+", row) if name.startswith(PREFIXES)]
    names = {family.name + ("_total" if family.type == "counter" else "") for family in Metrics().registry.collect()}
    assert sorted(listed) == sorted(names)
    assert len(PAGE.read_text().splitlines()) <= 120


def test_the_page_says_what_each_failure_and_each_alert_is():
    text = PAGE.read_text()
    assert [reason for reason in FAILURES if f"| `{reason}` |" not in text] == []
    assert [alert for alert in alerts() if alert not in text] == []
