#!/usr/bin/env python3
"""A bridge between two people on two platforms, with the sidecar's own library: what one writes to the bridge goes to
the other, sender and content kept.

    MAIM_KEY=smk_… .venv/bin/python examples/maim/bridge.py wechat=sma_… qq=sma_…

The bridge is on both platforms with its own key; behind each stands whom it talks to there, by their key or by the
address (sma_…) that stands for it.
"""

import os
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sidecar.client.maim import MaimClient

URL = os.environ.get("MAIM_URL", "ws://127.0.0.1:8091/project-dashboard/ws")
KEY = os.environ["MAIM_KEY"]


def main(peers):
    """`peers` is a dict of a platform's name to the key or address of the one there."""
    client = MaimClient()

    def on_message(message, metadata):
        here = client.get_connections()[metadata["connection_uuid"]]["platform"]
        (there,) = peers.keys() - {here}
        sent = client.forward(message, peers[there], there, through_platform=there, queue=True, wait_seconds=10)
        print(here, "->", there, "ok" if sent else client.last_error, flush=True)

    for platform in peers:
        client.add_connection(URL, KEY, platform, on_message=on_message, max_reconnect_attempts=0)
    with client:
        print("ready" if client.is_connected() else client.last_error, flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("bye")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(dict(argument.split("=", 1) for argument in sys.argv[1:]))
