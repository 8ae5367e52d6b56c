"""What the services of authorizations are built on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from sidecar.observability.lark_metrics import LarkMetrics
from sidecar.services.lark_apps import Apps
from sidecar.services.providers import Provider
from sidecar.services.vault import Vault
from sidecar.store.database import Database
from sidecar.store.writer import Submit


@dataclass(frozen=True, slots=True)
class Parts:
    """The same for all of them; `clock` gives Unix seconds."""

    database: Database
    submit: Submit
    apps: Apps
    provider: Provider
    vault: Vault
    metrics: LarkMetrics
    clock: Callable[[], float] = time.time


class PartOf:
    """A service that has these parts at hand."""

    def __init__(self, parts: Parts):
        self._database = parts.database
        self._submit = parts.submit
        self._apps = parts.apps
        self._provider = parts.provider
        self._vault = parts.vault
        self._metrics = parts.metrics
        self._clock = parts.clock
