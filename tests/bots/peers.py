"""The real maim_message clients and servers of both generations, for tests.

    with RealClient("0.6.8", "ws://127.0.0.1:8091/ws", "key-a", "wechat") as bot:
        assert bot.connect()
        bot.send(text_message("hello", to=("key-b", "qq")))

Many clients may share one process: `with Bots("0.7.5") as bots`, then `RealClient(bots, …)`."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import pytest

from tests.programs import free_port, listening, wait_until

HERE = Path(__file__).resolve().parent
VERSIONS = ("0.6.8", "0.7.5")
DEADLINE_SECONDS = 60.0
"""How long a test waits for what usually takes milliseconds."""

Line = dict[str, Any]


def python_of(version: str) -> Path:
    """The Python that this version is installed for; skips the test when it is missing."""
    program = HERE / f".venv-{version}" / "bin" / "python"
    if not (program.parent.parent / "installed").exists():
        pytest.skip(f"maim_message {version} is not installed (make bots)")
    return program


def start(python: Path, program: str, *arguments: str, output: IO[bytes]) -> subprocess.Popen[str]:
    """A program of this folder by that Python; what it prints aside goes to `output`."""
    # A proxy of the machine is not meant for its own addresses, but some clients ask it.
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return subprocess.Popen(
        [str(python), "-B", str(HERE / program), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE if program == "client.py" else output,
        stderr=output,
        text=True,
        cwd=HERE,
        env=environment,
    )


def end(process: subprocess.Popen[str]) -> None:
    """Ask it to end by the end of its input, insist later."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(DEADLINE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def text_message(text: Any, to: tuple[str, str], kind: str = "text", **info: Any) -> Line:
    """The three parts of a message for the owner of a key, on a platform."""
    key, platform = to
    return {
        "message_info": {"platform": "test", "message_id": uuid.uuid4().hex, "time": time.time(), **info},
        "message_segment": {"type": kind, "data": text},
        "message_dim": {"api_key": key, "platform": platform},
    }


def envelope(payload: Any, kind: str = "sys_std", msg_id: str | None = None, **meta: Any) -> Line:
    """What a client sends, with a msg_id that no other has."""
    return {
        "ver": 1,
        "msg_id": msg_id or f"msg_{uuid.uuid4().hex[:12]}_{int(time.time())}",
        "type": kind,
        "meta": {"sender_user": "test", "platform": "test", "timestamp": time.time(), **meta},
        "payload": payload,
    }


class Bots:
    """A process with real clients of one version."""

    def __init__(self, version: str) -> None:
        self.version = version
        self._numbers = itertools.count(1)
        self._lines: dict[str, list[Line]] = {}
        self._answers: dict[int, Line] = {}
        self._news = threading.Condition()
        self._ended = False
        python = python_of(version)
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = start(python, "client.py", output=self._output)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin: IO[str] = self._process.stdin
        self._stdout: IO[str] = self._process.stdout
        self._writing = threading.Lock()
        self._reader = threading.Thread(target=self._read, name=f"bots-{version}", daemon=True)
        self._reader.start()

    def __enter__(self) -> Bots:
        return self

    def __exit__(self, *_: object) -> None:
        end(self._process)
        self._reader.join(DEADLINE_SECONDS)
        self._stdout.close()
        self._output.close()

    def new_name(self) -> str:
        name = f"client-{next(self._numbers)}"
        self._lines[name] = []
        return name

    def call(self, op: str, **arguments: Any) -> Any:
        """A command's answer; its failure fails the test."""
        number = self.tell(op, **arguments)
        answer = self.wait(lambda: self._answers.pop(number, None), f"an answer to {op}")
        assert "error" not in answer, f"{op}: {answer['error']}"
        return answer["value"]

    def tell(self, op: str, **arguments: Any) -> int:
        """Send a command; its number."""
        number = next(self._numbers)
        with self._writing:
            self._stdin.write(json.dumps({"id": number, "op": op, **arguments}) + "\n")
            self._stdin.flush()
        return number

    def wait(self, look: Callable[[], Line | None], what: str, instead: Callable[[], object] | None = None) -> Line:
        """What `look` finds first, now or as lines come."""
        finish = time.monotonic() + DEADLINE_SECONDS
        with self._news:
            while (found := look()) is None:
                left = finish - time.monotonic()
                if left <= 0 or self._ended:
                    shown = f"; instead: {instead()}" if instead else ""
                    pytest.fail(
                        f"{self.version}: no {what} within {DEADLINE_SECONDS:g} s{shown}\n{self._last_output()}"
                    )
                self._news.wait(left)
        return found

    def lines(self, client: str) -> list[Line]:
        """All that has come to this client by itself."""
        with self._news:
            return list(self._lines[client])

    def _last_output(self) -> str:
        size = self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, size - 4000))
        return self._output.read().decode(errors="replace")

    def _read(self) -> None:
        for text in self._stdout:
            line = json.loads(text)
            with self._news:
                if "id" in line:
                    self._answers[line["id"]] = line
                else:
                    self._lines[line["client"]].append(line)
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


