"""examples/notify.sh against a real sidecar: what it reports can be read back."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parents[2] / "examples" / "notify.sh"


def test_a_reported_deployment_can_be_read_back(sidecar: Any, name: str) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "SIDECAR_URL": f"{sidecar.url}/project-dashboard",
        "SIDECAR_TOKEN": sidecar.token,
        "SIDECAR_PROJECT": name,
        "SIDECAR_DEPLOYMENT_ID": name,
        "SIDECAR_STRICT": "1",
    }

    def notify(*arguments: str) -> int:
        return subprocess.run([SCRIPT, *arguments], env=environment, timeout=60, check=False).returncode

    assert notify("test") == 0
    assert notify("start") == 0
    assert notify("step", "build", "--", "sh", "-c", r"printf 'one\n\033[1mtwo\033[0m\0 \377 🚀'") == 0
    assert notify("step", "smoke test", "--", "sh", "-c", "exit 3") == 3
    assert notify("log", "warn", 'said "hi"') == 0
    assert notify("metrics", "steps_count=2") == 0
    assert notify("finish", "failed") == 0

    deployment = sidecar.get(f"/api/deployments/{name}").json()
    assert deployment["status"] == "failed"
    assert [(step["name"], step["status"]) for step in deployment["steps"]] == [
        ("build", "success"),
        ("smoke test", "failed"),
    ]
    lines = sidecar.get(f"/api/deployments/{name}/logs").json()["items"]
    # the sidecar stores NUL as U+FFFD, because PostgreSQL can't hold it
    assert [line["message"] for line in lines] == ["one", "\x1b[1mtwo\x1b[0m\ufffd \ufffd 🚀", 'said "hi"']
