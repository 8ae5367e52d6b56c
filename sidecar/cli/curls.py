"""Commands for curl that a reader can run as they stand."""

from __future__ import annotations

import json
import shlex


def step_curl(url: str, token_text: str, project: str) -> str:
    """One that posts a step of this project, to the sidecar at `url`."""
    return post_curl(f"{url}/api/webhooks/deployment", token_text, _step(project))


def signed_curl(url: str, secret: str, project: str) -> str:
    """One that posts the same, signed."""
    return (
        f"  secret={shlex.quote(secret)} body={shlex.quote(_step(project))}\n"
        '  signature=$(printf %s "$body" | openssl dgst -sha256 -hmac "$secret" -r | cut -c-64)\n'
        f"  curl {url}/api/webhooks/deployment \\\n"
        '    -H "X-Hub-Signature-256: sha256=$signature" -H "Content-Type: application/json" --data-binary "$body"'
    )


def post_curl(address: str, token_text: str, body: str) -> str:
    """One that posts this JSON."""
    return (
        f"  curl {address} \\\n"
        f'    -H "Authorization: Token {token_text}" -H "Content-Type: application/json" \\\n'
        f"    -d {shlex.quote(body)}"
    )


def _step(project: str) -> str:
    fields = {"type": "step_started", "project": project, "deployment_id": "1", "step_name": "build"}
    return json.dumps(fields | {"step_status": "started"}, ensure_ascii=False, separators=(",", ":"))