class RealClient:
    """One real client. `bots` is a running process, or a version: then it has a process of its own. `config` is more
    of ClientConfig; `custom` names custom types to handle. `next_…` walk forward through what came."""

    def __init__(
        self, bots: Bots | str, url: str, api_key: str, platform: str, *, custom: Sequence[str] = (), **config: Any
    ) -> None:
        self._own = Bots(bots) if isinstance(bots, str) else None
        self._bots = self._own or bots
        assert isinstance(self._bots, Bots)
        self.name = self._bots.new_name()
        self._seen: dict[str, int] = {}
        self._stopped = False
        # Comes back soon after a restart; the library's own 2 s would be waited for.
        config = {"reconnect_delay": 0.2, "max_reconnect_delay": 1.0} | config
        config |= {"url": url, "api_key": api_key, "platform": platform}
        self._call("open", config=config, custom=list(custom))

    def __enter__(self) -> RealClient:
        return self

    def __exit__(self, *_: object) -> None:
        """Not waited for: 0.7.5 now and then takes half a minute to stop."""
        if not self._stopped:
            self._stopped = True
            self._bots.tell("stop", client=self.name)
        if self._own is not None:
            self._own.__exit__()

    def connect(self) -> bool:
        """What the real connect() returns: after at most ten seconds."""
        connected: bool = self._call("connect")
        return connected

    def send(self, message: Line) -> bool:
        """The three parts, as send_message takes them."""
        sent: bool = self._call("send", message=message)
        return sent

    def send_text(self, text: str, to: tuple[str, str]) -> Line:
        """The message that was sent."""
        message = text_message(text, to)
        assert self.send(message)
        return message

    def send_custom(self, kind: str, payload: Any) -> bool:
        sent: bool = self._call("send_custom", type=kind, payload=payload)
        return sent

    def send_frame(self, frame: Line) -> bool:
        """A whole envelope, by the real client's connection."""
        sent: bool = self._call("send_frame", frame=frame)
        return sent

    @property
    def state(self) -> Line:
        """connected, last_error, uuid and stats, as the real client tells them."""
        state: Line = self._call("state")
        return state

    @property
    def connected(self) -> bool:
        return bool(self.state["connected"])

    @property
    def last_error(self) -> str | None:
        error: str | None = self.state["last_error"]
        return error

    def next(self, what: str, where: Callable[[Line], bool] = lambda line: True) -> Line:
        """The next line of this kind that `where` accepts; those before it are passed over."""

        def look() -> Line | None:
            lines = self.lines(what)
            while self._seen.setdefault(what, 0) < len(lines):
                self._seen[what] += 1
                if where(lines[self._seen[what] - 1]):
                    return lines[self._seen[what] - 1]
            return None

        return self._bots.wait(look, f"{what} for {self.name}", lambda: self.lines()[-5:])

    def next_message(self, where: Callable[[Line], bool] = lambda message: True) -> Line:
        """What on_message was given next, as a dict."""
        message: Line = self.next("message", lambda line: where(line["message"]))["message"]
        return message

    def next_text(self) -> str:
        text: str = self.next_message()["message_segment"]["data"]
        return text

    def next_custom(self) -> tuple[str, Any]:
        line = self.next("custom")
        return line["type"], line["payload"]

    def next_frame(self, *kinds: str) -> Line:
        """The next envelope of these types (all without)."""
        frame: Line = self.next("frame", lambda line: not kinds or line["frame"].get("type") in kinds)["frame"]
        return frame

    def acked(self, msg_id: str) -> Line:
        """The sys_ack for this msg_id, waited for."""
        return self.next_ack(lambda frame: frame["meta"]["acked_msg_id"] == msg_id)

    def next_ack(self, where: Callable[[Line], bool] = lambda frame: True) -> Line:
        found = self.next("frame", lambda line: line["frame"].get("type") == "sys_ack" and where(line["frame"]))
        frame: Line = found["frame"]
        return frame

    def texts(self) -> list[Any]:
        """The contents of all messages that came until now."""
        return [line["message"]["message_segment"]["data"] for line in self.lines("message")]

    def frames(self, *kinds: str) -> list[Line]:
        """All envelopes of these types (all without) that came until now."""
        return [line["frame"] for line in self.lines("frame") if not kinds or line["frame"].get("type") in kinds]

    def lines(self, what: str | None = None) -> list[Line]:
        return [line for line in self._bots.lines(self.name) if what in (None, line["what"])]

    def stop(self) -> None:
        """Disconnect and stop the real client."""
        if not self._stopped:
            self._stopped = True
            self._call("stop")

    def _call(self, op: str, **arguments: Any) -> Any:
        return self._bots.call(op, client=self.name, **arguments)


class RealServer:
    """The real server of one version, whose application routes by key: `users` names each key's owner."""

    def __init__(self, version: str, users: dict[str, str]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.ws_url = f"ws://127.0.0.1:{self.port}/ws"
        python = python_of(version)
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = start(python, "server.py", str(self.port), json.dumps(users), output=self._output)

    def __enter__(self) -> RealServer:
        wait_until(lambda: self._process.poll() is not None or listening(self.port), "it listens")
        if self._process.poll() is not None:
            self._output.seek(0)
            pytest.fail(f"the real server ended: {self._output.read().decode(errors='replace')}")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._output.close()
