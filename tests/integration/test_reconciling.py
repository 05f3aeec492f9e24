"""Rows follow the files after a restore: matched by bytes, nothing guessed, no file touched."""

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from daemon import reconciling
from daemon.reconciling import Reconciled, reconcile
from storage.models import Frame
from storage.own_files import own_files
from storage.trash import trash_row
from tests.tools.filing_world import NOW, World, make_world

IGNORED = frozenset({b"xmp"})
OWN = "stillwatch/clusters/c1/2026-01-01"
TRASH = "stillwatch/trash/2026-01-01"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_world(tmp_path)
    yield made
    made.db.close()


def follow(world: World) -> Reconciled:
    """Reconcile; no file may change by it, and a second time nothing does."""
    files = world.snapshot()
    done = reconcile(world.db, IGNORED, world.clock(), lambda _stage, _done, _total: None)
    again = reconcile(world.db, IGNORED, world.clock(), lambda _stage, _done, _total: None)
    assert (again.refound, again.links, again.adopted, again.missing) == (0, 0, 0, 0)
    assert world.snapshot() == files
    return done


def move(world: World, source: str, target: str) -> None:
    """A move that the restored database knows nothing of."""
    (world.folder / target).parent.mkdir(parents=True, exist_ok=True)
    (world.folder / source).rename(world.folder / target)


def test_filed_renamed_and_taken_back_are_refound(world: World) -> None:
    filed, renamed = world.frame("a.jpg"), world.frame("b.jpg")
    back = world.frame(f"{OWN}/c.jpg", b"c", original_path=b"c.jpg")
    move(world, "a.jpg", f"{OWN}/a.jpg")
    move(world, "b.jpg", "by-hand.jpg")
    move(world, f"{OWN}/c.jpg", "c.jpg")
    assert follow(world) == Reconciled(refound=3)
    assert [world.path_of(i) for i in (filed, renamed, back)] == [
        f"{OWN}/a.jpg",
        "by-hand.jpg",
        "c.jpg",
    ]
    world.assert_rows_agree()


def test_two_frames_that_exchanged_their_places(world: World) -> None:
    first, second = world.frame("a.jpg", b"one"), world.frame("b.jpg", b"two")
    move(world, "a.jpg", "t.jpg")
    move(world, "b.jpg", "a.jpg")
    move(world, "t.jpg", "b.jpg")
    follow(world)
    assert (world.path_of(first), world.path_of(second)) == ("b.jpg", "a.jpg")
    world.assert_rows_agree()


def test_of_equal_frames_the_one_of_that_name_is_meant(world: World) -> None:
    keeper = world.frame("k.jpg", b"same")
    twin = world.frame("a.jpg", b"same", duplicate_kind="exact", duplicate_of=keeper)
    other = world.frame("b.jpg", b"same", duplicate_kind="exact", duplicate_of=keeper)
    move(world, "a.jpg", f"{OWN}/a.jpg")
    move(world, "b.jpg", f"{OWN}/b.jpg")
    follow(world)
    assert world.path_of(twin) == f"{OWN}/a.jpg" and world.path_of(other) == f"{OWN}/b.jpg"
    assert world.path_of(keeper) == "k.jpg"


def test_the_trash_waits_anew_and_knows_the_way_back(world: World) -> None:
    keeper = world.frame("k.jpg")
    frame = world.frame("in/a.jpg", duplicate_kind="near", duplicate_of=keeper)
    move(world, "in/a.jpg", f"{TRASH}/a.jpg")
    follow(world)
    row = world.row(frame)
    assert (row.presence, row.duplicate_of) == ("trashed", keeper)
    assert NOW < row.trashed_at <= world.now
    with world.db.read() as connection:
        told = trash_row(connection, frame)
    assert told is not None and told["source"] == b"in/a.jpg"


def test_duplicates_of_a_keeper_in_the_trash_are_judged_anew(world: World) -> None:
    keeper = world.frame("k.jpg")
    frame = world.frame("a.jpg", duplicate_kind="near", duplicate_of=keeper)
    move(world, "k.jpg", f"{TRASH}/k.jpg")
    follow(world)
    row = world.row(frame)
    assert (row.duplicate_of, row.judged, row.state) == (None, False, "learning")


