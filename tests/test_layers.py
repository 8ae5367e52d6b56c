"""The house rules of docs/design/structure.md, checked on every import that the code makes."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from sidecar.version import VERSION

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "sidecar"

MAY_IMPORT: dict[str, set[str]] = {
    "domain": set(),
    "wire": {"domain"},
    "observability": {"domain"},
    "store": {"wire", "observability", "domain"},
    "fanout": {"store", "wire", "observability", "domain"},
    "services": {"fanout", "store", "wire", "observability", "domain"},
    "http": {"services", "fanout", "store", "wire", "observability", "domain", "version"},
    "sockets": {"services", "fanout", "store", "wire", "observability", "domain"},
    "jobs": {"services", "fanout", "store", "wire", "observability", "domain"},
    "core": {"services", "fanout", "store", "observability", "domain", "config"},
    "factory": {
        *("core", "http", "sockets", "jobs", "services", "fanout", "store", "wire", "observability", "domain"),
        *("version", "config"),
    },
    "tls": {"fanout", "observability", "domain"},
    "patience": {"observability", "domain"},
    "drain": {"tls", "factory", "fanout"},
    "server": {"drain", "tls", "patience", "factory", "fanout", "wire", "observability", "domain", "config"},
    "cli": {
        *("server", "drain", "tls", "factory", "core", "client", "wire", "observability", "domain"),
        *("version", "config"),
    },
    "__main__": {"cli"},
    "client": set(),
    "version": set(),
}
"""What each layer may import besides itself. A layer is a folder or a module of `sidecar/`; `config` stands for
the settings. Everything not written here is forbidden."""

PROGRAMS = ("sidecar.__main__", "sidecar.client.lark_connection", "sidecar.client.lark_events")
"""Run, not imported; the last two need an optional package."""
STANDARD_LIBRARY_ONLY = ("domain", "version")
ENTRY_IMPORTS = {"app.py": {"cli"}}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported(tree: ast.AST, types_too: bool = True) -> list[str]:
    """Dotted names that the code imports: of `from a import b` it is a.b where that is a module, else a."""
    skipped: set[int] = set()
    if not types_too:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                skipped |= {id(inner) for statement in node.body for inner in ast.walk(statement)}
    names = []
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are written in full"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                names.append(whole if whole in MODULES else str(node.module))
    return names


def layer_of(name: str) -> str:
    return name.split(".")[1]


@cache
def parsed(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text())


LAYERED = [name for name in MODULES if "." in name]
BY_LAYER = {layer: [name for name in LAYERED if layer_of(name) == layer] for layer in MAY_IMPORT}


def test_every_folder_and_module_has_a_layer():
    """A new folder must be given its place before it can be used."""
    assert {layer_of(name) for name in LAYERED} - {"web"} == set(MAY_IMPORT)


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_imports_only_point_down(layer):
    assert BY_LAYER[layer]
    for name in BY_LAYER[layer]:
        for target in imported(parsed(name)):
            top = target.split(".")[0]
            if top == "config":
                assert "config" in MAY_IMPORT[layer], f"{name} reads {target}"
            elif top == "sidecar":
                assert layer_of(target) in MAY_IMPORT[layer] | {layer}, f"{name} imports {target}"


def test_the_rule_itself_has_no_cycle():
    list(TopologicalSorter({layer: below - {"config"} for layer, below in MAY_IMPORT.items()}).static_order())


def test_no_import_cycle():
    graph = {
        name: {target for target in imported(parsed(name), types_too=False) if target in MODULES} for name in MODULES
    }
    list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("layer", STANDARD_LIBRARY_ONLY)
def test_pure_rules_use_the_standard_library_only(layer):
    """What a status or a right means must not hang on a web framework, a logger or a database."""
    for name in BY_LAYER[layer]:
        for target in imported(parsed(name)):
            assert target.split(".")[0] in sys.stdlib_module_names | {"sidecar"}, f"{name} imports {target}"


def test_no_import_inside_a_function():
    """A local import hides a dependency, and most often a cycle."""
    found = []
    for name in MODULES:
        for function in ast.walk(parsed(name)):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                inner = [node for node in ast.walk(function) if isinstance(node, (ast.Import, ast.ImportFrom))]
                found += [f"{name}, line {node.lineno}" for node in inner]
    assert found == []


def test_package_files_are_empty():
    """`import sidecar.domain.rooms` must not run anything else. The client's names are for other programs."""
    full = [name for name, path in MODULES.items() if path.name == "__init__.py" and path.read_text()]
    assert full == ["sidecar.client"]


def test_the_entry_imports_the_command_line_alone():
    for file, allowed in ENTRY_IMPORTS.items():
        targets = [name for name in imported(ast.parse((ROOT / file).read_text())) if name.startswith("sidecar")]
        assert {layer_of(name) for name in targets} == allowed


def test_config_knows_nothing_of_the_sidecar():
    targets = imported(ast.parse((ROOT / "config" / "settings.py").read_text()))
    assert not [name for name in targets if name.startswith("sidecar")]


WATCHED = """
import importlib, sys

from gevent import monkey
monkey.patch_all()

ROOT, MODULES = sys.argv[1], sys.argv[2:]
found = []

def watch(event, args):
    if event not in ("open", "socket.bind", "socket.connect", "subprocess.Popen", "os.mkdir"):
        return
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if "importlib" in file:
            return
        if file.startswith(ROOT) and "site-packages" not in file:
            found.append(f"{file}:{frame.f_lineno} {event} {args[0]!r}")
            return
        frame = frame.f_back

sys.addaudithook(watch)
for name in MODULES:
    importlib.import_module(name)
print("\\n".join(found))
"""


def test_importing_opens_nothing():
    """No file, folder, socket or process is opened by an import: a tool may import any module safely."""
    names = [name for name in LAYERED if "migrations" not in name and name not in PROGRAMS]
    answer = subprocess.run(
        [sys.executable, "-c", WATCHED, str(ROOT), *names, "config.settings"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == ""


def test_the_version_is_said_once():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION


def test_the_page_states_the_rule_as_it_is():
    """docs/design/structure.md must not drift from the rule that is checked."""
    text = (ROOT / "docs" / "design" / "structure.md").read_text()
    assert len(text.splitlines()) <= 80
    rows = dict(re.findall(r"^\| `([\w/.]+)` \| (.*?) \|", text, re.MULTILINE))
    told = {layer.rstrip("/").removesuffix(".py"): set(re.findall(r"`(\w+)`", row)) for layer, row in rows.items()}
    assert told == MAY_IMPORT
