"""Somebody who has just cloned the repository and follows a page word by word.

The clone is a folder of links, its `instance` that of a sidecar which runs already. What the pages run as
`.venv/bin/python -m sidecar …` is forked from the process that has imported it (tests/preloaded.py); all else is run by
bash as it stands, with two differences: another port, and a curl that fails where the server refuses.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tests.docs.pages import ROOT
from tests.preloaded import REQUEST_BYTES
from tests.servers import PRELOADED, RunningSidecar

LEFT_OUT = {".git", ".venv", "instance", "node_modules"}
PRELUDE = """\
set -euo pipefail
curl() {
    case " $*" in
        *" -f"*) command curl "$@" ;;
        *) command curl --silent --show-error --fail-with-body "$@" ;;
    esac
}
export -f curl
"""
SECONDS = 60

# Python without its libraries: started in a few milliseconds.
ASK = """\
import json, os, socket, sys
asked = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
asked.connect({address!r})
own = {{name: value for name, value in os.environ.items() if name.startswith(("SIDECAR_", "PORT"))}}
socket.send_fds(asked, [json.dumps([sys.argv[1:], own]).encode()], [0, 1, 2])
sys.exit(int(asked.recv(16)))
"""
PYTHON = """\
#!/bin/sh
if [ "$1 $2" = "-m sidecar" ]; then exec {python} -SE {ask} "$@"; fi
exec {python} "$@"
"""


class Stranger:
    """`folder` is the clone; `sidecar` what runs there."""

    def __init__(self, folder: Path, sidecar: RunningSidecar):
        self.folder = folder
        self.sidecar = sidecar
        folder.mkdir()
        for entry in ROOT.iterdir():
            if entry.name not in LEFT_OUT:
                (folder / entry.name).symlink_to(entry)
        (folder / "instance").symlink_to(sidecar.instance)
        self._commands = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._commands.bind(str(folder / ".ask.socket"))
        self._commands.listen()
        python = folder / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        ask = folder / ".ask.py"
        ask.write_text(ASK.format(address=str(folder / ".ask.socket")))
        python.write_text(PYTHON.format(python=shlex.quote(sys.executable), ask=shlex.quote(str(ask))))
        python.chmod(0o755)
        self._server = threading.Thread(target=self._serve)
        self._server.start()

    def close(self) -> None:
        with suppress(OSError):
            self._commands.shutdown(socket.SHUT_RDWR)
        self._commands.close()
        self._server.join()

    @property
    def environment(self) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith(("SIDECAR_", "PORT", "LARK_"))}
        instance = str(self.sidecar.instance)
        return own | {"SIDECAR_PORT": str(self.sidecar.port), "SIDECAR_INSTANCE_DIR": instance}

    def here(self, text: str) -> str:
        """A page's text with the address of this sidecar."""
        return text.replace("http://127.0.0.1:8091", self.sidecar.url)

    def run(self, *blocks: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run these commands in one shell, up to the first that fails."""
        return subprocess.run(
            ["bash", "-c", PRELUDE + self.here("\n".join(blocks))],
            cwd=self.folder,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=SECONDS,
        )

    def follow(self, *blocks: str, **environment: str) -> str:
        """What the commands print; none may fail."""
        done = self.run(*blocks, **environment)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    def _serve(self) -> None:
        while True:
            try:
                asked, _ = self._commands.accept()
            except OSError:
                return
            with asked:
                data, descriptors, _, _ = socket.recv_fds(asked, REQUEST_BYTES, 3)
                arguments, own = json.loads(data)
                standard = [open(number, "rb", buffering=0) for number in descriptors]  # noqa: SIM115 - closed below
                code = self._command(arguments, own, standard)
                for file in standard:
                    file.close()
                asked.send(str(code).encode())

    def _command(self, arguments: list[str], own: Mapping[str, str], standard: list) -> int:
        base = {name: value for name, value in os.environ.items() if not name.startswith(("SIDECAR_", "PORT"))}
        return PRELOADED.start(arguments, base | dict(own), tuple(standard)).wait(SECONDS)
