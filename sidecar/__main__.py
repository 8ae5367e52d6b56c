"""`python -m sidecar`."""

import sys

if sys.version_info < (3, 11):
    sys.exit("The sidecar needs Python 3.11 or later; this is %s." % sys.version.split()[0])

from gevent import monkey

monkey.patch_all()

from sidecar.cli.main import cli

cli(prog_name="python -m sidecar")
