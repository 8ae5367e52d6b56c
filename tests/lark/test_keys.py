"""The keys that users' tokens are encrypted with change unnoticed by users; without the right key nothing opens."""

from __future__ import annotations

from pathlib import Path

from cryptography.fernet import Fernet

from tests.lark.flow import Flow

FIRST, SECOND, WRONG = (Fernet.generate_key().decode() for _ in range(3))


def restarted(flow: Flow, keys: str) -> None:
    flow.server.stop()
    flow.server.change(SIDECAR_LARK_ENCRYPTION_KEYS=keys)
    flow.server.start()


def test_keys_are_rotated(tmp_path: Path):
    with Flow(tmp_path, SIDECAR_LARK_ENCRYPTION_KEYS=FIRST) as flow:
        flow.authorized("ada")
        pending = flow.start("bob", open_id="ou_bob")
        message = flow.send_card(pending)
        token = flow.token("ada").json()["user_access_token"]
        restarted(flow, f"{SECOND},{FIRST}")
        assert flow.token("ada").json()["user_access_token"] == token
        done = flow.server.cli("lark", "rotate")
        assert done.returncode == 0, done.stderr
        assert token not in done.stdout
        restarted(flow, SECOND)
        assert flow.token("ada").json()["user_access_token"] == token
        assert flow.authorize(pending, "ou_bob").status_code == 200, "what was begun before goes on"
        flow.wait_card(message, "授权成功")
        restarted(flow, WRONG)
        lost = flow.token("ada")
        assert (lost.status_code, lost.json()["code"]) == (404, "authentication_required")
        flow.authorized("ada")
        assert flow.token("ada").status_code == 200
        flow.server.stop()
        flow.check_nothing_told()
