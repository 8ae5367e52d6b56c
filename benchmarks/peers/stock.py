"""The peer in Python: Flask-SocketIO on gevent as its documentation shows it, with a POST that emits its body to a
room. Usage: python stock.py PORT
"""

import sys

from gevent import monkey

monkey.patch_all()

from flask import Flask, request
from flask_socketio import SocketIO, join_room

app = Flask(__name__)
socketio = SocketIO(app, async_mode="gevent")


@app.get("/healthz")
def healthz() -> str:
    return "ok"


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
    socketio.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_output=False)
