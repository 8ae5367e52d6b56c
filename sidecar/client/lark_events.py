"""Hears a Lark app's events over its long connection and hands each to the sidecar, whose answer Lark gets.

`python -m sidecar lark-events` starts it, in a process of its own: the SDK brings an event loop and blocking threads.
All it is told is in its environment: SIDECAR_URL and SIDECAR_TOKEN, SIDECAR_LARK_APP_ID, _APP_SECRET, _API_URL,
_RECONNECT_RETRIES and _HEARTBEAT_SECONDS, SIDECAR_LOG_LEVEL and _FORMAT. It keeps nothing: an event that the sidecar
doesn't take is Lark's to send again, and the sidecar knows those that it has seen.

Ends with 0 when it is asked to (SIGTERM, SIGINT), with 1 when there is no connection after all attempts, with 2 when
Lark or the sidecar refuses. With --stay it waits instead, and begins again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx

from sidecar.client.lark_connection import LongConnection, LongConnectionError, LongConnectionRefused, NotTaken, run

ENDED, GAVE_UP, REFUSED = 0, 1, 2
FORWARD_SECONDS = 2.8
"""Lark waits 3 s for an answer, and the sidecar gives one after 2.5; the rest is for the way."""
FORWARD_PAUSE_SECONDS = 0.3
REPORT_SECONDS = 5.0
REPORT_PAUSE_SECONDS = 3.0
"""After a report that did not arrive: a heartbeat may be too long to wait."""
LONGEST_PAUSE_SECONDS = 60.0
STAY_SECONDS = 300.0
UNUSABLE = frozenset({400, 413})
"""The sidecar has read the event and can't use it; sent again it would be no better."""
REFUSALS = {
    401: "its token is unknown or revoked (SIDECAR_TOKEN)",
    403: "its token lacks the scope authorizations:write, or this app",
    404: "it knows no such Lark app, or is no sidecar (SIDECAR_URL)",
}
PASSING = frozenset({429, 502, 503, 504})
MAX_FORWARDS = 50
SHOWN_CHARACTERS = 80

log = logging.getLogger("sidecar.lark")


@dataclass(frozen=True, slots=True)
class Options:
    """What the environment says."""

    url: str
    app: str
    token: str = field(repr=False)
    secret: str = field(repr=False)
    lark_url: str
    retries: int
    heartbeat_seconds: float

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Options:
        """Raises KeyError for what is missing, ValueError for what is no number."""
        return cls(
            url=environment["SIDECAR_URL"].rstrip("/"),
            app=environment["SIDECAR_LARK_APP_ID"],
            token=environment["SIDECAR_TOKEN"],
            secret=environment["SIDECAR_LARK_APP_SECRET"],
            lark_url=environment["SIDECAR_LARK_API_URL"],
            retries=int(environment["SIDECAR_LARK_RECONNECT_RETRIES"]),
            heartbeat_seconds=float(environment["SIDECAR_LARK_HEARTBEAT_SECONDS"]),
        )


class Sidecar:
    """The sidecar that is told."""

    def __init__(self, options: Options):
        self._app = json.dumps(options.app).encode()
        self._events = f"{options.url}/api/authorizations/events"
        self._http = httpx.AsyncClient(
            headers={"Authorization": f"Token {options.token}", "User-Agent": "sidecar-lark-events/1.0"},
            timeout=REPORT_SECONDS,
            limits=httpx.Limits(max_connections=MAX_FORWARDS),
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def take(self, event: bytes) -> dict[str, Any] | None:
        """What the sidecar answers; it is asked again, as long as Lark waits, while it is not there."""
        named = _named(event)
        begin, tried = time.monotonic(), "the sidecar did not answer in time"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FORWARD_SECONDS):
                while True:
                    try:
                        response = await self._post(event)
                    except httpx.TransportError as error:
                        tried = f"the sidecar can't be reached ({type(error).__name__})"
                    else:
                        if response.status_code not in PASSING:
                            milliseconds = (time.monotonic() - begin) * 1000
                            log.debug("Event %s: %d after %.0f ms.", named, response.status_code, milliseconds)
                            return _answer(response, named)
                        tried = f"the sidecar answered {response.status_code}"
                    await asyncio.sleep(FORWARD_PAUSE_SECONDS)
        raise NotTaken(f"{named}: {tried}")

    async def _post(self, event: bytes) -> httpx.Response:
        body = b'{"app":' + self._app + b',"event":' + event + b"}"
        return await self._http.post(self._events, content=body, headers={"Content-Type": "application/json"})

    async def report(self, state: Mapping[str, Any]) -> int:
        """The status of its answer. Raises httpx.HTTPError."""
        return (await self._http.post(f"{self._events}/link", json=state)).status_code


def _named(event: bytes) -> str:
    """Type and id, for a log line. Raises NotTaken if it is not an event at all."""
    try:
        read = json.loads(event)
    except ValueError:
        raise NotTaken("it is not JSON") from None
    header = read.get("header") if isinstance(read, dict) else None
    if not isinstance(header, dict):
        return "without a header"
    return " ".join(repr(header.get(name))[:SHOWN_CHARACTERS] for name in ("event_type", "event_id"))


def _answer(response: httpx.Response, named: str) -> dict[str, Any] | None:
    status = response.status_code
    if status in UNUSABLE:
        log.warning("The sidecar can't use event %s: it answered %d.", named, status)
        return None
    if status != 200:
        raise NotTaken(f"{named}: the sidecar doesn't take it: {_refusal(status)}")
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise NotTaken(f"{named}: the sidecar's answer is not a JSON object")
    return answer


def _refusal(status: int | None) -> str:
    return "it can't be reached" if status is None else REFUSALS.get(status, f"it answered {status}")


