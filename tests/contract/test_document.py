"""The document of the HTTP API against a live sidecar: schemathesis makes requests out of it, good ones and bad ones of
every kind, and compares what comes back. The same requests at each run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.conftest import NAME
from tests.lark.flow import Flow
from tests.lark.stage import APP_ID
from tests.servers import ROOT

pytest.importorskip("schemathesis")

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
)
RUN_SECONDS = 400
ENVIRONMENT = {
    "HYPOTHESIS_STORAGE_DIRECTORY": str(ROOT / ".hypothesis"),  # its tables of all characters, made once
    "NO_PROXY": "127.0.0.1",  # else all variables are gone through for each request
}

CONFIGURATION = """
[phases.coverage]
extra-data-sources.responses = false
unexpected-methods = ["TRACE"]

[phases.fuzzing]
extra-data-sources.responses = false

[dictionaries.names]
values = ["{name}"]

[dictionaries.apps]
values = ["{app}"]

[dictionaries.sessions]
values = ["{session}"]

[dictionaries.files]
values = ["app.js", "style.css", "icon.svg", "vendor/socket.io.LICENSE"]

[dictionaries.deliveries]
values = [1, 2]

[dictionaries.menus]
values = [{menu}]

[dictionaries.permissions]
values = [{permissions}]

[parameters]
"path.app_id" = {{ dictionary = "apps", probability = 0.7 }}
"path.session_id" = {{ dictionary = "sessions", probability = 0.5 }}
"path.user" = {{ dictionary = "names", probability = 0.7 }}
"path.project" = {{ dictionary = "names", probability = 0.5 }}
"path.deployment_id" = {{ dictionary = "names", probability = 0.5 }}
"path.id" = {{ dictionary = "names", probability = 0.5 }}
"path.key" = {{ dictionary = "names", probability = 0.5 }}
"path.name" = {{ dictionary = "names", probability = 0.5 }}

[[operations]]
include-tag = "pages"
parameters = {{ "path.name" = {{ dictionary = "files", probability = 0.5 }} }}

[[operations]]
include-tag = "deliveries"
parameters = {{ "path.number" = {{ dictionary = "deliveries", probability = 0.5 }} }}

[[operations]]
include-tag = "menu"
parameters = {{ "path.number" = {{ dictionary = "menus", probability = 0.5 }} }}

[[operations]]
include-tag = "permissions"
parameters = {{ "path.number" = {{ dictionary = "permissions", probability = 0.5 }} }}
"""
"""What is there, so that not every request ends in 404; and nothing is learned from answers, which are different each
time."""


@pytest.mark.parametrize(("who", "phases", "examples"), [("admin", "coverage,fuzzing", 3), ("nobody", "coverage", 1)])
def test_every_answer_is_one_that_the_document_tells(
    furnished: Flow, tmp_path: Path, who: str, phases: str, examples: int
) -> None:
    server = furnished.server
    versions = {name: server.get(f"/api/{name}/version").json()["version"] for name in ("menu", "permissions")}
    session = furnished.start(NAME)["session_id"]
    configuration = tmp_path / "schemathesis.toml"
    configuration.write_text(CONFIGURATION.format(name=NAME, app=APP_ID, session=session, **versions))
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(configuration)),
        *("run", f"{server.url}/api/openapi.json", "--no-color", "--generation-deterministic", "--no-shrink"),
        *("--phases", phases, "--max-examples", str(examples), "--checks", ",".join(CHECKS)),
        *("--generation-with-security-parameters", "false", "--continue-on-failure", "--warnings", "off"),
        *("--suppress-health-check", "all"),
    ]
    if who == "admin":
        command += ["--header", f"Authorization: Bearer {server.token}"]
    else:  # what a bad request is answered where nobody has to say who they are, the other run finds
        command += ["--mode", "positive"]
    code, told = run(command, tmp_path)
    assert code == 0, told
    assert "Traceback" not in server.output(), server.output()


def run(command: list[str], folder: Path) -> tuple[int, str]:
    """Its exit code and all that it said."""
    with (folder / "output").open("w+") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            code = process.wait(RUN_SECONDS)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        output.seek(0)
        return code, output.read()
