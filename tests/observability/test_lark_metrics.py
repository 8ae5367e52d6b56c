"""The figures of authorizations: those of the original by name and label, and ours."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from sidecar.domain.authorizations import METHODS, REASONS, STATES
from sidecar.domain.errors import ProviderUnavailable, WrongUser
from sidecar.observability.lark_metrics import CALL_OUTCOMES, ENDPOINTS, LarkMetrics
from sidecar.observability.metrics import Metrics

ORIGINALS = {
    "lark_service_websocket_connection_status": ("gauge", {"app_id"}),
    "lark_service_websocket_reconnect_total": ("counter", {"app_id", "outcome"}),
    "lark_service_auth_session_total": ("counter", {"app_id", "auth_method"}),
    "lark_service_auth_session_active": ("gauge", {"app_id"}),
    "lark_service_auth_session_expired_total": ("counter", {"app_id"}),
    "lark_service_auth_success_total": ("counter", {"app_id", "auth_method"}),
    "lark_service_auth_failure_total": ("counter", {"app_id", "auth_method", "reason"}),
    "lark_service_auth_duration_seconds": ("histogram", {"app_id", "auth_method"}),
    "lark_service_token_refresh_total": ("counter", {"app_id", "outcome"}),
    "lark_service_token_active_count": ("gauge", {"app_id"}),
}


class Bench:
    """Metrics with a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.registry = CollectorRegistry()
        self.lark = LarkMetrics(self.registry, lambda: self.now)
        self.lark.serve({"cli_a"})

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def link(self, connected: bool = True, started_at: float = 1000.0, **reconnects: int) -> None:
        self.lark.link(
            "cli_a",
            connected=connected,
            reconnects=reconnects,
            started_at=started_at,
            heard_at=self.now,
            heartbeat_seconds=30,
        )

    @property
    def connected(self) -> float | None:
        self.lark.serve({"cli_a"})
        return self.value("lark_service_websocket_connection_status", app_id="cli_a")

    def attempts(self) -> float | None:
        return self.value("lark_service_websocket_reconnect_total", app_id="cli_a", outcome="attempt")


@pytest.fixture
def bench() -> Bench:
    return Bench()


def exposed(metrics: Metrics) -> dict[str, tuple[str, set[str]]]:
    """Type and labels of each metric that has a sample, by the name that Prometheus stores."""
    found = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        if family.samples and not family.name.endswith("_created"):
            name = family.name + ("_total" if family.type == "counter" else "")
            found[name] = (family.type, {key for sample in family.samples for key in sample.labels} - {"le"})
    return found


def test_the_originals_metrics_are_exposed_by_their_names_types_and_labels():
    """Dashboards and alerts that were made for the original ask for exactly these."""
    metrics = Metrics()
    metrics.lark.serve({"cli_a"})
    metrics.lark.link("cli_a", connected=True, reconnects={}, started_at=0, heard_at=0, heartbeat_seconds=30)
    metrics.lark.stock({}, {}, {})
    found = exposed(metrics)
    assert {name: found.get(name) for name in ORIGINALS} == ORIGINALS
    assert {name for name in found if name.startswith("lark_service_")} == set(ORIGINALS)


def test_the_durations_have_the_originals_buckets(bench):
    bench.lark.completed("cli_a", "oauth", 12)
    buckets = {
        sample.labels["le"]: sample.value
        for family in bench.registry.collect()
        for sample in family.samples
        if sample.name == "lark_service_auth_duration_seconds_bucket" and sample.labels["auth_method"] == "oauth"
    }
    assert [float(bound) for bound in buckets] == [1, 2.5, 5, 10, 15, 30, 60, float("inf")]
    assert list(buckets.values()) == [0, 0, 0, 0, 1, 1, 1, 1]


def test_an_installation_without_an_app_has_no_figures_of_one():
    found = exposed(Metrics())
    assert [name for name in found if name.startswith("lark_service_")] == []
    assert found["sidecar_lark_apps"] == ("gauge", set())


