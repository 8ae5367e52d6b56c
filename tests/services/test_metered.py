"""A metered provider passes everything on as it is, and counts what goes over the network."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from sidecar.domain.errors import TokenRefreshFailed
from sidecar.observability.lark_metrics import ENDPOINTS, LarkMetrics
from sidecar.services.metered import Metered
from sidecar.services.providers import Provider

METHODS = [name for name, _ in inspect.getmembers(Provider, inspect.isfunction) if not name.startswith("_")]


class Inner:
    """Takes any call, and gives back what it was called with; raises `problem` if there is one."""

    problem: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        def called(*arguments: Any) -> Any:
            if self.problem:
                raise self.problem
            return name, arguments

        return called


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def arguments_of(method: str) -> list[str]:
    return [name for name in inspect.signature(getattr(Provider, method)).parameters if name != "self"]


def test_all_calls_over_the_network_are_those_of_the_metric():
    assert set(ENDPOINTS) < set(METHODS)
    assert len(METHODS) > 10


@pytest.mark.parametrize("method", METHODS)
def test_each_call_goes_through_with_all_its_arguments(registry, method):
    metered = Metered(Inner(), LarkMetrics(registry))  # type: ignore[arg-type]
    given = arguments_of(method)
    answer = getattr(metered, method)(*given)
    assert answer == (None if method == "update_card" else (method, tuple(given)))
    counted = {
        name: registry.get_sample_value("sidecar_lark_requests_total", {"endpoint": name, "outcome": "ok"})
        for name in ENDPOINTS
    }
    assert counted == {name: float(name == method) for name in ENDPOINTS}


def test_a_refusal_goes_through_and_is_counted(registry):
    inner = Inner()
    inner.problem = TokenRefreshFailed("no more")
    with pytest.raises(TokenRefreshFailed):
        Metered(inner, LarkMetrics(registry)).refresh(None, "r")  # type: ignore[arg-type]
    labels = {"endpoint": "refresh", "outcome": "refused"}
    assert registry.get_sample_value("sidecar_lark_requests_total", labels) == 1
