"""What badges say of a project."""

from __future__ import annotations

import pytest

from sidecar.domain.badges import AMBER, BLUE, GREEN, GREY, RED, Newest, last_badge, rate_badge, status_badge
from sidecar.domain.deployments import STATUSES

AT = "2026-11-21T06:16:56.162Z"


@pytest.mark.parametrize(
    ("status", "stale", "message", "colour"),
    [
        ("success", False, "success", GREEN),
        ("failed", False, "failed", RED),
        ("timed_out", False, "timed out", RED),
        ("running", False, "running", BLUE),
        ("waiting", False, "waiting", AMBER),
        ("cancelled", False, "cancelled", GREY),
        ("unknown", False, "unknown", GREY),
        ("unknown", True, "stale", GREY),
    ],
)
def test_the_status_is_that_of_the_newest_deployment(status, stale, message, colour):
    made = status_badge("shop", Newest("42", status, stale, AT))
    assert (made.label, made.message, made.colour) == ("deploy", message, colour)
    assert made.title == f"shop: deployment 42 is {message}"


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_has_a_badge(status):
    assert status_badge("shop", Newest("42", status, False, AT)).message == status.replace("_", " ")


def test_the_last_deployment_is_named_with_its_time():
    made = last_badge("shop", Newest("42", "failed", False, AT))
    assert (made.label, made.message, made.colour) == ("last deploy", "42 · 2026-11-21 06:16 UTC", RED)
    assert made.title == "shop: deployment 42 is failed, last heard of 2026-11-21 06:16 UTC"
    long = last_badge("shop", Newest("x" * 200, "success", False, AT))
    assert long.message.startswith(f"{'x' * 23}… · 2026")
    assert "x" * 200 in long.title


@pytest.mark.parametrize(
    ("succeeded", "failed", "message", "colour"),
    [
        (10, 0, "100 %", GREEN),
        (19, 1, "95 %", GREEN),
        (94, 6, "94 %", AMBER),
        (8, 2, "80 %", AMBER),
        (79, 21, "79 %", RED),
        (0, 1, "0 %", RED),
        (10**6, 1, "99 %", GREEN),
        (0, 0, "none", GREY),
    ],
)
def test_the_rate_says_what_it_covers_and_is_never_rounded_up(succeeded, failed, message, colour):
    made = rate_badge("shop", succeeded, failed)
    assert (made.label, made.message, made.colour) == ("deploy, 30 days", message, colour)


def test_a_project_without_deployments_has_badges_too():
    assert [made("shop", None).message for made in (status_badge, last_badge)] == ["none", "none"]
    assert {made("shop", None).title for made in (status_badge, last_badge)} == {"shop: no deployments"}