def test_each_app_has_its_zeros_from_the_beginning(bench):
    """The first failure is a rate only if there was a zero before it."""
    for method in METHODS:
        assert bench.value("lark_service_auth_success_total", app_id="cli_a", auth_method=method) == 0
        for reason in REASONS:
            labels = {"app_id": "cli_a", "auth_method": method, "reason": reason}
            assert bench.value("lark_service_auth_failure_total", **labels) == 0
    for endpoint in ENDPOINTS:
        for outcome in CALL_OUTCOMES:
            assert bench.value("sidecar_lark_requests_total", endpoint=endpoint, outcome=outcome) == 0
    for outcome in ("success", "failure"):
        assert bench.value("lark_service_token_refresh_total", app_id="cli_a", outcome=outcome) == 0


def test_an_app_that_is_gone_takes_its_figures_along(bench):
    """Else the last figures of a removed app would alarm for ever."""
    bench.lark.stock({}, {"cli_a": 3}, {"cli_a": 4})
    bench.link()
    bench.lark.serve({"cli_b"})
    bench.lark.stock({}, {"cli_a": 3}, {"cli_a": 4})
    labels = {
        sample.labels.get("app_id")
        for family in bench.registry.collect()
        for sample in family.samples
        if family.name.startswith("lark_service_")
    }
    assert labels == {"cli_b"}
    assert bench.value("sidecar_lark_apps") == 1


def test_what_became_of_authorizations_is_counted(bench):
    bench.lark.begun("cli_a", "oauth")
    bench.lark.completed("cli_a", "oauth", 4)
    bench.lark.failed("cli_a", "oauth", "wrong_user")
    bench.lark.failed("cli_a", "oauth", "a reason of tomorrow")
    bench.lark.expired("cli_a", 2)
    bench.lark.refreshed("cli_a", ok=False)
    labels = {"app_id": "cli_a", "auth_method": "oauth"}
    assert bench.value("lark_service_auth_session_total", **labels) == 1
    assert bench.value("lark_service_auth_success_total", **labels) == 1
    assert bench.value("lark_service_auth_duration_seconds_sum", **labels) == 4
    assert bench.value("lark_service_auth_failure_total", **labels, reason="wrong_user") == 1
    assert bench.value("lark_service_auth_failure_total", **labels, reason="unknown_error") == 1
    assert bench.value("lark_service_auth_session_expired_total", app_id="cli_a") == 2
    assert bench.value("lark_service_token_refresh_total", app_id="cli_a", outcome="failure") == 1
    assert bench.value("lark_service_token_refresh_total", app_id="cli_a", outcome="success") == 0


def test_what_is_not_known_yet_is_no_zero(bench):
    """After a restart "no user has a token" would be an alarm, and wrong."""
    assert bench.value("lark_service_token_active_count", app_id="cli_a") is None
    assert bench.value("lark_service_auth_session_active", app_id="cli_a") is None


def test_the_stock_falls_to_zero_where_nothing_is_left(bench):
    bench.lark.stock({"pending": 2, "completed": 5}, {"cli_a": 2}, {"cli_a": 5, "cli_unknown": 1})
    assert bench.value("lark_service_auth_session_active", app_id="cli_a") == 2
    assert bench.value("lark_service_token_active_count", app_id="cli_a") == 5
    assert bench.value("lark_service_token_active_count", app_id="cli_unknown") is None
    bench.lark.stock({"completed": 5}, {}, {})
    assert [bench.value("sidecar_authorization_rows", state=state) for state in STATES] == [0, 5, 0, 0]
    assert bench.value("lark_service_auth_session_active", app_id="cli_a") == 0
    assert bench.value("lark_service_token_active_count", app_id="cli_a") == 0


