"""What is left by an interruption or a failing disk, and what the next start makes of it."""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import insert

from daemon.filing.trash import restore_frame, trash_run
from storage import plan_entries, runs
from storage.engine import Database
from storage.errors import NotDurableError
from storage.faiss_files import write_faiss
from storage.journal import Recovery, recover, temporary_name
from storage.models import JournalEntry
from storage.root_guard import load_roots
from tests.tools.filing_world import NOW, World, make_world

TARGET = b"stillwatch/novel/2024-05-06/a.jpg"
KEEPER, FRAME = 1, 2


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_world(tmp_path)
    yield made
    made.db.close()


def copied(world: World, *, content: bytes = b"a.jpg") -> Path:
    """A move that was a copy, as between two mounts of one filesystem, stopped before its end."""
    frame = world.frame("a.jpg")
    row = world.row(frame)
    values: dict[str, Any] = {
        name: getattr(row, name)
        for name in ("camera_id", "sha256", "device", "inode", "size", "mtime_ns")
    } | {"frame_id": frame, "operation": "move", "source": b"a.jpg", "target": TARGET}
    values |= {"mode": 0o100640, "at": NOW}
    with world.db.write() as connection:
        number = connection.execute(
            insert(JournalEntry).values(values).returning(JournalEntry.id)
        ).scalar_one()
    target = world.write(TARGET, content)
    target.with_name(os.fsdecode(temporary_name(number))).hardlink_to(target)
    return target


def settle(world: World) -> Recovery:
    """What a start does; a second one finds nothing to do."""
    with world.db.read() as connection:
        roots = load_roots(connection)
    first = recover(world.db, roots, world.clock(), at_start=True)
    assert recover(world.db, roots, world.clock(), at_start=True) == Recovery(waiting=first.waiting)
    return first


def test_its_own_copy_is_known_also_on_the_same_filesystem(world: World) -> None:
    target = copied(world)
    assert settle(world) == Recovery(finished=1)
    assert not (world.folder / "a.jpg").exists()
    assert [path.name for path in target.parent.iterdir()] == ["a.jpg"]
    world.assert_rows_agree()


def test_an_unfinished_copy_is_no_reason_to_remove_the_original(world: World) -> None:
    target = copied(world, content=b"a.j")
    assert settle(world) == Recovery(dropped=1)
    assert (world.folder / "a.jpg").read_bytes() == b"a.jpg"
    assert target.read_bytes() == b"a.j", "whoever wrote that: it has other bytes, so it stays"
    assert world.path_of(KEEPER) == "a.jpg"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a file immutable")
def test_the_copy_of_an_original_that_cannot_be_removed_is_taken_back(world: World) -> None:
    target = copied(world)
    original = world.folder / "a.jpg"
    if subprocess.run(["chattr", "+i", str(original)], capture_output=True).returncode != 0:
        pytest.skip("this filesystem knows no immutable files")
    try:
        assert settle(world) == Recovery(dropped=1)
    finally:
        subprocess.run(["chattr", "-i", str(original)], check=True)
    assert original.read_bytes() == b"a.jpg"
    assert list(target.parent.iterdir()) == []
    assert world.path_of(KEEPER) == "a.jpg"


def test_a_move_is_finished_only_when_the_disk_confirms_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied(world)
    (world.folder / "a.jpg").unlink()

    def failing(_fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", failing)
        assert settle(world) == Recovery(waiting=1)
    assert [row.state for row in world.journal()] == ["intent"]
    world.db.close()
    world.db = Database(world.db.path.parent)
    assert settle(world) == Recovery(finished=1)


def to_trash(world: World) -> int:
    """A planned run that moves a duplicate to the trash."""
    world.frame("k.jpg")
    world.frame("in/a.jpg", duplicate_kind="near", duplicate_of=KEEPER)
    digest = hashlib.sha256(b"in/a.jpg").digest()
    entry = plan_entries.NewEntry(
        frame_id=FRAME, keeper_id=KEEPER, reason="", sha256=digest, action="trash"
    )
    with world.db.write() as connection:
        return runs.create_run(connection, "trash", [entry], now=world.clock())


def run_row(world: World, run: int) -> Any:
    with world.db.read() as connection:
        return runs.get_run(connection, run)


def test_a_run_that_a_disk_did_not_confirm_tells_in_the_end_what_was_done(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = to_trash(world)
    real = os.fsync

    def fails_in_the_trash(fd: int) -> None:
        if "/trash/" in os.readlink(f"/proc/self/fd/{fd}"):
            raise OSError(5, "Input/output error")
        real(fd)

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fails_in_the_trash)
        with pytest.raises(NotDurableError):
            trash_run(world.db, run, clock=world.clock)
    assert run_row(world, run)["state"] != "applied"
    world.db.close()
    world.db = Database(world.db.path.parent)
    assert settle(world) == Recovery(finished=1)
    assert run_row(world, run)["state"] == "applied"
    assert world.row(FRAME).state == "trashed"


def test_a_run_that_could_do_nothing_is_over(world: World) -> None:
    run = to_trash(world)
    (world.folder / "in/a.jpg").write_bytes(b"edited")
    trash_run(world.db, run, clock=world.clock)
    assert (run_row(world, run)["state"], world.row(FRAME).state) == ("undone", "near_duplicate")


def test_a_restore_that_was_stopped_at_its_very_end_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = to_trash(world)
    trash_run(world.db, run, clock=world.clock)

    def stopped(*_arguments: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runs, "finish_run", stopped)
        with pytest.raises(KeyboardInterrupt):
            restore_frame(world.db, FRAME, clock=world.clock)
    assert run_row(world, run)["state"] == "applied"
    settle(world)
    assert run_row(world, run)["state"] == "undone"
    assert run_row(world, run)["finished_at"] is not None


def test_an_index_that_did_not_get_onto_the_disk_is_an_error() -> None:
    import faiss

    index = faiss.IndexFlatIP(8)
    index.add(np.ones((4, 8), dtype=np.float32))  # so little that the disk is met at closing
    with pytest.raises(OSError, match="No space left"):
        write_faiss(index, Path("/dev/full"))
