"""The disk is full: posts are refused and nothing is half written, pages stay, and all goes on when there is room."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator

from tests.chaos.stage import ROUNDS, Stage
from tests.chaos.tally import check_gapless, connects
from tests.servers import RunningSidecar

LIMIT_BYTES = 100_000
"""Below the size of the database and of its log, above that of the server's output."""


@contextlib.contextmanager
def full_disk(server: RunningSidecar) -> Iterator[None]:
    """The running process can't write behind the first bytes of a file."""
    unlimited = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (LIMIT_BYTES, unlimited[1]))
    try:
        yield
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, unlimited)


def test_a_full_disk_refuses_posts_and_stops_nothing(start_sidecar):
    server: RunningSidecar = start_sidecar(SIDECAR_RATE_LIMIT="off")
    # Larger than what is left: SQLite begins its log anew now and then, and a small post may find room there.
    body = {"type": "log_entry", "project": "axi", "deployment_id": "axi-1", "message": "never" * LIMIT_BYTES}

    def refuses() -> bool:
        answer = server.post("/api/webhooks/deployment", body)
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert int(answer.headers["Retry-After"]) > 0
        return server.get("/readyz").status_code == 503

    with Stage([server.port], server) as stage:
        senders = stage.send()
        for _ in range(ROUNDS):
            stage.break_lines()
            stage.mend()
            stage.begin_late(0.5)
            stage.settled()
            before = stage.connects()
            with full_disk(server):
                refused = senders.refused
                stage.wait(lambda refused=refused: senders.refused > refused + 20, "posts are refused")
                stage.wait(refuses, "it says that it is not ready")
                stage.quiet()
                assert stage.connects() == before, "pages stay"
                stage.line.cut(0.2)
            stage.go_on()
        stage.break_lines()
        reports = stage.reckon("full disk")
    assert connects(reports)[0] > 0
    assert not any(page["truncated"] for page in reports.values())
    check_gapless(server.instance / "sidecar.db")
    assert "Traceback" not in server.output()
