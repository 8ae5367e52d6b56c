"""A sidecar that has something of everything, with a platform beside it on which users have authorized."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lark.flow import Flow

NAME = "known"


@pytest.fixture
def furnished(tmp_path) -> Iterator[Flow]:
    """All that has a name is called `known`."""
    with Flow(tmp_path / "sidecar") as flow:
        server = flow.server
        body = {"project": NAME, "deployment_id": NAME, "step_name": "build", "step_status": "started"}
        for message in ({"type": "step_started"}, {"type": "log_batch", "logs": ["one", "two"]}):
            assert server.post("/api/webhooks/deployment", {**message, **body}).status_code == 200
        assert server.post("/api/webhooks/deployment", {"type": "metrics_update", "project": NAME}).status_code == 400
        assert server.post("/api/start-live-push/", {"room": NAME, "interval": 3600}).status_code == 200
        for path, content in (
            (f"/api/menu/{NAME}", {"name": "Known"}),
            (f"/api/roles/{NAME}", {}),
            (f"/api/users/{NAME}/roles", {"roles": [NAME]}),
        ):
            assert server.request("PUT", path, json=content).status_code == 200
        flow.authorized(NAME)
        yield flow