class Link:
    """The state of the long connection, as the sidecar is told it: at each change and each heartbeat."""

    def __init__(self, options: Options, sidecar: Sidecar):
        self._options, self._sidecar = options, sidecar
        self._connected = False
        self._reconnects = {"attempt": 0, "success": 0, "failure": 0}
        self._started_at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._changed = asyncio.Event()

    def set(self, connected: bool) -> None:
        self._connected = connected
        self._changed.set()

    def count(self, outcome: str) -> None:
        self._reconnects[outcome] += 1
        self._changed.set()

    async def introduce(self) -> None:
        """Wait until the sidecar answers: before that every event would have to be sent again. Raises
        LongConnectionRefused if it doesn't want to be told."""
        waited = False
        while (status := await self.tell()) != 200:
            if status is not None and status < 500 and status not in PASSING:
                raise LongConnectionRefused(f"the sidecar refuses: {_refusal(status)}")
            if not waited:
                log.warning("Waiting for the sidecar at %s.", self._options.url)
            waited = True
            await asyncio.sleep(REPORT_PAUSE_SECONDS)

    async def keep_told(self) -> None:
        heartbeat = self._options.heartbeat_seconds
        last: int | None = 200
        while True:
            self._changed.clear()
            status = await self.tell()
            if status != 200 and last == 200:
                log.warning("The sidecar is not told of the connection: %s.", _refusal(status))
            last = status
            pause = heartbeat if status == 200 else min(heartbeat, REPORT_PAUSE_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()

    async def tell(self) -> int | None:
        """The status of the answer, None without one."""
        state = {
            "app": self._options.app,
            "connected": self._connected,
            "reconnects": self._reconnects,
            "started_at": self._started_at,
            "heartbeat_seconds": self._options.heartbeat_seconds,
        }
        try:
            return await self._sidecar.report(state)
        except httpx.HTTPError:
            return None


class Hearing:
    """Connects again and again, until there were too many attempts in a row without a good connection."""

    def __init__(self, options: Options, sidecar: Sidecar, link: Link):
        self._options, self._sidecar, self._link = options, sidecar, link
        self._failures = 0

    async def run(self) -> None:
        """Raises LongConnectionError in the end."""
        retries = self._options.retries
        self._failures = 0
        while True:
            lost = await self._session()
            self._failures += 1
            if self._failures > retries:
                raise LongConnectionError(f"{lost}; gave up after {retries} attempts")
            pause = min(2.0 ** (self._failures - 1), LONGEST_PAUSE_SECONDS)
            log.warning("%s. Attempt %d of %d in %g s.", lost.capitalize(), self._failures, retries, pause)
            await asyncio.sleep(pause * random.uniform(1.0, 1.1))  # noqa: S311 - a pause, not a secret

    async def _session(self) -> str:
        """One attempt, and what comes of it: why there is no connection (any more)."""
        options = self._options
        connection = LongConnection(options.app, options.secret, options.lark_url, self._sidecar.take)
        try:
            await self._open(connection)
            log.info("Connected to Lark: the events of app %s are heard.", options.app)
            self._link.set(connected=True)
            why = await connection.heard()
            if connection.steady:
                self._failures = 0
        except LongConnectionRefused:
            raise
        except LongConnectionError as error:
            return str(error)
        finally:
            self._link.set(connected=False)
            await connection.close()
        return f"the long connection has ended: {why}"

    async def _open(self, connection: LongConnection) -> None:
        if self._failures == 0:
            await connection.open()
            return
        self._link.count("attempt")
        try:
            await connection.open()
        except LongConnectionError:
            self._link.count("failure")
            raise
        self._link.count("success")


async def hear(options: Options, stay: bool) -> int:
    """Until it is cancelled (ENDED), or there is no use in going on."""
    sidecar = Sidecar(options)
    link = Link(options, sidecar)
    telling: asyncio.Task[None] | None = None
    try:
        while True:
            try:
                await link.introduce()
                telling = telling or asyncio.create_task(link.keep_told())
                await Hearing(options, sidecar, link).run()
            except LongConnectionError as error:
                log.error("No long connection: %s.", error)
                if not stay:
                    return REFUSED if isinstance(error, LongConnectionRefused) else GAVE_UP
                log.info("Beginning again in %g s.", STAY_SECONDS)
                await asyncio.sleep(STAY_SECONDS)
    except asyncio.CancelledError:
        log.info("Ending.")
        return ENDED
    finally:
        if telling is not None:
            telling.cancel()
            await link.tell()
        await sidecar.close()


class JsonLines(logging.Formatter):
    """As the sidecar's own log with SIDECAR_LOG_FORMAT=json."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z")
        line = {"event": record.getMessage(), "level": record.levelname.lower(), "timestamp": at}
        return json.dumps(line, ensure_ascii=False)


def configure_log(level: str, format: str) -> None:
    """Our own lines, to standard output, and of the libraries only what is wrong."""
    handler = logging.StreamHandler(sys.stdout)
    text = logging.Formatter("%(asctime)s.%(msecs)03dZ [%(levelname)s] %(message)s", "%Y-%m-%dT%H:%M:%S")
    text.converter = time.gmtime
    handler.setFormatter(JsonLines() if format == "json" else text)
    log.addHandler(handler)
    log.propagate = False
    log.setLevel(level.upper())


def main() -> int:
    configure_log(os.environ.get("SIDECAR_LOG_LEVEL") or "info", os.environ.get("SIDECAR_LOG_FORMAT") or "console")
    try:
        options = Options.read(os.environ)
    except KeyError as error:
        log.error("%s is not set; `python -m sidecar lark-events` starts this program.", error.args[0])
        return REFUSED
    return run(hear(options, stay="--stay" in sys.argv[1:]))


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)  # a thread that still waits for Lark, or for a name to be resolved, must not hold up the end
