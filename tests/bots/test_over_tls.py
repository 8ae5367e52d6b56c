"""Real bots of both generations over wss, with certificates of their own, without nginx."""

from __future__ import annotations

from pathlib import Path

from tests.bots.conftest import Connect
from tests.bots.peers import VERSIONS
from tests.bots.raw import new_key
from tests.certificates import Authority
from tests.servers import RunningSidecar


def test_both_generations_talk_over_mutual_tls(connect: Connect, tmp_path: Path):
    authority = Authority(tmp_path / "authority")
    shown = authority.client("bot")
    settings = {**authority.server().settings(), "SIDECAR_TLS_CLIENT_CA": str(authority.file)}
    server = RunningSidecar(tmp_path / "sidecar", settings, tls=authority.trusting(shown))
    server.start()
    try:
        trust = {
            "ssl_enabled": True,
            "ssl_ca_certs": str(authority.file),
            "ssl_certfile": str(shown.certificate),
            "ssl_keyfile": str(shown.key),
        }
        keys = [new_key(server, user).key for user in ("old", "new")]
        old, new = (
            connect(version, f"wss://localhost:{server.port}/ws", key, "qq", **trust)
            for version, key in zip(VERSIONS, keys, strict=True)
        )
        sent = old.send_text("in secret", to=(keys[1], "qq"))
        assert new.next_message() == sent
        sent = new.send_text("x" * 500_000, to=(keys[0], "qq"))
        assert old.next_message() == sent
    finally:
        server.stop()
    assert "Traceback" not in server.output(), server.output()
