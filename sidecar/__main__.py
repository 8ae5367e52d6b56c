"""`python -m sidecar`."""

import gc
import sys

if sys.version_info < (3, 11):
    sys.exit("The sidecar needs Python 3.11 or later; this is %s." % sys.version.split()[0])

# What is imported stays: to look through it meanwhile, and once more at the end, takes almost as long as to import it.
gc.disable()

try:
    from gevent import monkey
except ModuleNotFoundError:
    sys.exit("%s lacks what requirements.txt names: use .venv/bin/python, which `make run` makes." % sys.executable)

monkey.patch_all()

from sidecar.cli.main import cli

gc.freeze()  # app.py must not: what `flask --app app` imports before the patch complains as it ends after it
gc.enable()

cli(prog_name="python -m sidecar")
