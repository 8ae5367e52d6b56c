"""app.py with less patience than it ships with, so that tests needn't wait a minute: the bounds of sidecar/patience.py
from the environment (HEAD_SECONDS=1, …), and TLS clients have a second to take the rest and to end. At SIGUSR1 it says
how many handlers of connections there are; each is alive as long as its greenlet is."""

from __future__ import annotations

import gc
import os
import signal
import sys
from pathlib import Path

from gevent import monkey

if __name__ == "__main__":
    monkey.patch_all()
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

    import gevent

    from sidecar import patience
    from sidecar.cli.serve import run_server
    from sidecar.fanout import splice
    from sidecar.server import Handler

    def count() -> None:
        gc.collect()
        sys.stdout.write(f"handlers: {sum(isinstance(one, Handler) for one in gc.get_objects())}\n")

    for name in ("HEAD_SECONDS", "IDLE_SECONDS", "BODY_SECONDS", "RESPONSE_SECONDS"):
        setattr(patience, name, float(os.environ[name]))
    splice.STALL_SECONDS = splice.LINGER_SECONDS = 1
    gevent.signal_handler(signal.SIGUSR1, count)
    run_server()
