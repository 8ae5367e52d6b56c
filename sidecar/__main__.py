"""`python -m sidecar`."""

from gevent import monkey

monkey.patch_all()

from sidecar.cli import cli

cli(prog_name="python -m sidecar")
