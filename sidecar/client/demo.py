"""Plays a deployment as a real workflow would send it: steps, logs in batches, metrics, an end."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sidecar.client.http import SidecarClient

STEPS: tuple[tuple[str, float, tuple[str, ...]], ...] = (
    ("checkout", 0.8, ("Fetching the repository", "HEAD is now at 4f2c9e1 Add the summer prices")),
    (
        "install",
        2.0,
        ("npm ci", "added 412 packages in 9s", "found 0 vulnerabilities"),
    ),
    (
        "test",
        3.0,
        ("Running 128 tests", "\u001b[32m✓\u001b[0m cart: adds up the prices", "\u001b[32m✓\u001b[0m 128 passed"),
    ),
    ("build", 2.5, ("vite v8 building for production...", "dist/index.html  1.2 kB", "built in 3.1s")),
    ("upload", 1.5, ("rsync --delete dist/ www@shop:/srv/shop", "sent 2,481,330 bytes", "total size is 2.4M")),
    ("restart", 1.0, ("pm2 reload shop", "[shop] online", "health check: 200 OK in 41 ms")),
)


def play(client: SidecarClient, project: str, fail: bool, speed: float, say: Callable[[str], object]) -> None:
    """Send the whole deployment, pausing between messages as work would (`speed` 2 is twice as fast).
    Raises ApiError."""
    deployment_id = f"demo-{int(time.time() * 1000)}"
    common: dict[str, Any] = {"project": project, "deployment_id": deployment_id, "workflow_name": "demo"}
    broken = "test" if fail else None
    began = time.monotonic()
    say(f"Playing deployment {deployment_id} of {project} into {client.url}")
    _send(client, common, type="deployment_started", status="running")
    done = 0
    for name, seconds, lines in STEPS:
        _send(client, common, type="step_started", step_name=name, step_status="started")
        logs = [{"level": "info", "message": line, "timestamp": _now(), "step": name} for line in lines]
        pause = seconds / speed * random.uniform(0.7, 1.3)  # noqa: S311 - a pause, not a secret
        time.sleep(pause)
        if name == broken:
            logs[-1] = {"level": "error", "message": "✗ cart: 1 failed, 127 passed", "timestamp": _now(), "step": name}
        _send(client, common, type="log_batch", logs=logs)
        status = "failed" if name == broken else "completed"
        _send(
            client, common, type="step_completed", step_name=name, step_status=status, duration=round(pause * speed, 1)
        )
        say(f"  {name}: {status}")
        if name == broken:
            break
        done += 1
    total = round((time.monotonic() - began) * speed, 1)
    metrics = {"total_duration": total, "steps_count": len(STEPS), "successful_steps": done, "failed_steps": int(fail)}
    _send(client, common, type="metrics_update", metrics=metrics)
    end = "failed" if fail else "success"
    _send(client, common, type="deployment_completed", status=end, duration=total)
    say(f"Done: {end}")


def _send(client: SidecarClient, common: dict[str, Any], **fields: Any) -> None:
    client.webhook(common | {"timestamp": _now()} | fields)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
