#!/usr/bin/env python3
"""A bot that says everything again, with the sidecar's own library. To be run from a folder that has it.

    MAIM_KEY=smk_… .venv/bin/python examples/maim/echo_bot.py

It is on the platform `echo` (MAIM_PLATFORM) of its key's owner. It answers on the platform from which it was asked, to
the owner of MAIM_TO_KEY, which is its own if nothing is said.
"""

import os
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sidecar.client.maim import MaimClient, create_client_config, text_message

URL = os.environ.get("MAIM_URL", "ws://127.0.0.1:8091/project-dashboard/ws")
KEY = os.environ["MAIM_KEY"]
PLATFORM = os.environ.get("MAIM_PLATFORM", "echo")
TO_KEY = os.environ.get("MAIM_TO_KEY", KEY)


def on_message(message, metadata):
    asked_from = message.get_message_platform()
    if asked_from == PLATFORM:
        return  # our own voice
    print(asked_from, message.message_segment.data, flush=True)
    answer = text_message(f"You said: {message.message_segment.data}", TO_KEY, asked_from, PLATFORM)
    if not client.send_message(answer, wait_seconds=10):
        print("not sent:", client.last_error, file=sys.stderr)


client = MaimClient(create_client_config(URL, KEY, PLATFORM, on_message=on_message, max_reconnect_attempts=0))

if __name__ == "__main__":
    with client:
        print("ready" if client.is_connected() else client.last_error, flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("bye")
