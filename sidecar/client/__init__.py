"""Clients of a running sidecar, for any Python program; these need httpx only.

    from sidecar.client import SidecarClient, send_websocket_message, LivePusher

SIDECAR_URL and SIDECAR_TOKEN say where it is and who asks. To listen there is `sidecar.client.listener.Listener`, which
needs python-socketio and websocket-client; bots have `sidecar.client.maim.MaimClient`, which needs websockets.
"""

from sidecar.client.http import ApiError, SidecarClient
from sidecar.client.messages import LivePusher, WebSocketPusher, send_websocket_message

__all__ = ["ApiError", "LivePusher", "SidecarClient", "WebSocketPusher", "send_websocket_message"]
