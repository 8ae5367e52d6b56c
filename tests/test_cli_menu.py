"""`sidecar menu import` and `export`."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.domain.errors import SidecarError
from sidecar.wire.menu_files import MenuFile, read_file, written_file
from tests.programs import ROOT
from tests.servers import RunningSidecar


@pytest.fixture
def server(start_sidecar) -> RunningSidecar:
    return start_sidecar()


def import_text(server: RunningSidecar, folder: Path, text: str, *options: str):
    file = folder / "menu.yaml"
    file.write_text(text)
    return server.cli("menu", "import", str(file), *options)


def versions(server: RunningSidecar) -> tuple[int, int]:
    return tuple(server.get(f"/api/{what}/version").json()["version"] for what in ("menu", "permissions"))


def test_what_is_exported_is_imported_without_a_change(server, tmp_path):
    first = server.cli("menu", "import", str(ROOT / "examples" / "menu.yaml"), "--reason", "the first")
    assert (first.returncode, first.stderr) == (0, ""), first.stderr
    assert "create  menu  reports.costs" in first.stdout
    assert server.get("/api/menu/history").json()["items"][0]["reason"] == "the first"
    before = versions(server)
    exported = server.cli("menu", "export", "--permissions").stdout
    again = import_text(server, tmp_path, exported)
    assert again.stdout.splitlines() == [
        f"The permissions: nothing to change (version {before[1]}).",
        f"The menu: nothing to change (version {before[0]}).",
    ]
    assert versions(server) == before
    assert "roles:" not in server.cli("menu", "export").stdout


def test_a_dry_run_tells_and_changes_nothing(server, tmp_path):
    before = versions(server)
    done = import_text(server, tmp_path, "- {key: a, name: A}\n- {key: b, name: B}\n", "--dry-run")
    assert done.stdout.splitlines() == [
        "create  menu  a",
        "create  menu  b",
        f"The menu: 2 would change (version {before[0]}).",
    ]
    assert versions(server) == before


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("menu: [", "The file is not YAML"),
        ("- key: a\n  key: b\n", "'key' is there twice in line 2, column 3"),
        ("menus: []\n", "menus: is none of menu roles users"),
        ("menu: {a: 1}\n", "menu: must be a list"),
        ("12\n", "The file must hold a menu"),
        ("users: {ada: [x]}\n", "The file has users, but no roles for them."),
        ("menu: [{key: a, name: A, colour: red}]\n", "items[0].colour is no field here"),
        ("menu: [{key: a, name: A}, {key: a, name: B}]\n", "items[1].key is there twice"),
        ("menu: [{key: a, name: A, parent: b}, {key: b, name: B, parent: a}]\n", "items[0].parent leads in a circle"),
        ("menu: [{key: a, name: A}]\nroles: [{name: x, inherits: [y]}]\n", "names a role that does not exist"),
        ("menu: [{key: a, name: A, parent: z}]\nroles: [{name: x}]\n", "names a parent that does not exist"),
    ],
)
def test_a_fault_in_any_part_is_told_and_nothing_is_done(server, tmp_path, text, told):
    before = versions(server)
    done = import_text(server, tmp_path, text)
    assert (done.returncode, done.stdout) == (1, "")
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert versions(server) == before


def test_a_file_that_is_no_text_or_not_there(server, tmp_path):
    file = tmp_path / "menu.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    done = server.cli("menu", "import", str(file))
    assert done.returncode == 1
    assert "not UTF-8" in done.stderr
    assert server.cli("menu", "import", str(tmp_path / "none")).returncode == 2


def test_words_are_what_they_look_like():
    (item,) = read_file("- {key: 2026-01-01, name: no, icon: on, is_active: false, description: null}").menu or []
    assert item == {"key": "2026-01-01", "name": "no", "icon": "on", "is_active": False, "description": None}


def test_a_written_file_is_read_as_it_was():
    menu = [{"key": "no", "name": "是: #", "menu_level": "level2", "icon": "", "url": "/x", "sort_order": 7,
             "is_active": False, "description": "a\nb", "children": []}]  # fmt: skip
    content = read_file(written_file(MenuFile(menu=menu, users={"12": ["on"]}, roles=[])))
    assert content.menu == [
        {"key": "no", "name": "是: #", "menu_level": "level2", "url": "/x", "sort_order": 7, "is_active": False,
         "description": "a\nb"}
    ]  # fmt: skip
    assert content.users == {"12": ["on"]}


def test_no_python_object_is_made():
    with pytest.raises(SidecarError):
        read_file("!!python/object/apply:os.system ['true']")