@pytest.mark.parametrize(
    ("problem", "outcome"),
    [
        (ProviderUnavailable("it doesn't answer"), "unavailable"),
        (WrongUser("it says no"), "refused"),
        (KeyError("ours"), "failed"),
    ],
)
def test_a_call_is_counted_by_how_it_ended(bench, problem, outcome):
    with bench.lark.call("person"):
        pass
    with pytest.raises(type(problem)), bench.lark.call("person"):
        raise problem
    counted = {
        word: bench.value("sidecar_lark_requests_total", endpoint="person", outcome=word) for word in CALL_OUTCOMES
    }
    assert counted == {**dict.fromkeys(CALL_OUTCOMES, 0.0), "ok": 1.0, outcome: 1.0}
    assert bench.value("sidecar_lark_request_duration_seconds_count", endpoint="person") == 2


def test_the_first_failure_of_a_handler_is_an_increase(bench):
    bench.lark.handle(["approval_instance"])
    assert bench.value("sidecar_lark_handlers_failed_total", handler="approval_instance") == 0
    bench.lark.handler_failed("approval_instance")
    assert bench.value("sidecar_lark_handlers_failed_total", handler="approval_instance") == 1


def test_callbacks_and_cards_are_counted_by_what_became_of_them(bench):
    bench.lark.callback("http", "refused_replay")
    bench.lark.callback("websocket", "handled")
    bench.lark.card_updated(ok=False)
    bench.lark.token_used()
    assert bench.value("sidecar_lark_callbacks_total", transport="http", outcome="refused_replay") == 1
    assert bench.value("sidecar_lark_callbacks_total", transport="http", outcome="handled") == 0
    assert bench.value("sidecar_lark_callbacks_total", transport="websocket", outcome="handled") == 1
    assert bench.value("sidecar_lark_card_updates_total", outcome="failed") == 1
    assert bench.value("sidecar_authorization_token_uses_total") == 1


def test_times_of_the_clean_up_and_the_sync_are_unix_times(bench):
    assert bench.value("sidecar_authorization_cleanup_timestamp_seconds") == 0
    bench.lark.cleaned_up()
    bench.now = 2000
    bench.lark.people_synced()
    assert bench.value("sidecar_authorization_cleanup_timestamp_seconds") == 1000
    assert bench.value("sidecar_lark_user_info_sync_timestamp_seconds") == 2000


def test_the_long_connection_is_up_until_three_heartbeats_are_missed(bench):
    assert bench.connected is None, "an app without a long connection has no status that could alarm"
    bench.link()
    bench.now += 89
    assert bench.connected == 1
    bench.now += 1
    assert bench.connected == 0
    bench.link()
    assert bench.connected == 1
    bench.link(connected=False)
    assert bench.connected == 0


def test_one_of_two_long_connections_is_enough(bench):
    bench.link(started_at=1000)
    bench.link(started_at=1001, connected=False)
    assert bench.connected == 1


def test_reconnects_are_counted_once_each(bench):
    """Each heartbeat tells the sum since its process began."""
    bench.link(attempt=1)
    bench.link(attempt=3, success=1)
    bench.link(attempt=3, success=1)
    assert bench.attempts() == 3
    bench.link(started_at=1050, attempt=2)
    bench.link(started_at=1000, attempt=4)
    assert bench.attempts() == 6
    assert bench.value("lark_service_websocket_reconnect_total", app_id="cli_a", outcome="success") == 1


def test_our_restart_does_not_count_old_reconnects_again(bench):
    bench.link(started_at=500, attempt=70)
    bench.link(started_at=500, attempt=71)
    assert bench.attempts() == 1


def test_a_long_connection_that_was_given_up_is_forgotten_after_a_day(bench):
    """Else its alarm would not end before the next restart, and memory would grow with each start of lark-events."""
    bench.link(attempt=1)
    bench.now += 24 * 3600
    assert bench.connected == 0
    bench.now += 2 * 3600
    assert bench.connected is None
    bench.link(started_at=bench.now, attempt=1)
    assert bench.connected == 1
    assert bench.attempts() == 2


def test_what_is_told_again_counts_nothing(bench):
    """Each look at the database tells all processes of the last day, of which there may be many."""
    for _look in range(3):
        for number in range(200):
            bench.link(started_at=1000 + number, attempt=1)
    assert bench.attempts() == 200
