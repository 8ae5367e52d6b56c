"""The whole way behind a real nginx with nginx/sidecar.conf as shipped, at the address that users and Lark know."""

from __future__ import annotations

from pathlib import Path

from tests.chromium import Browser
from tests.lark.flow import Flow
from tests.lark.stage import HTTP, query_of
from tests.programs import ROOT, free_port, running_nginx

SHIPPED = (ROOT / "nginx" / "sidecar.conf").read_text()


def test_the_whole_way(tmp_path: Path, browser: Browser):
    port = free_port()
    public = f"http://127.0.0.1:{port}"
    settings = {"SIDECAR_PUBLIC_URL": public, "SIDECAR_TRUSTED_PROXIES": "127.0.0.1", "SIDECAR_LARK_REDIRECT_URI": ""}
    with Flow(tmp_path / "flow", **settings) as flow:
        with running_nginx(tmp_path / "nginx", SHIPPED, flow.server.port, port) as site:
            lark = flow.lark
            lark.console.callback_url = f"{public}/callback/lark"
            assert lark.verify()
            begun = flow.start("ada", open_id="ou_ada")
            redirect_uri = query_of(begun["authorize_url"])["redirect_uri"]
            assert redirect_uri == f"{public}/project-dashboard/api/authorizations/callback"
            lark.console.redirect_uris = [redirect_uri]
            page = HTTP.get(f"{public}/project-dashboard/authorizations/{begun['session_id']}")
            assert page.status_code == 200
            message = flow.send_card(begun)
            assert lark.click(message.message_id, "ou_ada", button=0)["toast"]["content"] == "请点击链接完成授权"
            browser.open(begun["authorize_url"])
            browser.evaluate("document.querySelector('button.primary').click()")
            browser.wait_for("document.querySelector('h1')?.textContent === '授权成功'")
            browser.wait_for("getComputedStyle(document.querySelector('main')).backgroundColor !== 'rgba(0, 0, 0, 0)'")
            assert browser.errors == []
            flow.wait_card(message, "授权成功")
            big = HTTP.post(f"{public}/callback/lark", content=b"x" * 3_000_000)
            assert big.status_code == 413
            logged = site.logged()
        assert "callback" in logged
        assert [secret for secret in flow.secrets() if secret in logged] == []
        flow.server.stop()
        flow.check_nothing_told()
