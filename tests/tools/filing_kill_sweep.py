"""Kill a process at every line of a journalled file operation, recover, check; a sweep.

Run as `python -m tests.tools.filing_kill_sweep BASE OPERATION [OTHER]`: for step 1, 2, 3, ... a
forked process does the operation and is killed with SIGKILL just before the step-th line of the
code that touches files, until one process gets through. OTHER is a folder on another filesystem
that is bound below the camera's folder by the caller. Prints the number of kills.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from daemon.filing.apply import Mode, apply_entries
from daemon.filing.job import file_frames
from daemon.filing.undo import undo_run
from daemon.settings import FilingSettings
from storage import runs
from storage.engine import Database
from storage.journal import Recovery, recover
from storage.root_guard import load_roots
from tests.tools.filing_world import World, make_world

WATCHED = (
    "storage/journal.py",
    "storage/journal_acts.py",
    "storage/journal_folders.py",
    "storage/file_moves.py",
)
ACTING = ("rename_noreplace", "rename_by_link", "link_noreplace", "_make_directories")
"""Functions that change a folder; the others of storage/beneath.py only open."""
PURE = (
    "open_intent",
    "_open_intent",
    "occupied",
    "new_place",
    "picture_state",
    "row_of",
    "_matches",
    "_checked",
    "_checked_sidecars",
    "_frames_below",
    "_finish",
    "checked",
    "recover",
)
"""Functions whose lines build a statement or only look: before and after them is enough."""


def kill_at(step: int) -> Callable[[FrameType, str, Any], Any]:
    """A trace function that kills this process at the step-th line of the watched modules."""
    seen = 0

    def on_line(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal seen
        if event == "line":
            seen += 1
            if seen == step:
                os.kill(os.getpid(), signal.SIGKILL)
        return on_line

    def on_call(frame: FrameType, _event: str, _argument: Any) -> Any:
        code = frame.f_code
        watched = code.co_filename.endswith(WATCHED) and code.co_name not in PURE
        return on_line if watched or code.co_name in ACTING else None

    return on_call


def operate(world: World, run: int, operation: str) -> None:
    """Apply or undo, as the first word of the operation says; the mode is the second."""
    if operation == "apply-folder":
        file_frames(world.db, FilingSettings(), explicit=False, clock=world.clock)
    elif operation.startswith("undo"):
        undo_run(world.db, run, clock=world.clock)
    else:
        apply_entries(world.db, run, mode=mode_of(operation), clock=world.clock)


def mode_of(operation: str) -> Mode:
    """The filing mode in the operation's name."""
    return {"move": "move", "link": "hardlink", "copy": "copy"}[operation.split("-")[1]]  # type: ignore[return-value]


def killed(act: Callable[[], None], step: int) -> bool:
    """Act in a process that dies at a step; False when it got through."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            sys.settrace(kill_at(step))
            act()
            sys.settrace(None)
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status) != 0:
        raise SystemExit(f"step {step}: the process failed by itself")
    return False


def make_database(base: Path) -> Database:
    """The one database object of a sweep: it compiles each statement once, for its forks too."""
    (base / "template").mkdir()
    Database(base / "template").close()
    return fresh_database(base, Database(base / "state", read_only=True))


def fresh_database(base: Path, db: Database) -> Database:
    """Close it and put an empty database into its place; it opens again by itself."""
    db.close()
    shutil.rmtree(base / "state", ignore_errors=True)
    shutil.copytree(base / "template", base / "state")
    return db


def prepare(
    base: Path, db: Database, operation: str, other: bool
) -> tuple[World, int, dict[bytes, Any]]:
    """A fresh world with one duplicate to file, or, for an undo, filed already."""
    keep = base / "cam" / "stillwatch" if other else None
    for path in base.glob("cam/*"):
        if path == keep:
            for inner in path.iterdir():
                shutil.rmtree(inner) if inner.is_dir() else inner.unlink()
        else:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    world = make_world(base, fresh_database(base, db))
    if operation.endswith("folder"):
        return prepare_folder(world, operation)
    keeper = world.frame("k.jpg")
    frame = world.frame("in/a.jpg", duplicate_kind="near", duplicate_of=keeper)
    entry = runs.NewEntry(
        frame_id=frame, keeper_id=keeper, reason="", sha256=world.row(frame).sha256
    )
    with world.db.write() as connection:
        run = runs.create_run(connection, "dedup", [entry], now=world.clock())
    if operation.endswith("sidecar"):
        world.write("in/a.xmp", b"what a photo program wrote", 0o604)
    before = world.snapshot()
    if operation.startswith("undo"):
        apply_entries(world.db, run, mode=mode_of(operation), clock=world.clock)
    return world, run, before


def prepare_folder(world: World, operation: str) -> tuple[World, int, dict[bytes, Any]]:
    """Two filed frames of a cluster that has a new name; for an undo, the folder has it too."""
    cluster = world.cluster("cats")
    for name in ("a.jpg", "b.jpg"):
        world.frame(name, cluster_id=cluster)
    file_frames(world.db, FilingSettings(), explicit=False, clock=world.clock)
    before = world.snapshot()
    world.rename_cluster(cluster, "dogs", "cats")
    if operation.startswith("undo"):
        file_frames(world.db, FilingSettings(), explicit=False, clock=world.clock)
    return world, 2, before


def check(world: World, run: int, before: dict[bytes, Any], operation: str) -> None:
    """After recovery: nothing lost, nothing double, rows true; repeating leads to the end."""
    with world.db.read() as connection:
        roots = load_roots(connection)
    recover(world.db, roots, world.clock())
    assert recover(world.db, roots, world.clock()) == Recovery(), "a second recovery acts again"
    assert all(row.state in ("done", "dropped") for row in world.journal())
    extra = {b"in/a.jpg": 1} if "copy" in operation or "link" in operation else {}
    assert_delivered_once(world, before, extra)
    if operation.endswith("sidecar"):
        assert len({path.parent for path in world.folder.rglob("a.*")}) == 1, "torn apart"
    operate(world, run, operation)
    assert_delivered_once(world, before, extra)
    if operation.startswith("apply"):
        undo_run(world.db, run, clock=world.clock)
    assert world.snapshot() == before, "bytes, mtime, mode and names are not as delivered"
    assert not list(world.folder.rglob(".stillwatch-*.part")), "an unfinished copy is left"
    world.assert_rows_agree()


def assert_delivered_once(world: World, before: dict[bytes, Any], extra: dict[bytes, int]) -> None:
    """Each delivered file exists once, with mtime and mode; `extra`: links that may exist too."""
    now = sorted(world.snapshot().values())
    for path, facts in before.items():
        assert 1 <= now.count(facts) <= 1 + extra.get(path, 0), (path, now.count(facts))
    assert len(now) <= len(before) + sum(extra.values()), "a file nobody delivered"
    world.assert_rows_agree()


def main(base: Path, operation: str, other: bool) -> int:
    """The sweep; the number of kills."""
    db = make_database(base)
    step = 0
    while True:
        step += 1
        world, run, before = prepare(base, db, operation, other)
        db.close()  # no connection goes into the fork
        hit = killed(partial(operate, world, run, operation), step)
        try:
            check(world, run, before, operation)
        except Exception as exc:
            raise SystemExit(f"step {step}: {type(exc).__name__}: {exc}") from exc
        if not hit:
            return step - 1


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), sys.argv[2], len(sys.argv) > 3))
