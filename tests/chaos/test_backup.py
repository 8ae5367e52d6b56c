"""A backup is put back: what came after it is gone, its numbers are given anew, and every page is told."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

from tests.chaos.stage import ROUNDS, Stage
from tests.chaos.tally import check_gapless
from tests.servers import RunningSidecar


def copy(database: Path, to: Path) -> int:
    """As an operator would while the server runs; the seq that the copy ends with."""
    with contextlib.closing(sqlite3.connect(database)) as running, contextlib.closing(sqlite3.connect(to)) as made:
        running.backup(made)
        return int(made.execute("SELECT max(seq) FROM events").fetchone()[0])


def put_back(backup: Path, database: Path) -> None:
    for suffix in ("-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    shutil.copyfile(backup, database)


def test_after_a_restored_backup_every_page_is_told(start_sidecar, tmp_path: Path):
    """Also those that come back when the new journal has long passed their offsets: the numbers are theirs, the events
    are not."""
    server: RunningSidecar = start_sidecar(SIDECAR_RATE_LIMIT="off")
    database, backup = server.instance / "sidecar.db", tmp_path / "backup.db"
    with Stage([server.port], server) as stage:
        for number in range(ROUNDS):
            senders = stage.send()
            stage.break_lines(2)
            stage.mend()
            stage.begin_late(1.0)
            safe = senders.texts
            at = copy(database, backup)
            stage.wait(
                lambda at=at: all(
                    room["last"] > at for page in stage.progress().values() for room in page["rooms"].values()
                ),
                "every page has something that the copy lacks",
            )
            senders.end()
            before = stage.connects()
            head = server.get("/api/info").json()["seq"]
            server.stop()
            put_back(backup, database)
            if number % 2:
                stage.line.targets = []
            server.start()
            kept = stage.stored_texts()
            assert safe <= kept, "what was answered before the copy is in it"
            stage.lost |= senders.texts - kept
            if number % 2:
                anew = stage.send()
                stage.wait(lambda head=head: server.get("/api/info").json()["seq"] > head + 20, "the head has passed")
                stage.line.targets = [server.port]
                anew.end()
            stage.wait(
                lambda before=before: all(
                    page["connected"] and page["connects"] > before[name] for name, page in stage.progress().items()
                ),
                "all pages are back",
            )
            stage.quiet()
            for name, page in stage.report().items():
                assert page["connects"][before[name] :] == [False], name
                assert page["truncated"] >= (number + 1) * len(page["rooms"]), name
        stage.send()
        stage.break_lines()
        reports = stage.reckon("restored backups")
    for name, page in reports.items():
        assert page["truncated"] == ROUNDS * len(page["rooms"]), name
    check_gapless(database)
    assert "Traceback" not in server.output()