def test_what_is_nowhere_is_missing_and_nothing_else(world: World) -> None:
    gone = world.frame("a.jpg")
    pruned = world.frame(f"{TRASH}/b.jpg", presence="trashed", trashed_at=NOW)
    replaced = world.frame("old.jpg", b"old", presence="missing", reason="replaced by f9")
    for name in ("a.jpg", f"{TRASH}/b.jpg", "old.jpg"):
        (world.folder / name).unlink()
    world.write(f"{OWN}/x.jpg", b"old")  # its bytes: but that frame was replaced, not moved
    done = follow(world)
    assert (done.missing, done.adopted) == (2, 1)
    assert [world.row(i).presence for i in (gone, pruned, replaced)] == ["missing"] * 3


def test_a_place_that_another_file_took_is_left_to_the_scan(world: World) -> None:
    lost, filed = world.frame("a.jpg", b"one"), world.frame("b.jpg", b"two")
    world.write("a.jpg", b"edited")
    move(world, "b.jpg", f"{OWN}/b.jpg")
    world.write("b.jpg", b"the camera used the name again")
    assert follow(world).missing == 0
    assert (world.row(lost).presence, world.path_of(lost)) == ("here", "a.jpg")
    assert world.path_of(filed) == f"{OWN}/b.jpg"


@pytest.mark.parametrize("mode", ["hardlink", "copy"])
def test_links_and_copies_that_filing_made_are_known_as_such(world: World, mode: str) -> None:
    frame = world.frame("a.jpg")
    target = world.folder / OWN / "a.jpg"
    target.parent.mkdir(parents=True)
    if mode == "hardlink":
        os.link(world.folder / "a.jpg", target)
    else:
        shutil.copy2(world.folder / "a.jpg", target)
    done = follow(world)
    assert (done.links, done.adopted) == (1, 0)
    assert world.path_of(frame) == "a.jpg"
    assert [row.operation for row in world.journal()] == [mode]
    with world.db.read() as connection:
        assert own_files(connection, world.camera_id) == {f"{OWN}/a.jpg".encode()}


def test_files_in_our_folder_without_a_row_get_one(world: World) -> None:
    world.write(f"{OWN}/new.jpg", b"new")
    world.write(f"{OWN}/new.xmp", b"sidecar")
    world.write(f"{TRASH}/20260102-030405.jpg", b"trash")
    world.write("arrived.jpg", b"the scan's")
    assert follow(world).adopted == 2
    with world.db.read() as connection:
        rows = connection.execute(select(Frame).order_by(Frame.path)).mappings().all()
    assert [(bytes(row["path"]).decode(), row["state"]) for row in rows] == [
        (f"{OWN}/new.jpg", "pending"),
        (f"{TRASH}/20260102-030405.jpg", "trashed"),
    ]
    assert rows[0]["original_path"] == b"new.jpg"
    assert rows[1]["captured_at"].startswith("2026-01-02T03:04:05")


def test_another_folder_in_the_roots_place_concludes_nothing(world: World) -> None:
    frame = world.frame("a.jpg")
    world.folder.rename(world.folder.with_name("away"))
    world.folder.mkdir()
    done = follow(world)
    assert done.missing == 0 and len(done.skipped) == 1
    assert world.row(frame).presence == "here"


def test_a_file_that_cannot_be_read_hides_no_loss(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be looked at may be any frame: nothing is called missing."""
    frame = world.frame("a.jpg", b"same size")
    (world.folder / "a.jpg").unlink()
    world.write(f"{OWN}/b.jpg", b"any bytes")

    def broken(_fd: int, _path: bytes) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(reconciling, "examine", broken)
    done = reconcile(world.db, IGNORED, NOW, lambda _stage, _done, _total: None)
    assert done.missing == 0 and "Input/output error" in done.skipped[0]
    assert world.row(frame).presence == "here"
