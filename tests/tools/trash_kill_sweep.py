"""Kill a process at every line of trashing, restoring and deleting, recover, check; a sweep.

Run as `python -m tests.tools.trash_kill_sweep BASE OPERATION` with OPERATION trash, undo, restore
or delete; tests/tools/filing_kill_sweep.py does the same for filing. Prints the number of kills.
"""

import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

from daemon.filing.prune import PairTest, delete_run
from daemon.filing.trash import restore_frame, trash_run
from daemon.filing.undo import undo_run
from storage import runs
from storage.engine import Database
from storage.journal import Recovery, recover
from storage.root_guard import load_roots
from tests.tools.filing_kill_sweep import fresh_database, killed, make_database
from tests.tools.filing_world import World, make_world

KEEPER, FRAME = 1, 2
"""Ids of the two frames of the world."""


def operate(world: World, run: int, operation: str) -> None:
    """Do the operation; what is done already is no error."""
    match operation:
        case "trash":
            trash_run(world.db, run, clock=world.clock)
        case "undo":
            undo_run(world.db, run, clock=world.clock)
        case "restore" if world.row(FRAME).state == "trashed":
            restore_frame(world.db, FRAME, clock=world.clock)
        case "delete":
            tests = {FRAME: PairTest(keeper_id=KEEPER, passed=True, reason="")}
            delete_run(world.db, run, tests, clock=world.clock)


def planned(world: World, kind: runs.RunKind) -> int:
    """A run with the duplicate as its one entry."""
    entry = runs.NewEntry(
        frame_id=FRAME, keeper_id=KEEPER, reason="", sha256=world.row(FRAME).sha256, action=kind
    )
    with world.db.write() as connection:
        return runs.create_run(connection, kind, [entry], now=world.clock())


def prepare(base: Path, db: Database, operation: str) -> tuple[World, int, dict[bytes, Any]]:
    """A fresh world with one duplicate, in the trash already unless that is the operation."""
    shutil.rmtree(base / "cam", ignore_errors=True)
    world = make_world(base, fresh_database(base, db))
    world.frame("k.jpg")
    world.frame("in/a.jpg", duplicate_kind="near", duplicate_of=KEEPER)
    before = world.snapshot()
    run = planned(world, "trash")
    if operation != "trash":
        trash_run(world.db, run, clock=world.clock)
    if operation == "delete":
        run = planned(world, "prune")
    return world, run, before


def check(world: World, run: int, before: dict[bytes, Any], operation: str) -> None:
    """After recovery: the bytes are where the row says; doing it again leads to the end."""
    with world.db.read() as connection:
        roots = load_roots(connection)
    recover(world.db, roots, world.clock())
    assert recover(world.db, roots, world.clock()) == Recovery(), "a second recovery acts again"
    assert all(row.state in ("done", "dropped") for row in world.journal())
    assert_agrees(world, before)
    operate(world, run, operation)
    assert_agrees(world, before)
    assert (
        world.row(FRAME).state
        == {
            "trash": "trashed",
            "undo": "near_duplicate",
            "restore": "near_duplicate",
            "delete": "pruned",
        }[operation]
    )
    if operation == "trash":
        undo_run(world.db, run, clock=world.clock)
        assert_agrees(world, before)
    if operation != "delete":
        assert world.snapshot() == before, "bytes, mtime, mode and names are not as delivered"


def assert_agrees(world: World, before: dict[bytes, Any]) -> None:
    """Each delivered file exists once, where its row has it, unless a finished deletion took it."""
    now = world.snapshot()
    row = world.row(FRAME)
    if row.presence == "pruned":
        assert sorted(now) == [b"k.jpg"], now
        done = [entry for entry in world.journal() if entry.operation == "delete"]
        assert done[-1].state == "done"
    else:
        assert sorted(now.values()) == sorted(before.values()), now
        assert now[row.path] == before[b"in/a.jpg"]
        assert row.path.startswith(b"stillwatch/trash/") == (row.presence == "trashed")
        assert (row.trashed_at is None) == (row.presence == "here")
    world.assert_rows_agree()


def main(base: Path, operation: str) -> int:
    """The sweep; the number of kills."""
    db = make_database(base)
    step = 0
    while True:
        step += 1
        world, run, before = prepare(base, db, operation)
        db.close()  # no connection goes into the fork
        hit = killed(partial(operate, world, run, operation), step)
        try:
            check(world, run, before, operation)
        except Exception as exc:
            raise SystemExit(f"step {step}: {type(exc).__name__}: {exc}") from exc
        if not hit:
            return step - 1


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), sys.argv[2]))
