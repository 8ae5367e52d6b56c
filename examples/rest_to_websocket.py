#!/usr/bin/env python3
"""From REST to browsers: four demos against a running sidecar.

    SIDECAR_TOKEN=$(cat instance/admin-token) .venv/bin/python examples/rest_to_websocket.py [1|2|3|4]

Without a number it shows a menu. Watch in a browser: <sidecar>/console, or `python -m sidecar tail --room general`.
SIDECAR_URL says where the sidecar is (default http://127.0.0.1:8091).
"""

from __future__ import annotations

import argparse
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the package beside this folder

from sidecar.client import ApiError, LivePusher, SidecarClient, send_websocket_message
from sidecar.client.listener import Listener

WAIT_SECONDS = 10
MENU = """
1  main: one of everything, with a summary
2  location pusher: a device goes round in circles, until Ctrl+C
3  chat simulation
4  all
"""


class Room:
    """What a browser in the room would have got since this was made."""

    def __init__(self, client: SidecarClient, name: str):
        self.frames: list[dict[str, Any]] = []
        self._arrived = threading.Condition()
        self._problem = ""
        self._listener = Listener(client)
        self._listener.subscribe("room", name)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        if not self._listener.wait_subscribed(WAIT_SECONDS):
            self.close()
            raise ApiError(f"Room {name} can't be followed: {self._problem or 'no answer'}")

    def _listen(self) -> None:
        try:
            for frame in self._listener.events():
                with self._arrived:
                    self.frames.append(frame)
                    self._arrived.notify_all()
        except ApiError as error:
            self._problem = str(error)

    def got(self, wanted: Callable[[dict[str, Any]], bool], count: int = 1) -> bool:
        """Did so many messages like this come, or do they come soon?"""

        def enough() -> bool:
            return sum(wanted(frame["payload"]) for frame in self.frames) >= count

        with self._arrived:
            return self._arrived.wait_for(enough, WAIT_SECONDS)

    def close(self) -> None:
        self._listener.close()
        self._thread.join(WAIT_SECONDS)


@contextmanager
def watching(client: SidecarClient, name: str) -> Iterator[Room]:
    room = Room(client, name)
    try:
        yield room
    finally:
        room.close()


def simple_message(client: SidecarClient) -> bool:
    with watching(client, "general") as room:
        answer = client.send("general", "Hello from the REST API", {"priority": "normal"})
        print(f"  event {answer['event_id']}, {answer['recipients']} connections in the room")
        return room.got(lambda said: said["content"] == "Hello from the REST API")


def targeted_message(client: SidecarClient) -> bool:
    """Only user 123 gets it, though 456 is in the same room."""
    tokens = [client.connection_token(sub=user, rooms=["room:general"])["token"] for user in ("123", "456")]
    browsers = [SidecarClient(client.url, token) for token in tokens]
    with watching(browsers[0], "general") as his, watching(browsers[1], "general") as hers:
        client.send("general", "Only user 123 receives this", {"type": "private"}, target_user="123")
        client.send("general", "Everybody receives this")
        print("  users 123 and 456 are in the room")
        both = all(room.got(lambda said: said["content"].startswith("Everybody")) for room in (his, hers))
        return (
            both
            and [said["payload"]["type"] for said in his.frames] == ["private", "api_message"]
            and len(hers.frames) == 1
        )


def location(client: SidecarClient) -> bool:
    with watching(client, "location_tracking") as room:
        answer = client.push_location(39.9042, 116.4074, "demo-device")
        print(f"  {answer['message']}: {answer['location']}")
        return room.got(lambda said: said["type"] == "location_update" and said["latitude"] == 39.9042)


