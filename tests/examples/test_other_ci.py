"""examples/gitlab-ci.yml and examples/Jenkinsfile: their shell parts, as these systems would run them, against a live
sidecar. GitLab joins a job's script under `sh`, Jenkins runs each `sh` under `sh -xe`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.github_actions import load
from tests.programs import require
from tests.servers import RunningSidecar

EXAMPLES = Path(__file__).parents[2] / "examples"
GITLAB = load(EXAMPLES / "gitlab-ci.yml")
JENKINS = (EXAMPLES / "Jenkinsfile").read_text()


@dataclass
class Project:
    """A checked-out repository with notify.sh where the examples say, and a make whose `deploy` may fail."""

    folder: Path
    environment: dict[str, str]

    def sh(self, script: str, *options: str) -> bool:
        done = subprocess.run(
            ["sh", *options, "-c", script], cwd=self.folder, env=self.environment, capture_output=True, check=False
        )
        assert self.environment["SIDECAR_TOKEN"].encode() not in done.stdout + done.stderr
        assert b"not delivered" not in done.stderr, done.stderr
        return done.returncode == 0

    def breaks(self) -> None:
        (self.folder / "Makefile").write_text("build:\n\t@echo built\ndeploy:\n\t@echo 'no \"space\" 🚀' >&2; exit 2\n")


@pytest.fixture
def project(tmp_path: Path, sidecar: RunningSidecar, name: str) -> Project:
    require("curl")
    require("make")
    (tmp_path / "ci").mkdir()
    shutil.copy(EXAMPLES / "notify.sh", tmp_path / "ci")
    (tmp_path / "Makefile").write_text("build:\n\t@echo built\ndeploy:\n\t@echo deployed\n")
    environment = {
        "PATH": os.environ["PATH"],
        "SIDECAR_URL": f"{sidecar.url}/project-dashboard",
        "SIDECAR_TOKEN": sidecar.token,
        "SIDECAR_PROJECT": name,
    }
    return Project(tmp_path, environment)


def gitlab(project: Project, pipeline_id: str) -> None:
    """Stage by stage; of the jobs in `.post` those whose `when` fits."""
    jobs: dict[str, dict[str, Any]] = {name: job for name, job in GITLAB.items() if "script" in job}
    assert GITLAB["variables"].keys() == {"SIDECAR_PROJECT"}
    project.environment |= {"CI_PIPELINE_ID": pipeline_id, "CI_COMMIT_REF_NAME": "main"}
    well = True
    for stage in GITLAB["stages"]:
        for job in jobs.values():
            if job["stage"] == stage and well:
                well = project.sh("\n".join(job["script"]), "-e")
    (last,) = [job for job in jobs.values() if job.get("when") == ("on_success" if well else "on_failure")]
    assert last["stage"] == ".post"
    assert project.sh("\n".join(last["script"]), "-e")


def jenkins(project: Project, tag: str) -> None:
    stages, _, post = JENKINS.partition("    post {")
    assert 'SIDECAR_DEPLOYMENT_ID = "${env.BUILD_TAG}"' in stages
    project.environment["SIDECAR_DEPLOYMENT_ID"] = tag
    commands = re.findall(r"sh '([^']+)'", stages)
    assert len(commands) == 3
    well = all(project.sh(command, "-xe") for command in commands)
    endings = dict(re.findall(r"(\w+) \{ sh '([^']+)' \}", post))
    assert endings.keys() == {"success", "unstable", "failure", "aborted"}
    assert project.sh(endings["success" if well else "failure"], "-xe")


@pytest.mark.parametrize("system", [gitlab, jenkins])
@pytest.mark.parametrize("well", [True, False])
def test_a_pipeline_tells_of_itself(
    project: Project, sidecar: RunningSidecar, name: str, system: Any, well: bool
) -> None:
    if not well:
        project.breaks()
    system(project, name)
    found = sidecar.get(f"/api/deployments/{name}").json()
    assert (found["project"], found["status"]) == (name, "success" if well else "failed")
    steps = [(step["name"], step["status"]) for step in found["steps"]]
    assert steps == [("build", "success"), ("deploy", "success" if well else "failed")]
    lines = [line["message"] for line in sidecar.get(f"/api/deployments/{name}/logs").json()["items"]]
    assert lines[:2] == ["built", "deployed" if well else 'no "space" 🚀']
