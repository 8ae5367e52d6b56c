"""Flask-SocketIO as it comes, on gevent and gevent-websocket, as a peer: POST / emits the body as an event to a room.

Nothing is stored. Usage: python stock.py PORT
"""

from gevent import monkey

monkey.patch_all()

import sys

from flask import Flask, request
from flask_socketio import SocketIO, join_room
from gevent.pywsgi import WSGIServer
from geventwebsocket.handler import WebSocketHandler

app = Flask("stock")
socketio = SocketIO(app, async_mode="gevent", cors_allowed_origins="*")


@app.get("/")
def alive() -> str:
    return "ok"


@app.post("/")
def post() -> dict[str, bool]:
    payload = request.get_json()
    socketio.emit("event", {"type": payload["type"], "payload": payload}, to="project:" + payload["project"])
    return {"ok": True}


@socketio.on("subscribe_project")  # type: ignore[untyped-decorator]
def subscribe(name: str) -> dict[str, bool]:
    join_room("project:" + name)
    return {"ok": True}


if __name__ == "__main__":
    server = WSGIServer(("127.0.0.1", int(sys.argv[1])), app, handler_class=WebSocketHandler, backlog=4096, log=None)
    server.serve_forever()
