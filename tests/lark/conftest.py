"""`flow` is a module's sidecar beside a local platform; at its end nothing secret may stand in the sidecar's output,
nor in clear text in its folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lark.flow import Flow


@pytest.fixture(scope="module")
def one_flow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flow]:
    with Flow(tmp_path_factory.mktemp("flow")) as flow:
        yield flow
        flow.server.stop()
        flow.check_nothing_told()


@pytest.fixture
def flow(one_flow: Flow) -> Flow:
    """All is well with the platform again."""
    one_flow.lark.mend()
    one_flow.lark.console.delivery = "http"
    return one_flow
