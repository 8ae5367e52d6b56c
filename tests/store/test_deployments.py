"""Filters of the list of deployments."""

from __future__ import annotations

import pytest

from sidecar.domain.deployments import Deployment
from sidecar.store.deployments import DeploymentFilter, insert_deployment, insert_project, list_deployments

OLD, YOUNG, BEFORE = "2026-11-01T00:00:00.000Z", "2026-11-21T00:00:00.000Z", "2026-11-20T00:00:00.000Z"


def deployment(id: str, status: str, last_at: str) -> Deployment:
    return Deployment(
        deployment_id=id,
        attempt=1,
        project="shop",
        source=None,
        status=status,
        reported_status=None,
        status_at=last_at,
        first_at=OLD,
        last_at=last_at,
    )


@pytest.mark.parametrize(
    ("statuses", "found"),
    [
        (("running",), {"young"}),
        (("unknown",), {"old", "unknown"}),
        (("success",), {"over"}),
        (("running", "success"), {"young", "over"}),
        ((), {"young", "old", "unknown", "over"}),
    ],
)
def test_a_stale_deployment_is_found_as_what_it_is_shown_as(store, statuses, found):
    """`status=running` used to list deployments that the answer itself called unknown (stale)."""

    def fill(transaction):
        insert_project(transaction.connection, "shop", YOUNG)
        states = [
            deployment("young", "running", YOUNG),
            deployment("old", "running", OLD),
            deployment("unknown", "unknown", YOUNG),
            deployment("over", "success", OLD),
        ]
        for number, state in enumerate(states, 1):
            insert_deployment(transaction.connection, state, number)

    store.writer.submit(fill)
    wanted = DeploymentFilter(statuses=statuses, stale_before=BEFORE)
    rows = store.database.read(lambda c: list_deployments(c, wanted, None, 0, 10))
    assert {row.state.deployment_id for row in rows} == found
