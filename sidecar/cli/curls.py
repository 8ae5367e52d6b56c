"""Commands for curl that a reader can run as they stand."""

from __future__ import annotations

import json
import shlex


def step_curl(url: str, token_text: str, project: str) -> str:
    """One that posts a step of this project, to the sidecar at `url`."""
    fields = {"type": "step_started", "project": project, "deployment_id": "1", "step_name": "build"}
    body = json.dumps(fields | {"step_status": "started"}, ensure_ascii=False, separators=(",", ":"))
    return post_curl(f"{url}/api/webhooks/deployment", token_text, body)


def post_curl(address: str, token_text: str, body: str) -> str:
    """One that posts this JSON."""
    return (
        f"  curl {address} \\\n"
        f'    -H "Authorization: Token {token_text}" -H "Content-Type: application/json" \\\n'
        f"    -d {shlex.quote(body)}"
    )
