"""The peer in Python: Flask-SocketIO on gevent as its documentation shows it, with a POST that emits its body to a
room. Usage: python stock.py PORT
"""

import hashlib
import json
import sqlite3
import sys
import tempfile
from contextlib import closing
from datetime import UTC, datetime

from gevent import monkey

monkey.patch_all()

from flask import Flask, request
from flask_socketio import SocketIO, join_room

COLUMNS = ("key", "name", "icon", "url", "sort_order", "updated_at")
CHOSEN = ", ".join(COLUMNS)
MENU_ITEMS = 200
folder = tempfile.TemporaryDirectory()
DATABASE = f"{folder.name}/menu.db"

app = Flask(__name__)
socketio = SocketIO(app, async_mode="gevent")


@app.get("/healthz")
def healthz() -> str:
    return "ok"


@app.get("/api/menu/version")
def menu_version() -> dict[str, object]:
    """As the older server does it: each time from the database."""
    with closing(sqlite3.connect(DATABASE)) as connection:
        (version,) = connection.execute("SELECT max(updated_at) FROM menu").fetchone()
        rows = connection.execute(f"SELECT {CHOSEN} FROM menu WHERE is_active ORDER BY sort_order, key").fetchall()
    shown = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    checksum = hashlib.md5(json.dumps(shown, sort_keys=True, default=str).encode()).hexdigest()
    at = int(datetime.fromisoformat(version).timestamp())
    return {
        "version": at,
        "timestamp": at,
        "checksum": checksum,
        "changes": [],
        "author": "system",
        "description": "菜单配置版本信息",
    }


def make_menu(items: int) -> None:
    with closing(sqlite3.connect(DATABASE)) as connection, connection:
        connection.execute(f"CREATE TABLE menu ({CHOSEN}, is_active DEFAULT 1)")
        now = datetime.now(UTC).isoformat()
        rows = ((f"item-{number}", f"Item {number}", "", f"/{number}", number, now) for number in range(items))
        connection.executemany("INSERT INTO menu VALUES (?, ?, ?, ?, ?, ?, 1)", rows)


@app.post("/post")
def post() -> dict[str, bool]:
    event = request.get_json()
    socketio.emit("event", event, to=f"project:{event['payload']['project']}")
    return {"success": True}


@socketio.on("subscribe_project")  # type: ignore[untyped-decorator]
def subscribe_project(project: str) -> dict[str, bool]:
    join_room(f"project:{project}")
    return {"ok": True}


if __name__ == "__main__":
    make_menu(MENU_ITEMS)
    socketio.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_output=False)
