#!/usr/bin/env python3
"""A user authorizes through Lark, from the card to the token, with nothing outside of this machine:

    make demo-auth                                  # or: .venv/bin/python examples/demo_auth.py

Starts the local platform (fake_lark.py) and a sidecar of its own, plays the back end, and walks the user's part in a
headless Chromium, with a screenshot of each step. Without Chromium it prints the link and waits for you to do it.
`--long-connection` has the clicks come over lark-oapi's long connection (pip install -r config/requirements-lark.txt).
It ends what it has started, and leaves its folder: screenshots, logs, the sidecar's data.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import itertools
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import websocket

Json = dict[str, Any]

ROOT = Path(__file__).resolve().parent.parent
WAIT_SECONDS = 30.0
PERSON_SECONDS = 600.0
"""How long a person may take, and an authorization lasts."""
POLL_SECONDS = 0.1
APP_ID, USER, OPEN_ID = "cli_demo", "ada", "ou_ada"
CHROMIUMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=760,620",
    "--remote-debugging-port=0",
)
DONE = {"zh": "授权成功", "en": "Authorized"}


class Failed(Exception):
    """The demo can't go on; said to the user."""


def wait(condition: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS) -> Any:
    """The first truthy value. Raises Failed."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise Failed(f"after {seconds:g} s still not: {what}")
        time.sleep(POLL_SECONDS)
    return value


def call(method: str, url: str, body: object = None, token: str | None = None) -> Json:
    """An HTTP call with JSON. Raises Failed with what it was refused with."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as answer:
            read: Json = json.load(answer)
            return read
    except urllib.error.HTTPError as error:
        raise Failed(f"{method} {url}: {error.code} {error.read().decode(errors='replace')[:500]}") from None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# Programs ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def running(
    name: str, command: list[str], folder: Path, environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A program whose output goes to `folder`; asked to end on leaving."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("SIDECAR_")}
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=inherited | environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def check_runs(process: subprocess.Popen[bytes], log: Path) -> None:
    """Raises Failed with what it has said, if it has ended."""
    if process.poll() is not None:
        raise Failed(f"{log.stem} has ended:\n{log.read_text()}")


def told_address(log: Path, process: subprocess.Popen[bytes]) -> str:
    """The first line that a program prints."""

    def first_line() -> str:
        check_runs(process, log)
        line, end, _ = log.read_text().partition("\n")
        return line if end else ""

    address: str = wait(first_line, f"{log.stem} runs")
    return address


def ready(url: str, log: Path, process: subprocess.Popen[bytes]) -> bool:
    check_runs(process, log)
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


# The browser ---------------------------------------------------------------------------------------------------------


class Tab:
    """A page of the browser, over the DevTools protocol."""

    def __init__(self, address: str):
        self._socket = websocket.create_connection(address, timeout=WAIT_SECONDS, suppress_origin=True)
        self._numbers = itertools.count(1)

    def close(self) -> None:
        self._socket.close()

    def send(self, method: str, **parameters: Any) -> Json:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer: Json = json.loads(self._socket.recv())
            if answer.get("id") == number:
                if "error" in answer:
                    raise Failed(f"{method}: {answer['error']['message']}")
                result: Json = answer["result"]
                return result

    def value(self, javascript: str) -> Any:
        """None, too, while the page is another one or not there yet."""
        answer = self.send("Runtime.evaluate", expression=javascript, returnByValue=True)
        return answer["result"].get("value")

    def wait_text(self, text: str) -> None:
        wait(lambda: self.value(f"document.body?.innerText.includes({json.dumps(text)})"), f"the page shows {text}")

    def click(self, selector: str) -> None:
        """With the mouse, in the middle of the first element that fits."""
        script = f"""(() => {{
            const found = document.querySelector({json.dumps(selector)});
            found?.scrollIntoView({{ block: 'center' }});
            const box = found?.getBoundingClientRect();
            return box && {{ x: box.x + box.width / 2, y: box.y + box.height / 2 }};
        }})()"""
        place = wait(lambda: self.value(script), f"there is a {selector}")
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def screenshot(self, path: Path) -> None:
        self.send("Page.bringToFront")
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))