def live_push(client: SidecarClient) -> bool:
    pusher = LivePusher("live_updates", interval=1, client=client)
    with watching(client, "live_updates") as room:
        pusher.start_pushing()
        try:
            print("  started; waiting for two updates …")
            came = room.got(lambda said: said["type"] == "live_stats", count=2)
        finally:
            pusher.stop_pushing()
        running = [push["room"] for push in client.live_pushes()]
        print(f"  stopped; the last said {room.frames[-1]['payload']['stats'] if room.frames else 'nothing'}")
        return came and "live_updates" not in running


def sequence(client: SidecarClient) -> bool:
    with watching(client, "general") as room:
        for number in range(1, 6):
            sent = send_websocket_message(
                "general", {"type": "order_update", "order_id": number, "status": "shipped"}, client=client
            )
            print(f"  {number} of 5 {'sent' if sent else 'not sent'}")
        arrived = room.got(lambda said: said.get("type") == "order_update", count=5)
        orders = [
            frame["payload"]["order_id"] for frame in room.frames if frame["payload"].get("type") == "order_update"
        ]
        return arrived and orders == [1, 2, 3, 4, 5]


STEPS: dict[str, Callable[[SidecarClient], bool]] = {
    "simple message": simple_message,
    "targeted message": targeted_message,
    "location": location,
    "live push started and stopped": live_push,
    "several messages in sequence": sequence,
}


def main_demo(client: SidecarClient) -> bool:
    results = {}
    for number, (name, step) in enumerate(STEPS.items(), 1):
        print(f"[{number}/{len(STEPS)}] {name}")
        try:
            results[name] = step(client)
        except ApiError as error:
            print(f"  {error}")
            results[name] = False
    print("\nSummary")
    for name, succeeded in results.items():
        print(f"  {name:32} {'SUCCESS' if succeeded else 'FAILED'}")
    return all(results.values())


def location_demo(client: SidecarClient, rounds: int | None) -> bool:
    print("A device goes round in circles in room location_tracking; Ctrl+C ends it.")
    number = 0
    while rounds is None or number < rounds:
        angle = number / 20 * 2 * math.pi
        answer = client.push_location(
            39.9042 + 0.01 * math.sin(angle), 116.4074 + 0.01 * math.cos(angle), "demo-device"
        )
        number += 1
        print(f"  {number}: {answer['location']['lat']:.5f}, {answer['location']['lng']:.5f}")
        time.sleep(1)
    return True


TALK = (
    ("Ada", "Is the deployment through?"),
    ("Grace", "The tests are green, it is being uploaded."),
    ("Linus", "I see the new version already."),
    ("Ada", "Then let us have lunch."),
)


def chat_demo(client: SidecarClient) -> bool:
    print("Three people talk in room general.")
    for number, (name, words) in enumerate(TALK, 1):
        message = {"type": "chat", "username": name, "content": words}
        if not send_websocket_message("general", message, client=client):
            return False
        print(f"  [{number}/{len(TALK)}] {name}: {words}")
        time.sleep(0.5)
    return True


def run(choice: str, client: SidecarClient, rounds: int | None) -> bool:
    if choice == "1":
        return main_demo(client)
    if choice == "2":
        return location_demo(client, rounds)
    if choice == "3":
        return chat_demo(client)
    return main_demo(client) and chat_demo(client) and location_demo(client, rounds)


def main() -> int:
    parser = argparse.ArgumentParser(description="From REST to browsers: four demos.")
    parser.add_argument("demo", nargs="?", choices=("1", "2", "3", "4"), help="which one; asked for if left out")
    parser.add_argument("--rounds", type=int, help="end the location pusher after so many")
    given = parser.parse_args()
    choice = given.demo
    while choice not in ("1", "2", "3", "4"):
        print(MENU)
        try:
            choice = input("Which one? ").strip()
        except EOFError:
            return 2
    with SidecarClient() as client:
        try:
            return 0 if run(choice, client, given.rounds) else 1
        except ApiError as error:
            print(f"FAILED: {error}")
            return 1
        except KeyboardInterrupt:
            print("\nEnded.")
            return 0


if __name__ == "__main__":
    sys.exit(main())
