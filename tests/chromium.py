"""A headless Chromium for tests of pages, driven over the DevTools protocol by a plain WebSocket client."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
import websocket

PROGRAMS = ("chromium-headless-shell", "chromium")
"""The first is the same without a desktop's browser around it: a page costs far less CPU."""
DEADLINE_SECONDS = 60.0
POLL_SECONDS = 0.02
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",  # containers have little of it
    "--disable-back-forward-cache",  # a page that was left is at its end
    "--disable-site-isolation-trials",  # no process for each origin of a page
    "--remote-debugging-port=0",
)


LEFT = {
    "Inspected target navigated or closed",
    "Execution context was destroyed.",
    "Cannot find default execution context",
    "Cannot find context with specified id",
}
"""How Chromium refuses to evaluate in a page that gives way to the next one."""


class PageError(AssertionError):
    """What was evaluated in the page threw, or the page could not be loaded."""


class PageLeft(PageError):
    """The browser went on to another page before it had an answer."""


def installed() -> str | None:
    """The program of a Chromium, if there is one."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Chromium:
    """The program, for one `Browser` after the other. `profile` is a folder of its own that nothing else uses."""

    def __init__(self, profile: Path):
        program = installed()
        if program is None:
            pytest.skip("Chromium is not installed (make services)")
        # a process group of its own: Chromium is many processes, and close() ends all of them
        self._process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            port, path = self._address(profile / "DevToolsActivePort")
            self._address_of_pages = f"ws://127.0.0.1:{port}/devtools/page/"
            self._line = Line(f"ws://127.0.0.1:{port}{path}")
        except BaseException:
            self._end()
            raise

    def open_context(self) -> tuple[str, Line]:
        """A new context, and the line to its one empty page."""
        context = self._line.call("Target.createBrowserContext")["browserContextId"]
        page = self._line.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        return context, Line(f"{self._address_of_pages}{page}")

    def download_into(self, folder: Path, context: str) -> None:
        self._line.call(
            "Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder), browserContextId=context
        )

    def close_context(self, context: str) -> None:
        self._line.call("Target.disposeBrowserContext", browserContextId=context)

    def close(self) -> None:
        """End every process of it."""
        self._line.close()
        self._end()

    def _address(self, file: Path) -> list[str]:
        end = time.monotonic() + DEADLINE_SECONDS
        while not (file.exists() and len(lines := file.read_text().splitlines()) == 2):
            if self._process.poll() is not None or time.monotonic() > end:
                raise AssertionError("Chromium did not start")
            time.sleep(POLL_SECONDS)
        return lines

    def _end(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class Line:
    """A connection of the DevTools protocol. `heard` is given what comes unasked."""

    def __init__(self, url: str):
        self.heard: Callable[[str, dict[str, Any]], None] = lambda method, parameters: None
        self._last_id = 0
        self._socket = websocket.create_connection(
            url, timeout=DEADLINE_SECONDS, suppress_origin=True, skip_utf8_validation=True
        )

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._last_id += 1
        number = self._last_id
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = self.receive()
            if answer.get("id") == number:
                if "error" in answer:
                    message = answer["error"]["message"]
                    raise (PageLeft if message in LEFT else PageError)(f"{method}: {message}")
                result: dict[str, Any] = answer["result"]
                return result

    def receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._socket.recv())
        if "method" in message:
            self.heard(message["method"], message.get("params", {}))
        return message

    def close(self) -> None:
        self._socket.close()


class Browser:
    """One page in a context of its own, as in another profile: cookies, storage, cache and connections are shared with
    nobody.

    `errors` collects uncaught exceptions, console.error and failed requests since the last `open`, as text;
    it is up to date after each call.
    """

    def __init__(self, chromium: Chromium):
        self.errors: list[str] = []
        self._loaded = False
        self._chromium = chromium
        self._context, self._line = chromium.open_context()
        self._line.heard = self._hear
        self._call = self._line.call
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self, url: str) -> None:
        """Go there and wait until the page has loaded. Raises PageError when it can't be."""
        self.errors.clear()
        self._loaded = False
        answer = self._call("Page.navigate", url=url)
        if "errorText" in answer:
            raise PageError(f"{url}: {answer['errorText']}")
        while not self._loaded:
            self._line.receive()

    def download_into(self, folder: Path) -> None:
        """Where files go that the page has downloaded."""
        self._chromium.download_into(folder, self._context)

    def set_cookie(self, url: str, name: str, value: str) -> None:
        """As if that address had set it."""
        self._call("Network.setCookie", url=url, name=name, value=value)

    def evaluate(self, javascript: str) -> Any:
        """The value of a script, awaited if it is a promise. It must be JSON: end a script whose value you
        don't need with `; null`. Raises PageError."""
        answer = self._call(
            "Runtime.evaluate", expression=javascript, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            raise PageError(_exception_text(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def wait_for(self, condition: str, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        """Until a JavaScript expression is truthy, in this page or the one it leads to. Raises PageError after the
        deadline."""
        end = time.monotonic() + deadline_seconds
        while not self._is_true(condition):
            if time.monotonic() > end:
                text = self.evaluate("document.body.innerText")
                raise PageError(f"never true: {condition}\nerrors: {self.errors}\npage: {text}")
            time.sleep(POLL_SECONDS)

    def resize(self, width: int, height: int) -> None:
        """Give the page a window of this size."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def screenshot(self, path: Path, width: int, height: int) -> None:
        """A PNG of the page in a window of this size."""
        self.resize(width, height)
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        """End the page, and forget all that it stored."""
        self._line.close()
        self._chromium.close_context(self._context)

    def _is_true(self, condition: str) -> bool:
        with suppress(PageLeft):
            return bool(self.evaluate(f"Boolean({condition})"))
        return False

    def _hear(self, method: str, parameters: dict[str, Any]) -> None:
        match method:
            case "Page.loadEventFired":
                self._loaded = True
            case "Runtime.exceptionThrown":
                self.errors.append(_exception_text(parameters["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if parameters["type"] == "error":
                values = [str(item.get("value", item.get("description"))) for item in parameters["args"]]
                self.errors.append(" ".join(values))
            case "Log.entryAdded" if parameters["entry"]["level"] == "error":
                entry = parameters["entry"]
                self.errors.append(f"{entry['text']} {entry.get('url', '')}".strip())


def _exception_text(details: dict[str, Any]) -> str:
    return str(details.get("exception", {}).get("description") or details["text"])
