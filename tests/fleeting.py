"""app.py for which all that has to do with presence passes quickly, so that tests needn't wait half a minute."""

from __future__ import annotations

import sys
from pathlib import Path

from gevent import monkey

if __name__ == "__main__":
    monkey.patch_all()
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

    from sidecar import factory
    from sidecar.cli.serve import run_server
    from sidecar.services.presences import Times

    factory.TIMES = Times(gather_seconds=0.05, linger_seconds=2.0, sweep_seconds=0.2, beat_seconds=1.0, silent_beats=5)
    run_server()
