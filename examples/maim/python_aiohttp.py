#!/usr/bin/env python3
"""A bot without a library of ours: `pip install aiohttp`. Sends one message, prints what comes, and acknowledges it,
until Ctrl+C.

    MAIM_KEY=smk_… MAIM_PLATFORM=qq python python_aiohttp.py "Hello"

To somebody else: MAIM_TO_KEY (a key, or the address sma_… that stands for it) and MAIM_TO_PLATFORM. With MAIM_QUERY=1
key and platform go into the URL, where a proxy lets no unknown headers through.
"""

import asyncio
import contextlib
import json
import os
import sys
import time
import uuid

import aiohttp

URL = os.environ.get("MAIM_URL", "ws://127.0.0.1:8091/project-dashboard/ws")
KEY = os.environ["MAIM_KEY"]
PLATFORM = os.environ.get("MAIM_PLATFORM", "default")
TO = {
    "api_key": os.environ.get("MAIM_TO_KEY", KEY),
    "platform": os.environ.get("MAIM_TO_PLATFORM", PLATFORM),
}
UUID = f"example_{uuid.uuid4().hex}"


def message(text):
    """What is said, by whom and to whom, in its envelope."""
    return {
        "ver": 1,
        "msg_id": f"msg_{uuid.uuid4().hex[:12]}_{int(time.time())}",
        "type": "sys_std",
        "meta": {"sender_user": KEY, "platform": PLATFORM, "timestamp": time.time()},
        "payload": {
            "message_info": {"platform": PLATFORM, "message_id": uuid.uuid4().hex, "time": time.time()},
            "message_segment": {"type": "text", "data": text},
            "message_dim": TO,
        },
    }


def acknowledgement(msg_id):
    return {
        "ver": 1,
        "msg_id": str(uuid.uuid4()),
        "type": "sys_ack",
        "meta": {"uuid": UUID, "acked_msg_id": msg_id, "timestamp": time.time()},
        "payload": {"status": "received", "client_timestamp": time.time()},
    }


async def main(text):
    said = {"headers": {"x-apikey": KEY, "x-platform": PLATFORM, "x-uuid": UUID}}
    if os.environ.get("MAIM_QUERY"):
        said = {"params": {"api_key": KEY, "platform": PLATFORM, "uuid": UUID}}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(URL, heartbeat=20, max_msg_size=100 * 2**20, **said) as socket,
    ):
        await socket.send_json(message(text))
        async for received in socket:
            frame = received.json()
            if frame["type"] == "sys_ack":  # the server has our message
                print("acknowledged", frame["meta"]["acked_msg_id"], flush=True)
                continue
            await socket.send_json(acknowledgement(frame["msg_id"]))
            print(frame["type"], json.dumps(frame["payload"], ensure_ascii=False), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "Hello from aiohttp"))
