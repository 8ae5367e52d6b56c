"""The Grafana dashboard: in the shape that Grafana's provisioning reads, with the original's panels, and asking only
for what is exposed."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.observability.metrics import Metrics
from tests.observability.test_alerts import promtool

FOLDER = Path(__file__).resolve().parent.parent.parent / "config" / "grafana"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "lark-service-websocket-auth.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TARGETS = [target for panel in PANELS for target in panel["targets"]]
EXPRESSIONS = [target["expr"] for target in TARGETS]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
ORIGINALS = [
    "WebSocket Connection Status",
    "Reconnect Rate",
    "Active Auth Sessions",
    "Active Tokens",
    "Auth Success Rate",
    "Auth Failure Rate by Reason",
    "Auth Duration p95",
    "Token Refresh Rate",
]


def samples() -> dict[str, set[str]]:
    """Labels of each series that our registry can have, by name."""
    metrics = Metrics()
    metrics.lark.serve({"cli_a"})
    metrics.lark.handle(["h"])
    metrics.lark.stock({}, {}, {})
    metrics.lark.link("cli_a", connected=True, reconnects={}, started_at=0, heard_at=0, heartbeat_seconds=30)
    return {sample.name: set(sample.labels) for family in metrics.registry.collect() for sample in family.samples}


def names_of(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:sidecar|lark_service)_\w+", expression))


def test_it_is_the_originals_dashboard_by_uid_and_panels():
    assert DASHBOARD["uid"] == "lark-service-websocket-auth"
    assert [panel["title"] for panel in PANELS[: len(ORIGINALS)]] == ORIGINALS


def test_it_has_the_shape_that_provisioning_takes():
    """A dashboard exported "for sharing" has __inputs, which only the import page fills in; one with an id overwrites
    somebody else's."""
    assert DASHBOARD["id"] is None
    assert DASHBOARD["title"]
    assert isinstance(DASHBOARD["schemaVersion"], int)
    assert not [key for key in DASHBOARD if key.startswith("__")]
    assert "dashboard" not in DASHBOARD, "that is the form of the HTTP API"
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids) > len(ORIGINALS)
    assert {panel["type"] for panel in DASHBOARD["panels"]} <= {"row", "timeseries", "stat"}


def test_every_panel_asks_the_chosen_source():
    """A uid of somebody's own Prometheus would show "data source not found" everywhere else."""
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    assert list(variables).index("datasource") < list(variables).index("app_id")
    assert variables["app_id"]["datasource"] == SOURCE
    assert [panel["title"] for panel in PANELS if panel["datasource"] != SOURCE] == []
    assert [target["expr"] for target in TARGETS if target["datasource"] != SOURCE] == []
    for panel in PANELS:
        letters = [target["refId"] for target in panel["targets"]]
        assert letters
        assert len(set(letters)) == len(letters)


def test_no_panel_covers_another():
    places = [(panel["title"], panel["gridPos"]) for panel in DASHBOARD["panels"]]
    for _, place in places:
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24
    for (one, a), (other, b) in combinations(places, 2):
        apart = (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        )
        assert apart, (one, other)


def test_every_metric_and_label_that_is_asked_for_exists():
    known = samples()
    queries = [*EXPRESSIONS, *(v["definition"] for v in DASHBOARD["templating"]["list"] if v["type"] == "query")]
    for expression in queries:
        names = names_of(expression)
        assert names
        assert names <= set(known), expression
        labels = set().union(*(known[name] for name in names))
        asked = {label for labels in re.findall(r"by \(([^)]*)\)", expression) for label in labels.split(", ")}
        asked |= set(re.findall(r"[{,]\s*(\w+)=", expression))
        assert asked <= labels, expression
    for target in TARGETS:
        shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        grouped = ", ".join(re.findall(r"by \(([^)]*)\)", target["expr"])[-1:])
        assert shown <= set(grouped.split(", ")), target["expr"]


def test_every_figure_of_authorizations_is_shown():
    shown = {name for expression in EXPRESSIONS for name in names_of(expression)}
    families = {re.sub(r"_(bucket|count|sum)$", "", name) if "duration" in name else name for name in shown}
    ours = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in Metrics().registry.collect()
        if family.name.startswith(("lark_service_", "sidecar_lark_", "sidecar_authorization_"))
    }
    assert families == ours


def test_promtool_takes_every_expression(tmp_path):
    rules = []
    for number, expression in enumerate(EXPRESSIONS):
        plain = expression.replace("$__rate_interval", "5m").replace("$app_id", ".*")
        assert "$" not in plain
        rules.append({"record": f"panel:{number}", "expr": plain})
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(EXPRESSIONS)} rules found" in promtool("check", "rules", str(file))


@pytest.mark.parametrize("key", ["name", "type", "options"])
def test_the_provider_is_what_grafana_reads(key):
    provided = yaml.safe_load((FOLDER / "provisioning.yml").read_text())
    assert provided["apiVersion"] == 1
    assert [provider for provider in provided["providers"] if key not in provider] == []
    assert all(Path(provider["options"]["path"]).is_absolute() for provider in provided["providers"])