class Browser:
    """A headless Chromium; `shoot` numbers its pictures."""

    def __init__(self, program: str, folder: Path):
        self._folder = folder
        self._profile = folder / "profile"
        self._shots = itertools.count(1)
        self._tabs: list[Tab] = []
        self._process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={self._profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self._address = f"http://127.0.0.1:{wait(self._port, 'Chromium runs')}"
        except BaseException:
            self.close()
            raise

    def _port(self) -> str | None:
        if self._process.poll() is not None:
            raise Failed("Chromium has ended")
        with contextlib.suppress(OSError, IndexError):
            return (self._profile / "DevToolsActivePort").read_text().splitlines()[0]
        return None

    def _pages(self) -> dict[str, str]:
        with urllib.request.urlopen(f"{self._address}/json/list", timeout=WAIT_SECONDS) as answer:
            return {page["id"]: page["webSocketDebuggerUrl"] for page in json.load(answer) if page["type"] == "page"}

    def _tab(self, address: str) -> Tab:
        self._tabs.append(Tab(address))
        return self._tabs[-1]

    def open(self, url: str) -> Tab:
        """In a new tab."""
        request = urllib.request.Request(f"{self._address}/json/new?{url}", method="PUT")
        with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as answer:
            return self._tab(json.load(answer)["webSocketDebuggerUrl"])

    def opened_by(self, action: Callable[[], None]) -> Tab:
        """The tab that a click opens."""
        before = self._pages()
        action()
        found = wait(lambda: set(self._pages()) - set(before), "a new tab is open")
        return self._tab(self._pages()[found.pop()])

    def shoot(self, tab: Tab, name: str) -> str:
        path = self._folder / f"{next(self._shots)}-{name}.png"
        tab.screenshot(path)
        return path.name

    def close(self) -> None:
        """(A process group: Chromium is many processes.)"""
        for tab in self._tabs:
            tab.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        shutil.rmtree(self._profile, ignore_errors=True)


# The walk ------------------------------------------------------------------------------------------------------------


class Steps:
    """A printed list."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def say(self, text: str, *more: str) -> None:
        print(f"{next(self._numbers):2}. {text}")
        for line in more:
            print(f"      {line}")
        sys.stdout.flush()


class Demo:
    """`lark` and `sidecar` are addresses; `token` is the back end's."""

    def __init__(self, lark: str, sidecar: str, token: str, language: str):
        self._lark = lark
        self._sidecar = sidecar
        self._token = token
        self._language = language
        self._steps = Steps()

    def _order(self, do: str, **fields: Any) -> Json:
        return call("POST", f"{self._lark}/control", {"do": do, **fields})

    def _ask(self, method: str, path: str, body: object = None) -> Json:
        return call(method, f"{self._sidecar}/api/authorizations{path}", body, self._token)

    def begin(self) -> tuple[Json, str]:
        """The back end's part before the user's; the authorization and the id of the message with its card."""
        say = self._steps.say
        say("The platform and the sidecar run.", f"platform  {self._lark}/chat", f"sidecar   {self._sidecar}")
        if self._order("verify") != {"verified": True}:
            raise Failed("the platform's console doesn't accept the callback address")
        say("The platform's console has checked the callback address (url_verification, encrypted).")
        body = {"user": USER, "open_id": OPEN_ID, "language": self._language}
        begun = self._ask("POST", "", body)
        say(
            f"The back end begins an authorization of its user {USER}.",
            f"state {begun['state']}, {begun['session_id']}",
        )
        message_id: str = self._ask("POST", f"/{begun['session_id']}/card", {})["message_id"]
        say("It has the card sent to her.", f"message {message_id}")
        return begun, message_id

    def walk(self, begun: Json, message_id: str, browser: Browser) -> None:
        """The user's part, in three tabs."""
        say, done = self._steps.say, DONE[self._language]
        chat = browser.open(f"{self._lark}/chat?user={OPEN_ID}")
        wait(lambda: chat.value(f"document.getElementById('{message_id}') !== null"), "the card is in the chat")
        say("She sees the card in her chat.", browser.shoot(chat, "card"))
        page = browser.open(begun["page"])
        wait(lambda: page.value("document.querySelector('h1') !== null"), "the page of the authorization is open")
        say("The application's page waits beside it.", browser.shoot(page, "waiting"))
        consent = browser.opened_by(lambda: chat.click(f"#{message_id} a.primary"))
        wait(lambda: chat.value("document.getElementById('toast').textContent"), "the click was answered")
        toast = chat.value("document.getElementById('toast').textContent")
        say(
            "She clicks: the sidecar is told, signed and encrypted, and answers.", toast, browser.shoot(chat, "clicked")
        )
        wait(lambda: consent.value("document.querySelector('button.primary') !== null"), "the consent page is open")
        say("The platform asks her in a new tab.", browser.shoot(consent, "consent"))
        consent.click("button.primary")
        consent.wait_text(done)
        say("She allows it and comes back to the sidecar, which has the tokens.", browser.shoot(consent, "done"))
        page.wait_text(done)
        say("The page that waited has followed by itself.", browser.shoot(page, "followed"))
        chat.wait_text(done)
        say("The same card has changed in place.", browser.shoot(chat, "card-changed"))

    def wait_for_person(self, begun: Json) -> None:
        self._steps.say(
            "Chromium is not installed: please do her part. Open the chat and click the card's first button:",
            f"{self._lark}/chat?user={OPEN_ID}",
            f"what becomes of it: {begun['page']}",
        )
        states = ("completed", "rejected", "expired")
        path = f"/{begun['session_id']}"
        wait(lambda: self._ask("GET", path)["state"] in states, "she has answered", PERSON_SECONDS)

    def end(self, begun: Json, message_id: str) -> None:
        """What the back end has then. Raises Failed if it isn't so."""
        say = self._steps.say
        now = self._ask("GET", f"/{begun['session_id']}")
        if now["state"] != "completed":
            raise Failed(f"the authorization is {now['state']} ({now['reason']})")
        say(f"The back end sees it: {now['state']} by {now['name']}.")

        def message() -> Json:
            found: Json = next(one for one in self._state()["messages"] if one["message_id"] == message_id)
            return found

        wait(lambda: len(message()["versions"]) == 2, "the card has changed")
        say("One message, two versions of its card.", f"{message_id} changed by {message()['changes'][0]}")
        found = self._ask("GET", f"/{APP_ID}/{USER}/token")
        token = found["user_access_token"]
        say("The back end asks for her token.", f"{token[:4]}****{token[-4:]}, for {found['expires_in']} s")
        table = f"{self._lark}/open-apis/apaas/v1/workspaces/demo/tables/tasks/records"
        call("POST", table, {"records": json.dumps([{"title": "written in her name"}])}, token)
        rows = json.loads(call("GET", table, token=token)["data"]["items"])
        say("It writes into a table of the platform in her name.", f"{rows[0]['title']}, by {rows[0]['_created_by']}")
        uses = call("GET", f"{self._sidecar}/api/authorizations/audit?app={APP_ID}&user={USER}", token=self._token)
        say("The audit log has the use.", *(f"{use['use']} by {use['by']}" for use in uses["items"]))

    def _state(self) -> Json:
        return call("GET", f"{self._lark}/control")

    def long_connection_open(self) -> bool:
        return bool(self._state()["connections"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="for screenshots and logs; default: a new one")
    parser.add_argument("--language", choices=("zh", "en"), default="en", help="of cards and pages")
    parser.add_argument("--long-connection", action="store_true", help="clicks come over lark-oapi's long connection")
    given = parser.parse_args()
    folder: Path = given.folder or Path(tempfile.mkdtemp(prefix="demo-auth-"))
    folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        with contextlib.ExitStack() as stack:
            play(given, folder, stack)
    except (Failed, OSError, websocket.WebSocketException) as error:
        print(f"FAILED: {error}", file=sys.stderr)
        print(f"Logs: {folder}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"SUCCESS. Screenshots and logs: {folder}")
    return 0


def play(given: argparse.Namespace, folder: Path, stack: contextlib.ExitStack) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    app = {"APP_SECRET": secrets.token_hex(16), "ENCRYPT_KEY": secrets.token_hex(16)}
    app |= {"APP_ID": APP_ID, "VERIFICATION_TOKEN": secrets.token_hex(16)}
    redirect_uri = f"{url}/callback"
    command = [sys.executable, str(ROOT / "examples" / "fake_lark.py"), "--redirect-uri", redirect_uri]
    command += ["--callback-url", f"{url}/callback/lark", *(["--long-connection"] if given.long_connection else [])]
    for name, value in app.items():
        command += [f"--{name.lower().replace('_', '-')}", value]
    platform = stack.enter_context(running("platform", command, folder, {}))
    lark = told_address(folder / "platform.log", platform)
    environment = {f"SIDECAR_LARK_{name}": value for name, value in app.items()}
    environment |= {"SIDECAR_LARK_API_URL": lark, "SIDECAR_LARK_REDIRECT_URI": redirect_uri}
    environment |= {"SIDECAR_PORT": url.rpartition(":")[2], "SIDECAR_INSTANCE_DIR": str(folder / "instance")}
    server = stack.enter_context(running("sidecar", [sys.executable, "app.py"], folder, environment))
    wait(lambda: ready(url, folder / "sidecar.log", server), "the sidecar is ready")
    token = (folder / "instance" / "admin-token").read_text().strip()
    demo = Demo(lark, url, token, given.language)
    if given.long_connection:
        events = [sys.executable, "-m", "sidecar", "lark-events"]
        hearing = stack.enter_context(running("lark-events", events, folder, environment))

        def is_open() -> bool:
            check_runs(hearing, folder / "lark-events.log")
            return demo.long_connection_open()

        wait(is_open, "the long connection is open")
    begun, message_id = demo.begin()
    program = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if program is None:
        demo.wait_for_person(begun)
    else:
        browser = Browser(program, folder)
        stack.callback(browser.close)
        demo.walk(begun, message_id, browser)
    demo.end(begun, message_id)


if __name__ == "__main__":
    sys.exit(main())
