"""app.py with a lease of the Redis list that is over soon: tests needn't wait for another process to take over."""

from __future__ import annotations

import sys
from pathlib import Path

from gevent import monkey

if __name__ == "__main__":
    monkey.patch_all()
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

    from sidecar.cli.serve import run_server
    from sidecar.jobs import redis_list

    redis_list.LEASE_SECONDS, redis_list.KEEP_SECONDS = 1.5, 0.3
    run_server()
