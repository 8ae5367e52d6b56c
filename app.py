"""The process that hosting starts: `python app.py`. Nothing may be imported before the patch.

Also the application of `flask --app app`, whose command `sidecar` is the command line.
"""

import gc
import sys

if sys.version_info < (3, 11):
    sys.exit("The sidecar needs Python 3.11 or later; this is %s." % sys.version.split()[0])

# What is imported stays: to look through it again and again meanwhile takes almost as long as to import it.
gc.disable()

try:
    from gevent import monkey
except ModuleNotFoundError:
    sys.exit("%s lacks what requirements.txt names: use .venv/bin/python, which `make run` makes." % sys.executable)

monkey.patch_all()

import signal

if __name__ == "__main__":  # Ctrl+C before the server listens for it: an end without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from sidecar.cli.main import flask_app as create_app
from sidecar.cli.serve import run_server

gc.enable()

__all__ = ["create_app", "run_server"]

if __name__ == "__main__":
    run_server()
