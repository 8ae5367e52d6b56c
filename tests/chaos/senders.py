"""Workflows that post as real ones should: a post that got no 200 is sent again, with its key, until it gets one."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable

import httpx

PATH = "/project-dashboard/api/webhooks/deployment"
PATIENCE_SECONDS = 0.3
"""A real sender waits as long as Retry-After says; these have more to do."""


class Sender:
    """Posts log lines to one deployment, one after the other, each with a text of its own."""

    def __init__(
        self,
        url: str,
        token: str,
        project: str,
        deployment: str,
        label: str,
        posts_a_second: float,
        enter: Callable[[], None] = lambda: None,
    ):
        """`enter` is called first in its thread."""
        self.project = project
        self.deployment = deployment
        self.answered: dict[str, int] = {}
        """The seq that each text was answered with."""
        self.last = 0
        """The newest of them."""
        self.tried = 0
        self.refused = 0
        """Answered 503 by the sidecar, with Retry-After."""
        self.unanswered = 0
        """The connection ended instead, or a proxy answered that nobody was there."""
        self.doubles = 0
        """Answered that it had been stored by an earlier attempt."""
        self.faults: list[str] = []
        self._label = label
        self._enter = enter
        self._url = url
        self._token = token
        self._pause_seconds = 1 / posts_a_second
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"sender-{deployment}")
        self._thread.start()

    def end(self) -> None:
        """No new post; the last one may still need its answer."""
        self._stop.set()

    def join(self) -> None:
        self._thread.join()

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()

    def _run(self) -> None:
        self._enter()
        headers = {"Authorization": f"Token {self._token}"}
        with httpx.Client(base_url=self._url, headers=headers, timeout=20) as http:
            for number in itertools.count(1):
                if self._stop.is_set() or self.faults:
                    return
                began = time.monotonic()
                self._post_until_answered(http, f"{self.deployment}:{self._label}{number}")
                self._stop.wait(max(0.0, self._pause_seconds - (time.monotonic() - began)))

    def _post_until_answered(self, http: httpx.Client, text: str) -> None:
        body = {"type": "log_entry", "project": self.project, "deployment_id": self.deployment, "message": text}
        while not self.faults:
            self.tried += 1
            try:
                answer = http.post(PATH, json=body, headers={"Idempotency-Key": text})
            except httpx.HTTPError:
                self.unanswered += 1
                time.sleep(0.05)
                continue
            if answer.status_code == 200:
                stored = answer.json()
                self.doubles += stored["duplicate"]
                self.answered[text] = self.last = int(stored["event_id"])
                return
            if answer.status_code == 503 and "Retry-After" in answer.headers:
                self.refused += 1
                time.sleep(min(PATIENCE_SECONDS, float(answer.headers["Retry-After"])))
            elif answer.status_code in (502, 504):
                self.unanswered += 1
                time.sleep(0.05)
            else:
                self.faults.append(f"{text}: {answer.status_code} {answer.text}")


class Senders:
    """One for each deployment of each project; `label` tells their posts from those of others."""

    def __init__(
        self,
        url: str,
        token: str,
        projects: dict[str, list[str]],
        label: str,
        posts_a_second: float,
        enter: Callable[[], None] = lambda: None,
    ):
        count = sum(len(deployments) for deployments in projects.values())
        self.each = [
            Sender(url, token, project, deployment, label, posts_a_second / count, enter)
            for project, deployments in projects.items()
            for deployment in deployments
        ]

    @property
    def texts(self) -> set[str]:
        """Those that were answered 200."""
        return {text for sender in self.each for text in tuple(sender.answered)}

    @property
    def answered(self) -> int:
        return sum(len(sender.answered) for sender in self.each)

    @property
    def refused(self) -> int:
        return sum(sender.refused for sender in self.each)

    @property
    def faults(self) -> list[str]:
        return [fault for sender in self.each for fault in sender.faults]

    def end(self) -> None:
        """Returns when every post has been answered."""
        for sender in self.each:
            sender.end()
        for sender in self.each:
            sender.join()
