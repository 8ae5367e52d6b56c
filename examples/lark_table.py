#!/usr/bin/env python3
"""A table of Lark aPaaS (妙搭), read and written as the user: with httpx, and with requests.

    export SIDECAR_URL=http://127.0.0.1:8091 SIDECAR_TOKEN=sct_…     # scopes authorizations:read authorizations:write
    .venv/bin/python examples/lark_table.py --app cli_… --user ada --workspace workspace_… --table tasks --add title=Tea

If the user has not authorized the app (or no longer), it prints where they do, waits for them with --wait, else ends
with 1. What Lark says is printed; the user's token never is.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the package beside this folder

from sidecar.client import ApiError, SidecarClient
from sidecar.client.lark import AuthenticationRequired, UserTokenAuth

LOOK_SECONDS = 2
DONE_WAITING = ("completed", "rejected", "expired")


def main() -> int:
    given = arguments()
    path = (
        f"/open-apis/apaas/v1/workspaces/{quote(given.workspace, safe='')}/tables/{quote(given.table, safe='')}/records"
    )
    with SidecarClient() as sidecar:
        auth = UserTokenAuth(given.app, given.user, client=sidecar)
        while True:
            try:
                return show(given.lark + path, auth, given.add)
            except AuthenticationRequired as required:
                print(f"{given.user} has to authorize: {required.authorize_url or required}", flush=True)
                if not given.wait or required.session_id is None or not authorized(sidecar, required.session_id):
                    return 1


def show(address: str, auth: UserTokenAuth, row: dict[str, str]) -> int:
    """One object is the authentication of either library."""
    if row:
        answer = httpx.post(address, auth=auth, json={"records": json.dumps([row])}).json()
        print(f"httpx POST: {told(answer)}")
    print(f"httpx GET: {told(httpx.get(address, auth=auth, params={'page_size': 20}).json())}")
    try:
        import requests
    except ImportError:
        print("requests is not installed; it would be given the same object.")
        return 0
    answer = requests.get(address, auth=auth, params={"page_size": 20}, timeout=10).json()
    print(f"requests GET: {told(answer)}")
    return 0 if answer["code"] == 0 else 1


def told(answer: dict[str, Any]) -> str:
    """Rows come as JSON in a text."""
    if answer["code"] != 0:
        return f"refused with code {answer['code']}: {answer.get('msg')}"
    data = answer["data"]
    rows = json.loads(data["items"]) if "items" in data else data
    return json.dumps(rows, ensure_ascii=False)


def authorized(sidecar: SidecarClient, session_id: str) -> bool:
    """Has the user said yes, when they have said something?"""
    while (state := sidecar.authorization(session_id)["state"]) not in DONE_WAITING:
        time.sleep(LOOK_SECONDS)
    print(f"The authorization is {state}.")
    return bool(state == "completed")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--app", required=True, help="the app's id")
    parser.add_argument("--user", required=True, help="your id of the user, as in the authorization")
    parser.add_argument("--workspace", required=True)
    parser.add_argument("--table", required=True)
    parser.add_argument("--add", nargs="*", default=[], metavar="FIELD=VALUE", help="add a row first")
    parser.add_argument("--lark", default="https://open.feishu.cn", help="larksuite: https://open.larksuite.com")
    parser.add_argument("--wait", action="store_true", help="until the user has authorized")
    given = parser.parse_args()
    given.add = dict(field.partition("=")[::2] for field in given.add)
    return given


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ApiError, httpx.HTTPError, OSError, ValueError) as error:
        print(f"FAILED: {error}", file=sys.stderr)
        sys.exit(1)
