"""Hosts of one installation need one master secret: a process with another one is refused before it does harm."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers import RunningSidecar

SECRETS = ("a-master-secret-of-24-ch", "another-master-secret-of")


@pytest.fixture
def installation(tmp_path: Path) -> RunningSidecar:
    """Made by the first of the secrets."""
    made = RunningSidecar(tmp_path, {"SIDECAR_SECRET_KEY": SECRETS[0]})
    assert made.cli("db", "upgrade").returncode == 0
    return made


@pytest.mark.parametrize("command", [("db", "upgrade"), ("serve", "--port", "0"), ("token", "list")])
def test_another_secret_is_refused_and_the_way_out_told(installation: RunningSidecar, command: tuple[str, ...]):
    done = installation.cli(*command, SIDECAR_SECRET_KEY=SECRETS[1])
    assert done.returncode in (1, 2)
    assert "SIDECAR_SECRET_KEY" in done.stderr
    assert "adopt-secret" in done.stderr
    assert "Traceback" not in done.stderr
    assert not any(secret in done.stderr + done.stdout for secret in SECRETS)
    assert installation.cli("db", "upgrade").returncode == 0, "the right one goes on"


def test_a_secret_that_was_changed_on_purpose_is_adopted(installation: RunningSidecar):
    assert installation.cli("db", "adopt-secret", SIDECAR_SECRET_KEY=SECRETS[1]).returncode == 0
    assert installation.cli("db", "upgrade", SIDECAR_SECRET_KEY=SECRETS[1]).returncode == 0
    assert installation.cli("db", "upgrade").returncode == 1, "the former one is another one now"


def test_a_host_without_the_secret_makes_none_of_its_own_work(installation: RunningSidecar, tmp_path: Path):
    """The usual slip: the second host has the database's URL and an empty folder."""
    url = f"sqlite:///{installation.instance}/sidecar.db"
    second = RunningSidecar(tmp_path / "second", {"SIDECAR_DATABASE_URL": url})
    done = second.cli("serve", "--port", "0")
    assert done.returncode == 2
    assert "secret_key" in done.stderr
