"""Only storage/file_moves.py changes a user's file, and only the journal calls it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOVER = "storage/file_moves.py"
CHANGING = frozenset(
    {"rename", "renames", "replace", "unlink", "remove", "removedirs", "rmdir", "link", "symlink"}
    | {"truncate", "renameat2", "move", "rmtree", "copy", "copy2", "copyfile", "copytree"}
    | {"hardlink_to", "symlink_to", "link_to"}
)
"""Calls that take away, move, replace or double an entry of a folder: of os, shutil, Path, libc."""
OWN_FILES = {
    "storage/root_guard.py": "writes the marker of a camera's root, under a name of its own",
    "storage/placing.py": "puts a restored database into the state folder",
    "storage/backup.py": "writes and rotates backups in the state folder",
    "storage/reserve.py": "the reserve file of the state folder",
    "storage/neighbours.py": "snapshots of `similar` in the state folder",
    "storage/durable_files.py": "caches of the state folder: new, synced, renamed into place",
    "storage/vector_index.py": "the index file of the state folder",
    "daemon/repair.py": "throws damaged caches of the state folder away",
    "daemon/unit_files.py": "the unit files of the service manager that it wrote itself",
    "daemon/jobs/child.py": "working folders of job processes in the state folder",
    "daemon/jobs/reembed.py": "results of a job process in the state folder",
    "daemon/jobs/reembed_child.py": "results of a job process in the state folder",
    "daemon/clustering/labels_file.py": "the labels that the owner asked for by --out",
    "daemon/encoders/cache.py": "converted networks in the cache folder",
    "daemon/demo/camera.py": "the pictures of the simulated camera, which it delivers itself",
    "cli/export.py": "takes back an output of its own that failed halfway",
    "cli/why_picture.py": "takes back an output of its own that failed halfway",
}
JOURNAL = ("storage/journal.py", "storage/journal_acts.py", "storage/journal_folders.py")
HARMLESS = frozenset({"remove_empty_folders"})
"""Of the mover: takes emptied folders below stillwatch's own away, so filing may call it."""
LENT = dict.fromkeys(("storage/backup.py", "storage/placing.py"), frozenset({"rename_noreplace"}))
"""The renaming that never replaces, for databases and backups in the state folder."""


def sources() -> Iterator[tuple[str, ast.Module]]:
    for room in ("cli", "daemon", "storage"):
        for path in sorted((ROOT / room).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())


def changes(tree: ast.AST) -> list[int]:
    """Lines with a call that changes the entries of a folder."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and _is_change(node) and not _is_text(node)
    ]


def _is_change(call: ast.Call) -> bool:
    if isinstance(call.func, ast.Attribute):
        library = call.func.value.id if isinstance(call.func.value, ast.Name) else ""
        if call.func.attr in ("move", "copy", "link", "remove", "truncate"):
            return library in ("os", "shutil")  # of a list, a set, an array, a user's word
        return call.func.attr in CHANGING
    # a call by its bare name, however it came here, and a symbol looked up in libc
    looked_up = isinstance(call.func, ast.Name) and call.func.id == "getattr" and len(call.args) > 1
    name = call.args[1] if looked_up else None
    return isinstance(name, ast.Constant) and name.value in CHANGING


def _is_text(call: ast.Call) -> bool:
    """`replace` of a string (two arguments), a datetime or a dataclass (keywords)."""
    named = isinstance(call.func, ast.Attribute) and call.func.attr == "replace"
    library = call.func.value if isinstance(call.func, ast.Attribute) else None
    of_os = isinstance(library, ast.Name) and library.id == "os"
    return named and not of_os and (len(call.args) != 1 or bool(call.keywords))


def test_nobody_else_changes_the_entries_of_a_folder() -> None:
    found = {name for name, tree in sources() if changes(tree)}
    assert found - {MOVER} == set(OWN_FILES), "the list names each, with its reason"


@pytest.mark.parametrize(
    "line",
    [
        "os.rename(a, b)",
        "os.replace(a, b)",
        "os.unlink(a, dir_fd=fd)",
        "shutil.move(a, b)",
        "shutil.rmtree(a)",
        "Path(a).unlink()",
        "path.rename(other)",
        "path.replace(other)",
        "getattr(libc, 'renameat2')(1, a, 2, b, 0)",
        "libc.renameat2(1, a, 2, b, 0)",
        "new.hardlink_to(old)",
    ],
)
def test_every_way_to_do_it_is_noticed(line: str) -> None:
    assert changes(ast.parse(line)) == [1]


@pytest.mark.parametrize(
    "line",
    ["text.replace('a', 'b')", "moment.replace(hour=3)", "names.remove(x)", "replace(a, b=1)"],
)
def test_words_of_other_things_are_not(line: str) -> None:
    assert changes(ast.parse(line)) == []


def test_nobody_takes_such_a_call_under_another_name() -> None:
    for name, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module in ("os", "shutil"):
                taken = {alias.name for alias in node.names} & CHANGING
                assert not taken, f"{name}: from {node.module} import {taken}"


def test_only_the_journal_calls_the_mover() -> None:
    for name, tree in sources():
        for node in ast.walk(tree):
            if name in (*JOURNAL, MOVER) or not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            names = {alias.name for alias in node.names}
            whole = isinstance(node, ast.ImportFrom) and node.module == "storage"
            assert not (whole and "file_moves" in names), name
            assert "storage.file_moves" not in names, name
            if isinstance(node, ast.ImportFrom) and node.module == "storage.file_moves":
                assert names <= HARMLESS | LENT.get(name, frozenset()), name
